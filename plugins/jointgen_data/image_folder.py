"""Folders of image files: with the layout of ImageNet, or as people have them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Literal

import attrs
import torch

from jointgen.plugin import (
    LOADING,
    LOCATION,
    SIZE,
    ConfigError,
    FileError,
    Listing,
    Space,
    between,
    class_names,
    list_source,
    log_once,
    non_negative,
    split_folders,
    user_path,
    valid_share,
    valid_side,
    valid_size,
)
from jointgen_data.common import FlippedRows, TensorRows, image_space, is_train, label_space
from jointgen_data.decode import decode_all


@attrs.frozen
class ImageFolder:
    """Images x (channels, size, size), dequantised on [0, 1); with ``labels = true`` also the class y.

    Images are decoded once, when a split is opened, and kept as uint8 in memory: 16 GB for ImageNet at size 64. The
    folders are walked once for an instance, which takes minutes over a network.

    Args:
        root: The folder that holds train/<class>/ and val/<class>/ (or test/), or only one of these, or images in any
            folders. Folders may nest; without labels they need no classes.
        size: The side in pixels. The short side is resized to it with antialiasing, then the centre is cropped.
        channels: 1 for grey and 3 for colour.
        flip: Whether training images are mirrored left to right with probability 1/2.
        labels: Whether the labels are further variables, y.
        classes: The number of class folders; by default they are counted, for which no image is read.
        test_fraction: The share of the images that is held out, chosen by their names, where there are no test images:
            a tenth by default.
        max_broken: How many files may be unreadable; each is skipped and logged.
        workers: The number of threads that decode; 0 for as many as there are cores.
    """

    root: str = attrs.field(metadata=LOCATION)
    size: int = attrs.field(default=64, validator=valid_side, metadata=SIZE)
    channels: Literal[1, 3] = attrs.field(default=3, validator=attrs.validators.in_((1, 3)))
    flip: bool = attrs.field(default=False, metadata=LOADING)
    labels: bool = attrs.field(default=False, metadata=LOADING)
    classes: int | None = attrs.field(default=None, validator=valid_size)
    test_fraction: float | None = attrs.field(default=None, validator=valid_share)
    max_broken: int = attrs.field(default=10, validator=non_negative, metadata=LOADING)
    workers: int = attrs.field(default=0, validator=between(0, 1024), metadata=LOADING)

    def spaces(self) -> dict[str, Space]:
        """Return the Spaces; raise ConfigError where labels need class folders and there are none."""
        spaces = {"x": image_space((self.channels, self.size, self.size), "dequantise")}
        return spaces | {"y": label_space(self.classes or self._class_count)} if self.labels else spaces

    def class_names(self) -> dict[str, list[str]]:
        """Return the names of the class folders; none where there are no classes."""
        listings = [*self._listings.values()]
        return {"y": listings[0].classes} if listings and listings[0].classes else {}

    def count_rows(self, split: str) -> int:
        """Return the number of image files of the split, broken ones included; raise ConfigError as `open` does."""
        is_train(split)
        return len(self._list(split).names[split])

    def open(self, split: str) -> TensorRows:
        """Decode a split; raise ConfigError for a missing folder, no images, too many broken ones, or other classes."""
        train = is_train(split)
        listing = self._list(split)
        if train and listing.held_out and listing.held_out not in self._said:
            log_once(listing.held_out)
            self._said.add(listing.held_out)
        folder, names = listing.folders[split], listing.names[split]
        files = [f"{folder}/{name}" for name in names]
        images, kept = decode_all(files, self.size, self.channels, self.workers, self.max_broken, self._said)
        if not kept:
            raise ConfigError(f"none of the {len(files)} images under {str(folder)!r} can be read", "root")
        values = {"x": torch.from_numpy(images)}
        if self.labels:
            values["y"] = torch.tensor(listing.labels[split])[kept]
        skipped = sorted(set(files) - {files[index] for index in kept})
        return (FlippedRows if self.flip and train else TensorRows)(values, skipped)

    @cached_property
    def _listings(self) -> dict[str, Listing]:
        """What was found, by split."""
        return {}

    @cached_property
    def _said(self) -> set[str]:
        """The lines that were printed, so that a split that is opened again does not repeat them."""
        return set()

    def _list(self, split: str) -> Listing:
        if split not in self._listings:
            with _under_root():
                found = list_source(user_path(self.root), self.test_fraction, [split], "test_fraction")
            self._listings.update(dict.fromkeys(found.names, found))
        listing = self._listings[split]
        if self.labels:
            _ = self._class_count  # is checked
            if listing.unlabelled:
                raise ConfigError(f"{listing.folders[split]}: {listing.unlabelled}", "labels")
        return listing

    @cached_property
    def _class_count(self) -> int:
        """The number of class folders; raises ConfigError where there are none, or not as many as `classes`."""
        with _under_root():
            train, _ = split_folders(user_path(self.root))
            count = len(class_names(train))
        if not count:
            raise ConfigError(f"no class folder under {str(train)!r}; labels need train/<class>/", "labels")
        if self.classes not in (None, count):
            raise ConfigError(f"{self.classes}, but {str(train)!r} has {count} class folders", "classes")
        return count


@contextmanager
def _under_root() -> Iterator[None]:
    try:
        yield
    except FileError as error:
        raise error.under("root") from None
