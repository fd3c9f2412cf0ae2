"""CIFAR-10, through torchvision."""

from __future__ import annotations

from functools import partial

import attrs
import torch
import torchvision
from einops import rearrange

from jointgen.plugin import LOADING, LOCATION, Space
from jointgen_data.common import FlippedRows, TensorRows, image_space, is_train, label_space
from jointgen_data.vision import find_files, read_checked

BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = [f"cifar-10-batches-py/{name}" for name in BATCHES]


@attrs.frozen
class CIFAR10:
    """CIFAR-10: x (3, 32, 32) on [0, 1) and, with ``labels = true``, the class y; 50,000 rows and 10,000 for test.

    Args:
        root: The folder that holds cifar-10-batches-py, as torchvision lays it out, which also checks its md5 sums.
        flip: Whether training images are mirrored left to right with probability 1/2.
        labels: Whether the labels are further variables, y.
        download: Whether missing files are fetched.
    """

    root: str = attrs.field(metadata=LOCATION)
    flip: bool = attrs.field(default=False, metadata=LOADING)
    labels: bool = attrs.field(default=False, metadata=LOADING)
    download: bool = attrs.field(default=False, metadata=LOADING)

    def spaces(self) -> dict[str, Space]:
        """Return the Space of each variable."""
        spaces = {"x": image_space((3, 32, 32), "dequantise")}
        return spaces | {"y": label_space(10)} if self.labels else spaces

    def class_names(self) -> dict[str, list[str]]:
        """Return the names of the classes."""
        return {"y": list(CLASSES)}

    def count_rows(self, split: str) -> int:
        """Return the number of rows of the split; raise ConfigError where a file is missing and is not fetched."""
        if not self.download:
            find_files("CIFAR10", self.root, FILES, None)
        return 50_000 if is_train(split) else 10_000

    def open(self, split: str) -> TensorRows:
        """Open the split "train" or "test"."""
        train, dataset = is_train(split), torchvision.datasets.CIFAR10
        fetch = partial(dataset, download=True) if self.download else None
        folder = find_files("CIFAR10", self.root, FILES, fetch)
        sums = {f"{dataset.base_folder}/{name}": md5 for name, md5 in [*dataset.train_list, *dataset.test_list]}
        sums[f"{dataset.base_folder}/{dataset.meta['filename']}"] = dataset.meta["md5"]
        found = read_checked(dataset, folder, train, sums)
        values = {"x": rearrange(torch.from_numpy(found.data), "n h w c -> n c h w").contiguous()}  # uint8
        if self.labels:
            values["y"] = torch.tensor(found.targets)
        return FlippedRows(values) if self.flip and train else TensorRows(values)
