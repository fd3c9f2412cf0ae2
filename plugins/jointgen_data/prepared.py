"""Images that `jointgen data prepare` wrote: shards that are mapped, so that memory holds only a batch."""

from __future__ import annotations

import attrs
import numpy as np
import torch
from torch import Tensor

from jointgen.plugin import (
    LOADING,
    LOCATION,
    ConfigError,
    MissingFileError,
    NoiseSource,
    PreparedManifest,
    Space,
    check_files,
    map_split,
    placing,
    read_manifest,
    user_path,
    valid_side,
)
from jointgen_data.common import flip, image_space, is_train, label_space


@attrs.frozen
class PreparedImages:
    """Images x (channels, size, size), dequantised on [0, 1); with ``labels = true`` also the class y.

    Args:
        path: The folder that `jointgen data prepare` wrote, which decided size and channels.
        crop: The side in pixels of a square that is cut from the images, at a random place in training and from the
            centre otherwise; by default the whole image. Prepare somewhat larger images for it, 72 for 64. Padding,
            which classifiers use, would put black borders into the data that a generative model learns.
        flip: Whether training images are mirrored left to right with probability 1/2.
        labels: Whether the labels are further variables, y.
        verify: Whether every byte is compared with the manifest's SHA-256 when a split is opened. The manifest and the
            labels always are, and the sizes, types and shapes of the images.
    """

    path: str = attrs.field(metadata=LOCATION)
    crop: int | None = attrs.field(default=None, validator=valid_side)
    flip: bool = attrs.field(default=False, metadata=LOADING)
    labels: bool = attrs.field(default=False, metadata=LOADING)
    verify: bool = attrs.field(default=False, metadata=LOADING)

    def spaces(self) -> dict[str, Space]:
        """Return the Spaces from the manifest; raise ConfigError if it is missing, unfinished or has no labels."""
        manifest = self._manifest()
        side = self.crop or manifest.plan.size
        spaces = {"x": image_space((manifest.plan.channels, side, side), "dequantise")}
        return spaces | {"y": label_space(len(manifest.classes))} if self.labels else spaces

    def class_names(self) -> dict[str, list[str]]:
        """Return the names of the classes; none where the images have no labels."""
        classes = self._manifest().classes
        return {"y": classes} if classes else {}

    def count_rows(self, split: str) -> int:
        """Return the number of rows of the split; raise ConfigError as `open` does."""
        is_train(split)
        return self._checked(split, every_byte=False).splits[split].rows

    def open(self, split: str) -> PreparedRows:
        """Open a split; raise ConfigError as `spaces` does, and for files that are not what the manifest says."""
        train = is_train(split)
        manifest = self._checked(split, every_byte=self.verify)
        with placing("path"):
            shards, labels = map_split(user_path(self.path), manifest, split)
        labels = labels if self.labels else None
        if train and (self.flip or self.crop):
            return AugmentedRows(shards, labels, self.crop, self.flip)
        return PreparedRows(shards, labels, self.crop)

    def _checked(self, split: str, every_byte: bool) -> PreparedManifest:
        manifest = self._manifest()
        with placing("path"):
            check_files(user_path(self.path), manifest, [split], every_byte=every_byte)
        return manifest

    def _manifest(self) -> PreparedManifest:
        with placing("path"):
            try:
                manifest = read_manifest(user_path(self.path))
            except MissingFileError:
                raise ConfigError(
                    f"nothing prepared in {self.path!r} (no manifest.json); see `jointgen data prepare --help`"
                ) from None
            if not manifest.finished:
                raise ConfigError(f"{self.path!r} is not finished; run the same `jointgen data prepare` to its end")
        if self.crop is not None and self.crop > manifest.plan.size:
            raise ConfigError(
                f"{self.crop} is more than the {manifest.plan.size} pixels of the prepared images", "crop"
            )
        if self.labels and not manifest.classes:
            raise ConfigError(f"the images in {self.path!r} have none: {manifest.unlabelled}", "labels")
        return manifest


class PreparedRows:
    """Rows of mapped shards, which are read when they are taken.

    Args:
        shards: The images, (N_s, C, H, W) uint8 each.
        labels: The labels of all rows, (N,) int64, or None.
        crop: The side of the square that is cut from the images, or None for the whole image.
    """

    def __init__(self, shards: list[np.ndarray], labels: np.ndarray | None, crop: int | None):
        self._shards, self._labels = shards, labels
        self._ends = np.cumsum([len(shard) for shard in shards])
        self._side = crop or shards[0].shape[-1]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def stored(self, index: Tensor) -> dict[str, Tensor]:
        """Return whole images, before they are cropped, for row numbers (B,) int64."""
        values = {"x": self._gather(index.numpy())}
        if self._labels is not None:
            values["y"] = torch.from_numpy(self._labels[index.numpy()])
        return values

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Return the rows with these numbers, (B,) int64; of images that are cropped, the centre."""
        values = self.stored(index)
        margin = (values["x"].shape[-1] - self._side) // 2
        inside = slice(margin, margin + self._side)
        return values | {"x": values["x"][..., inside, inside].contiguous()}

    def _gather(self, index: np.ndarray) -> Tensor:
        """Read shard by shard in the order on disk, each row straight to its place in the batch."""
        images = np.empty((len(index), *self._shards[0].shape[1:]), np.uint8)
        places = np.argsort(index, kind="stable")
        rows = index[places]
        cuts = np.searchsorted(rows, self._ends)
        for shard, begin, start, stop in zip(
            self._shards, self._ends - [len(shard) for shard in self._shards], [0, *cuts[:-1]], cuts, strict=True
        ):
            if start < stop:
                images[places[start:stop]] = shard[rows[start:stop] - begin]
        return torch.from_numpy(images)


class AugmentedRows(PreparedRows):
    """Rows whose images are cropped at a random place and mirrored with probability 1/2 in training."""

    def __init__(self, shards: list[np.ndarray], labels: np.ndarray | None, crop: int | None, flips: bool):
        super().__init__(shards, labels, crop)
        self._flips = flips

    def augment(self, values: dict[str, Tensor], noise: NoiseSource) -> dict[str, Tensor]:
        """Return raw rows from stored ones on any device; each row has its own place and its own coin."""
        images = random_crop(values["x"], self._side, noise)
        if self._flips:
            images = flip(images, noise.uniform() < 0.5)
        return values | {"x": images}


def random_crop(images: Tensor, side: int, noise: NoiseSource) -> Tensor:
    """Cut random squares, (B, C, H, H) -> (B, C, side, side), with every place equally likely."""
    B, C, H, _ = images.shape
    if side == H:
        return images
    places = H - side + 1
    corner = (noise.uniform(2) * places).long().clamp(max=places - 1).to(images.device)  # (B, 2)
    within = torch.arange(side, device=images.device)
    rows, columns = (corner[:, axis, None] + within for axis in (0, 1))  # (B, side) each
    row, channel = torch.arange(B, device=images.device), torch.arange(C, device=images.device)
    return images[row[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]
