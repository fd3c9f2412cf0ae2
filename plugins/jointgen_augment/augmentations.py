"""Augmentations that treat a batch at once and carry gradients: see `jointgen.plugin.Augmentation`.

By default those of DiffAugment do to a picture what the authors' code does. That has images in [-1, 1], and images are
in [0, 1] here: what is added to values is half as large, and what fills a gap is 0.5 where it is 0 there.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from jointgen.plugin import NoiseSource, fraction, non_negative

Fill = Literal["grey", "zero"]
"""What fills a gap: the middle of the range, or its lower end (black)."""
LEVELS = {"grey": 0.5, "zero": 0.0}


def _of_rows(values: Tensor, images: Tensor) -> Tensor:
    """Numbers of rows, (B,), as factors of images, (B, 1, 1, 1)."""
    return values.to(images.device, images.dtype).view(-1, 1, 1, 1)


@attrs.frozen
class Mirror:
    """Mirror images left to right.

    Args:
        p: With this probability.
    """

    differentiable: ClassVar[bool] = True
    p: float = attrs.field(default=0.5, validator=fraction)

    def __call__(self, images: Tensor, noise: NoiseSource) -> Tensor:
        """Return the images, some of them mirrored."""
        mirrored = (noise.uniform() < self.p).to(images.device).view(-1, 1, 1, 1)
        return torch.where(mirrored, images.flip(-1), images)


@attrs.frozen
class Translation:
    """Move images by whole pixels, up to a share of their sides.

    Args:
        share: The share.
        fill: What appears at the edges: "grey" (the middle of the range, as in DiffAugment), "zero" (black), or the
            pixels of the "edge".
    """

    differentiable: ClassVar[bool] = True
    share: float = attrs.field(default=0.125, validator=fraction)
    fill: Fill | Literal["edge"] = "grey"

    def __call__(self, images: Tensor, noise: NoiseSource) -> Tensor:
        """Return the images, moved."""
        rows, _, height, width = images.shape
        u = noise.uniform(2).to(images.device)  # (B, 2)
        y, inside_y = _moved(u[:, 0], height, self.share)
        x, inside_x = _moved(u[:, 1], width, self.share)
        batch = torch.arange(rows, device=images.device).view(-1, 1, 1)
        moved = images.permute(0, 2, 3, 1)[batch, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
        if self.fill == "edge":
            return moved
        inside = inside_y[:, None, :, None] & inside_x[:, None, None, :]
        return torch.where(inside, moved, LEVELS[self.fill])


def _moved(u: Tensor, side: int, share: float) -> tuple[Tensor, Tensor]:
    """Where the pixels of a side come from, (B, side), and whether that is inside; u is in [0, 1), (B,)."""
    most = int(side * share + 0.5)
    shift = (u * (2 * most + 1)).floor().long() - most
    place = torch.arange(side, device=u.device) + shift[:, None]
    return place.clamp(0, side - 1), (place >= 0) & (place < side)


@attrs.frozen
class Cutout:
    """Leave a rectangle out, as large as a share of the sides and anywhere, partly outside too.

    Args:
        share: The share.
        fill: What appears in its place: "grey" (the middle of the range, as in DiffAugment) or "zero" (black).
    """

    differentiable: ClassVar[bool] = True
    share: float = attrs.field(default=0.5, validator=fraction)
    fill: Fill = "grey"

    def __call__(self, images: Tensor, noise: NoiseSource) -> Tensor:
        """Return the images with their rectangles."""
        height, width = images.shape[2:]
        u = noise.uniform(2).to(images.device)  # (B, 2)
        y, x = (_covered(u[:, axis], side, self.share) for axis, side in enumerate((height, width)))
        covered = y[:, None, :, None] & x[:, None, None, :]
        return torch.where(covered, LEVELS[self.fill], images)


def _covered(u: Tensor, side: int, share: float) -> Tensor:
    """The pixels of a side that lie in the rectangle, (B, side); its centre is u of the side, in [0, 1)."""
    size = int(side * share + 0.5)
    start = (u * (side + (1 - size % 2))).floor().long() - size // 2
    place = torch.arange(side, device=u.device)
    return (place >= start[:, None]) & (place < start[:, None] + size)


@attrs.frozen
class Colour:
    """Change brightness, saturation and contrast, in this order. Values may leave [0, 1].

    Args:
        brightness: Added to all values: uniform in half of this share of the range to either side.
        saturation: The distance of channels from their mean is multiplied by 1 + uniform in this to either side.
        contrast: The distance of all values from their mean, by 1 + uniform in half of this to either side.
    """

    differentiable: ClassVar[bool] = True
    brightness: float = attrs.field(default=0.5, validator=non_negative)
    saturation: float = attrs.field(default=1.0, validator=fraction)
    contrast: float = attrs.field(default=1.0, validator=fraction)

    def __call__(self, images: Tensor, noise: NoiseSource) -> Tensor:
        """Return the images in other colours."""
        brightness, saturation, contrast = (noise.uniform(3) - 0.5).unbind(1)
        images = images + _of_rows(brightness * self.brightness, images)
        grey = images.mean(1, keepdim=True)
        images = grey + (images - grey) * _of_rows(1.0 + 2.0 * saturation * self.saturation, images)
        mean = images.mean((1, 2, 3), keepdim=True)
        return mean + (images - mean) * _of_rows(1.0 + contrast * self.contrast, images)
