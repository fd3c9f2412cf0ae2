"""The manifest of a checkpoint, which says what its files must be to the byte, and the check that they are."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from jointgen.runtime.hashing import sha256_of, sha256_of_file

FORMAT = 1
MANIFEST = "manifest.json"


def describe(step: int, parts: Mapping[str, Mapping[str, Tensor]], state: Iterable[str], recipe: str) -> dict[str, Any]:
    """Return the manifest of a checkpoint without its files.

    Args:
        step: The steps that the run has made.
        parts: Tensors by name, by network.
        state: The names of the other states.
        recipe: The text of the resolved recipe.
    """
    versions = {
        "jointgen": metadata.version("jointgen"),
        "python": platform.python_version(),
        "safetensors": safetensors.__version__,
        "torch": str(torch.__version__),
    }
    return {
        "format": FORMAT,
        "step": step,
        "versions": versions,
        "recipe": recipe,
        "parts": {name: list(part) for name, part in parts.items()},  # a file does not keep the order of its tensors
        "state": list(state),
    }


def seal(*chunks: bytes | memoryview) -> dict[str, Any]:
    """Return what the manifest says about a file of these contents."""
    return {"size": sum(map(len, chunks)), "sha256": sha256_of(*chunks)}


def sealed(body: Mapping[str, Any]) -> bytes:
    """Return the contents of the manifest's own file, which begins with the hash of the rest."""
    return json.dumps({"sha256": sha256_of(_canonical(body)), **body}, indent=1).encode()


def problems(path: Path) -> list[str]:
    """Return why a folder is not a whole checkpoint, a line for each file; empty if it is."""
    try:
        manifest = read_manifest(Path(path))
    except (OSError, ValueError) as error:
        return [f"{MANIFEST}: {getattr(error, 'strerror', None) or error}"]
    found = (_damage(Path(path) / name, expected) for name, expected in manifest["files"].items())
    return [line for line in found if line]


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest and its hash, "sha256". Raises ValueError if it is not what was written."""
    manifest = json.loads((path / MANIFEST).read_bytes())
    if not isinstance(manifest, dict):
        raise ValueError("not a manifest")
    digest = manifest.pop("sha256", None)
    if manifest.get("format") != FORMAT:
        raise ValueError(f"format {manifest.get('format')}, and this version of jointgen reads {FORMAT}")
    if digest != sha256_of(_canonical(manifest)):
        raise ValueError("contents differ from what was written")
    return {"sha256": digest, **manifest}


def _damage(path: Path, expected: Mapping[str, Any]) -> str | None:
    try:
        size = path.stat().st_size
        if size != expected["size"]:
            return f"{path.name}: {size} bytes, {expected['size']} expected"
        digest = sha256_of_file(path)
    except OSError as error:
        return f"{path.name}: {error.strerror}"
    return None if digest == expected["sha256"] else f"{path.name}: contents differ from what was written"


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()
