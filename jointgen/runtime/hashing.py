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


def sha256_of_file(path: Path) -> str:
    """Hash the contents of a file, without holding them in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
