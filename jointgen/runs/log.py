"""The log of a run: its lines in metrics.jsonl, and the same figures and the pictures in the recipe's trackers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from jointgen.registry.components import Registry
from jointgen.registry.discovery import load_plugins
from jointgen.runs.folder import RunFolder
from jointgen.runs.log_file import LogEvent
from jointgen.runs.trackers import Trackers, start_trackers
from jointgen.runtime.atomic_files import append_text, replace_bytes, writing


class RunLog:
    """Appends to the log of one run. Leaving it as a context flushes the trackers.

    Args:
        folder: The run folder.
        trackers: The trackers (`jointgen.runs.trackers`) that get what is logged, or their names.
        registry: Where they are found; None for what is installed.
    """

    def __init__(self, folder: RunFolder, trackers: Sequence[Any] = (), registry: Registry | None = None):
        self.folder, self._entries = folder, trackers
        self._registry = registry or load_plugins().registry
        self._trackers: Trackers | None = None
        self._resumed_at: int | None = None

    def start_trackers(self) -> Trackers:
        """Start the trackers on the first call, and return them.

        Raises:
            ConfigError: One of them does not start.
        """
        if self._trackers is None:
            recipe = self.folder.read_recipe() if self.folder.recipe.exists() else ""
            self._trackers = start_trackers(self._entries, self._registry, self.folder.path, recipe, self._resumed_at)
        return self._trackers

    def add(self, step: int, images_seen: int, wall_s: float, values: Mapping[str, float]) -> None:
        """Log the figures of an event. NaN and infinities become null.

        Args:
            step: Steps made so far.
            images_seen: Rows of training data seen so far.
            wall_s: Seconds of training so far.
            values: Figures by name.

        Raises:
            WriteError: The disk does not take them.
        """
        event = LogEvent(step, images_seen, round(wall_s, 3), values)
        with writing(self.folder.metrics):
            append_text(self.folder.metrics, json.dumps(event.as_dict(), allow_nan=False) + "\n")
        with writing(self.folder.tensorboard):
            self.start_trackers().log(values, step)

    def add_pictures(self, paths: Sequence[Path], step: int) -> None:
        """Hand pictures in `samples/` to the trackers."""
        self.start_trackers().pictures(paths, step)

    def cut_back(self, step: int, logged: int | None = None, every: int | None = None) -> list[str]:
        """Remove events after `step`, which a resumed run logs again. Trackers hide or keep their own.

        Args:
            step: The step that the run goes on from.
            logged: How many events the run had logged by then; None if that is not known.
            every: `train.log_every`; None if it has changed.

        Returns:
            A line on each thing that the log has lost.

        Raises:
            FileError: The log cannot be read.
            WriteError: The disk does not take the shorter one.
        """
        log, self._resumed_at = self.folder.read_log(), step
        if log.data != (kept := log.up_to(step)):
            with writing(log.path):
                replace_bytes(log.path, kept)
        return log.losses(step, logged, every)

    def begin_again(self) -> None:
        """Remove the events of an attempt that ended before its first checkpoint."""
        with writing(self.folder.metrics):
            self.folder.metrics.unlink(missing_ok=True)
        self._resumed_at = 0

    def close(self) -> None:
        """Flush the trackers. A disk that is full by then was reported before, or lacks only their copies."""
        if self._trackers is not None:
            with contextlib.suppress(OSError):
                self._trackers.close()
            self._trackers = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
