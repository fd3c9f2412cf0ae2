"""The run folder: the paths in it, and how to make, read and write its files. Needs no torch.

`docs/architecture.md` shows the layout. The log has a module of its own (`jointgen.runs.log`), and so have checkpoints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jointgen.errors import CheckpointError, ConfigError, nearest
from jointgen.runtime.atomic_files import replace_text, writing


class RunFolder:
    """The folder of one run.

    Making the object touches nothing. `create` makes the folder for a new run, and `open` looks for a run in it.
    What is written is replaced at once, so that a reader never sees half of a file, and raises WriteError where the
    disk does not take it.

    Args:
        path: The folder, which need not exist.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.recipe = self.path / "recipe.toml"
        self.data = self.path / "data.json"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.evaluation = self.path / "evaluation.json"
        self.report = self.path / "report.html"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.tensorboard = self.path / "tensorboard"

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Return the folder of a run that is there.

        Raises:
            ConfigError: There is no run; the message names the nearest one that there is.
        """
        folder = cls(path)
        if folder.recipe.is_file():
            return folder
        around = [file.parent for root in (folder.path.parent, Path("runs")) for file in root.glob("*/recipe.toml")]
        runs = {run.name: run for run in around}
        near = nearest(folder.path.name, runs)
        hint = f"; did you mean '{runs[near]}'?" if near else ""
        raise ConfigError(f"{path}: not a run folder (it has no {folder.recipe.name}){hint}")

    def create(self, *, resume: bool = False) -> RunFolder:
        """Make the folder for a run to write to, and return this object.

        Raises:
            ConfigError: It holds a run already and `resume` is not asked for, or it cannot be made.
        """
        if not resume:
            self.check_free()
        try:
            for part in (self.checkpoints, self.samples, self.tensorboard):
                part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be made a run folder: {error}", "out") from error
        return self

    def holds_run(self) -> bool:
        """Return whether anything here belongs to a run: overwriting it would lose work."""
        named = any(file.exists() for file in (self.recipe, self.metrics, self.summary))
        return named or any(self.checkpoints.glob("step-*"))

    def check_free(self) -> None:
        """Raise ConfigError if a run is here that would be overwritten."""
        if not self.holds_run():
            return
        summary = self.read_summary()
        status, step = summary.get("status", "unknown"), summary.get("step")
        found = f"status {status}" if step is None else f"status {status}, step {step}"
        raise ConfigError(f"{self.path} already holds a run ({found}); give another --out, or --resume to go on", "out")

    # --- reading ---

    def read_recipe(self) -> str:
        """Return the resolved recipe as TOML."""
        return self.recipe.read_text(encoding="utf-8")

    def read_summary(self) -> dict[str, Any]:
        """Return the summary, or an empty dict where the run has not written one."""
        return _read_table(self.summary)

    def read_evaluation(self) -> dict[str, Any]:
        """Return {checkpoint: {"metrics": {name: figure}}} of evaluations after the run.

        Empty where there was none; entries that are not figures are left out.
        """
        found = {}
        for checkpoint, entry in _read_table(self.evaluation).items():
            metrics = entry.get("metrics") if isinstance(entry, dict) else None
            figures = metrics.items() if isinstance(metrics, dict) else ()
            found[checkpoint] = {"metrics": {n: f for n, f in figures if isinstance(f, dict) and "value" in f}}
        return found

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return every logged event, in order. A torn last line, which a killed run can leave, is not one."""
        return [event for _, event in self.logged_lines()]

    def logged_lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield each whole line of the log, and the event in it.

        Raises:
            CheckpointError: A line is damaged.
        """
        lines = self.metrics.read_bytes().split(b"\n") if self.metrics.exists() else [b""]
        for number, line in enumerate(lines[:-1], 1):  # what follows the last line end is empty, or torn
            try:
                yield line, json.loads(line)
            except ValueError as error:
                raise CheckpointError(f"{self.metrics}: line {number} is damaged: {error}") from error

    # --- writing ---

    def write_recipe(self, text: str) -> None:
        """Write the resolved recipe."""
        with writing(self.recipe):
            replace_text(self.recipe, text)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the summary. NaN and infinities become null."""
        with writing(self.summary):
            replace_text(self.summary, json.dumps(without_nan(summary), indent=2, allow_nan=False) + "\n")

    def add_evaluation(self, checkpoint: str, figures: Mapping[str, Any]) -> None:
        """Add figures of one checkpoint to those that were found before."""
        known = self.read_evaluation()
        found = {**known.get(checkpoint, {}).get("metrics", {}), **figures}
        with writing(self.evaluation):
            text = json.dumps(without_nan({**known, checkpoint: {"metrics": found}}), indent=2, allow_nan=False)
            replace_text(self.evaluation, text + "\n")


def checkpoint_name(step: int) -> str:
    """Return the name of a step's checkpoint folder.

    >>> checkpoint_name(1000)
    'step-00001000'
    """
    return f"step-{step:08d}"


def without_nan(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not have, by None in nested values.

    >>> without_nan({"a": [1.0, float("nan")]})
    {'a': [1.0, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    return [without_nan(item) for item in value] if isinstance(value, list | tuple) else value


def _read_table(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty where there is none, or it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
