"""Describes the machine and the software that a run ran on, for its folder."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from jointgen.runtime.devices import name_of
from jointgen.runtime.installed import installed_version

_DISTRIBUTIONS = ("jointgen", "torch", "torchvision", "accelerate", "safetensors", "numpy")
_DESCRIBE = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return versions, platform, the device's name, and the git commit if jointgen runs from its own checkout."""
    device = torch.device(device)
    processor = platform.processor() or platform.machine()
    return {
        "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in _DISTRIBUTIONS}},
        "platform": platform.platform(),
        "device": name_of(device, processor),
        "git_commit": _git_commit(),
    }


@functools.cache
def packages() -> dict[str, str]:
    """Return the version of every installed distribution, by name, sorted."""
    found = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions() if dist.metadata}
    return {name: found[name] for name in sorted(filter(None, found), key=str.lower)}


def repository_of(folder: Path) -> tuple[str, str] | None:
    """Return the folder of the git repository that a folder lies in, and its commit; None outside of any.

    The commit has "-dirty" behind it if tracked files have changed.
    """
    if not any((place / ".git").exists() for place in (folder, *folder.parents)):  # git takes longer to find it out
        return None
    top, commit = _git(folder, "rev-parse", "--show-toplevel"), _git(folder, *_DESCRIBE)
    return (top, commit) if top and commit else None


def _git_commit() -> str | None:
    """Return the commit, with "-dirty" if files have changed; None outside a checkout that tracks this package."""
    package = Path(__file__).parents[1]
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:  # installed in another repository
        return None
    return _git(package, *_DESCRIBE)


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
