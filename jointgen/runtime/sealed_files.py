"""Files of results that can be computed again: they begin with the hash of what follows.

So damage costs the time to compute the result again, and never gives a wrong number.
"""

from __future__ import annotations

from pathlib import Path

from jointgen.errors import FileError, MissingFileError
from jointgen.runtime.atomic_files import replace_bytes
from jointgen.runtime.console import log_once
from jointgen.runtime.hashing import sha256_of
from jointgen.runtime.regular_files import read_regular

MAX_BYTES = 1 << 36
"""The largest such file that is read."""


def write_sealed(path: Path, data: bytes) -> None:
    """Replace or create a file at once, in a folder that is made if need be. Raises OSError where that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(path, f"{sha256_of(data)}\n".encode(), data)


def read_sealed(path: Path, again: str) -> bytes | None:
    """Return what was written, or None where there is nothing, or nothing whole, which is said.

    Args:
        path: The file.
        again: What happens without it, such as "its rows are evaluated again".
    """
    try:
        digest, _, data = read_regular(path, MAX_BYTES).partition(b"\n")
    except MissingFileError:
        return None
    except FileError as error:
        log_once(f"{error}; {again}")
        return None
    if digest.decode("latin-1") != sha256_of(data):
        log_once(f"{path}: is damaged: contents differ from what was written; {again}")
        return None
    return data
