"""The entry point of the command line: runs one command and turns errors into messages and an exit status.

Exit status: 0 done; 2 the user's input is wrong; 1 the run failed; 130 / 143 stopped by Ctrl-C / SIGTERM, a training
run after it wrote a checkpoint; 141 the reader of our output went away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from jointgen.cli.arguments import COMMANDS, load, parse
from jointgen.errors import JointgenError, LostError
from jointgen.runtime.console import log, log_once
from jointgen.runtime.ranks import is_launched, is_local_main


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The command line without the program's name; None: that of this process.

    Returns:
        The exit status. A mistake or a failure has been printed on stderr, one line for each problem.
    """
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        COMMANDS[arguments.command](arguments)
        sys.stdout.flush()  # a reader that went away shows here, and not as a traceback while Python shuts down
        return 0
    except SystemExit as asked:  # argparse after --help and --version, and the status of launched processes
        return int(asked.code or 0)
    except JointgenError as error:
        if _prints(error):
            log(*str(error).split("\n"))
        return error.exit_status
    except KeyboardInterrupt:
        log_once("stopped; nothing was written since the last checkpoint")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout again when it exits
        return 141


def _prints(error: JointgenError) -> bool:
    """Whether this process prints the error: of several that met the same one, the first on its machine does."""
    if isinstance(error, LostError) or not is_launched():
        return is_local_main()
    first = load("jointgen.runtime.launcher:says_first")(str(error))
    return is_local_main() if first is None else bool(first)
