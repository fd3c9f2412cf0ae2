"""Files of weights that others publish: found, compared with their hash, and fetched only where this is asked."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import attrs
import torch

from jointgen.plugin import ConfigError


@attrs.frozen
class PublishedWeights:
    """A published file of weights.

    Args:
        title: What they are of, as messages name it.
        extractor: The name of the extractor that needs them.
        file: The name of the file.
        sha256: The beginning of the file's SHA-256, or all of it.
        url: Where it is published.
        megabytes: Its size.
    """

    title: str
    extractor: str
    file: str
    sha256: str
    url: str
    megabytes: int

    def place(self, given: str | None) -> Path:
        """Return the path of the file: the one that the user gave, or where torch.hub keeps it."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file if given is None else Path(given).expanduser()

    def absent(self, place: Path, may_fetch: bool) -> str:
        """Explain why the weights cannot be had and how to get them; empty where they can."""
        if not place.is_file():
            return "" if may_fetch else self._how_to_get(place)
        found = sha256_of(place)
        if not found.startswith(self.sha256):
            return f"{place} is not the published file: its sha256 begins with {found[:8]}, not {self.sha256[:8]}"
        return ""

    def fetch(self, place: Path) -> None:
        """Fetch the file where it is not there; a ConfigError says why it cannot be had."""
        if place.is_file():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(self.url, str(place), hash_prefix=self.sha256, progress=False)
        except (OSError, RuntimeError) as error:  # no network, or not the published file
            raise ConfigError(f"{self.url} cannot be fetched: {error}", "extractor", "download") from error

    def _how_to_get(self, place: Path) -> str:
        return (
            f"no {self.title} weights, which published scores use: {place} is not there. Put {self.file} "
            f"({self.megabytes:,} MB, from {self.url}) there, give extractor = {{ type = '{self.extractor}', "
            "weights = 'PATH' } or download = true, or score with extractor = { type = 'classifier' }, whose figures "
            "compare with one another only"
        )


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, computed once for as long as it is not changed."""
    stat = file.stat()
    return _hashed(file, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=8)
def _hashed(file: Path, changed: int, size: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
