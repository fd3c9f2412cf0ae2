"""Messages for the user, by the logger "jointgen", and results, on stdout. Needs no torch.

The command line prints messages to stderr, and `jointgen.run` does so for its caller; other programs hear them as
they hear any library, by `logging.getLogger("jointgen")`. Everything that is printed goes through here or through
`jointgen.runtime.terminal`, which show control characters instead of sending them (`jointgen.text.visible`): what is
printed may come out of a file.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import DEBUG, ERROR, INFO, WARNING
from typing import TextIO

from jointgen.errors import WriteError
from jointgen.runtime.atomic_files import why_not_written
from jointgen.runtime.ranks import is_local_main
from jointgen.text import MAX_LISTED, visible

LOGGER = logging.getLogger("jointgen")
LOGGER.addHandler(logging.NullHandler())
LEVELS = {"quiet": WARNING, "usual": INFO, "verbose": DEBUG}
"""What the command line prints: only what is lost, damaged or wrong; remarks and progress too; details too."""


class _Stderr(logging.Handler):
    """Prints records to stderr: messages marked as jointgen's, and lines of progress as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is None:
            return
        line = visible(record.getMessage())
        try:
            _print(f"{line}\n" if getattr(record, "bare", False) else f"jointgen: {line}\n", sys.stderr)
        except BrokenPipeError:
            raise
        except OSError:  # a full disk, which must not end a run that only wants to say how far it is
            return


_STDERR = _Stderr()


def debug(*lines: str) -> None:
    """Log details, a line each, which `--verbose` prints."""
    _emit(DEBUG, lines)


def log(*lines: str) -> None:
    """Log messages, a line each; of very many, the first."""
    _emit(INFO, _cut(lines))


def log_once(*lines: str) -> None:
    """Log messages from the first process of this machine only: all of them have the same to say."""
    if is_local_main():
        log(*lines)


def warn(*lines: str) -> None:
    """Log messages that a quiet command prints, too: what is lost or damaged concerns everybody."""
    _emit(WARNING, _cut(lines))


def warn_once(*lines: str) -> None:
    """Log messages as `warn` does, from the first process of this machine only."""
    if is_local_main():
        warn(*lines)


def complain(*lines: str) -> None:
    """Log the errors that end a command."""
    _emit(ERROR, _cut(lines))


def note(*lines: str) -> None:
    """Log lines that are printed as they are: how far something is."""
    _emit(INFO, lines, bare=True)


def note_error(*lines: str) -> None:
    """Log lines about an error that are printed as they are: its traceback."""
    _emit(ERROR, lines, bare=True)


def _cut(lines: Sequence[str]) -> Sequence[str]:
    more = len(lines) - MAX_LISTED
    return lines if more <= 1 else [*lines[:MAX_LISTED], f"... and {more:,} more"]


def _emit(level: int, lines: Sequence[str], *, bare: bool = False) -> None:
    for line in lines:  # visible for other handlers, too: a name that is no text breaks some of them
        LOGGER.log(level, "%s", visible(line), extra={"bare": bare}, stacklevel=3)


@contextmanager
def printed(level: int = INFO) -> Iterator[None]:
    """Print the messages of this level and above to stderr within, and hand them to no other handler but jointgen's."""
    before = LOGGER.level, LOGGER.propagate
    is_new = _STDERR not in LOGGER.handlers
    if is_new:
        LOGGER.addHandler(_STDERR)
    LOGGER.setLevel(level)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.setLevel(before[0])
        LOGGER.propagate = before[1]
        if is_new:
            LOGGER.removeHandler(_STDERR)


@contextmanager
def printed_for_caller(quiet: bool = False) -> Iterator[None]:
    """Print messages to stderr within for a Python program that does not listen to them itself.

    A program listens if it has set the level of the logger "jointgen", or that of the root logger, to INFO or below.

    Args:
        quiet: Whether to print nothing at all; loggers of the program still get what they ask for.
    """
    if quiet and _STDERR in LOGGER.handlers:
        LOGGER.removeHandler(_STDERR)
        try:
            yield
        finally:
            LOGGER.addHandler(_STDERR)
    elif quiet or _STDERR in LOGGER.handlers or LOGGER.isEnabledFor(INFO):
        yield
    else:
        with printed():
            yield


def prints_progress() -> bool:
    """Whether lines of progress are printed to stderr now; a bar that moves may take their place."""
    return _STDERR in LOGGER.handlers and LOGGER.isEnabledFor(INFO)


def prints_details() -> bool:
    """Whether details are printed, too."""
    return _STDERR in LOGGER.handlers and LOGGER.isEnabledFor(DEBUG)


def say(*lines: str) -> None:
    """Print a result to stdout, line by line. Raises as `send` does."""
    send("".join(f"{visible(line, keep='	')}\n" for line in lines))


def say_text(text: str) -> None:
    """Print a result of several lines, with or without a last line end, to stdout. Raises as `send` does."""
    say(*text.removesuffix("\n").split("\n"))


def send(text: str) -> None:
    """Print to stdout what `jointgen.runtime.terminal` has made safe, with its colours.

    Raises:
        BrokenPipeError: The reader went away.
        WriteError: The text cannot be printed, because the disk is full or stdout is closed.
    """
    if sys.stdout is None:
        raise WriteError("the result could not be printed: standard output is closed")
    try:
        _print(text, sys.stdout)
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon_stdout()
        raise WriteError(f"the result could not be printed: {why_not_written(error)}") from None


def flush() -> None:
    """Send what libraries have printed to stdout, too. Raises as `send` does."""
    if sys.stdout is not None:
        send("")


def abandon_stdout() -> None:
    """Send what is still to be printed nowhere: Python flushes stdout again when it exits, and would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stderr_is_terminal() -> bool:
    """Whether somebody may be watching: there a bar that moves is better than lines."""
    return sys.stderr is not None and sys.stderr.isatty()


def _print(text: str, file: TextIO) -> None:
    # a terminal whose encoding lacks a character gets its escape
    encoding = file.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=file, end="", flush=True)
