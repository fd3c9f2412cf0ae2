"""Load a data set of torchvision, and turn whatever goes wrong into one line for the user."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jointgen.plugin import ConfigError


def load_torchvision(dataset: Any, root: str, files: Iterable[str], *, train: bool, download: bool) -> Any:
    """Return `dataset(root, train, download)`.

    Args:
        dataset: The class of torchvision.
        root: The folder of the data.
        files: The files of the data set, relative to the root.
        train: Whether the training split is wanted.
        download: Whether missing files are fetched.

    Raises:
        ConfigError: A file is missing, or the data set cannot be read or fetched.
    """
    folder, name = Path(root).expanduser(), dataset.__name__
    missing = [file for file in files if not (folder / file).exists()]
    if missing and not download:
        raise ConfigError(
            f"no {name} under {root!r} (looked for {folder / missing[0]}); "
            "give root = the folder that holds it, or download = true to fetch it",
            "root",
        )
    try:
        return dataset(folder, train=train, download=download)
    except Exception as error:  # damaged files and dead networks raise everything from AssertionError to URLError
        how = "fetched into" if missing else "read under"
        raise ConfigError(f"{name} cannot be {how} {root!r}: {str(error) or type(error).__name__}", "root") from error
