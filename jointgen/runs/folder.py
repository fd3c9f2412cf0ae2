"""The run folder: the paths in it, and how to make, read and write its files. Needs no torch.

`docs/architecture.md` shows the layout. The log has a module of its own (`jointgen.runs.log`), and so have checkpoints.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jointgen.errors import CheckpointError, ConfigError, FileError, nearest
from jointgen.runtime.atomic_files import replace_text, writing
from jointgen.runtime.regular_files import unreadable
from jointgen.text import shortened


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

    def create(self) -> RunFolder:
        """Make the folder for a run to write to, and return this object. Raises ConfigError if it cannot be made."""
        try:
            for part in (self.checkpoints, self.samples, self.tensorboard):
                part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be made a run folder: {error}", "out") from error
        return self

    def holds_run(self) -> bool:
        """Return whether anything here belongs to a run: overwriting it would lose work."""
        named = any(file.exists() for file in (self.recipe, self.metrics, self.summary))
        return named or self.has_checkpoints()

    def has_checkpoints(self) -> bool:
        """Return whether a checkpoint is here, whole or not; one that was never finished does not count."""
        try:
            return any(re.fullmatch(r"(\.old-\d+-)?step-\d+", name) for name in os.listdir(self.checkpoints))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise unreadable(self.checkpoints, error) from None

    def goes_on(self, *, resume: bool) -> bool:
        """Return whether a run goes on from a checkpoint here; if not, it may start here.

        Args:
            resume: Whether it goes on where there is something to go on from. A run that ended before its first
                checkpoint has made nothing, so it starts again.

        Raises:
            ConfigError: A run that starts would lose work, or the folder cannot be made.
        """
        self.check_possible()
        if not resume:
            self.check_free()
            return False
        if self.has_checkpoints():
            return True
        status, step = self._known_state()
        if status in ("done", "stopped") or (status == "running" and step):
            state = _state_text(status, step)
            raise ConfigError(
                f"{self.path} holds a run ({state}) without its checkpoints, so nothing can go on; give another --out",
                "out",
            )
        return False

    def check_free(self) -> None:
        """Raise ConfigError if a run is here that would be overwritten."""
        if not self.holds_run():
            return
        state = _state_text(*self._known_state())
        ways = "--resume (resume=True) to go on"
        if not self.has_checkpoints():
            state, ways = f"{state}, no checkpoint", "--resume (resume=True) to start it again"
        raise ConfigError(f"{self.path} already holds a run ({state}); give another --out, or {ways}", "out")

    def check_possible(self) -> None:
        """Raise ConfigError if the folder can neither be made nor written to."""
        path = self.path.absolute()
        for place in (path, *path.parents):
            try:
                mode = os.stat(place).st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise ConfigError(f"{self.path} cannot be made a run folder: {place}: {reason}", "out") from None
            if not stat.S_ISDIR(mode):
                raise ConfigError(f"{self.path} cannot be made a run folder: {place} is not a folder", "out")
            if not os.access(place, os.W_OK | os.X_OK):
                raise ConfigError(f"{self.path} cannot be made a run folder: no permission to write to {place}", "out")
            return

    def _known_state(self) -> tuple[str, int | None]:
        """Return (status, step) of the summary, as far as it says them."""
        try:
            summary = self.read_summary()
        except FileError:
            return "unknown", None
        step = summary.get("step")
        return shortened(summary.get("status", "unknown")), step if isinstance(step, int) else None

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


def _state_text(status: str, step: int | None) -> str:
    return f"status {status}" if step is None else f"status {status}, step {step}"


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
