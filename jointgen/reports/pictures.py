"""Pictures for people: sample grids, reconstructions beside their truths, and scatters of two-dimensional toys.

Made with pillow alone. The same tensors give the same bytes, so pictures take part in exact resume.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from jointgen.contracts.space import Space
from jointgen.runtime.atomic_files import replace_bytes

Scale = int | Literal["auto"]

_GAP = 2  # pixels between tiles
_GROUP_GAP = 8  # and between groups of tiles
_TILE = 48  # "auto" enlarges to at least this many pixels, so that an 8x8 digit can be recognised
_BACKGROUND = 128  # neither black digits' nor white paper's
_PLOT, _OVERSAMPLE = 480, 2  # a scatter's side in pixels, and how much larger it is drawn, for smooth edges
_INK, _TRUTH, _POINT = (90, 90, 90), (200, 200, 200), (31, 90, 180)


# --- images -----------------------------------------------------------------------------------------------------------


def render(values: Tensor, space: Space) -> Tensor | None:
    """Model-space values (N, *shape) -> images (N, C, H, W) in [0, 1], or None where the space is not of images.

    [low, high] of the space becomes [0, 1]; without bounds, the range of the values themselves does.
    """
    if len(space.shape) != 3 or space.kind == "label":
        return None
    values = values.detach().float().cpu()
    low, high = _range(values, space)
    return ((values - low) / max(high - low, 1e-12)).clamp(0.0, 1.0)


def grid(images: Tensor, columns: int = 8, scale: Scale = "auto", group: int = 1) -> Image.Image:
    """Images (N, C, H, W) in [0, 1] as one picture, row by row.

    One channel is grey and three are RGB; of two, the first is shown, and of more, the first three. `scale` enlarges
    by repeating pixels; a wider gap follows every `group` columns if that is more than one.
    """
    assert images.ndim == 4 and len(images), f"images are (N, C, H, W), N > 0, not {tuple(images.shape)}"
    tiles = _enlarged(_pixels(images), scale)
    columns = min(columns, len(tiles))
    n, channels, height, width = tiles.shape
    rows = math.ceil(n / columns)
    left = [c * (width + _GAP) + (c // group * (_GROUP_GAP - _GAP) if group > 1 else 0) for c in range(columns)]
    canvas = torch.full((channels, rows * (height + _GAP) - _GAP, left[-1] + width), _BACKGROUND, dtype=torch.uint8)
    for i, tile in enumerate(tiles):
        top, start = i // columns * (height + _GAP), left[i % columns]
        canvas[:, top : top + height, start : start + width] = tile
    return _image(canvas)


def side_by_side(truth: Tensor, reconstruction: Tensor, columns: int = 8, scale: Scale = "auto") -> Image.Image:
    """Pairs: every truth with its reconstruction at its right, (N, C, H, W) in [0, 1] each.

    As in ALI's figures (Dumoulin et al., 2017, fig. 2b): odd columns are data, even columns reconstructions.
    """
    assert truth.shape == reconstruction.shape, f"{tuple(truth.shape)} beside {tuple(reconstruction.shape)}"
    pairs = torch.stack([truth, reconstruction], 1).flatten(0, 1)
    return grid(pairs, max(2, columns - columns % 2), scale, group=2)


def save(picture: Tensor | Image.Image, path: Path, *, columns: int = 8, scale: Scale = "auto") -> None:
    """Writes a PNG at once: a picture as it is, or images (N, C, H, W) in [0, 1] as a grid."""
    image = picture if isinstance(picture, Image.Image) else grid(picture, columns, scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(path, as_png(image))


def as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _range(values: Tensor, space: Space) -> tuple[float, float]:
    if space.low is not None and space.high is not None:
        return space.low, space.high
    if space.kind == "binary":
        return 0.0, 1.0
    finite = values[values.isfinite()]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def _pixels(images: Tensor) -> Tensor:
    """(N, 1 or 3, H, W) uint8. A diverged model's NaN becomes black."""
    shown = images[:, :3] if images.shape[1] >= 3 else images[:, :1]
    levels = shown.detach().float().cpu().nan_to_num(0.0).clamp(0.0, 1.0) * 255.0
    return levels.round().to(torch.uint8)


def _enlarged(tiles: Tensor, scale: Scale) -> Tensor:
    times = math.ceil(_TILE / min(tiles.shape[2:])) if scale == "auto" else scale
    return tiles.repeat_interleave(times, 2).repeat_interleave(times, 3)


def _image(canvas: Tensor) -> Image.Image:
    """(1 or 3, H, W) uint8 -> a grey or RGB image."""
    return Image.fromarray((canvas[0] if len(canvas) == 1 else canvas.permute(1, 2, 0)).contiguous().numpy())


# --- two-dimensional toys ---------------------------------------------------------------------------------------------


def scatter(points: Tensor, truth: Tensor | None = None, path: Path | None = None) -> Image.Image:
    """Points (N, 2), blue, over truth (M, 2), grey: a square plot with equal axes. Written to `path` if given.

    The truth (the points, without one) sets the frame; how many points fall outside it is written below.
    """
    low, span = _frame(points if truth is None else truth)
    size = _PLOT * _OVERSAMPLE
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    for cloud, colour, radius in ((truth, _TRUTH, 3.0), (points, _POINT, 2.5)):
        for x, y in [] if cloud is None else _inside(cloud, low, span):
            at = (x * size, (1.0 - y) * size)
            draw.ellipse([at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius], fill=colour)
    image = image.reduce(_OVERSAMPLE)
    _label(image, low, span, len(points) - len(_inside(points, low, span)), len(points))
    if path is not None:
        save(image, path)
    return image


def _frame(points: Tensor) -> tuple[Tensor, float]:
    """Lower left corner (2,) and side of the square that holds all but a few stray points."""
    finite = points.detach().double().cpu()
    finite = finite[finite.isfinite().all(1)]
    if len(finite) == 0:
        return torch.tensor([-1.0, -1.0], dtype=torch.float64), 2.0
    low, high = torch.quantile(finite, torch.tensor([0.005, 0.995], dtype=torch.float64), dim=0)
    side = max(float((high - low).max()) * 1.2, 1e-6)
    return (low + high - side) / 2, side


def _inside(points: Tensor, low: Tensor, span: float) -> list[list[float]]:
    """The points in the frame, as fractions of its side. NaN is outside."""
    unit = (points.detach().double().cpu() - low) / span
    return unit[((unit >= 0) & (unit <= 1)).all(1)].tolist()


def _label(image: Image.Image, low: Tensor, span: float, outside: int, n: int) -> None:
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, _PLOT - 1, _PLOT - 1], outline=_INK)
    x, y = low.tolist()
    text = f"x {x:.3g} to {x + span:.3g}   y {y:.3g} to {y + span:.3g}"
    if outside:
        text += f"   {outside} of {n} points are outside"
    draw.text((6, _PLOT - 18), text, fill=_INK)
