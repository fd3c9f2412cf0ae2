"""The run folder (docs/architecture.md) and its log, to write to."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from jointgen.errors import CheckpointError, ConfigError
from jointgen.runs.files import RunFiles
from jointgen.runs.trackers import Trackers
from jointgen.runtime.atomic_files import replace_bytes, replace_text, writing


class RunFolder(RunFiles):
    """The log of one run, too. Making the object touches nothing; `create` and `open` are the ways in."""

    def __init__(self, path: Path | str, *, trackers: Sequence[str] = ("tensorboard",)):
        """trackers: which of jointgen.runs.trackers get what is logged."""
        super().__init__(path)
        self._names = trackers
        self._trackers: Trackers | None = None
        self._resumed_at: int | None = None

    @classmethod
    def create(cls, path: Path | str, *, resume: bool = False) -> RunFolder:
        """Makes the folder for a run to write to. ConfigError if a run is there already and `resume` is not asked."""
        cls.check(path, resume=resume)
        folder = cls(path)
        try:
            for part in (folder.checkpoints, folder.samples, folder.tensorboard):
                part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"out: {path} cannot be made a run folder: {error}") from error
        return folder

    @classmethod
    def check(cls, path: Path | str, *, resume: bool = False) -> None:
        """ConfigError if a run is there that would be overwritten."""
        folder = cls(path)
        if not resume and folder.holds_run():
            raise ConfigError(
                f"out: {path} already holds a run ({folder._state()}); give another --out, or --resume to go on"
            )

    def holds_run(self) -> bool:
        """Whether anything here is a run's: overwriting it would lose work."""
        named = any(file.exists() for file in (self.recipe, self.metrics, self.summary))
        return named or any(self.checkpoints.glob("step-*"))

    # --- recipe and summary ---

    def write_recipe(self, text: str) -> None:
        """The resolved recipe, as TOML."""
        with writing(self.recipe):
            replace_text(self.recipe, text)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replaces the summary at once, so that a reader never sees half of it. NaN and infinities become null."""
        with writing(self.summary):
            replace_text(self.summary, json.dumps(_finite(summary), indent=2, allow_nan=False) + "\n")

    def add_evaluation(self, checkpoint: str, figures: Mapping[str, Any]) -> None:
        """Adds figures of one checkpoint to those that were found before. Raises WriteError."""
        known = self.read_evaluation()
        found = {**known.get(checkpoint, {}).get("metrics", {}), **figures}
        with writing(self.evaluation):
            text = json.dumps(_finite({**known, checkpoint: {"metrics": found}}), indent=2, allow_nan=False)
            replace_text(self.evaluation, text + "\n")

    # --- the log ---

    def log(self, step: int, images_seen: int, wall_s: float, values: Mapping[str, float]) -> None:
        """Appends one line to metrics.jsonl and the same numbers to the trackers. NaN and infinities become null.

        Raises WriteError where the disk does not take them, as everything here that writes does.
        """
        event = {"step": step, "images_seen": images_seen, "wall_s": round(wall_s, 3), **values}
        with writing(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(event), allow_nan=False) + "\n")
        with writing(self.tensorboard):
            self.trackers().log(values, step)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Every logged event, in order. A torn last line, which a killed run can leave, is not one."""
        return [event for _, event in self._events()]

    def cut_back(self, step: int) -> None:
        """Forgets events after `step`, which a resumed run will log again. Trackers hide or keep their own."""
        kept = b"".join(line + b"\n" for line, event in self._events() if event["step"] <= step)
        if self.metrics.exists() and self.metrics.read_bytes() != kept:
            with writing(self.metrics):
                replace_bytes(self.metrics, kept)
        self._resumed_at = step

    def trackers(self) -> Trackers:
        """Those of the run, started by the first call: who only reads a run should leave nothing behind."""
        if self._trackers is None:
            recipe = self.read_recipe() if self.recipe.exists() else ""
            self._trackers = Trackers(self._names, self.path, recipe, self._resumed_at)
        return self._trackers

    def close(self) -> None:
        """Flushes the trackers. A disk that is full then was reported before, or holds all but their copies."""
        if self._trackers is not None:
            with contextlib.suppress(OSError):
                self._trackers.close()
            self._trackers = None

    def _events(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        lines = self.metrics.read_bytes().split(b"\n") if self.metrics.exists() else [b""]
        for number, line in enumerate(lines[:-1], 1):  # what follows the last line end is empty, or torn
            try:
                yield line, json.loads(line)
            except ValueError as error:
                raise CheckpointError(f"{self.metrics}: line {number} is damaged: {error}") from error

    def _state(self) -> str:
        """A few words on the run that is here, for the message that refuses to overwrite it."""
        summary = self.read_summary()
        status, step = summary.get("status", "unknown"), summary.get("step")
        return f"status {status}" if step is None else f"status {status}, step {step}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _finite(value: Any) -> Any:
    """JSON has no NaN; null stands for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
