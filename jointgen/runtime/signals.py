"""Handlers for Ctrl-C and SIGTERM, for as long as a context lasts. Needs no torch."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Self

from jointgen.errors import RunInterrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_SIGNAL_S = 1.0
"""A signal that follows another within so many seconds is the same one: a launcher passes on what the terminal sent."""


@contextmanager
def handled(
    handler: Callable[[int, FrameType | None], None], signals: Iterable[signal.Signals] = SIGNALS
) -> Iterator[None]:
    """Call `handler` for each Ctrl-C and SIGTERM within; afterwards the handlers are those of before.

    Python allows it in the main thread only.
    """
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def training_begins() -> None:
    """Let signals end a run after a step from now on, with a checkpoint: its folder is about to be written."""
    for request in _ENTERED:
        request.has_begun = True


class StopRequest:
    """Notes the first signal while it is entered; calling the object returns its number, or 0.

    The training loop asks it after each step, so that a run ends after a checkpoint. A second Ctrl-C raises
    KeyboardInterrupt at once, checkpoint or not. Before `training_begins` there is nothing to save: the first signal
    ends the run at once, by RunInterrupted.

    Args:
        quiet: Whether to print nothing, because another process of the run does.
        signals: Those that it notes.
    """

    def __init__(self, quiet: bool = False, signals: Iterable[signal.Signals] = SIGNALS) -> None:
        self._quiet, self._signal, self._noted_at, self.has_begun = quiet, 0, 0.0, False
        self._handlers: AbstractContextManager[None] = handled(self._note, signals)

    @classmethod
    def of_interrupts(cls, quiet: bool = False) -> StopRequest:
        """Note Ctrl-C alone, and only where it would raise KeyboardInterrupt: in a script or a notebook's cell."""
        is_main = threading.current_thread() is threading.main_thread()
        is_usual = is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return cls(quiet, (signal.SIGINT,) if is_usual else ())

    def __call__(self) -> int:
        """Return the number of the signal that came, or 0."""
        return self._signal

    def __enter__(self) -> Self:
        self._handlers.__enter__()
        _ENTERED.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _ENTERED.remove(self)
        self._handlers.__exit__(None, None, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.has_begun:
            raise RunInterrupted("stopped before the first step; nothing was written", number)
        now = time.monotonic()
        if self._signal:
            if number == signal.SIGINT and now - self._noted_at > SAME_SIGNAL_S:
                raise KeyboardInterrupt
            return
        self._signal, self._noted_at = number, now
        if not self._quiet:
            # written to the descriptor: the handler may interrupt a print to stderr, whose buffer bears no second one
            os.write(2, b"\njointgen: stopping after this step, with a checkpoint; Ctrl-C (again) stops at once\n")


_ENTERED: list[StopRequest] = []
"""The requests that are entered, the innermost last."""
