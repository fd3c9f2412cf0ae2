"""Images prepared once by `jointgen data prepare`: uint8 shards that are mapped, labels, and a manifest of them.

DEST/manifest.json          what is there, how it was made, and what was skipped
DEST/train-00000.npy        (N, C, size, size) uint8
DEST/train-labels.npy       (N,) int64 over all shards, where the images lie in class folders
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import cattrs
import numpy as np

FORMAT = 1
MANIFEST = "manifest.json"


@attrs.frozen
class Plan:
    """What decides every byte of a preparation.

    source: SHA-256 over the names and sizes of the image files, split by split.
    test_fraction: the share of the images that became the test split; None where the source had one.
    shard_files: image files that make one shard; the broken ones leave it shorter.
    """

    source: str
    size: int
    channels: int
    test_fraction: float | None
    shard_files: int


@attrs.frozen
class Stored:
    """One file of a preparation. rows: along its first axis."""

    name: str
    rows: int
    bytes: int
    sha256: str


@attrs.frozen
class Skipped:
    """An image file that could not be read."""

    name: str
    reason: str


@attrs.frozen
class Split:
    """files: image files in the source. modes: how many of those read were in each of Pillow's modes."""

    files: int
    shards: list[Stored] = attrs.field(factory=list)
    labels: Stored | None = None
    modes: dict[str, int] = attrs.field(factory=dict)
    skipped: list[Skipped] = attrs.field(factory=list)

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def stored(self) -> list[Stored]:
        return [*self.shards, *([self.labels] if self.labels else [])]


@attrs.frozen
class Manifest:
    """classes: their names in order; empty where images have no labels, and `unlabelled` says why they have none."""

    plan: Plan
    splits: dict[str, Split]
    classes: list[str] = attrs.field(factory=list)
    unlabelled: str = ""
    finished: bool = False
    format: int = FORMAT

    @property
    def stored(self) -> list[Stored]:
        return [one for split in self.splits.values() for one in split.stored]

    def to_json(self) -> str:
        return json.dumps(cattrs.unstructure(self), indent=1) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Raises FileNotFoundError, and ValueError for one that this version cannot read."""
    text = (folder / MANIFEST).read_bytes()
    try:
        held = json.loads(text)
        version = held["format"]
    except Exception as error:
        raise ValueError(f"{folder / MANIFEST} is damaged: {error}") from error
    if version != FORMAT:
        raise ValueError(f"{folder / MANIFEST} has format {version!r}; this version reads {FORMAT}")
    try:
        return cattrs.Converter(forbid_extra_keys=True).structure(held, Manifest)
    except Exception as error:  # cattrs collects them in groups
        first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        raise ValueError(f"{folder / MANIFEST} is damaged: {' '.join(str(first).split())}") from error


def faults(folder: Path, stored: list[Stored]) -> Iterator[str]:
    """A line for each file that is missing or has another size than the manifest says. Reads no file."""
    for one in stored:
        path = folder / one.name
        if not path.is_file():
            yield f"{path} is missing"
        elif path.stat().st_size != one.bytes:
            yield f"{path} is torn: {path.stat().st_size} bytes, where the manifest says {one.bytes}"


def hash_faults(
    folder: Path, stored: list[Stored], progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[str]:
    """A line for each file that is not what the manifest says, byte for byte. Progress gets (bytes done, in all)."""
    done, total = 0, sum(one.bytes for one in stored)
    for one in stored:
        problems = list(faults(folder, [one]))
        if not problems and _sha256(folder / one.name) != one.sha256:
            problems = [f"{folder / one.name} is damaged: its SHA-256 is not the manifest's"]
        yield from problems
        done += one.bytes
        progress(done, total)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def map_array(path: Path) -> np.ndarray:
    """The array of a .npy file, read as it is touched. Raises what numpy raises for a file that is not one."""
    return np.load(path, mmap_mode="r", allow_pickle=False)
