"""Ctrl-C and SIGTERM as a question that the training loop asks after each step. Torch-free."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, the first signal is only noted; calling the object gives its number, or 0. Main thread only.

    A second Ctrl-C raises KeyboardInterrupt at once, checkpoint or not.
    """

    def __init__(self) -> None:
        self._signal = 0
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
        if self._signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number
        # a handler may interrupt a print to stderr, whose buffer does not bear another: straight to the descriptor
        os.write(2, b"\njointgen: stopping after this step, with a checkpoint; Ctrl-C (again) stops at once\n")
