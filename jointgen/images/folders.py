"""Folders of image files, laid out as ImageNet is: train/<class>/*, val/<class>/* (or test/)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
SPLITS = {"train": ("train",), "test": ("val", "test")}
"""The folders of a split; the first that is there holds it."""


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of "train" or "test" under `root`, or None."""
    return next((root / name for name in SPLITS[split] if (root / name).is_dir()), None)


def list_images(folder: str | Path) -> list[str]:
    """Names relative to `folder`, "/" between the parts: by their ending, at any depth, sorted.

    Hidden files and folders are not ours (macOS leaves ._name.jpg beside each image). Links are followed, but not
    back to a folder that they lie in. Raises OSError for a folder that cannot be read.
    """
    return sorted(_walk(os.fspath(folder), "", ()))


def _walk(folder: str, below: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{below}{entry.name}/", (*above, here))
            elif entry.name.lower().endswith(SUFFIXES) and (entry.is_file() or entry.is_symlink()):
                yield below + entry.name


def class_names(folder: Path) -> list[str]:
    """Sorted names of the folders in it; their order numbers the classes, as torchvision's ImageFolder does."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def number_classes(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The class of each image by the first folder of its name. Raises ValueError for one that is in none of them."""
    number = {name: index for index, name in enumerate(classes)}
    folders = [name.partition("/")[0] if "/" in name else "" for name in names]
    for name, folder in zip(names, folders, strict=True):
        if folder not in number:
            raise ValueError(f"{name} is not in a class folder of the training images")
    return [number[folder] for folder in folders]
