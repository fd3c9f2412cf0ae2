"""Image files of any size and mode -> uint8 squares, on a thread pool; what cannot be read is skipped by name."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
from rich.console import Console
from rich.progress import Progress

from jointgen.image_files import read_image
from jointgen_data.common import complaint

log = logging.getLogger("jointgen.data")

CHUNK = 64  # files a task: one future per file would weigh gigabytes over the whole of ImageNet
NAMED = 3  # broken files that the error names

Failure = tuple[int, str]


def decode_all(
    paths: Sequence[str], size: int, channels: int, workers: int, max_broken: int
) -> tuple[np.ndarray, list[int]]:
    """(M, C, size, size) uint8 and the M indices of `paths` that could be read, in order.

    Logs one line per broken file. Raises ConfigError as soon as there are more than `max_broken`.
    """
    images = np.empty((len(paths), channels, size, size), np.uint8)
    broken: list[Failure] = []
    starts = range(0, len(paths), CHUNK)
    with _quiet_pillow(), _pool(workers) as pool, _progress(len(paths)) as advance:
        for failures in pool.map(partial(_fill, paths, images), starts):
            broken += failures
            _check_limit(paths, broken, max_broken)
            advance(CHUNK)
    for index, reason in broken:
        log.warning("skipped %s: %s", paths[index], reason)
    return _without(images, {index for index, _ in broken})


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """After an error or Ctrl-C, does not wait for the million files that are still queued."""
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Pillow warns of odd EXIF blocks, palettes and sizes in files whose pixels are fine."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal, gone when it is full."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("Reading images", total=total)
        yield lambda done: progress.advance(task, done)


def _fill(paths: Sequence[str], images: np.ndarray, start: int) -> list[Failure]:
    """Decodes CHUNK files into their rows; returns the (index, reason) of those that cannot be read."""
    size, channels, failures = images.shape[-1], images.shape[1], []
    for index in range(start, min(start + CHUNK, len(paths))):
        try:
            images[index] = read_image(paths[index], size, size, channels)
        except Exception as error:  # damaged files make decoders raise anything from SyntaxError to struct.error
            failures.append((index, " ".join(str(error).split()) or type(error).__name__))
    return failures


def _check_limit(paths: Sequence[str], broken: list[Failure], max_broken: int) -> None:
    if len(broken) > max_broken:
        named = "; ".join(f"{paths[index]} ({reason})" for index, reason in broken[:NAMED])
        raise complaint(
            "max_broken",
            f"more than {max_broken} files cannot be read, the first of them {named}; "
            "mend or remove them, or raise data.max_broken",
        )


def _without(images: np.ndarray, broken: set[int]) -> tuple[np.ndarray, list[int]]:
    """Closes the gaps in place: a second copy of 16 GB of images may not fit."""
    kept = [index for index in range(len(images)) if index not in broken]
    for row, index in enumerate(kept):
        if row != index:
            images[row] = images[index]
    return images[: len(kept)], kept
