"""The entry point of the command line.

Exit status: 0 done; 2 the user's input is wrong; 1 the run failed; 130 / 143 stopped by Ctrl-C / SIGTERM, a training
run after it wrote a checkpoint; 141 the reader of our output went away.

Only the standard library is imported before `main` is called, so that Ctrl-C is one line from the start.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from jointgen.cli.interrupts import INTERRUPTS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The command line without the program's name; None: that of this process, which ends afterwards.

    Returns:
        The exit status. A mistake or a failure has been printed on stderr, one line for each problem.
    """
    if argv is None:
        argv = sys.argv[1:]
        _open_standard_streams()
        INTERRUPTS.take_over()
    INTERRUPTS.importing(True)
    dispatch = importlib.import_module("jointgen.cli.dispatch").dispatch  # now: it takes a tenth of a second
    INTERRUPTS.importing(False)
    status: int = dispatch(argv)
    INTERRUPTS.importing(True)
    return status


def _open_standard_streams() -> None:
    """Put nothing in the place of standard streams that are closed, before the first file that is opened takes it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 for as long as the process; libraries expect one
