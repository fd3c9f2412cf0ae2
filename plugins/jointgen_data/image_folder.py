"""Folders of image files with the layout of ImageNet."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs
import torch

from jointgen.plugin import (
    IMAGE_SUFFIXES,
    LOADING,
    LOCATION,
    SIZE,
    SPLIT_FOLDERS,
    ConfigError,
    Space,
    class_names,
    list_images,
    number_classes,
    split_folder,
)
from jointgen_data.common import FlippedRows, TensorRows, image_space, is_train, label_space
from jointgen_data.decode import decode_all


@attrs.frozen
class ImageFolder:
    """Images x (channels, size, size), dequantised on [0, 1); with ``labels = true`` also the class y.

    Images are decoded once, when a split is opened, and kept as uint8 in memory: 16 GB for ImageNet at size 64.

    Args:
        root: The folder that holds train/<class>/ and val/<class>/ (or test/). Folders may nest; without labels they
            need no classes.
        size: The side in pixels. The short side is resized to it with antialiasing, then the centre is cropped.
        channels: 1 for grey and 3 for colour.
        flip: Whether training images are mirrored left to right with probability 1/2.
        labels: Whether the labels are further variables, y.
        classes: The number of class folders; by default they are counted, for which no image is read.
        max_broken: How many files may be unreadable; each is skipped and logged.
        workers: The number of threads that decode; 0 for as many as there are cores.
    """

    root: str = attrs.field(metadata=LOCATION)
    size: int = attrs.field(default=64, validator=attrs.validators.gt(0), metadata=SIZE)
    channels: Literal[1, 3] = attrs.field(default=3, validator=attrs.validators.in_((1, 3)))
    flip: bool = attrs.field(default=False, metadata=LOADING)
    labels: bool = attrs.field(default=False, metadata=LOADING)
    classes: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.gt(0)))
    max_broken: int = attrs.field(default=10, validator=attrs.validators.ge(0), metadata=LOADING)
    workers: int = attrs.field(default=0, validator=attrs.validators.ge(0), metadata=LOADING)

    def spaces(self) -> dict[str, Space]:
        """Return the Spaces; raise ConfigError where labels need class folders and there are none."""
        spaces = {"x": image_space((self.channels, self.size, self.size), "dequantise")}
        return spaces | {"y": label_space(self.classes or len(self._class_names()))} if self.labels else spaces

    def open(self, split: str) -> TensorRows:
        """Decode a split; raise ConfigError for a missing folder, no images, too many broken ones, or other classes."""
        folder = self._folder(split)
        names = _list(folder)
        if not names:
            raise ConfigError(f"no image under {str(folder)!r} (looked for {', '.join(IMAGE_SUFFIXES)})", "root")
        labels = self._labels(folder, names) if self.labels else []
        files = [f"{folder}/{name}" for name in names]
        images, kept = decode_all(files, self.size, self.channels, self.workers, self.max_broken)
        if not kept:
            raise ConfigError(f"none of the {len(files)} images under {str(folder)!r} can be read", "root")
        values = {"x": torch.from_numpy(images)}
        if self.labels:
            values["y"] = torch.tensor(labels)[kept]
        skipped = sorted(set(files) - {files[index] for index in kept})
        return (FlippedRows if self.flip and is_train(split) else TensorRows)(values, skipped)

    def _folder(self, split: str) -> Path:
        names, root = SPLIT_FOLDERS["train" if is_train(split) else "test"], Path(self.root).expanduser()
        if folder := split_folder(root, split):
            return folder
        raise ConfigError(
            f"no {split} images under {self.root!r} (looked for {' and '.join(str(root / name) for name in names)}); "
            "give root = the folder that holds train/<class>/ and val/<class>/; of a folder without them, "
            "`jointgen data prepare` holds out a tenth",
            "root",
        )

    def _class_names(self) -> list[str]:
        train = self._folder("train")
        names = class_names(train)
        if not names:
            raise ConfigError(f"no class folder under {str(train)!r}; labels need train/<class>/", "labels")
        if self.classes not in (None, len(names)):
            raise ConfigError(f"{self.classes}, but {str(train)!r} has {len(names)} class folders", "classes")
        return names

    def _labels(self, folder: Path, names: list[str]) -> list[int]:
        classes = self._class_names()
        try:
            return number_classes(names, classes)
        except ValueError as error:
            raise ConfigError(f"{folder}/{error}", "labels") from None


def _list(folder: Path) -> list[str]:
    try:
        return list_images(folder)
    except OSError as error:
        raise ConfigError(f"{str(folder)!r} cannot be read: {error}", "root") from error
