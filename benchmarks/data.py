"""Measures the time of a batch and the memory of the process, as a prepared data set grows from 10^3 to 10^6 images.

    uv run python benchmarks/data.py [--folder DIR] [--largest N] [--prepare SOURCE] [--sources [ROUNDS]]

Writes synthetic 32x32 colour images as the shards of `jointgen data prepare` (3 GiB for 10^6, removed afterwards) and
reads each set in a process of its own, on one thread, through the loader of a run: batches of 128 in random order.
Prints Markdown tables. Time is the process's own, because machines are shared; memory is anonymous (what is not a page
of a file, which the kernel drops when it needs room) at its peak, above what it was when the set was opened.

--prepare: instead, how fast this folder of images is prepared, on one worker and on two.
--sources: instead, each source that reads images beside a uint8 tensor in memory that is indexed by a permutation, as
    images[rows] and by index_select, with flips and crops by hand where the source has them. All in turns in one
    process; the median of the ratios of images/s, and their quartiles.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jointgen_data.arrays import Arrays
from jointgen_data.mnist import MNIST
from jointgen_data.prepared import PreparedImages
from torch import Tensor

from jointgen.contracts.noise import Noise
from jointgen.contracts.sources import augmentation_of
from jointgen.data.device import DeviceRows
from jointgen.data.row_order import RowOrder
from jointgen.images.prepare import SHARD_BYTES, prepare_images
from jointgen.images.shards import MANIFEST, PreparationPlan, PreparedManifest, PreparedSplit, StoredFile

SIDE, BATCH, BATCHES = 32, 128, 500
WINDOW = 40  # batches that are timed together
NO_HASH = "0" * 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="where the sets are written (default: a temporary folder)")
    parser.add_argument("--largest", type=int, default=10**6)
    parser.add_argument("--prepare", metavar="SOURCE")
    parser.add_argument("--sources", metavar="ROUNDS", nargs="?", type=int, const=41)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read(arguments.read)))
    elif arguments.sources:
        beside_plain(arguments.folder, arguments.sources)
    elif arguments.prepare:
        preparing(arguments.prepare, arguments.folder)
    else:
        growing(arguments.folder, arguments.largest)


# --- reading ---------------------------------------------------------------------------------------------------------


def growing(folder: str | None, largest: int) -> None:
    print("| images | on disk | ms a batch (CPU) | peak anonymous memory | of which the order of rows |")
    print("|---|---|---|---|---|")
    for rows in (10**n for n in range(3, 7) if 10**n <= largest):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            write_set(Path(place), rows)
            command = [sys.executable, __file__, "--read", place]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        disk, order = rows * 3 * SIDE * SIDE, 8 * rows
        print(
            f"| {rows:,} | {disk / 2**20:,.0f} MiB | {found['ms']:.2f} | + {found['grown'] / 2**20:.1f} MiB | "
            f"{order / 2**20:.1f} MiB |",
            flush=True,
        )


def write_set(folder: Path, rows: int, side: int = SIDE) -> None:
    """Write random images, shard by shard, with a manifest without valid hashes."""
    plan = PreparationPlan(NO_HASH, side, 3, None, SHARD_BYTES // (3 * side * side))
    splits = {
        split: PreparedSplit(n, list(write_shards(folder, split, n, plan.shard_files, side)), modes={"RGB": n})
        for split, n in (("train", rows), ("test", 1))
    }
    (folder / MANIFEST).write_text(PreparedManifest(plan, splits, finished=True, unlabelled="synthetic").to_json())


def write_shards(folder: Path, split: str, rows: int, each: int, side: int) -> Iterator[StoredFile]:
    generator = np.random.default_rng(0)
    for number, start in enumerate(range(0, rows, each)):
        name, count = f"{split}-{number:05d}.npy", min(each, rows - start)
        np.save(folder / name, generator.integers(0, 256, (count, 3, side, side), np.uint8))
        yield StoredFile(name, count, (folder / name).stat().st_size, NO_HASH)


def read(folder: str) -> dict[str, float]:
    """Return the seconds of a batch in this process, and the growth of its anonymous memory while it reads."""
    torch.set_num_threads(1)
    rows = PreparedImages(folder, flip=True).open("train")
    augment = augmentation_of(rows)
    before = peak = anonymous()
    loader = RowOrder(rows, BATCH, 0)
    fetch = DeviceRows(rows, loader.rows_of, torch.device("cpu"), resident=False)
    loader.rows_of(0)  # an epoch's order, once an epoch
    started = time.process_time()
    for number in range(BATCHES):
        augment(fetch(number), Noise(0, number).named("augment", BATCH))
        if number % 50 == 0:
            peak = max(peak, anonymous())
    return {"ms": 1e3 * (time.process_time() - started) / BATCHES, "grown": max(peak, anonymous()) - before}


def anonymous() -> int:
    """Return the anonymous memory of this process in bytes (Linux)."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


# --- beside plain indexing -------------------------------------------------------------------------------------------


