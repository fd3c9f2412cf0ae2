"""Messages for the user, on stderr, and results, on stdout. Needs no torch.

Both show control characters instead of sending them (`jointgen.text.visible`): what is printed may come out of a file.
"""

from __future__ import annotations

import sys
from typing import TextIO

from jointgen.runtime.ranks import is_local_main
from jointgen.text import visible


def log(*lines: str) -> None:
    """Print messages to stderr, a line each."""
    for line in lines:
        _print(f"jointgen: {visible(line)}", sys.stderr)


def log_once(*lines: str) -> None:
    """Print messages to stderr, from the first process of this machine only: all of them have the same to say."""
    if is_local_main():
        log(*lines)


def say(text: str, end: str = "\n") -> None:
    """Print a result of one or more lines to stdout."""
    _print(visible(text, keep="\n\t"), sys.stdout, end)


def _print(text: str, file: TextIO, end: str = "\n") -> None:
    # a terminal whose encoding lacks a character gets its escape
    encoding = file.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=file, end=end, flush=True)
