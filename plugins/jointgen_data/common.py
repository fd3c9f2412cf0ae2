"""Pieces that the data sources share: splits, Spaces of images and labels, rows held in memory, mirroring."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import attrs
import numpy as np
import torch
from torch import Tensor, where

from jointgen.plugin import ConfigError, NoiseSource, Space

Observed = Literal["dequantise", "binarise"]
HowSplit = Literal["hash", "last"]
BLOCK_NUMBERS = 2**24  # looked at at a time, so that checking a file does not double its memory
FEW_ROWS = 4096
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


def held_out_rows(rows: int, share: float, how: HowSplit) -> np.ndarray:
    """Return which rows of a file are held out for tests, (rows,) bool; at least one of them is.

    Args:
        rows: The number of rows.
        share: The share that is held out.
        how: "hash", by a hash of the row's number: the same rows in each run, from all over the file, and still held
            out when rows are appended; or "last".

    Raises:
        ConfigError: No row is left to train on.
    """
    check_leaves_rows(rows, share, how)
    test = np.zeros(rows, bool)
    if how == "last":
        test[rows - max(1, round(rows * share)) :] = True
        return test
    for start in range(0, rows, BLOCK_NUMBERS):
        end = min(start + BLOCK_NUMBERS, rows)
        test[start:end] = hashed_shares(start, end) < share
    if not test.any():  # of so few rows, the one that a larger share would hold out first
        test[hashed_shares(0, rows).argmin()] = True
    return test


def check_leaves_rows(rows: int, share: float, how: HowSplit) -> None:
    """Raise ConfigError unless rows are left to train on; usually the first few show it."""
    if how == "last":
        leaves = rows > max(1, round(rows * share))
    else:
        shares = (hashed_shares(start, min(start + FEW_ROWS, rows)) for start in range(0, rows, FEW_ROWS))
        leaves = rows > 1 and any((found >= share).any() for found in shares)
    if not leaves:
        raise ConfigError(f"{share} of {rows:,} rows leaves none to train on", "test_fraction")


def hashed_shares(first: int, end: int) -> np.ndarray:
    """Return a number in [0, 1) for each row of a range, a hash of the row's number.

    It is the finaliser of SplitMix64 (Steele, Lea & Flood 2014, section 5).
    """
    mixed = (np.arange(first, end, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    shares: np.ndarray = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
    return shares


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
        self._places = torch.arange(len(next(iter(values.values())))) if places is None else places

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
