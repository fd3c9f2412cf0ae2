"""SHA-256 of bytes in memory and of files, as manifests hold them: 64 hexadecimal digits."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(*chunks: bytes | memoryview) -> str:
    """Hash chunks of bytes as if they were one."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


_NO_SEAL = '"sha256": ""'


def sealed(text: str) -> str:
    """Put the SHA-256 of a JSON text into the text itself, in the place of its empty `sha256`."""
    assert text.count(_NO_SEAL) == 1
    return text.replace(_NO_SEAL, f'"sha256": "{sha256_of(text.encode())}"')


def has_seal(data: bytes, digest: str) -> bool:
    """Return whether a JSON text that says this SHA-256 of itself is as `sealed` has made it."""
    return sha256_of(data.replace(f'"sha256": "{digest}"'.encode(), _NO_SEAL.encode())) == digest


def sha256_of_file(path: Path) -> str:
    """Hash the contents of a file, without holding them in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
