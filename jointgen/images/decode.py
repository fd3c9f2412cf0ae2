"""Decodes image files of any size and mode into arrays of one size: resized by the short side, centre-cropped."""

from __future__ import annotations

import collections
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import attrs
import numpy as np
from PIL import Image, ImageOps

from jointgen.errors import FileError
from jointgen.runtime.regular_files import check_regular

FILES_PER_TASK = 16  # a future for every file would take gigabytes over the whole of ImageNet
MAX_NAMED = 3  # broken files that a message names

# --- one file --------------------------------------------------------------------------------------------------------


def read_image(file: str | Path | IO[bytes], height: int, width: int, channels: int) -> np.ndarray:
    """Read one image, turned upright by its EXIF orientation and with transparency laid on white.

    Args:
        file: A path or an open file.
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        channels: 1 (grey) or 3 (colour).

    Returns:
        (channels, height, width) uint8.

    Raises:
        FileError: The path leads to no regular file: to a pipe, which would never end, or to nothing.
        Exception: Whatever Pillow raises for a damaged file, and for one of so many pixels that it is an attack.
    """
    return _read(file, height, width, channels)[0]


def _read(file: str | Path | IO[bytes], height: int, width: int, channels: int) -> tuple[np.ndarray, str]:
    """Read one image; returns it with its mode in the file."""
    if isinstance(file, str | Path):
        check_regular(file)
    with Image.open(file) as image:
        # libjpeg can halve large photographs while it decodes; from 4 pixels for each of ours the result is the same
        image.draft(None, (4 * width, 4 * height))
        image.load()
        return fit_image(_upright(image), height, width, channels), image.mode


def fit_image(image: Image.Image, height: int, width: int, channels: int) -> np.ndarray:
    """Fit an image in memory to (channels, height, width) uint8.

    Raises:
        ValueError: Its pixels are numbers whose range is not known.
    """
    flat = _flatten(image, "L" if channels == 1 else "RGB")
    scale = min(flat.width / width, flat.height / height)  # the largest centred box with the result's proportions
    left, top = (flat.width - scale * width) / 2, (flat.height - scale * height) / 2
    box = left, top, left + scale * width, top + scale * height
    fitted = flat.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)


def upright_size(file: str | Path) -> tuple[int, int]:
    """Return the (width, height) of an image file, turned upright. Raises as `read_image` does."""
    check_regular(file)
    with Image.open(file) as image:
        return _upright(image).size


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block raises anything, although the pixels are fine
        return image


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Convert any mode to L or RGB."""
    if image.mode.startswith("I;16"):  # Pillow would clip the 16 bits at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode}) whose range is not known")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


# --- many files ------------------------------------------------------------------------------------------------------


@attrs.frozen
class DecodingResult:
    """The result of decoding a few consecutive files.

    Args:
        files: How many there were.
        modes: How many of those read had each of Pillow's modes.
        failures: (index, error) of each file that could not be read.
    """

    files: int
    modes: collections.Counter[str]
    failures: list[tuple[int, str]]


Decode = Callable[[Sequence[str], np.ndarray], Iterator[DecodingResult]]


@contextmanager
def decoding_images(workers: int) -> Iterator[Decode]:
    """Yield a function decode(paths, images) that fills images, (N, C, H, W) uint8, row by path.

    The function yields its results in the order of the paths, whatever the number of threads. The row of a broken file
    holds any numbers (see `drop_rows`). After an error or Ctrl-C nothing waits for the files that are still queued.

    Args:
        workers: The number of threads; 0: one for each core.
    """
    pool = ThreadPoolExecutor(workers or os.cpu_count())  # codecs and resizing run outside Python's lock
    try:
        with quiet_pillow():
            yield lambda paths, images: pool.map(partial(_fill, paths, images), range(0, len(paths), FILES_PER_TASK))
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings of odd EXIF blocks, palettes and sizes in files whose pixels are fine."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


def _fill(paths: Sequence[str], images: np.ndarray, start: int) -> DecodingResult:
    """Decode a task's files into their rows."""
    channels, height, width = images.shape[1:]
    stop = min(start + FILES_PER_TASK, len(paths))
    result = DecodingResult(stop - start, collections.Counter(), [])
    for index in range(start, stop):
        try:
            images[index], mode = _read(paths[index], height, width, channels)
            result.modes[mode] += 1
        except Exception as error:  # damaged files make decoders raise anything from SyntaxError to struct.error
            result.failures.append((index, error_text(error)))
    return result


def error_text(error: Exception) -> str:
    """The text of an error in one line, without the name of the file, to say why that file cannot be read."""
    strerror = error.strerror if isinstance(error, OSError) else None
    reason = error.reason if isinstance(error, FileError) else strerror or str(error)
    return " ".join(reason.split()) or type(error).__name__


def drop_rows(images: np.ndarray, broken: Sequence[int]) -> tuple[np.ndarray, list[int]]:
    """Drop the rows of broken files, in place, because a second copy of 16 GB of images may not fit.

    Args:
        images: (N, C, H, W).
        broken: Indices of rows.

    Returns:
        (M, C, H, W), a view, and the M indices of the rows that are left.
    """
    gaps = set(broken)
    kept = [index for index in range(len(images)) if index not in gaps]
    for row, index in enumerate(kept):
        if row != index:
            images[row] = images[index]
    return images[: len(kept)], kept


def too_many_broken(broken: Sequence[tuple[str, str]], most: int, option: str) -> str:
    """The message about more broken files than allowed, or an empty string.

    Args:
        broken: (name, error) of each.
        most: How many are allowed.
        option: The key or option that raises the limit.
    """
    if len(broken) <= most:
        return ""
    named = "; ".join(f"{name} ({why})" for name, why in broken[:MAX_NAMED])
    first = f"more than {most} files cannot be read, the first of them {named}"
    return f"{first}; repair or remove them, or raise {option}"
