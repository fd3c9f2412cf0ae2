"""Draws pictures with Pillow: grids of images, reconstructions beside the data, scatters of points in the plane.

The same tensors give the same bytes, so that pictures repeat when a run is resumed.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange, repeat
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from jointgen.contracts.space import Space
from jointgen.runtime.atomic_files import replace_bytes

Scale = int | Literal["auto"]

# All lengths are in pixels.
_GAP, _GROUP_GAP = 2, 8  # between tiles, and between groups of tiles
_MIN_TILE = 48  # "auto" enlarges to at least this, so that an 8x8 digit can be recognised
_BACKGROUND = 128  # between the black of digits and the white of paper
_PLOT_SIDE, _OVERSAMPLING = 480, 2  # a scatter is drawn larger and reduced, for smooth edges
_AXES, _TRUTH, _POINT = (90, 90, 90), (200, 200, 200), (31, 90, 180)
_MAX_ROW_WIDTH = 2400  # panels that would make a row wider go on below
_TITLE_SIZE, _MARGIN, _PANEL_GAP, _TITLE_COLOUR = 20, 12, 24, (31, 35, 40)


# --- images -----------------------------------------------------------------------------------------------------------


def render(values: Tensor, space: Space) -> Tensor | None:
    """Scales values of a variable to images.

    The range of the Space becomes [0, 1]; where it is not known, the range of the values themselves does.

    Args:
        values: (N, *shape) in model space.
        space: The variable's Space.

    Returns:
        Images (N, C, H, W) in [0, 1] on the CPU, or None where the variable is not an image.
    """
    if not space.is_image:
        return None
    values = values.detach().float().cpu()
    finite = values[values.isfinite()]
    observed = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    low, high = space.range or observed
    return ((values - low) / max(high - low, 1e-12)).clamp(0.0, 1.0)


def no_picture(variable: str, space: Space, *, points: bool = True) -> str:
    """Say why values of a variable make no picture; empty where they make one.

    Args:
        variable: Its name.
        space: Its Space.
        points: Whether points in the plane will do, besides images.
    """
    drawable = space.is_image or (points and space.shape == (2,))
    return "" if drawable else f"{variable} is {space}, which makes no picture"


def draw_values(values: Tensor, space: Space, truth: Tensor | None = None, columns: int = 8) -> Image.Image | None:
    """Draw a grid of images, or points in the plane over the true ones; None where values make no picture.

    Args:
        values: (N, *shape) in model space.
        space: The variable's Space.
        truth: Rows of the data (M, *shape), which points are drawn over.
        columns: The number of columns of the grid.
    """
    if (images := render(values, space)) is not None:
        return grid(images, columns)
    if space.shape == (2,):
        return scatter(values.cpu(), None if truth is None else truth.cpu())
    return None


def grid(images: Tensor, columns: int = 8, scale: Scale = "auto", group: int = 1) -> Image.Image:
    """Arranges images in rows and columns, row by row.

    Args:
        images: (N, C, H, W) in [0, 1], N > 0. One channel is grey and three are RGB; of two channels the first is
            shown, of more than three the first three. NaN, as a diverged model gives, is black.
        columns: The number of columns.
        scale: How often each pixel is repeated; "auto" enlarges small images.
        group: A wider gap follows every `group` columns, if that is more than one.
    """
    assert images.ndim == 4 and len(images), f"images are (N, C, H, W), N > 0, not {tuple(images.shape)}"
    shown = images[:, :3] if images.shape[1] >= 3 else images[:, :1]
    levels = (shown.detach().float().cpu().nan_to_num(0.0).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    times = math.ceil(_MIN_TILE / min(levels.shape[2:])) if scale == "auto" else scale
    tiles = repeat(levels, "n c h w -> n c (h down) (w across)", down=times, across=times)

    columns = min(columns, len(tiles))
    n, channels, height, width = tiles.shape
    rows = math.ceil(n / columns)
    left = [c * (width + _GAP) + (c // group * (_GROUP_GAP - _GAP) if group > 1 else 0) for c in range(columns)]
    canvas = torch.full((channels, rows * (height + _GAP) - _GAP, left[-1] + width), _BACKGROUND, dtype=torch.uint8)
    for i, tile in enumerate(tiles):
        top, start = i // columns * (height + _GAP), left[i % columns]
        canvas[:, top : top + height, start : start + width] = tile
    return Image.fromarray((canvas[0] if channels == 1 else rearrange(canvas, "c h w -> h w c")).contiguous().numpy())


def side_by_side(truth: Tensor, reconstruction: Tensor, columns: int = 8, scale: Scale = "auto") -> Image.Image:
    """Arranges pairs, each image with its reconstruction to its right, as in ALI (Dumoulin et al. 2017, figure 2b).

    Args:
        truth: (N, C, H, W) in [0, 1], shown in odd columns.
        reconstruction: (N, C, H, W) in [0, 1], shown in even columns.
        columns: The number of columns, rounded down to an even one.
        scale: See `grid`.
    """
    assert truth.shape == reconstruction.shape, f"{tuple(truth.shape)} beside {tuple(reconstruction.shape)}"
    pairs = rearrange([truth, reconstruction], "kinds n ... -> (n kinds) ...")
    return grid(pairs, max(2, columns - columns % 2), scale, group=2)


def save(picture: Tensor | Image.Image, path: Path, *, columns: int = 8, scale: Scale = "auto") -> None:
    """Write a PNG: a picture as it is, or images (N, C, H, W) in [0, 1] as a grid."""
    image = picture if isinstance(picture, Image.Image) else grid(picture, columns, scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(path, as_png(image))


def as_png(image: Image.Image) -> bytes:
    """Encode a picture as a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


