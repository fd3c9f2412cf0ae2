"""Decode the images of a split into memory, and skip those that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jointgen.plugin import ConfigError, Counter, decoding_images, drop_rows, too_many_broken, warn_once


def decode_all(
    paths: Sequence[str], size: int, channels: int, workers: int, max_broken: int, said: set[str]
) -> tuple[np.ndarray, list[int]]:
    """Decode images, resize them and print one line for each broken file.

    Args:
        paths: The files.
        size: The side of the square that the images are cropped to, pixels.
        channels: 1 for grey and 3 for colour.
        workers: The number of threads; 0 for as many as there are cores.
        max_broken: How many files may be broken.
        said: The lines that were printed before and are not printed again; those of these files are added.

    Returns:
        The images, (M, C, size, size) uint8, and the M indices of the files that could be read, in order.

    Raises:
        ConfigError: More than `max_broken` files are broken, or the images do not fit into memory.
    """
    try:
        images = np.empty((len(paths), channels, size, size), np.uint8)
    except (MemoryError, ValueError):  # numpy raises the second for more bytes than there are addresses
        wanted = f"{len(paths) * channels * size * size / 2**30:,.1f} GiB"
        raise ConfigError(
            f"{len(paths):,} images take {wanted} of memory, which this machine does not give; choose a smaller size, "
            "or prepare them (`jointgen data prepare`) and train on the result, of which memory holds a batch",
            "size",
        ) from None
    broken: list[tuple[int, str]] = []
    done = 0
    with Counter("reading images") as count, decoding_images(workers) as decode:
        for decoded in decode(paths, images):
            broken += decoded.failures
            if problem := too_many_broken([(paths[i], why) for i, why in broken], max_broken, "max_broken"):
                raise ConfigError(problem, "max_broken")
            done += decoded.files
            count(done, len(paths))
    lines = [f"skipped {paths[index]}: {reason}" for index, reason in broken]
    warn_once(*(line for line in lines if line not in said))
    said.update(lines)
    return drop_rows(images, [index for index, _ in broken])
