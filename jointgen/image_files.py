"""One image file, of any size and mode, as an array of the wanted size: resized by its short side, centre-cropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def read_image(path: str | Path, height: int, width: int, channels: int) -> np.ndarray:
    """(C, height, width) uint8, C = 1 or 3, turned upright by its EXIF orientation, transparency laid on white.

    Raises whatever Pillow raises for a damaged file.
    """
    with Image.open(path) as image:
        # libjpeg halves large photographs while it decodes; 4 pixels for each of ours leave the result as it was
        image.draft(None, (4 * width, 4 * height))
        image.load()
        return fit_image(_upright(image), height, width, channels)


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
