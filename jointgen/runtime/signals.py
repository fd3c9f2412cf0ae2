"""Ctrl-C and SIGTERM as a question that the training loop asks after each step. Torch-free."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN_S = 1.0


class StopRequest:
    """While entered, the first signal is only noted; calling the object gives its number, or 0. Main thread only.

    A second Ctrl-C raises KeyboardInterrupt at once, checkpoint or not; what comes within a second is the same one,
    since a launcher passes on what the terminal has sent already.
    quiet: says nothing, where another process of the run does.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._signal, self._quiet, self._noted = 0, quiet, 0.0
        self._before: dict[int, Any] = {}

    def __call__(self) -> int:
        return self._signal

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signal:
            if number == signal.SIGINT and now - self._noted > AGAIN_S:
                raise KeyboardInterrupt
            return
        self._signal, self._noted = number, now
        if self._quiet:
            return
        # a handler may interrupt a print to stderr, whose buffer does not bear another: straight to the descriptor
        os.write(2, b"\njointgen: stopping after this step, with a checkpoint; Ctrl-C (again) stops at once\n")
