"""The files that `jointgen data prepare` writes: memory-mapped uint8 shards, labels, and a manifest.

DEST/manifest.json          the files, how they were made, what was skipped, and a hash of itself
DEST/train-00000.npy        (N, C, size, size) uint8
DEST/train-labels.npy       (N,) int64 over all shards, where the images lie in class folders

They lie on the user's disk and may have changed since they were written, so nothing in them is taken on trust. The
manifest is read strictly and has to agree with itself. Opening a split checks that each of its files lies in the
folder, has the size, type and shape that the manifest says, and reads the labels, which are small, to the last byte;
`jointgen data verify` reads every byte of all.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import cattrs
import numpy as np

from jointgen.config.documents import parse_document
from jointgen.config.fields import fraction, non_negative, positive, valid_side
from jointgen.errors import FileError, MissingFileError, Problems
from jointgen.runtime.hashing import has_seal, sealed, sha256_of_file
from jointgen.runtime.regular_files import check_regular, read_regular, unreadable
from jointgen.text import listed

FORMAT = 2
"""The format that is written. Format 1, which is read too, has no hash of the manifest."""
MANIFEST = "manifest.json"
REMEDY = "remove the folder and prepare it again"

_MAX_HEADER_BYTES = 4096  # of a .npy file; numpy writes 128

Progress = Callable[[int, int], None]

# --- the manifest ----------------------------------------------------------------------------------------------------


def _is_hash(instance: Any, attribute: Any, value: str) -> None:
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"{attribute.name!r} must be a SHA-256, got {value!r}")


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

    source: str = attrs.field(validator=_is_hash)
    size: int = attrs.field(validator=valid_side)
    channels: int = attrs.field(validator=attrs.validators.in_((1, 3)))
    test_fraction: float | None = attrs.field(validator=fraction)
    shard_files: int = attrs.field(validator=positive)


@attrs.frozen
class StoredFile:
    """One file of a preparation; `rows` counts along its first axis."""

    name: str
    rows: int = attrs.field(validator=non_negative)
    bytes: int = attrs.field(validator=positive)
    sha256: str = attrs.field(validator=_is_hash)


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

    files: int = attrs.field(validator=positive)
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
        sha256: The hash of the manifest's own text, with nothing in the place of this hash; empty in format 1 and
            before it is written.
    """

    plan: PreparationPlan
    splits: dict[str, PreparedSplit]
    classes: list[str] = attrs.field(factory=list)
    unlabelled: str = ""
    finished: bool = False
    format: int = FORMAT
    sha256: str = attrs.field(default="", eq=False)

    @property
    def stored(self) -> list[StoredFile]:
        """Every file that the manifest names."""
        return [one for split in self.splits.values() for one in split.stored]

    def to_json(self) -> str:
        """The manifest as it is written, in the present format and with its hash."""
        bare = attrs.evolve(self, format=FORMAT, sha256="")
        return sealed(json.dumps(cattrs.unstructure(bare), indent=1) + "\n")


def read_manifest(folder: Path) -> PreparedManifest:
    """Read the manifest of a prepared folder.

    Raises:
        MissingFileError: There is none.
        FileError: It is damaged, of another format, or does not agree with itself.
    """
    path = folder / MANIFEST
    data = read_regular(path)
    try:
        version = parse_document(data, dict[str, Any]).get("format")
        if version not in (1, FORMAT):
            raise FileError(path, f"has format {version!r}; this version reads 1 and {FORMAT}")
        manifest = parse_document(data, PreparedManifest)
        if problem := next(_contradictions(manifest, data), None):
            raise ValueError(problem)
    except ValueError as error:
        raise FileError(path, f"is damaged ({error}); {REMEDY}") from None
    return manifest


def _contradictions(manifest: PreparedManifest, data: bytes) -> Iterator[str]:
    """Yield what shows that a manifest is not what was written; `data` is its text."""
    if (manifest.format != 1 or manifest.sha256) and not has_seal(data, manifest.sha256):
        yield "its SHA-256 is another than it says"
    if set(manifest.splits) != {"train", "test"}:
        yield "it does not have both splits"
    if bool(manifest.classes) == bool(manifest.unlabelled):
        yield "it has to have either classes or a reason why there are none"
    if twice := sorted({name for name in manifest.classes or () if manifest.classes.count(name) > 1}):
        yield f"classes that stand twice: {listed(map(repr, twice))}"
    for split, held in manifest.splits.items():
        yield from (f"splits.{split}{what}" for what in _contradictions_in(manifest, split, held))


