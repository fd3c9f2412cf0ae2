"""Runs one command, and turns what it raises into messages and an exit status."""

from __future__ import annotations

import errno
import os
import signal
import traceback
from collections.abc import Sequence

from jointgen.cli.arguments import Arguments, load, parse
from jointgen.cli.interrupts import INTERRUPTS
from jointgen.errors import (
    ComponentError,
    JointgenError,
    LostError,
    RunInterrupted,
    StoppedError,
    on_the_command_line,
)
from jointgen.registry.faults import foreign_provider_of, said
from jointgen.registry.files import trusting
from jointgen.runtime import console
from jointgen.runtime.ranks import is_launched, is_local_main
from jointgen.runtime.slurm import take_ranks

TRACEBACK = "JOINTGEN_TRACEBACK"
"""The environment variable with which errors are shown with their traceback."""
WRONG_PATH = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP}
"""Errors of the system about a path that the user gave. What is not said where the path is used is said here."""
NO_MORE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}
"""Errors of the system about the machine. All others are faults of the program, and keep their traceback."""


def dispatch(argv: Sequence[str]) -> int:
    """Run the command of a command line without the program's name, and return the exit status."""
    arguments: Arguments | None = None
    with console.printed(), on_the_command_line():
        try:
            try:
                arguments = parse(argv)
            except SystemExit as error:  # argparse after --help and --version, before any plugin is loaded
                return int(error.code or 0)
            console.LOGGER.setLevel(console.LEVELS[arguments.loudness])
            if hasattr(arguments, "processes"):
                take_ranks()
            with trusting(getattr(arguments, "trust", False)):
                arguments.called(arguments)
            console.flush()  # a reader that went away shows here, and not as a traceback while Python shuts down
            return 0
        except BaseException as error:
            status = _status_of(error, arguments)
            if status is None:
                raise
            return status


def _status_of(error: BaseException, arguments: Arguments | None) -> int | None:
    """Say what an error means, and return the exit status; None for a fault of the program.

    Args:
        error: What was raised.
        arguments: Those of the command; None where they were not parsed yet.
    """
    # the status of launched processes; that of a component is its fault
    if isinstance(error, SystemExit) and not foreign_provider_of(error):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        console.complain(str(error.code))  # a library's sys.exit("why")
        return 1
    # a library may have turned Ctrl-C into an error of its own
    if isinstance(error, RunInterrupted):
        if is_local_main():
            console.complain(str(error))
        return 128 + error.signal
    if isinstance(error, KeyboardInterrupt) or (INTERRUPTS.came and not isinstance(error, StoppedError)):
        if is_local_main():
            console.complain("stopped; nothing was written since the last checkpoint")
        return 128 + signal.SIGINT
    if isinstance(error, JointgenError):
        return _said(error)
    if isinstance(error, BrokenPipeError):
        console.abandon_stdout()
        return 141
    if isinstance(error, OSError) and error.filename is not None and error.errno in WRONG_PATH | NO_MORE:
        if is_local_main():
            _show_traceback()
            console.complain(f"{os.fsdecode(error.filename)}: {error.strerror}")
        return 2 if error.errno in WRONG_PATH else 1
    if provider := foreign_provider_of(error):
        what = "a component"
        if arguments is not None and arguments.called.provider == provider:
            what = f"the command {arguments.command!r}"
        return _said(ComponentError(f"{what} of {provider} raises {said(error)}; {TRACEBACK}=1 shows more"))
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "jointgen":
        older = "is the installation older than the code? uv sync, or pip install -e ."
        return _said(JointgenError(f"the package {error.name!r} is missing; {older}"))
    return None


def _said(error: JointgenError) -> int:
    """Print an error, and return its exit status."""
    if _prints(error):
        _show_traceback()
        console.complain(*str(error).split("\n"))
    return error.exit_status


def _show_traceback() -> None:
    if os.environ.get(TRACEBACK) or console.prints_details():
        console.note_error(*traceback.format_exc().splitlines())


def _prints(error: JointgenError) -> bool:
    """Whether this process prints the error: of several that met the same one, the first on its machine does."""
    if isinstance(error, LostError) or not is_launched():
        return is_local_main()
    first = load("jointgen.runtime.launcher:says_first")(str(error))
    return is_local_main() if first is None else bool(first)
