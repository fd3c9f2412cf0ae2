"""The user's cache of results that are costly and depend on data alone, for every run on that data.

It is safe to delete.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import attrs
import torch
from filelock import FileLock
from torch import Tensor

from jointgen.errors import WriteError
from jointgen.runtime.atomic_files import writing
from jointgen.runtime.cache_folder import cache_folder
from jointgen.runtime.console import log
from jointgen.runtime.sealed_files import read_sealed, write_sealed


@attrs.frozen
class CacheFile:
    """A file of the cache, which need not exist."""

    path: Path

    def read(self) -> bytes | None:
        """Return the contents, or None if there are none, or none that are whole, which is said."""
        return read_sealed(self.path, "it is made again")

    def write(self, data: bytes) -> bool:
        """Replace the file at once. Return False if the disk does not take it, which is logged and costs only time."""
        try:
            with writing(self.path):
                write_sealed(self.path, data)
        except WriteError as error:
            log(f"nothing is kept for other runs: {error}")
            return False
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time in, if the folder can be written."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                lock = self.path.with_suffix(".lock")
                if lock.is_symlink():
                    lock.unlink()
                stack.enter_context(FileLock(lock))
            yield


def cached(name: str) -> CacheFile:
    """Return the file for a name that says all that its contents depend on."""
    return CacheFile(cache_folder() / f"{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}.sealed")


def fingerprint(blocks: Iterable[Mapping[str, Tensor]]) -> str:
    """Return a hash of the names, shapes, types and bytes of tensors on the CPU, given block by block."""
    digest = hashlib.blake2b(digest_size=16)
    for block in blocks:
        for name, values in block.items():
            digest.update(f"{name} {tuple(values.shape)} {values.dtype} ".encode())
            digest.update(values.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return digest.hexdigest()