def _contradictions_in(manifest: PreparedManifest, split: str, held: PreparedSplit) -> Iterator[str]:
    step, image = manifest.plan.shard_files, _image_bytes(manifest.plan)
    packed = min(held.files, step * len(held.shards))
    for number, shard in enumerate(held.shards):
        room = min(step, held.files - number * step)
        expected = f"{split}-{number:05d}.npy"
        if shard.name != expected:
            yield f".shards[{number}].name: {shard.name!r}, and only {expected!r} can be there"
        if not shard.rows <= room:
            yield f".shards[{number}].rows: {shard.rows} of {room} files"
        if not 0 < shard.bytes - shard.rows * image <= _MAX_HEADER_BYTES:
            yield f".shards[{number}].bytes: {shard.bytes} for {shard.rows} images of {image} bytes"
    if held.rows + len(held.skipped) != packed:
        yield f": {held.rows} rows and {len(held.skipped)} skipped files, of {packed}"
    if sum(held.modes.values()) != held.rows:
        yield f".modes: {sum(held.modes.values())} images of {held.rows}"
    if held.labels and (held.labels.name != f"{split}-labels.npy" or held.labels.rows != held.rows):
        yield f".labels: {held.labels.name!r} of {held.labels.rows} rows; expected {split}-labels.npy of {held.rows}"
    if held.labels and not 0 < held.labels.bytes - 8 * held.labels.rows <= _MAX_HEADER_BYTES:
        yield f".labels.bytes: {held.labels.bytes} for {held.labels.rows} labels"
    if held.labels and not manifest.classes:
        yield ".labels: there are no classes"
    if manifest.finished and (packed < held.files or not held.rows or (manifest.classes and not held.labels)):
        yield ": it is said to be finished, and is not"


def _image_bytes(plan: PreparationPlan) -> int:
    return plan.channels * plan.size * plan.size


# --- the files -------------------------------------------------------------------------------------------------------


def check_files(
    folder: Path,
    manifest: PreparedManifest,
    splits: Iterable[str] = ("train", "test"),
    *,
    every_byte: bool = False,
    progress: Progress = lambda done, total: None,
) -> None:
    """Check the files of some splits: where they lie, their sizes, types and shapes, and every byte of the labels.

    Args:
        folder: The prepared folder.
        manifest: Its manifest.
        splits: The splits.
        every_byte: Whether the hashes of the images are compared too.
        progress: Called with (bytes done, bytes in all).

    Raises:
        ConfigError: With a problem for each file that is not what the manifest says.
    """
    problems = Problems()
    files = [(split, one) for split in splits for one in manifest.splits[split].stored]
    done, total = 0, sum(one.bytes for _, one in files)
    for split, stored in files:
        labels = stored is manifest.splits[split].labels
        with problems.collect():
            array = _map(folder, stored, manifest.plan, labels)
            if labels or every_byte:
                _check_hash(folder / stored.name, stored)
            if labels:
                _check_range(folder / stored.name, array, len(manifest.classes))
        done += stored.bytes
        progress(done, total)
    problems.raise_any()


def map_split(folder: Path, manifest: PreparedManifest, split: str) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Map the shards of a split into memory, those that hold anything, and its labels.

    Raises:
        FileError: A file is not what the manifest says.
    """
    held = manifest.splits[split]
    shards = [_map(folder, shard, manifest.plan, labels=False) for shard in held.shards if shard.rows]
    return shards, _map(folder, held.labels, manifest.plan, labels=True) if held.labels else None


def _map(folder: Path, stored: StoredFile, plan: PreparationPlan, labels: bool) -> np.ndarray:
    path = folder / stored.name
    _check_size(path, folder, stored)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise unreadable(path, error) from None
    except Exception:  # numpy raises several things for a header that is none
        raise FileError(path, f"is damaged: numpy cannot read its header; {REMEDY}") from None
    shape = (stored.rows,) if labels else (stored.rows, plan.channels, plan.size, plan.size)
    dtype = np.dtype(np.int64 if labels else np.uint8)
    if (array.shape, array.dtype) != (shape, dtype) or not array.flags.c_contiguous:
        held = f"{array.dtype} {array.shape}{'' if array.flags.c_contiguous else ' in the order of Fortran'}"
        raise FileError(path, f"holds {held}, which is not what the manifest says; {REMEDY}")
    return array


def _check_size(path: Path, folder: Path, stored: StoredFile) -> None:
    """Check that the file lies in the folder, also where its name is a link, and has its size."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise FileError(path, f"is a link out of the folder; {REMEDY}")
    try:
        size = check_regular(path).st_size
    except MissingFileError:
        raise FileError(path, f"is missing; {REMEDY}") from None
    if size != stored.bytes:
        raise FileError(path, f"is torn: {size} bytes, where the manifest says {stored.bytes}; {REMEDY}")


def _check_hash(path: Path, stored: StoredFile) -> None:
    try:
        digest = sha256_of_file(path)
    except OSError as error:
        raise unreadable(path, error) from None
    if digest != stored.sha256:
        raise FileError(path, f"is damaged: its SHA-256 is not the manifest's; {REMEDY}")


def _check_range(path: Path, labels: np.ndarray, classes: int) -> None:
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise FileError(path, f"has labels {labels.min()} to {labels.max()}, of {classes} classes; {REMEDY}")
