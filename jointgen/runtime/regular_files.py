"""The door through which files that somebody else may have changed are read: regular files of a limited size.

A run folder and a prepared data set lie on the user's disk, and may hold anything by the time they are read: a pipe
that never ends, a link to a device, a gigabyte where a kilobyte was written. Whoever reads one of their files does it
here, and gets its bytes or a `FileError` that names it.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from jointgen.errors import FileError, MissingFileError

SMALL = 64 << 20
"""The limit in bytes of files that are read whole and hold text: recipes, summaries, manifests."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that the user wrote, with a leading "~" written out. FileError where it stands for no folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise FileError(path, "begins with ~, and no home folder is known; write the path out") from None


def read_regular(path: str | os.PathLike[str], limit: int = SMALL, *, follow: bool = True) -> bytes:
    """Read a regular file whole.

    Args:
        path: The file.
        limit: Its largest size in bytes.
        follow: Whether a link to a regular file counts as one.

    Raises:
        MissingFileError: There is none.
        FileError: It is something else than a regular file, too large, or the system does not let us read it.
    """
    path = Path(path)
    check_regular(path, limit, follow=follow)
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    try:
        # not to wait for a pipe that took its place since
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            _check(path, status, limit)
            data = file.read(status.st_size)  # no more: Python takes the memory for what it is asked to read
    except OSError as error:
        raise unreadable(path, error) from None
    if len(data) < status.st_size:
        raise FileError(path, "was changed while it was read; try again")
    return data


def read_regular_text(path: str | os.PathLike[str], limit: int = SMALL) -> str:
    """Read a regular file of UTF-8 whole. Raises as `read_regular` does, and FileError for other bytes."""
    try:
        return read_regular(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(path, f"is not text: byte {error.start} is not UTF-8") from None


def check_regular(path: str | os.PathLike[str], limit: int | None = None, *, follow: bool = True) -> os.stat_result:
    """Check that a path leads to a regular file that may be opened without waiting, and return its status.

    Raises:
        MissingFileError: There is none.
        FileError: It is something else, or larger than `limit`.
    """
    path = Path(path)
    try:
        status = os.stat(path, follow_symlinks=follow)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    _check(path, status, limit)
    return status


def _check(path: Path, status: os.stat_result, limit: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FileError(path, f"is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}; expected a file")
    if limit is not None and status.st_size > limit:
        raise FileError(path, f"has {status.st_size:,} bytes, and no such file has more than {limit:,}")


def unreadable(path: str | os.PathLike[str], error: OSError | ValueError) -> FileError:
    """Return the error for a file or folder that the system does not let us read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return MissingFileError(path, "no such file")
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return FileError(path, "is a link that leads back to itself")
    reason = error.strerror if isinstance(error, OSError) else None
    return FileError(path, f"cannot be read: {reason or error}")
