"""The user's cache: what is costly and a function of data alone, for every run on that data. Safe to delete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
from torch import Tensor

from jointgen.files import replace_bytes, writing


def cache_folder() -> Path:
    """$JOINTGEN_CACHE, or else `jointgen` in the user's cache folder."""
    if own := os.environ.get("JOINTGEN_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "jointgen"


@attrs.frozen
class Cached:
    """One file of the cache."""

    path: Path

    def read(self) -> bytes | None:
        return self.path.read_bytes() if self.path.is_file() else None

    def write(self, data: bytes) -> None:
        """Replaces it at once. Raises WriteError where the disk does not take it."""
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_bytes(self.path, data)


def cached(name: str, suffix: str = ".safetensors") -> Cached:
    """The file of what `name` says: all that its contents depend on."""
    return Cached(cache_folder() / f"{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}{suffix}")


def fingerprint(blocks: Iterable[Mapping[str, Tensor]]) -> str:
    """A hash of named tensors on the CPU, block by block: of their names, shapes, types and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for block in blocks:
        for name, values in block.items():
            digest.update(f"{name} {tuple(values.shape)} {values.dtype} ".encode())
            digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()
