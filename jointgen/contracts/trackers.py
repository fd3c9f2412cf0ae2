"""Trackers: where a run's figures and pictures go besides its own files. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import attrs


@attrs.frozen
class TrackerOptions:
    """What a tracker starts with.

    Args:
        folder: The run folder, an absolute path.
        recipe: The resolved recipe, with dotted keys.
        known_id: The id that the tracker gave the run before it was resumed; None for a new run.
        step: The last step that counts, in a run that is resumed.
    """

    folder: Path
    recipe: Mapping[str, Any]
    known_id: str | None
    step: int | None


@attrs.frozen
class StartedTracker:
    """A started tracker.

    Args:
        log: Logs figures by name at a step.
        picture: Logs a picture: its name, its file and a step.
        id: Finds the run again when it is resumed; empty if the tracker needs none.
    """

    log: Callable[[Mapping[str, float], int], None]
    picture: Callable[[str, Path, int], None]
    id: str = ""


class Tracker(Protocol):
    """A tracker. It needs neither an account nor a network unless its user says so."""

    @property
    def package(self) -> str:
        """The module that it imports when it starts, so that its lack is told before anything is read."""

    def start(self, options: TrackerOptions) -> AbstractContextManager[StartedTracker]:
        """Return a context that is entered when training begins and left when it ends, however it ends.

        The main process alone enters it. A run that goes on enters it anew, with the id that it returned before.
        """
