"""CelebA, faces with forty yes-or-no attributes, from the files that torchvision fetches."""

from __future__ import annotations

import functools
from pathlib import Path

import attrs
import torch
import torchvision

from jointgen.plugin import (
    LOADING,
    LOCATION,
    SIZE,
    ConfigError,
    FileError,
    Space,
    between,
    non_negative,
    placing,
    read_regular,
    suggest,
    valid_side,
)
from jointgen_data.common import FlippedRows, TensorRows, image_space, is_train, label_space
from jointgen_data.decode import decode_all
from jointgen_data.vision import MAX_BYTES, find_files

IMAGES, SPLITS, ATTRIBUTES = "celeba/img_align_celeba", "celeba/list_eval_partition.txt", "celeba/list_attr_celeba.txt"
FILES = [SPLITS, ATTRIBUTES, f"{IMAGES}/000001.jpg"]
NUMBERS = {"train": "0", "test": "2"}  # the file of splits has 1 for the 19,867 validation images, which nothing reads


@attrs.frozen
class CelebA:
    """CelebA: faces x (3, size, size) on [0, 1), 162,770 rows and 19,962 for test; with ``labels = true`` also y.

    The aligned images, 178 x 218, are cropped to the square of 178 in their middle and resized, when a split is opened:
    2 GB of memory at size 64. The validation images are not read.

    Args:
        root: The folder that holds celeba/img_align_celeba, as torchvision lays it out.
        size: The side in pixels.
        flip: Whether training images are mirrored left to right with probability 1/2.
        labels: Whether the attribute is a further variable, y: 0 where a face does not have it, and 1 where it has.
        attribute: Which of the 40 attributes y is, by its name in list_attr_celeba.txt.
        download: Whether missing files are fetched, for which the package gdown must be installed.
        max_broken: How many files may be unreadable; each is skipped and logged.
        workers: The number of threads that decode; 0 for as many as there are cores.
    """

    root: str = attrs.field(metadata=LOCATION)
    size: int = attrs.field(default=64, validator=valid_side, metadata=SIZE)
    flip: bool = attrs.field(default=False, metadata=LOADING)
    labels: bool = attrs.field(default=False, metadata=LOADING)
    attribute: str = attrs.field(default="Smiling", metadata=LOADING)
    download: bool = attrs.field(default=False, metadata=LOADING)
    max_broken: int = attrs.field(default=10, validator=non_negative, metadata=LOADING)
    workers: int = attrs.field(default=0, validator=between(0, 1024), metadata=LOADING)

    def spaces(self) -> dict[str, Space]:
        """Return the Space of each variable."""
        spaces = {"x": image_space((3, self.size, self.size), "dequantise")}
        return spaces | {"y": label_space(2)} if self.labels else spaces

    def count_rows(self, split: str) -> int:
        """Return the number of rows of the split; raise ConfigError where a file is missing and is not fetched."""
        if self.download:
            return 162_770 if is_train(split) else 19_962
        return len(self._names(find_files("CelebA", self.root, FILES, None), split))

    def open(self, split: str) -> TensorRows:
        """Decode the split "train" or "test"; raise ConfigError for missing files and for too many broken ones."""
        train = is_train(split)
        folder = find_files("CelebA", self.root, FILES, _fetch if self.download else None)
        names = self._names(folder, split)
        files = [f"{folder / IMAGES}/{name}" for name in names]
        images, kept = decode_all(files, self.size, 3, self.workers, self.max_broken, set())
        if not kept:
            raise ConfigError(f"none of the {len(files)} images under {str(folder / IMAGES)!r} can be read", "root")
        values = {"x": torch.from_numpy(images)}
        if self.labels:
            has = self._having(folder)
            values["y"] = torch.tensor([int(names[index] in has) for index in kept])
        skipped = sorted(set(files) - {files[index] for index in kept})
        return (FlippedRows if self.flip and train else TensorRows)(values, skipped)

    def _names(self, folder: Path, split: str) -> list[str]:
        """The names of the images of a split."""
        is_train(split)
        with placing("root"):
            rows = _table(folder / SPLITS)
            names = [row[0] for row in rows if row[1:] == (NUMBERS[split],)]
            if not names:
                raise FileError(folder / SPLITS, f"has no image of the {split} split, {NUMBERS[split]}")
        return names

    def _having(self, folder: Path) -> set[str]:
        """The names of the images that have the attribute."""
        with placing("root"):
            rows = _table(folder / ATTRIBUTES)
            head = rows[1] if len(rows) > 1 else ()
        if self.attribute not in head:
            raise ConfigError(
                f"{self.attribute!r} is none of its attributes{suggest(self.attribute, head)}", "attribute"
            )
        column = head.index(self.attribute) + 1
        return {row[0] for row in rows[2:] if row[column : column + 1] == ("1",)}


def _fetch(folder: Path) -> None:
    torchvision.datasets.CelebA(folder, "all", download=True)


@functools.lru_cache(maxsize=4)
def _parsed(path: Path, changed: int) -> list[tuple[str, ...]]:
    text = read_regular(path, MAX_BYTES).decode("utf-8", errors="replace")
    return [tuple(line.split()) for line in text.splitlines() if line.strip()]


def _table(path: Path) -> list[tuple[str, ...]]:
    """The words of each line of a text file."""
    return _parsed(path, path.stat().st_mtime_ns)
