"""Files that are either as they were or as they should be: written aside, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from jointgen.errors import WriteError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_flushed(path: Path, *chunks: bytes | memoryview) -> None:
    """Writes a file and waits until the disk has it."""
    with open(path, "wb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Waits until the disk has the names in a folder: a rename is durable only after this."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_bytes(path: Path, *chunks: bytes | memoryview) -> None:
    """Replaces (or creates) a file at once: after a crash it holds either the old contents or the new."""
    aside = path.with_name(f".tmp-{path.name}")
    try:
        write_flushed(aside, *chunks)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_text(path: Path, text: str) -> None:
    """`replace_bytes` for text, always in UTF-8 with the line ends as given."""
    replace_bytes(path, text.encode())


def why_not_written(error: OSError) -> str:
    return "the disk is full" if error.errno in _FULL else str(error)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises WriteError naming the file, in place of an OSError from within."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path} could not be written: {why_not_written(error)}") from error
