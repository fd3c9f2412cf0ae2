"""What a run says about the machine and the software that it ran on."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

_DISTRIBUTIONS = ("jointgen", "torch", "torchvision", "accelerate", "safetensors", "numpy")


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Versions, platform, the device's name, and the git commit where jointgen runs from its own checkout."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _DISTRIBUTIONS}},
        "platform": platform.platform(),
        "device": _device_name(torch.device(device)),
        "git_commit": _git_commit(),
    }


def _version(distribution: str) -> str | None:
    # asked of the metadata: torchvision's import can fail beside a torch that does not fit it
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.processor() or platform.machine()})"


def _git_commit() -> str | None:
    """The commit, with "-dirty" after it when files are changed; None outside a checkout that tracks this package."""
    here = Path(__file__).parents[1]
    if _git(here, "ls-files", "--error-unmatch", "__init__.py") is None:  # installed inside someone else's repository
        return None
    return _git(here, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
