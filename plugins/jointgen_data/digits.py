"""The handwritten digits of scikit-learn, a real data set that needs no files."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path

import attrs
import numpy as np
import torch
from einops import rearrange

from jointgen.plugin import LOADING, READING, Space
from jointgen_data.common import Observed, TensorRows, image_space, is_observed, is_train, label_space

LEVELS = 17  # 0..16: a pixel is the number of set bits in a 4x4 block of the scan
ROWS, TRAIN_ROWS = 1797, 1500


@attrs.frozen
class Digits:
    """Digits: x (1, 8, 8) in 17 grey levels and, with ``labels = true``, the digit y; 1500 rows and 297 for test.

    The file is ordered by writer, so the split is made after a fixed permutation: both halves hold every writer.

    Args:
        observe: "dequantise" or "binarise", as for MNIST.
        labels: Whether the labels are further variables, y.
        negative: Whether black and white are exchanged, which makes a second domain for models of two.
    """

    observe: Observed = attrs.field(default="dequantise", validator=is_observed, metadata=READING)
    labels: bool = attrs.field(default=False, metadata=LOADING)
    negative: bool = False

    def spaces(self) -> dict[str, Space]:
        """Return the Space of each variable."""
        spaces = {"x": image_space((1, 8, 8), self.observe, LEVELS)}
        return spaces | {"y": label_space(10)} if self.labels else spaces

    def count_rows(self, split: str) -> int:
        """Return the number of rows of the split."""
        return TRAIN_ROWS if is_train(split) else ROWS - TRAIN_ROWS

    def open(self, split: str) -> TensorRows:
        """Open the split "train" or "test"."""
        images, labels = _read_digits()
        # RandomState and not default_rng: numpy promises that its stream never changes
        order = np.random.RandomState(0).permutation(len(images))
        mine = order[:TRAIN_ROWS] if is_train(split) else order[TRAIN_ROWS:]
        x = rearrange(torch.from_numpy(images[mine].astype(np.uint8)), "n (h w) -> n 1 h w", h=8)
        values = {"x": LEVELS - 1 - x if self.negative else x}
        if self.labels:
            values["y"] = torch.from_numpy(labels[mine].astype(np.int64))
        return TensorRows(values, places=torch.from_numpy(mine))


@functools.cache
def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return images (1797, 64) and labels (1797,), parsed once: a run opens its splits several times.

    Importing scikit-learn takes a second of CPU, so its file is read without it, where it lies at its usual place.
    """
    package = importlib.util.find_spec("sklearn")
    folders = [] if package is None else package.submodule_search_locations or []
    for path in (Path(folder, "datasets/data/digits.csv.gz") for folder in folders):
        if path.exists():
            table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
            return table[:, :-1], table[:, -1]
    images, labels = importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)
    return images, labels
