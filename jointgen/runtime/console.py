"""Lines on stderr for whoever runs the program. Of several processes, one of each machine is_local_main. Torch-free."""

from __future__ import annotations

import os
import sys


def log_once(*lines: str) -> None:
    """Says it, unless another process of this machine does: all of them have the same to log."""
    if is_local_main():
        log(*lines)


def log(*lines: str) -> None:
    for line in lines:
        print(f"jointgen: {line}", file=sys.stderr, flush=True)


def is_local_main() -> bool:
    """Whether this process is the only one, or the first of its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def is_first() -> bool:
    """Whether this process is the only one, or the first of all that train one model."""
    return os.environ.get("RANK", "0") == "0"
