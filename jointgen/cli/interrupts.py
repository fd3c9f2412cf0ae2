"""What Ctrl-C does where no command handles it. Imports the standard library only, since it may come at once."""

from __future__ import annotations

import os
import signal
from types import FrameType


class Interrupts:
    """The handler of Ctrl-C in a process that is the command's.

    While modules are imported, Ctrl-C ends the process at once: libraries swallow an exception then, print it, or turn
    it into one of their own. Otherwise it raises KeyboardInterrupt.

    Attributes:
        came: Whether a KeyboardInterrupt was raised.
    """

    def __init__(self) -> None:
        self.came = self._importing = False

    def take_over(self) -> None:
        """Handle Ctrl-C from now on, unless this process is to ignore it, as under nohup."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)

    def importing(self, is_so: bool) -> None:
        """Say whether modules are being imported, or nothing is left to be done."""
        self._importing = is_so

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._importing:
            os.write(2, b"\njointgen: stopped\n")
            os._exit(128 + number)
        self.came = True
        raise KeyboardInterrupt


INTERRUPTS = Interrupts()
"""Those of this process."""
