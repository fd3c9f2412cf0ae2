"""The files that `jointgen data prepare` writes: memory-mapped uint8 shards, labels, and a manifest.

DEST/manifest.json          the files, how they were made, and what was skipped
DEST/train-00000.npy        (N, C, size, size) uint8
DEST/train-labels.npy       (N,) int64 over all shards, where the images lie in class folders
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import cattrs
import numpy as np

from jointgen.runtime.hashing import sha256_of_file

FORMAT = 1
MANIFEST = "manifest.json"


@attrs.frozen
class PreparationPlan:
    """The settings that decide every byte of a preparation.

    Args:
        source: The SHA-256 of the names and sizes of the image files, split by split.
        size: Height and width, in pixels.
        channels: 1 (grey) or 3 (colour).
        test_fraction: The share of the images that became the test split; None where the source had one.
        shard_files: The number of image files of one shard; broken ones leave it shorter.
    """

    source: str
    size: int
    channels: int
    test_fraction: float | None
    shard_files: int


@attrs.frozen
class StoredFile:
    """One file of a preparation; `rows` counts along its first axis."""

    name: str
    rows: int
    bytes: int
    sha256: str


@attrs.frozen
class SkippedFile:
    """An image file that could not be read."""

    name: str
    reason: str


@attrs.frozen
class PreparedSplit:
    """A split of a preparation.

    Args:
        files: The number of image files in the source.
        shards: The shards in order.
        labels: The file of the labels, where there are any.
        modes: How many of the images that were read had each of Pillow's modes.
        skipped: The files that could not be read.
    """

    files: int
    shards: list[StoredFile] = attrs.field(factory=list)
    labels: StoredFile | None = None
    modes: dict[str, int] = attrs.field(factory=dict)
    skipped: list[SkippedFile] = attrs.field(factory=list)

    @property
    def rows(self) -> int:
        """The number of images in all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def stored(self) -> list[StoredFile]:
        """Every file that the manifest names."""
        return [*self.shards, *([self.labels] if self.labels else [])]


@attrs.frozen
class PreparedManifest:
    """The manifest of a preparation.

    Args:
        plan: The settings that decide its bytes.
        splits: By name.
        classes: Their names in order; empty where images have no labels.
        unlabelled: Why there are no labels, or an empty string.
        finished: Whether every split is whole.
        format: The version of the files' format.
    """

    plan: PreparationPlan
    splits: dict[str, PreparedSplit]
    classes: list[str] = attrs.field(factory=list)
    unlabelled: str = ""
    finished: bool = False
    format: int = FORMAT

    @property
    def stored(self) -> list[StoredFile]:
        """Every file that the manifest names."""
        return [one for split in self.splits.values() for one in split.stored]

    def to_json(self) -> str:
        """The manifest as it is written."""
        return json.dumps(cattrs.unstructure(self), indent=1) + "\n"


def read_manifest(folder: Path) -> PreparedManifest:
    """Read the manifest of a prepared folder.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged or of another format.
    """
    text = (folder / MANIFEST).read_bytes()
    try:
        held = json.loads(text)
        version = held["format"]
    except Exception as error:
        raise ValueError(f"{folder / MANIFEST} is damaged: {error}") from error
    if version != FORMAT:
        raise ValueError(f"{folder / MANIFEST} has format {version!r}; this version reads {FORMAT}")
    try:
        return cattrs.Converter(forbid_extra_keys=True).structure(held, PreparedManifest)
    except Exception as error:  # cattrs collects them in groups
        first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        raise ValueError(f"{folder / MANIFEST} is damaged: {' '.join(str(first).split())}") from error


def size_faults(folder: Path, stored: list[StoredFile]) -> Iterator[str]:
    """Yield a line for each file that is missing or has another size than the manifest says; read no file."""
    for one in stored:
        path = folder / one.name
        if not path.is_file():
            yield f"{path} is missing"
        elif path.stat().st_size != one.bytes:
            yield f"{path} is torn: {path.stat().st_size} bytes, where the manifest says {one.bytes}"


def hash_faults(
    folder: Path, stored: list[StoredFile], progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[str]:
    """Yield a line for each file that differs from the manifest in any byte; progress gets (bytes done, in all)."""
    done, total = 0, sum(one.bytes for one in stored)
    for one in stored:
        problems = list(size_faults(folder, [one]))
        if not problems and sha256_of_file(folder / one.name) != one.sha256:
            problems = [f"{folder / one.name} is damaged: its SHA-256 is not the manifest's"]
        yield from problems
        done += one.bytes
        progress(done, total)


def map_array(path: Path) -> np.ndarray:
    """Map the array of a .npy file into memory. Raises what numpy raises for another kind of file."""
    return np.load(path, mmap_mode="r", allow_pickle=False)
