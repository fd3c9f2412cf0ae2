"""Measures the time of a batch and the memory of the process, as a prepared data set grows from 10^3 to 10^6 images.

    uv run python benchmarks/data.py [--folder DIR] [--largest N] [--prepare SOURCE]

Writes synthetic 32x32 colour images as the shards of `jointgen data prepare` (3 GiB for 10^6, removed afterwards) and
reads each set in a process of its own, on one thread, through the loader of a run: batches of 128 in random order.
Prints Markdown tables. Time is the process's own, because machines are shared; memory is anonymous (what is not a page
of a file, which the kernel drops when it needs room) at its peak, above what it was when the set was opened.

--prepare: instead, how fast this folder of images is prepared, on one worker and on two.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jointgen_data.prepared import PreparedImages

from jointgen.contracts.noise import Noise
from jointgen.contracts.sources import augmentation_of
from jointgen.data.device import DeviceRows
from jointgen.data.row_order import RowOrder
from jointgen.images.prepare import SHARD_BYTES, prepare_images
from jointgen.images.shards import MANIFEST, PreparationPlan, PreparedManifest, PreparedSplit, StoredFile

SIDE, BATCH, BATCHES = 32, 128, 500
NO_HASH = "0" * 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="where the sets are written (default: a temporary folder)")
    parser.add_argument("--largest", type=int, default=10**6)
    parser.add_argument("--prepare", metavar="SOURCE")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read(arguments.read)))
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


def write_set(folder: Path, rows: int) -> None:
    """Write random images, shard by shard, with a manifest without valid hashes."""
    plan = PreparationPlan(NO_HASH, SIDE, 3, None, SHARD_BYTES // (3 * SIDE * SIDE))
    splits = {
        split: PreparedSplit(n, list(write_shards(folder, split, n, plan.shard_files)), modes={"RGB": n})
        for split, n in (("train", rows), ("test", 1))
    }
    (folder / MANIFEST).write_text(PreparedManifest(plan, splits, finished=True, unlabelled="synthetic").to_json())


def write_shards(folder: Path, split: str, rows: int, each: int) -> Iterator[StoredFile]:
    generator = np.random.default_rng(0)
    for number, start in enumerate(range(0, rows, each)):
        name, count = f"{split}-{number:05d}.npy", min(each, rows - start)
        np.save(folder / name, generator.integers(0, 256, (count, 3, SIDE, SIDE), np.uint8))
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
