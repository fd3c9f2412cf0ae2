"""What the sources share: splits, Spaces of images and labels, rows held in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import attrs
from torch import Tensor, where

from jointgen.plugin import ConfigError, NoiseSource, Space

Observed = Literal["dequantise", "binarise"]
is_observed = attrs.validators.in_(("dequantise", "binarise"))  # for those who build a source without a recipe


def is_train(split: str) -> bool:
    """Raises ConfigError for a split other than "train" and "test"."""
    if split not in ("train", "test"):
        raise ConfigError(f"{split!r} is neither 'train' nor 'test'", "split")
    return split == "train"


def image_space(shape: tuple[int, ...], observed: Observed, levels: int = 256) -> Space:
    """Integer levels, such as (C, H, W) images, on [0, 1]."""
    return Space(shape, "binary" if observed == "binarise" else "real", 0.0, 1.0, levels)


def label_space(classes: int) -> Space:
    """Raw int64 (B,); networks see one-hot (B, classes)."""
    return Space((classes,), "label")


class TensorRows:
    """Rows in memory: one (N, *shape) tensor per variable. `skipped` names files that could not be read."""

    def __init__(self, values: dict[str, Tensor], skipped: Iterable[str] = ()):
        assert len({len(value) for value in values.values()}) == 1, "every variable has the same number of rows"
        self.values = values
        self.skipped = list(skipped)

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """(B,) int64 -> (B, *shape) raw tensors, contiguous whatever the layout of the file."""
        return {name: value.index_select(0, index).contiguous() for name, value in self.values.items()}


class Flipping:
    """Rows whose images are mirrored left to right with probability 1/2 in training."""

    def augment(self, values: dict[str, Tensor], noise: NoiseSource) -> dict[str, Tensor]:
        """Raw values in, raw values out; one coin per row, shared by all its (B, C, H, W) images."""
        heads = noise.uniform() < 0.5  # (B,)
        return {name: flip(value, heads) if value.ndim == 4 else value for name, value in values.items()}


class FlippedRows(Flipping, TensorRows):
    """Both."""


def flip(images: Tensor, heads: Tensor) -> Tensor:
    """Mirrors the (B, C, H, W) images whose coin (B,) shows heads."""
    return where(heads.to(images.device).view(-1, 1, 1, 1), images.flip(-1), images)
