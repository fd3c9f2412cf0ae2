"""Images that `jointgen data prepare` wrote: shards that are mapped, so that memory holds only a batch."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor

from jointgen.plugin import (
    LOADING,
    LOCATION,
    ConfigError,
    NoiseSource,
    PreparedManifest,
    Space,
    StoredFile,
    hash_faults,
    map_array,
    read_manifest,
    size_faults,
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
        verify: Whether every byte is compared with the manifest's SHA-256 when a split is opened; sizes always are.
    """

    path: str = attrs.field(metadata=LOCATION)
    crop: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.gt(0)))
    flip: bool = attrs.field(default=False, metadata=LOADING)
    labels: bool = attrs.field(default=False, metadata=LOADING)
    verify: bool = attrs.field(default=False, metadata=LOADING)

    def spaces(self) -> dict[str, Space]:
        """Return the Spaces from the manifest; raise ConfigError if it is missing, unfinished or has no labels."""
        manifest = self._manifest()
        side = self.crop or manifest.plan.size
        spaces = {"x": image_space((manifest.plan.channels, side, side), "dequantise")}
        return spaces | {"y": label_space(len(manifest.classes))} if self.labels else spaces

    def open(self, split: str) -> PreparedRows:
        """Open a split; raise ConfigError as `spaces` does, and for files that are missing or torn."""
        manifest, train = self._manifest(), is_train(split)
        stored = manifest.splits[split]
        check = hash_faults if self.verify else size_faults
        if problems := list(check(self._folder, stored.stored)):
            more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
            raise ConfigError(f"{problems[0]}{more}; prepare it again", "path")
        shards = [self._map(shard, manifest) for shard in stored.shards if shard.rows]
        labels = self._map(stored.labels, manifest) if self.labels and stored.labels else None
        if train and (self.flip or self.crop):
            return AugmentedRows(shards, labels, self.crop, self.flip)
        return PreparedRows(shards, labels, self.crop)

    @property
    def _folder(self) -> Path:
        return Path(self.path).expanduser()

    def _manifest(self) -> PreparedManifest:
        try:
            manifest = read_manifest(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(
                f"nothing prepared in {self.path!r}; see `jointgen data prepare --help`", "path"
            ) from None
        except (OSError, ValueError) as error:
            raise ConfigError(str(error), "path") from error
        if not manifest.finished:
            raise ConfigError(f"{self.path!r} is not finished; run the same `jointgen data prepare` to its end", "path")
        if self.crop is not None and self.crop > manifest.plan.size:
            raise ConfigError(
                f"{self.crop} is more than the {manifest.plan.size} pixels of the prepared images", "crop"
            )
        if self.labels and not manifest.classes:
            raise ConfigError(f"the images in {self.path!r} have none: {manifest.unlabelled}", "labels")
        return manifest

    def _map(self, stored: StoredFile, manifest: PreparedManifest) -> np.ndarray:
        path, side = self._folder / stored.name, manifest.plan.size
        images = (stored.rows, manifest.plan.channels, side, side), np.dtype(np.uint8)
        try:
            array = map_array(path)
        except Exception as error:  # numpy raises several things for a header that is none
            raise ConfigError(f"{path} cannot be read: {error}", "path") from error
        if (array.shape, array.dtype) not in (images, ((stored.rows,), np.dtype(np.int64))):
            raise ConfigError(f"{path} holds {array.dtype} {array.shape}, which is not what the manifest says", "path")
        return array


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