# --- points in the plane ----------------------------------------------------------------------------------------------


def scatter(points: Tensor, truth: Tensor | None = None, path: Path | None = None) -> Image.Image:
    """Plot points in the plane, on a square with equal axes.

    The true points set the frame, or the points themselves where there are none. The number of points outside the
    frame is written below the plot.

    Args:
        points: (N, 2), drawn in blue.
        truth: (M, 2), drawn in grey below them.
        path: The file to write the plot to, if any.
    """
    low, side = _frame(points if truth is None else truth)
    size = _PLOT_SIDE * _OVERSAMPLING
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    for cloud, colour, radius in ((truth, _TRUTH, 3.0), (points, _POINT, 2.5)):
        for x, y in [] if cloud is None else _inside(cloud, low, side):
            at = (x * size, (1.0 - y) * size)
            draw.ellipse([at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius], fill=colour)
    image = image.reduce(_OVERSAMPLING)

    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, _PLOT_SIDE - 1, _PLOT_SIDE - 1], outline=_AXES)
    x, y = low.tolist()
    text = f"x {x:.3g} to {x + side:.3g}   y {y:.3g} to {y + side:.3g}"
    if outside := len(points) - len(_inside(points, low, side)):
        text += f"   {outside} of {len(points)} points are outside"
    draw.text((6, _PLOT_SIDE - 18), text, fill=_AXES)
    if path is not None:
        save(image, path)
    return image


def _frame(points: Tensor) -> tuple[Tensor, float]:
    """Find the square that holds all but a few stray points: its lower left corner (2,) and its side."""
    finite = points.detach().cpu().double()
    finite = finite[finite.isfinite().all(1)]
    if len(finite) == 0:
        return torch.tensor([-1.0, -1.0], dtype=torch.float64), 2.0
    low, high = torch.quantile(finite, torch.tensor([0.005, 0.995], dtype=torch.float64), dim=0)
    side = max(float((high - low).max()) * 1.2, 1e-6)
    return (low + high - side) / 2, side


def _inside(points: Tensor, low: Tensor, side: float) -> list[list[float]]:
    """Select the points in the frame, as fractions of its side. NaN is outside."""
    unit = (points.detach().cpu().double() - low) / side
    return unit[((unit >= 0) & (unit <= 1)).all(1)].tolist()


# --- pictures of several models ---------------------------------------------------------------------------------------


def panels(titled: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Arranges pictures with their titles above them, in as few and as even rows as their widths allow."""
    width, height = (max(getattr(image, side) for _, image in titled) for side in ("width", "height"))
    rows = math.ceil(len(titled) / max(1, (_MAX_ROW_WIDTH + _PANEL_GAP) // (width + _PANEL_GAP)))
    columns = math.ceil(len(titled) / rows)
    font = ImageFont.load_default(_TITLE_SIZE)
    titles = [_wrap(title, width, font) for title, _ in titled]
    title_height = (_TITLE_SIZE + 4) * max(title.count("\n") + 1 for title in titles) + 6
    row_height = title_height + height + _PANEL_GAP
    size = (columns * (width + _PANEL_GAP) - _PANEL_GAP + 2 * _MARGIN, rows * row_height - _PANEL_GAP + 2 * _MARGIN)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for i, (title, (_, image)) in enumerate(zip(titles, titled, strict=True)):
        left = _MARGIN + i % columns * (width + _PANEL_GAP)
        top = _MARGIN + i // columns * row_height
        anchor = (left + width / 2, top + title_height - 6)
        draw.multiline_text(anchor, title, fill=_TITLE_COLOUR, font=font, anchor="md", align="center")
        canvas.paste(image, (left, top + title_height))
    return canvas


def _wrap(title: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Break a title into lines of at most `width` pixels, between words where that is enough."""
    lines = [""]
    for word in re.findall(r"[^\s_,/-]*[\s_,/-]*", title):
        if font.getlength((lines[-1] + word).strip()) > width:
            lines.append("")
        for letter in word:
            if font.getlength((lines[-1] + letter).strip()) > width:
                lines.append("")
            lines[-1] += letter
    return "\n".join(line.strip() for line in lines if line.strip())
