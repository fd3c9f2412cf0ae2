"""Messages for the user, on stderr, and results, on stdout. Needs no torch.

Everything that is printed goes through here or through `jointgen.runtime.terminal`, which show control characters
instead of sending them (`jointgen.text.visible`): what is printed may come out of a file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from jointgen.errors import WriteError
from jointgen.runtime.atomic_files import why_not_written
from jointgen.runtime.ranks import is_local_main
from jointgen.text import MAX_LISTED, visible

_silences: list[None] = []
"""One for each `quietly` that is entered."""


def log(*lines: str) -> None:
    """Print messages to stderr, a line each, marked as jointgen's; of very many, the first."""
    note(*_marked(lines))


def log_once(*lines: str) -> None:
    """Print messages to stderr, from the first process of this machine only: all of them have the same to say."""
    if is_local_main():
        log(*lines)


def warn(*lines: str) -> None:
    """Print messages as `log` does, and within `quietly` too: what is lost or damaged concerns everybody."""
    _to_stderr(_marked(lines))


def warn_once(*lines: str) -> None:
    """Print messages as `warn` does, from the first process of this machine only."""
    if is_local_main():
        warn(*lines)


def _marked(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MAX_LISTED
    shown = lines if more <= 1 else [*lines[:MAX_LISTED], f"... and {more:,} more"]
    return [f"jointgen: {line}" for line in shown]


def note(*lines: str) -> None:
    """Print lines to stderr as they are: how far something is."""
    if not _silences:
        _to_stderr(lines)


def _to_stderr(lines: Iterable[str]) -> None:
    if sys.stderr is None:
        return
    try:
        _print("".join(f"{visible(line)}\n" for line in lines), sys.stderr)
    except BrokenPipeError:
        raise
    except OSError:  # a full disk, which must not end a run that only wants to say how far it is
        return


@contextmanager
def quietly(is_so: bool = True) -> Iterator[None]:
    """Print nothing but warnings to stderr within, as a caller asked; whoever handles an error still prints it."""
    if not is_so:
        yield
        return
    _silences.append(None)
    try:
        yield
    finally:
        _silences.pop()


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
