"""The user's cache: what is costly and a function of data alone, for every run on that data. Safe to delete."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import attrs
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from jointgen.errors import WriteError
from jointgen.runtime.atomic_files import replace_bytes, writing
from jointgen.runtime.console import log


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
        """None where it cannot be read, or is no whole safetensors file: it is made again."""
        try:
            data = self.path.read_bytes()
            load(data)
        except (OSError, SafetensorError):
            return None
        return data

    def write(self, data: bytes) -> bool:
        """Replaces it at once. False where the disk does not take it, which is said; nothing is lost but time."""
        try:
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                replace_bytes(self.path, data)
        except WriteError as error:
            log(f"nothing is kept for other runs: {error}")
            return False
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """For one process at a time, where the folder can be written."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(self.path.with_suffix(".lock")))
            yield


def cached(name: str) -> Cached:
    """The file of what `name` says: all that its contents depend on."""
    return Cached(cache_folder() / f"{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}.safetensors")


def fingerprint(blocks: Iterable[Mapping[str, Tensor]]) -> str:
    """A hash of named tensors on the CPU, block by block: of their names, shapes, types and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for block in blocks:
        for name, values in block.items():
            digest.update(f"{name} {tuple(values.shape)} {values.dtype} ".encode())
            digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()
