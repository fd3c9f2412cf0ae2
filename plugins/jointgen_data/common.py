"""Pieces that the data sources share: splits, Spaces of images and labels, rows held in memory, mirroring."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import attrs
import torch
from torch import Tensor, where

from jointgen.plugin import ConfigError, NoiseSource, Space

Observed = Literal["dequantise", "binarise"]
is_observed = attrs.validators.in_(("dequantise", "binarise"))  # for those who build a source without a recipe


def is_train(split: str) -> bool:
    """Return whether the split is "train"; raise ConfigError for a split other than "train" and "test"."""
    if split not in ("train", "test"):
        raise ConfigError(f"{split!r} is neither 'train' nor 'test'", "split")
    return split == "train"


def image_space(shape: tuple[int, ...], observed: Observed, levels: int = 256) -> Space:
    """Return the Space of integer levels on [0, 1], such as images (C, H, W)."""
    return Space(shape, "binary" if observed == "binarise" else "real", 0.0, 1.0, levels)


def label_space(classes: int) -> Space:
    """Return the Space of labels, int64 (B,), which networks see as one-hot vectors (B, classes)."""
    return Space((classes,), "label")


class TensorRows:
    """Rows held in memory.

    Args:
        values: One tensor for each variable, (N, *shape).
        skipped: Names of files that could not be read.
        places: The number of each row in the data as the user has it, (N,) int64; None: these are its rows.
    """

    def __init__(self, values: dict[str, Tensor], skipped: Iterable[str] = (), places: Tensor | None = None):
        assert len({len(value) for value in values.values()}) == 1, "every variable has the same number of rows"
        self.values = values
        self.skipped = list(skipped)
        self._places = torch.arange(len(self)) if places is None else places

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Return the rows with these numbers, (B,) int64, as contiguous tensors, (B, *shape) each."""
        return {name: value.index_select(0, index).contiguous() for name, value in self.values.items()}

    def places(self, index: Tensor) -> Tensor:
        """Return the numbers of these rows in the data as the user has it, (B,) int64."""
        return self._places[index]


class Flipping:
    """The augmentation of rows whose images are mirrored left to right with probability 1/2."""

    def augment(self, values: dict[str, Tensor], noise: NoiseSource) -> dict[str, Tensor]:
        """Return the rows with their images (B, C, H, W) mirrored; all images of a row share one coin."""
        heads = noise.uniform() < 0.5  # (B,)
        return {name: flip(value, heads) if value.ndim == 4 else value for name, value in values.items()}


class FlippedRows(Flipping, TensorRows):
    """Rows held in memory that are mirrored in training."""


def flip(images: Tensor, heads: Tensor) -> Tensor:
    """Mirror the images, (B, C, H, W), whose coin, (B,), shows heads."""
    return where(heads.to(images.device).view(-1, 1, 1, 1), images.flip(-1), images)
