"""Prepares a folder of images for training: decodes and resizes them once into shards (`jointgen.images.shards`).

The work goes shard by shard. Each is decoded on all cores, written to a temporary file, flushed and renamed, and then
entered in the manifest, so that a kill leaves whole shards and the same command continues after them. The plan alone
decides what a shard holds, so its bytes depend neither on the number of workers nor on interruptions.
"""

from __future__ import annotations

import collections
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from filelock import FileLock, Timeout

from jointgen.config.fields import MAX_SIDE
from jointgen.errors import ConfigError, FileError, JointgenError, MissingFileError, Problems
from jointgen.images.decode import Decode, decoding_images, drop_rows, too_many_broken
from jointgen.images.folders import Listing, list_source
from jointgen.images.shards import (
    MANIFEST,
    PreparationPlan,
    PreparedManifest,
    PreparedSplit,
    SkippedFile,
    StoredFile,
    check_files,
    read_manifest,
)
from jointgen.runtime.atomic_files import replace_bytes, replace_text, writing
from jointgen.runtime.hashing import sha256_of
from jointgen.runtime.regular_files import unreadable, user_path
from jointgen.text import visible

SHARD_BYTES = 128 << 20  # in memory while a shard is made
LOCK = ".lock"

Progress = Callable[[int, int], None]


