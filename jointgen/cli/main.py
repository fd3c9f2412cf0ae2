"""The entry point of the command line.

Exit status: 0 done; 2 the user's input is wrong; 1 the run failed; 130 / 143 stopped by Ctrl-C / SIGTERM, a training
run after it wrote a checkpoint; 141 the reader of our output went away.

Only the standard library is imported before `main` is called, so that Ctrl-C is one line from the start.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The command line without the program's name; None: that of this process, which ends afterwards.

    Returns:
        The exit status. A mistake or a failure has been printed on stderr, one line for each problem.
    """
    interrupts = Interrupts()
    if argv is None:
        argv = sys.argv[1:]
        _open_standard_streams()
        # not so under nohup, which ignores it
        interrupts.ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    interrupts.leave_at_once()
    # imported now, which takes a tenth of a second in which Ctrl-C may come
    dispatch = importlib.import_module("jointgen.cli.dispatch").dispatch
    status: int = dispatch(argv, loaded=interrupts.raise_errors, interrupted=lambda: interrupts.came)
    interrupts.leave_at_once()
    return status


class Interrupts:
    """What Ctrl-C does where no command handles it.

    Attributes:
        ours: Whether this process is the command's, so that its handler may be set.
        came: Whether Ctrl-C became a KeyboardInterrupt.
    """

    ours = came = False

    def leave_at_once(self) -> None:
        """End the process on Ctrl-C: while modules are imported, libraries swallow exceptions or print them."""
        if self.ours:
            signal.signal(signal.SIGINT, self._leave)

    def raise_errors(self) -> None:
        """Raise KeyboardInterrupt on Ctrl-C, and note that it came."""
        if self.ours:
            signal.signal(signal.SIGINT, self._raise)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        os.write(2, b"\njointgen: stopped\n")
        os._exit(128 + number)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt


def _open_standard_streams() -> None:
    """Put nothing in the place of standard streams that are closed, before the first file that is opened takes it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 for as long as the process; libraries expect one
