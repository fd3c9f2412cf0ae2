"""The images of a split, decoded into memory; what cannot be read is skipped by name."""

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
    """(M, C, size, size) uint8 and the M indices of `paths` that could be read, in order.

    Logs one line per broken file. Raises ConfigError as soon as there are more than `max_broken`.
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
    """A bar on stderr where that is a terminal, gone when it is full."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("Reading images", total=total)
        yield lambda done: progress.advance(task, done)
