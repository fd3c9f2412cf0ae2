"""MNIST, through torchvision."""

from __future__ import annotations

import attrs
import torchvision
from torch import Tensor
from torch.nn import functional as F

from jointgen.plugin import LOADING, LOCATION, READING, Space
from jointgen_data.common import Observed, TensorRows, image_space, is_observed, is_train, label_space
from jointgen_data.vision import load_torchvision

FILES = [f"MNIST/raw/{split}-{what}-ubyte" for split in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]


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
    """

    root: str = attrs.field(metadata=LOCATION)
    observe: Observed = attrs.field(default="binarise", validator=is_observed, metadata=READING)
    labels: bool = attrs.field(default=False, metadata=LOADING)
    download: bool = attrs.field(default=False, metadata=LOADING)
    pad: bool = False

    def spaces(self) -> dict[str, Space]:
        """Return the Space of each variable."""
        side = 32 if self.pad else 28
        spaces = {"x": image_space((1, side, side), self.observe)}
        return spaces | {"y": label_space(10)} if self.labels else spaces

    def open(self, split: str) -> TensorRows:
        """Open the split "train" or "test"."""
        dataset = torchvision.datasets.MNIST
        found = load_torchvision(dataset, self.root, FILES, train=is_train(split), download=self.download)
        images: Tensor = found.data[:, None]  # (N, 1, 28, 28) uint8
        values = {"x": F.pad(images, (2, 2, 2, 2)) if self.pad else images}
        if self.labels:
            values["y"] = found.targets.long()
        return TensorRows(values)
