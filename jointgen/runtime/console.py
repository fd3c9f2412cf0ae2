"""Messages on stderr for the user. Needs no torch."""

from __future__ import annotations

import sys

from jointgen.runtime.ranks import is_local_main


def log(*lines: str) -> None:
    """Print lines to stderr."""
    for line in lines:
        print(f"jointgen: {line}", file=sys.stderr, flush=True)


def log_once(*lines: str) -> None:
    """Print lines to stderr, from the first process of this machine only: all of them have the same to say."""
    if is_local_main():
        log(*lines)
