"""Writes files so that a crash leaves them whole: aside first, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from jointgen.errors import JointgenError, WriteError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_flushed(path: Path, *chunks: bytes | memoryview) -> None:
    """Write a new file, and wait until the disk has it. A link under its name is not followed, but replaced."""
    path.unlink(missing_ok=True)
    with open(path, "xb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names in a folder: only then a rename is durable."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_bytes(path: Path, *chunks: bytes | memoryview) -> None:
    """Replace or create a file at once: after a crash it has either the old contents or the new."""
    aside = path.with_name(f".tmp-{path.name}")
    try:
        write_flushed(aside, *chunks)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_text(path: Path, text: str) -> None:
    """Append to a file in UTF-8, or create it. OSError where it is a link, which could lead anywhere."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(path, flags, 0o666), "ab") as file:
        file.write(text.encode())


@contextlib.contextmanager
def locked_folder(path: Path) -> Iterator[None]:
    """Let one process at a time change what is in a folder. No file marks that, so none can be left behind."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system that has no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Replace or create a file at once, in UTF-8 and with the line ends as given."""
    replace_bytes(path, text.encode())


def why_not_written(error: OSError) -> str:
    """Return the reason of an error in a few words."""
    return "the disk is full" if error.errno in _DISK_IS_FULL else str(error)


@contextlib.contextmanager
def writing(path: Path, error: Callable[[str], JointgenError] = WriteError) -> Iterator[None]:
    """Turn an OSError within into an error that names the file.

    Args:
        path: The file or the folder that is written.
        error: Makes the error from its message, such as `ConfigError` where the user has chosen the path.
    """
    try:
        yield
    except OSError as cause:
        reason = "the disk is full" if cause.errno in _DISK_IS_FULL else cause.strerror or str(cause)
        raise error(f"{path} could not be written: {reason}") from cause
