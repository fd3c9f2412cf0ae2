"""Which distributions are installed. Torch-free."""

from __future__ import annotations

import importlib.metadata


def installed_version(distribution: str) -> str | None:
    """Return the version of a distribution from its metadata; None where it is not installed.

    The import of torchvision, for one, can fail beside a torch that does not fit it.
    """
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # no name of a distribution
        return None
