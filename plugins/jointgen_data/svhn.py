"""Street View House Numbers, from the files that torchvision fetches."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import torch
import torchvision
from einops import rearrange
from scipy.io import loadmat

from jointgen.plugin import LOADING, LOCATION, FileError, Space, placing
from jointgen_data.common import TensorRows, image_space, is_train, label_space
from jointgen_data.vision import find_files

FILES = ["train_32x32.mat", "test_32x32.mat"]


@attrs.frozen
class SVHN:
    """SVHN: x (3, 32, 32) on [0, 1) and, with ``labels = true``, the digit y; 73,257 rows and 26,032 for test.

    Args:
        root: The folder that holds train_32x32.mat and test_32x32.mat. The further "extra" images are not read.
        labels: Whether the labels are further variables, y.
        download: Whether missing files are fetched.
    """

    root: str = attrs.field(metadata=LOCATION)
    labels: bool = attrs.field(default=False, metadata=LOADING)
    download: bool = attrs.field(default=False, metadata=LOADING)

    def spaces(self) -> dict[str, Space]:
        """Return the Space of each variable."""
        spaces = {"x": image_space((3, 32, 32), "dequantise")}
        return spaces | {"y": label_space(10)} if self.labels else spaces

    def count_rows(self, split: str) -> int:
        """Return the number of rows of the split; raise ConfigError where a file is missing and is not fetched."""
        if not self.download:
            find_files("SVHN", self.root, FILES, None)
        return 73_257 if is_train(split) else 26_032

    def open(self, split: str) -> TensorRows:
        """Open the split "train" or "test"."""
        name = FILES[0] if is_train(split) else FILES[1]
        path = find_files("SVHN", self.root, FILES, _fetch if self.download else None) / name
        with placing("root"):
            images, digits = _read(path)
        values = {"x": rearrange(torch.from_numpy(images), "h w c n -> n c h w").contiguous()}
        if self.labels:
            values["y"] = torch.from_numpy(digits.astype(np.int64)) % 10  # the file calls the digit 0 ten
        return TensorRows(values)


def _fetch(folder: Path) -> None:
    for split in ("train", "test"):
        torchvision.datasets.SVHN(folder, split, download=True)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images, (32, 32, 3, N) uint8, and digits, (N,), of which 10 is a zero. FileError where they are not."""
    try:
        held = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # scipy raises anything for a file that is not MATLAB's
        raise FileError(path, f"is damaged: {' '.join(str(error).split()) or type(error).__name__}") from error
    images, digits = held.get("X", np.empty(0)), held.get("y", np.empty(0)).reshape(-1)
    if images.ndim != 4 or images.shape[:3] != (32, 32, 3) or images.dtype != np.uint8 or not images.shape[3]:
        raise FileError(path, f"is damaged: X is {images.dtype} {images.shape}, not uint8 (32, 32, 3, N)")
    if digits.shape != images.shape[3:] or not np.isin(digits, range(1, 11)).all():
        raise FileError(path, f"is damaged: y is not {images.shape[3]} digits, 1 to 10")
    return images, digits