def beside_plain(folder: str | None, rounds: int) -> None:
    torch.set_num_threads(1)
    print("| source | images/s of a core: `images[rows]` | `index_select` | the source | ratio | to the second |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for title, source, plain in pairs(Path(place)):
            arms = [plain, partial(plain, select=True), reading(source.open("train"))]
            for number in range(2):  # to warm up, and to have every page of a mapped file at hand
                [arm(number) for arm in arms]
            spent = [[cpu_of(arm, number) for arm in arms] for number in range(rounds)]
            rates = [f"{BATCH * WINDOW / statistics.median(arm):,.0f}" for arm in zip(*spent, strict=True)]
            ratios = [shown([round_[arm] / round_[2] for round_ in spent]) for arm in (0, 1)]
            print(f"| {title} | {' | '.join([*rates, *ratios])} |", flush=True)


def shown(ratios: list[float]) -> str:
    """The median and the quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def pairs(folder: Path) -> Iterator[tuple[str, Any, Plain]]:
    """Yield sources, and the function that reads as much of a tensor in memory."""
    generator = np.random.default_rng(0)
    for name, side in (("whole", SIDE), ("larger", SIDE + 8)):
        (folder / name).mkdir()
        write_set(folder / name, 20_000, side)
    np.save(folder / "images.npy", generator.integers(0, 256, (20_000, 3, SIDE, SIDE), np.uint8))
    write_mnist(folder, 60_000)
    digits = torch.from_numpy(generator.integers(0, 256, (60_000, 1, 28, 28), np.uint8))
    whole, larger = (torch.from_numpy(generator.integers(0, 256, (20_000, 3, s, s), np.uint8)) for s in (32, 40))
    yield "`mnist`, 28x28", MNIST(str(folder)), Plain(digits)
    yield "`arrays`, 32x32", Arrays(str(folder / "images.npy"), test_fraction=0.01), Plain(whole)
    yield "`prepared`, 32x32", PreparedImages(str(folder / "whole")), Plain(whole)
    yield "`prepared`, 32x32, flips", PreparedImages(str(folder / "whole"), flip=True), Plain(whole, flip=True)
    cropped = PreparedImages(str(folder / "larger"), crop=SIDE, flip=True)
    yield "`prepared`, 40x40, crops of 32x32 and flips", cropped, Plain(larger, flip=True, crop=SIDE)


def write_mnist(root: Path, rows: int) -> None:
    """Write MNIST's four IDX files with random images, mostly black as digits are, and every label."""
    folder, generator = root / "MNIST" / "raw", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for split, count in (("train", rows), ("t10k", 512)):
        images = generator.integers(0, 256, (count, 28, 28), np.uint8)
        images *= generator.random((count, 28, 28), np.float32) < 0.2
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, count, 28, 28) + images.tobytes())
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels.tobytes())


def reading(rows: Any) -> Callable[[int], object]:
    """Read a batch by its number as a run does, and augment it."""
    augment, order = augmentation_of(rows), RowOrder(rows, BATCH, 0)
    fetch = DeviceRows(rows, order.rows_of, torch.device("cpu"), resident=False)
    return lambda number: augment(fetch(number), Noise(0, number).named("augment", BATCH))


class Plain:
    """Indexes images in memory by a permutation, as a loop written by hand does."""

    def __init__(self, images: Tensor, flip: bool = False, crop: int | None = None):
        self.images, self.flip, self.crop = images, flip, crop
        self.order = torch.randperm(len(images))

    def __call__(self, number: int, select: bool = False) -> Tensor:
        start = number * BATCH % (len(self.images) - BATCH)
        rows = self.order[start : start + BATCH]
        x = self.images.index_select(0, rows) if select else self.images[rows]
        if self.crop:
            margin, grid = x.shape[-1] - self.crop + 1, torch.arange(self.crop)
            top, left = (torch.randint(margin, (len(x), 1)) + grid for _ in range(2))
            row, channel = torch.arange(len(x))[:, None, None, None], torch.arange(3)[:, None, None]
            x = x[row, channel, top[:, None, :, None], left[:, None, None, :]]
        return torch.where((torch.rand(len(x)) < 0.5).view(-1, 1, 1, 1), x.flip(-1), x) if self.flip else x


def cpu_of(read: Callable[[int], object], window: int) -> float:
    """The process's own seconds for a window of batches."""
    began = time.process_time()
    for number in range(window * WINDOW, (window + 1) * WINDOW):
        read(number)
    return time.process_time() - began


# --- preparing -------------------------------------------------------------------------------------------------------


def preparing(source: str, folder: str | None) -> None:
    print("| workers | files/s (wall) | files/s of one core (CPU) | written |")
    print("|---|---|---|---|")
    for workers in (1, 2):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            wall, cpu = time.perf_counter(), time.process_time()
            manifest, _ = prepare_images(source, Path(place) / "prepared", 64, workers=workers)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        files, size = sum(split.files for split in manifest.splits.values()), sum(one.bytes for one in manifest.stored)
        print(f"| {workers} | {files / wall:.0f} | {files / cpu:.0f} | {size / 2**20:.1f} MiB |", flush=True)


if __name__ == "__main__":
    main()
