"""MNIST and two sets of its form, from the files that torchvision fetches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
import torchvision
from torch.nn import functional as F

from jointgen.plugin import LOADING, LOCATION, READING, FileError, Space, check_regular, placing, read_regular
from jointgen_data.common import Observed, TensorRows, image_space, is_observed, is_train, label_space
from jointgen_data.vision import MAX_BYTES, find_files

FILES = [f"{split}-{what}-ubyte" for split in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]


@attrs.frozen
class MNIST:
    """MNIST: x (1, 28, 28) in 256 grey levels and, with ``labels = true``, the digit y; 60,000 and 10,000 rows.

    Args:
        root: The folder that holds MNIST/raw, as torchvision lays it out.
        observe: "binarise" draws new bits on every read, test included (Burda et al., 2016); "dequantise" adds U[0, 1)
            to the levels and scales to [0, 1).
        labels: Whether the labels are further variables, y.
        download: Whether missing files are fetched.
        pad: Whether two black pixels are added on every side, for networks that halve a 32x32 image.
        negative: Whether black and white are exchanged, which makes a second domain for models of two.
    """

    root: str = attrs.field(metadata=LOCATION)
    observe: Observed = attrs.field(default="binarise", validator=is_observed, metadata=READING)
    labels: bool = attrs.field(default=False, metadata=LOADING)
    download: bool = attrs.field(default=False, metadata=LOADING)
    pad: bool = False
    negative: bool = False

    title: ClassVar[str] = "MNIST"
    """The name of torchvision's class, and of the folder that it lays the files in."""

    def spaces(self) -> dict[str, Space]:
        """Return the Space of each variable."""
        side = 32 if self.pad else 28
        spaces = {"x": image_space((1, side, side), self.observe)}
        return spaces | {"y": label_space(10)} if self.labels else spaces

    def count_rows(self, split: str) -> int:
        """Return the number of rows of the split; raise ConfigError where a file is missing and is not fetched."""
        if self.download:
            return 60_000 if is_train(split) else 10_000
        images = self._find(None) / f"{'train' if is_train(split) else 't10k'}-images-idx3-ubyte"
        with placing("root"):
            return max(0, check_regular(images).st_size - 16) // 784  # 16 bytes of header, and 28 x 28 of each image

    def open(self, split: str) -> TensorRows:
        """Open the split "train" or "test"."""
        prefix = "train" if is_train(split) else "t10k"
        fetch = partial(getattr(torchvision.datasets, self.title), download=True) if self.download else None
        folder = self._find(fetch)
        with placing("root"):
            images = read_idx(folder / f"{prefix}-images-idx3-ubyte", (28, 28))
            path = folder / f"{prefix}-labels-idx1-ubyte"
            labels = read_idx(path, ())
            if len(labels) != len(images):
                raise FileError(path, f"is damaged: {len(labels)} labels of {len(images)} images")
            if labels.max() > 9:
                raise FileError(path, f"is damaged: it holds {labels.max()}, and labels are 0 to 9")
        x = torch.from_numpy(images)[:, None]  # (N, 1, 28, 28)
        x = F.pad(x, (2, 2, 2, 2)) if self.pad else x
        values = {"x": 255 - x if self.negative else x}
        if self.labels:
            values["y"] = torch.from_numpy(labels).long()
        return TensorRows(values)

    def _find(self, fetch: Callable[[Path], Any] | None) -> Path:
        """Return the folder of the files, which are there."""
        return (
            find_files(self.title, self.root, [f"{self.title}/raw/{file}" for file in FILES], fetch)
            / self.title
            / "raw"
        )


@attrs.frozen
class FashionMNIST(MNIST):
    """Fashion-MNIST: x (1, 28, 28) in 256 grey levels and, with ``labels = true``, the kind y of the article.

    60,000 rows, and 10,000 for test. The keys are those of MNIST, but that grey levels are dequantised by default.

    Args:
        root: The folder that holds FashionMNIST/raw, as torchvision lays it out.
        observe: "dequantise" or "binarise", as for MNIST.
    """

    observe: Observed = attrs.field(default="dequantise", validator=is_observed, metadata=READING)

    title: ClassVar[str] = "FashionMNIST"


@attrs.frozen
class KMNIST(MNIST):
    """Kuzushiji-MNIST: x (1, 28, 28) in 256 grey levels and, with ``labels = true``, the character y, one of 10.

    60,000 rows, and 10,000 for test. The keys are those of MNIST.

    Args:
        root: The folder that holds KMNIST/raw, as torchvision lays it out.
    """

    title: ClassVar[str] = "KMNIST"


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read an IDX file of bytes, (N, *shape) uint8. FileError where its header or its length says something else.

    The header is big-endian: two zeros, the type (8: bytes), the number of axes, and 32 bits for the length of each.
    """
    data = read_regular(path, MAX_BYTES)
    header = 4 * (2 + len(shape))
    magic, *held = np.frombuffer(data[:header].ljust(header, b"\0"), ">u4").tolist()
    if magic != 0x800 + 1 + len(shape) or tuple(held[1:]) != shape or not held[0]:
        raise FileError(path, f"is damaged: its header is not that of {' x '.join(map(str, ('N', *shape)))} bytes")
    if len(data) - header != held[0] * max(1, int(np.prod(shape))):
        raise FileError(path, f"is damaged: {len(data)} bytes, where its header says {held[0]} rows")
    return np.frombuffer(data, np.uint8, offset=header).reshape(held[0], *shape).copy()
