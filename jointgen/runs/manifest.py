"""The manifest of a checkpoint, which says what its files must be to the byte, and the check that they are."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import safetensors
import torch
from attrs.validators import ge
from torch import Tensor

from jointgen.config.documents import as_document
from jointgen.config.toml import parse_toml
from jointgen.errors import ConfigError, FileError
from jointgen.runs.records import CHECKPOINT_NAME
from jointgen.runtime.hashing import sha256_of, sha256_of_file
from jointgen.runtime.regular_files import check_regular, read_regular
from jointgen.runtime.strict_json import read_json
from jointgen.text import listed

FORMAT = 1
MANIFEST = "manifest.json"
NAME = re.compile(r"\w[\w.-]*")
"""The names of parts and states, which are those of files, too."""


@attrs.frozen
class Seal:
    """What a file of a checkpoint must be: its size in bytes and its hash."""

    size: int = attrs.field(validator=ge(0))
    sha256: str

    @classmethod
    def of(cls, *chunks: bytes | memoryview) -> Seal:
        """Return the seal of a file of these contents."""
        return cls(sum(map(len, chunks)), sha256_of(*chunks))


@attrs.frozen
class CheckpointManifest:
    """The content of `manifest.json`, but for the hash of all this with which it begins.

    Args:
        format: The version of the layout.
        step: The steps that the run had made.
        versions: The versions of the software that wrote the checkpoint.
        recipe: The text of the resolved recipe.
        parts: For each network the names of its tensors; a file does not keep their order.
        state: The names of the other states.
        files: What each file must be.
    """

    format: int
    step: int = attrs.field(validator=ge(0))
    versions: dict[str, str]
    recipe: str
    parts: dict[str, list[str]]
    state: list[str]
    files: dict[str, Seal]

    @property
    def sha256(self) -> str:
        """The hash of the manifest, which covers every file."""
        return sha256_of(_canonical(attrs.asdict(self)))

    def to_bytes(self) -> bytes:
        """Return the contents of the file."""
        return json.dumps({"sha256": self.sha256, **attrs.asdict(self)}, indent=1).encode()


def describe(
    step: int, parts: Mapping[str, Mapping[str, Tensor]], state: Iterable[str], recipe: str, files: dict[str, Seal]
) -> CheckpointManifest:
    """Return the manifest of a checkpoint.

    Args:
        step: The steps that the run has made.
        parts: Tensors by name, by network.
        state: The names of the other states.
        recipe: The text of the resolved recipe.
        files: What each file must be.
    """
    versions = {
        "jointgen": metadata.version("jointgen"),
        "python": platform.python_version(),
        "safetensors": safetensors.__version__,
        "torch": str(torch.__version__),
    }
    names = {name: list(part) for name, part in parts.items()}
    return CheckpointManifest(FORMAT, step, versions, recipe, names, list(state), files)


def read_manifest(path: Path) -> CheckpointManifest:
    """Read the manifest of a checkpoint's folder.

    Raises:
        FileError: There is none that can be read, or it is a link.
        ValueError: It is not what was written.
    """
    held = read_json(read_regular(path / MANIFEST, follow=False))
    if not isinstance(held, dict):
        raise ValueError("not a manifest")
    digest = held.pop("sha256", None)
    if held.get("format") != FORMAT:
        raise ValueError(f"format {held.get('format')!r:.20}, and this version of jointgen reads {FORMAT}")
    if digest != sha256_of(_canonical(held)):
        raise ValueError("contents differ from what was written")
    manifest = as_document(held, CheckpointManifest)
    _check(manifest, path.name)
    return manifest


def _check(manifest: CheckpointManifest, folder: str) -> None:
    """Raise ValueError where a manifest contradicts itself, or names files that are not its own."""
    named = CHECKPOINT_NAME.fullmatch(folder)
    if named is not None and int(named["step"]) != manifest.step:
        raise ValueError(f"step {manifest.step}, and the folder is that of step {int(named['step'])}")
    names = [*manifest.parts, *manifest.state]
    if odd := [name for name in names if not NAME.fullmatch(name)]:
        raise ValueError(f"no names of parts or states: {listed(map(repr, odd))}")
    expected = [f"{name}.safetensors" for name in names] + [f"{name}.json" for name in manifest.state]
    if len({*expected, MANIFEST}) <= len(expected):
        raise ValueError("parts and states share names")
    if other := {*expected} ^ {*manifest.files}:
        raise ValueError(f"parts and states have other files than it lists: {listed(map(repr, sorted(other)))}")
    try:
        parse_toml(manifest.recipe)
    except (ValueError, ConfigError) as error:
        raise ValueError(f"recipe: {error}") from None


def problems(path: Path) -> list[str]:
    """Return why a folder is not a whole checkpoint, a line for each file; empty if it is."""
    path = Path(path)
    if path.is_symlink():
        return ["is a link; expected a folder"]
    try:
        manifest = read_manifest(path)
    except FileError as error:
        return [f"{MANIFEST}: {error.reason}"]
    except ValueError as error:
        return [f"{MANIFEST}: {error}"]
    found = (_damage(path / name, seal) for name, seal in manifest.files.items())
    return [line for line in found if line]


def _damage(path: Path, seal: Seal) -> str | None:
    try:
        size = check_regular(path, follow=False).st_size
        if size != seal.size:
            return f"{path.name}: {size} bytes, {seal.size} expected"
        digest = sha256_of_file(path)
    except FileError as error:
        return f"{path.name}: {error.reason}"
    except OSError as error:
        return f"{path.name}: {error.strerror}"
    return None if digest == seal.sha256 else f"{path.name}: contents differ from what was written"


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()
