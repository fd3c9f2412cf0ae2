"""Files of the data sets that torchvision fetches; whatever is wrong with them is one line that names the file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jointgen.plugin import ConfigError, FileError, MissingFileError, check_regular, placing, user_path

MAX_BYTES = 1 << 30
"""No file of these data sets is larger."""


def find_files(name: str, root: str, files: Sequence[str], fetch: Callable[[Path], Any] | None) -> Path:
    """Return the folder of a data set whose files are there, all of them regular.

    Args:
        name: The data set's.
        root: The folder of the data.
        files: The files of the data set, relative to the root.
        fetch: Fetches missing files into a folder; None where this is not asked for.

    Raises:
        ConfigError: A file is missing, cannot be fetched, or is a pipe, say.
    """
    with placing("root"):
        folder = user_path(root)
        missing = _missing(folder, files)
        if not missing:
            return folder
        if fetch is None:
            raise ConfigError(
                f"no {name} under {root!r} (looked for {folder / missing[0]}); "
                "give root = the folder that holds it, or download = true to fetch it"
            )
        try:
            fetch(folder)
        except Exception as error:  # dead networks and full disks raise everything from RuntimeError to URLError
            raise ConfigError(f"{name} cannot be fetched into {root!r}: {_text(error)}") from error
        if missing := _missing(folder, files):
            raise ConfigError(f"{name} was fetched into {root!r}, and {folder / missing[0]} is not there")
    return folder


def _missing(folder: Path, files: Sequence[str]) -> list[str]:
    missing = []
    for file in files:
        try:
            check_regular(folder / file, MAX_BYTES)
        except MissingFileError:
            missing.append(file)
    return missing


def read_checked(dataset: Any, folder: Path, train: bool, sums: dict[str, str]) -> Any:
    """Return `dataset(folder, train)`, which compares its files with their MD5 sums before it unpickles them.

    Args:
        dataset: The class of torchvision.
        folder: The folder of the data.
        train: Whether the training split is wanted.
        sums: The MD5 sum of each file, relative to the folder.

    Raises:
        ConfigError: A file is damaged; the message names it.
    """
    try:
        return dataset(folder, train=train, download=False)
    except Exception as error:  # torchvision says that something is corrupted, and not what
        with placing("root"):
            for file, md5 in sums.items():
                if hashlib.new("md5", (folder / file).read_bytes(), usedforsecurity=False).hexdigest() != md5:
                    raise FileError(
                        folder / file,
                        "is damaged: its MD5 is not the published one; remove it and fetch it again (download = true)",
                    ) from None
            raise ConfigError(f"{dataset.__name__} cannot be read under {str(folder)!r}: {_text(error)}") from error


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
