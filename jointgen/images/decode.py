"""Image files of any size and mode as arrays of the wanted size: resized by the short side, centre-cropped."""

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

CHUNK = 16  # files a task: a future for every file would weigh gigabytes over the whole of ImageNet
NAMED = 3  # broken files that a complaint names

# --- one file --------------------------------------------------------------------------------------------------------


def read_image(file: str | Path | IO[bytes], height: int, width: int, channels: int) -> np.ndarray:
    """(C, height, width) uint8, C = 1 or 3, turned upright by its EXIF orientation, transparency laid on white.

    Raises whatever Pillow raises for a damaged file, and for one of so many pixels that it can only be an attack.
    """
    return _read(file, height, width, channels)[0]


def _read(file: str | Path | IO[bytes], height: int, width: int, channels: int) -> tuple[np.ndarray, str]:
    """The image, and its mode in the file."""
    with Image.open(file) as image:
        # libjpeg halves large photographs while it decodes; 4 pixels for each of ours leave the result as it was
        image.draft(None, (4 * width, 4 * height))
        image.load()
        return fit_image(_upright(image), height, width, channels), image.mode


def fit_image(image: Image.Image, height: int, width: int, channels: int) -> np.ndarray:
    """(C, height, width) uint8 of an image in memory. Raises ValueError for numbers whose range is not known."""
    flat = _flatten(image, "L" if channels == 1 else "RGB")
    fitted = flat.resize((width, height), Image.Resampling.BICUBIC, box=_centre(*flat.size, height, width))
    return np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)


def _centre(from_width: int, from_height: int, height: int, width: int) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the largest box in the middle that has the proportions of width x height."""
    scale = min(from_width / width, from_height / height)
    left, top = (from_width - scale * width) / 2, (from_height - scale * height) / 2
    return left, top, left + scale * width, top + scale * height


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block raises anything, and the pixels beside it are fine
        return image


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Any mode -> L or RGB."""
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
class Decoded:
    """What became of a few consecutive files: how many there are, of which modes, and (index, reason) of the broken."""

    files: int
    modes: collections.Counter[str]
    failures: list[tuple[int, str]]


Decode = Callable[[Sequence[str], np.ndarray], Iterator[Decoded]]


@contextmanager
def decoding(workers: int) -> Iterator[Decode]:
    """decode(paths, images) fills images (N, C, H, W) uint8, row by path, on so many threads (0: one for each core).

    What it yields is in the order of the paths, whatever the number of threads. A row whose file is broken holds
    anything (see `without`). After an error or Ctrl-C, does not wait for the million files that are still queued.
    """
    pool = ThreadPoolExecutor(workers or os.cpu_count())  # codecs and resizing run outside Python's lock
    try:
        with quiet_pillow():
            yield lambda paths, images: pool.map(partial(_fill, paths, images), range(0, len(paths), CHUNK))
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow warns of odd EXIF blocks, palettes and sizes in files whose pixels are fine."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


def _fill(paths: Sequence[str], images: np.ndarray, start: int) -> Decoded:
    """Decodes CHUNK files into their rows."""
    channels, height, width = images.shape[1:]
    stop = min(start + CHUNK, len(paths))
    decoded = Decoded(stop - start, collections.Counter(), [])
    for index in range(start, stop):
        try:
            images[index], mode = _read(paths[index], height, width, channels)
            decoded.modes[mode] += 1
        except Exception as error:  # damaged files make decoders raise anything from SyntaxError to struct.error
            decoded.failures.append((index, reason(error)))
    return decoded


def reason(error: Exception) -> str:
    """Why a file cannot be read, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def without(images: np.ndarray, broken: Sequence[int]) -> tuple[np.ndarray, list[int]]:
    """The other rows, and their indices. Closes the gaps in place: a second copy of 16 GB of images may not fit."""
    gaps = set(broken)
    kept = [index for index in range(len(images)) if index not in gaps]
    for row, index in enumerate(kept):
        if row != index:
            images[row] = images[index]
    return images[: len(kept)], kept


def too_many(broken: Sequence[tuple[str, str]], most: int, option: str) -> str:
    """The complaint about more than `most` (name, reason) of broken files, or an empty string."""
    if len(broken) <= most:
        return ""
    named = "; ".join(f"{name} ({why})" for name, why in broken[:NAMED])
    first = f"more than {most} files cannot be read, the first of them {named}"
    return f"{first}; mend or remove them, or raise {option}"
