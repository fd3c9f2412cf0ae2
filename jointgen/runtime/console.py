"""Messages for the user, on stderr, and results, on stdout. Needs no torch.

Everything that is printed goes through here or through `jointgen.runtime.terminal`, which show control characters
instead of sending them (`jointgen.text.visible`): what is printed may come out of a file.
"""

from __future__ import annotations

import sys
from typing import TextIO

from jointgen.runtime.ranks import is_local_main
from jointgen.text import MAX_LISTED, visible


def log(*lines: str) -> None:
    """Print messages to stderr, a line each, marked as jointgen's; of very many, the first."""
    more = len(lines) - MAX_LISTED
    shown = lines if more <= 1 else [*lines[:MAX_LISTED], f"... and {more:,} more"]
    note(*(f"jointgen: {line}" for line in shown))


def log_once(*lines: str) -> None:
    """Print messages to stderr, from the first process of this machine only: all of them have the same to say."""
    if is_local_main():
        log(*lines)


def note(*lines: str) -> None:
    """Print lines to stderr as they are: how far something is."""
    for line in lines:
        _print(visible(line), sys.stderr)


def say(text: str, end: str = "\n") -> None:
    """Print a result of one or more lines to stdout."""
    _print(visible(text, keep="\n\t"), sys.stdout, end)


def stderr_is_terminal() -> bool:
    """Whether somebody may be watching: there a bar that moves is better than lines."""
    return sys.stderr.isatty()


def _print(text: str, file: TextIO, end: str = "\n") -> None:
    # a terminal whose encoding lacks a character gets its escape
    encoding = file.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=file, end=end, flush=True)
