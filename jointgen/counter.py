"""How far a long command is, on stderr: a bar on a terminal, gone when it is full; elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

import rich.console
import rich.progress


class Counter:
    """Call it with (done, total); silent for what takes less than `every_s`, but for the bar.

    >>> with Counter("encoding") as count:
    ...     count(128, 10000)
    """

    def __init__(self, what: str, *, every_s: float = 10.0):
        self._what, self._every_s = what, every_s
        console = rich.console.Console(stderr=True)
        self._bar = rich.progress.Progress(console=console, transient=True) if sys.stderr.isatty() else None
        self._printed = time.monotonic()

    def __enter__(self) -> Self:
        self._printed = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=None)
        return self

    def __call__(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._printed >= self._every_s:
            print(f"{self._what}: {done} of {total}", file=sys.stderr, flush=True)
            self._printed = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
