"""Describes the machine and the software that a run ran on, for its summary."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

_DISTRIBUTIONS = ("jointgen", "torch", "torchvision", "accelerate", "safetensors", "numpy")


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return versions, platform, the device's name, and the git commit if jointgen runs from its own checkout."""
    device = torch.device(device)
    processor = platform.processor() or platform.machine()
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _DISTRIBUTIONS}},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({processor})",
        "git_commit": _git_commit(),
    }


def _version(distribution: str) -> str | None:
    # read from the metadata: the import of torchvision can fail beside a torch that does not fit it
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit, with "-dirty" if files have changed; None outside a checkout that tracks this package."""
    package = Path(__file__).parents[1]
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:  # installed in another repository
        return None
    return _git(package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