def prepare_images(
    source: str | Path,
    dest: str | Path,
    size: int,
    channels: int = 3,
    *,
    workers: int = 0,
    max_broken: int = 10,
    test_fraction: float | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda done, total: None,
) -> tuple[PreparedManifest, bool]:
    """Prepare the images of a folder, or continue an interrupted preparation.

    Args:
        source: A folder with train/CLASS/* and val/CLASS/* (or test/), or with only one of these, or with images in
            any folders.
        dest: The new folder.
        size: Height and width of the prepared images, in pixels.
        channels: 1 (grey) or 3 (colour).
        workers: The number of threads; 0: one for each core.
        max_broken: How many files may be unreadable; each is skipped and named in the manifest.
        test_fraction: The share that becomes the test split where `source` has no test images of its own.
        shard_bytes: The size of a shard, in bytes.
        progress: Called with (files done, files in all).

    Returns:
        The manifest, and whether there was anything to do.

    Raises:
        ConfigError: The source has no images, the destination holds something else, or too many files are broken.
        JointgenError: The disk is full. Whole shards are kept.
    """
    if size > MAX_SIDE:
        raise ConfigError(f"{size} pixels a side; expected at most {MAX_SIDE}", "--size")
    listing = list_source(user_path(source), test_fraction)
    dest = user_path(dest)
    _check_apart(dest, listing)
    shard_files = max(1, shard_bytes // (channels * size * size))
    plan = PreparationPlan(listing.digest(), size, channels, listing.test_fraction, shard_files)
    held = _held(dest, plan)
    if held is not None and held.finished:
        return held, False
    with _locked(dest), decoding_images(workers) as decode:
        splits = {split: PreparedSplit(len(names)) for split, names in listing.names.items()}
        begun = _held(dest, plan) or PreparedManifest(plan, splits, listing.classes, listing.unlabelled)
        packer = _Packer(listing, dest, begun, max_broken, progress)
        return packer.pack(decode), True


# --- the destination -------------------------------------------------------------------------------------------------


def _check_apart(dest: Path, listing: Listing) -> None:
    for folder in listing.folders.values():
        if Path(os.path.realpath(dest)).is_relative_to(os.path.realpath(folder)):
            raise FileError(dest, f"lies inside {folder}, whose images are to be prepared; give a folder elsewhere")


def _held(dest: Path, plan: PreparationPlan) -> PreparedManifest | None:
    """The manifest of a preparation that exists, whole or begun; ConfigError for another one and for other files."""
    try:
        held = read_manifest(dest)
    except MissingFileError:
        if strangers := [name for name in _names_in(dest) if not name.startswith(".")]:
            raise FileError(dest, f"holds other files ({min(strangers)}); give a new folder") from None
        return None
    if held.plan != plan:
        raise FileError(dest, f"holds another preparation ({_difference(held.plan, plan)}); give another folder")
    check_files(dest, held)
    return held


def _names_in(dest: Path) -> list[str]:
    try:
        return os.listdir(dest)
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise FileError(dest, "is not a folder") from None
    except OSError as error:
        raise unreadable(dest, error) from None


def _difference(held: PreparationPlan, wanted: PreparationPlan) -> str:
    here = attrs.asdict(wanted)
    differing = {name: there for name, there in attrs.asdict(held).items() if there != here[name]}
    if "source" in differing:
        return "of other images, or of these before they changed"
    name, there = next(iter(differing.items()))
    return f"{name.replace('_', ' ')} {there}, not {here[name]}"


@contextmanager
def _locked(dest: Path) -> Iterator[None]:
    """Make the folder and lock out other processes while this one works in it."""
    lock = FileLock(dest / LOCK, timeout=0)
    try:
        dest.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(dest / LOCK) and not stat.S_ISREG(os.lstat(dest / LOCK).st_mode):
            raise FileError(dest / LOCK, "is not a file, as `jointgen data prepare` leaves it; remove it")
        lock.acquire()
    except Timeout:
        raise FileError(dest, "another `jointgen data prepare` is writing there") from None
    except OSError as error:
        raise FileError(dest, f"cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


# --- packing ---------------------------------------------------------------------------------------------------------


class _Packer:
    """Carries a manifest from where it stands to its end."""

    def __init__(self, listing: Listing, dest: Path, manifest: PreparedManifest, max_broken: int, progress: Progress):
        self.listing, self.dest, self.manifest, self.max_broken = listing, dest, manifest, max_broken
        self.progress = progress
        self.done = 0  # files

    def pack(self, decode: Decode) -> PreparedManifest:
        self._keep()
        for split, names in self.listing.names.items():
            step = self.manifest.plan.shard_files
            for number, start in enumerate(range(0, len(names), step)):
                if number < len(self.manifest.splits[split].shards):
                    self.done += len(names[start : start + step])
                else:
                    self._pack_shard(decode, split, number, names[start : start + step])
            self._finish(split)
        self._keep(finished=True)
        return self.manifest

    def _pack_shard(self, decode: Decode, split: str, number: int, names: Sequence[str]) -> None:
        plan, held = self.manifest.plan, self.manifest.splits[split]
        images = np.empty((len(names), plan.channels, plan.size, plan.size), np.uint8)
        modes = collections.Counter(held.modes)
        broken: list[tuple[int, str]] = []
        folder = f"{self.listing.folders[split]}/"
        for decoded in decode([folder + name for name in names], images):
            modes += decoded.modes
            broken += [(index, why.replace(folder, "")) for index, why in decoded.failures]
            self._check_limit([(names[index], why) for index, why in broken])
            self.done += decoded.files
            self.progress(self.done, self.listing.files)
        whole, _ = drop_rows(images, [index for index, _ in broken])
        stored = self._write(f"{split}-{number:05d}.npy", whole)
        skipped = [*held.skipped, *(SkippedFile(names[index], why) for index, why in broken)]
        self._keep(split, shards=[*held.shards, stored], skipped=skipped, modes=dict(sorted(modes.items())))

    def _check_limit(self, broken: list[tuple[str, str]]) -> None:
        before = [(one.name, one.reason) for split in self.manifest.splits.values() for one in split.skipped]
        if problem := too_many_broken([*before, *broken], self.max_broken, "--max-broken"):
            raise ConfigError(problem, "--max-broken")

    def _finish(self, split: str) -> None:
        """Write the labels, once it is known which images could be read."""
        held = self.manifest.splits[split]
        if not held.rows:
            folder = self.listing.folders[split]
            raise FileError(folder, f"none of its {held.files} images can be read: {held.skipped[0].reason}")
        if self.listing.labels and held.labels is None:
            gone = {one.name for one in held.skipped}
            pairs = zip(self.listing.names[split], self.listing.labels[split], strict=True)
            labels = np.array([label for name, label in pairs if name not in gone], np.int64)
            self._keep(split, labels=self._write(f"{split}-labels.npy", labels))

    def _write(self, name: str, array: np.ndarray) -> StoredFile:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
        chunks = header.getvalue(), np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        with self._writing():
            replace_bytes(self.dest / name, *chunks)
        return StoredFile(name, len(array), sum(len(chunk) for chunk in chunks), sha256_of(*chunks))

    def _keep(self, split: str = "", *, finished: bool = False, **changes: Any) -> None:
        """Write the manifest with these changes of a split."""
        splits = dict(self.manifest.splits)
        if split:
            splits[split] = attrs.evolve(splits[split], **changes)
        self.manifest = attrs.evolve(self.manifest, splits=splits, finished=self.manifest.finished or finished)
        with self._writing():
            replace_text(self.dest / MANIFEST, self.manifest.to_json())

    def _writing(self) -> AbstractContextManager[None]:
        shards = sum(len(split.shards) for split in self.manifest.splits.values())
        kept = f"the {shards} whole shards so far are kept, and the same command continues after them"
        return writing(self.dest, lambda message: JointgenError(f"{message}; {kept}"))


# --- reports ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Report:
    """A finished preparation in words.

    Args:
        held: What the folder holds, in one line.
        skipped: A line for each broken file.
    """

    held: str
    skipped: list[str]


def report(manifest: PreparedManifest) -> Report:
    """Describe a finished preparation."""
    plan, splits = manifest.plan, manifest.splits
    rows = " + ".join(f"{split.rows} {name}" for name, split in splits.items())
    classes = f"{len(manifest.classes)} classes" if manifest.classes else f"no labels ({visible(manifest.unlabelled)})"
    mebibytes = sum(one.bytes for one in manifest.stored) / 2**20
    held = [f"{rows} images {plan.channels}x{plan.size}x{plan.size}, {classes}, {mebibytes:.1f} MiB"]
    modes = sum((collections.Counter(split.modes) for split in splits.values()), collections.Counter[str]())
    others = [f"{n} of mode {mode}" for mode, n in sorted(modes.items()) if mode != {1: "L", 3: "RGB"}[plan.channels]]
    held += [f"converted: {', '.join(others)}"] if others else []
    skipped = [f"skipped {name}/{one.name}: {one.reason}" for name, split in splits.items() for one in split.skipped]
    held += [f"{len(skipped)} skipped"] if skipped else []
    held += [f"the test images are held out, a share of {plan.test_fraction:g}"] if plan.test_fraction else []
    return Report("; ".join(held), skipped)


def verify(dest: str | Path, progress: Progress = lambda done, total: None) -> PreparedManifest:
    """Read every byte of a prepared folder and compare it with the manifest.

    Args:
        dest: The folder.
        progress: Called with (bytes done, bytes in all).

    Returns:
        The manifest.

    Raises:
        ConfigError: With a problem for each file that is not what the manifest says.
    """
    folder, problems = user_path(dest), Problems()
    try:
        manifest = read_manifest(folder)
    except MissingFileError:
        raise FileError(folder, f"holds no prepared images (it has no {MANIFEST})") from None
    with problems.collect():
        check_files(folder, manifest, every_byte=True, progress=progress)
    with problems.collect():
        if not manifest.finished:
            raise FileError(folder, "is not finished; run the same `jointgen data prepare` again to continue")
    problems.raise_any()
    return manifest
