"""Decode the images of a split into memory, and skip those that cannot be read."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from rich.console import Console
from rich.progress import Progress

from jointgen.plugin import ConfigError, decoding_images, drop_rows, too_many_broken

log = logging.getLogger("jointgen.data")


def decode_all(
    paths: Sequence[str], size: int, channels: int, workers: int, max_broken: int
) -> tuple[np.ndarray, list[int]]:
    """Decode images, resize them and log one line for each broken file.

    Args:
        paths: The files.
        size: The side of the square that the images are cropped to, pixels.
        channels: 1 for grey and 3 for colour.
        workers: The number of threads; 0 for as many as there are cores.
        max_broken: How many files may be broken.

    Returns:
        The images, (M, C, size, size) uint8, and the M indices of the files that could be read, in order.

    Raises:
        ConfigError: More than `max_broken` files are broken.
    """
    images = np.empty((len(paths), channels, size, size), np.uint8)
    broken: list[tuple[int, str]] = []
    with _progress(len(paths)) as advance, decoding_images(workers) as decode:
        for decoded in decode(paths, images):
            broken += decoded.failures
            if problem := too_many_broken([(paths[i], why) for i, why in broken], max_broken, "max_broken"):
                raise ConfigError(problem, "max_broken")
            advance(decoded.files)
    for index, reason in broken:
        log.warning("skipped %s: %s", paths[index], reason)
    return drop_rows(images, [index for index, _ in broken])


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr if that is a terminal, and remove it when it is full."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("Reading images", total=total)
        yield lambda done: progress.advance(task, done)
