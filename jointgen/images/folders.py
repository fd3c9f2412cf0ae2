"""Lists folders of image files, laid out as ImageNet is (train/CLASS/*, val/CLASS/* or test/) or in any other way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from jointgen.errors import ConfigError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
SPLIT_FOLDERS = {"train": ("train",), "test": ("val", "test")}
"""The folders that may hold a split; the first that exists does."""
TEST_FRACTION = 0.1
"""The share of the images that is held out where a source has no test images of its own."""


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of the "train" or the "test" split under `root`, or None."""
    return next((root / name for name in SPLIT_FOLDERS[split] if (root / name).is_dir()), None)


def list_images(folder: str | Path) -> list[str]:
    """List the image files in a folder at any depth, by their ending.

    Hidden files and folders are left out (macOS leaves ._name.jpg beside each image). Links are followed, but not back
    to a folder that they lie in.

    Returns:
        Sorted names relative to `folder`, with "/" between their parts.

    Raises:
        OSError: A folder cannot be read.
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
            elif entry.name.lower().endswith(IMAGE_SUFFIXES) and (entry.is_file() or entry.is_symlink()):
                yield below + entry.name


def class_names(folder: Path) -> list[str]:
    """The sorted names of the class folders; their order numbers the classes, as in torchvision's ImageFolder."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def number_classes(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The class of each image, by the first folder of its name.

    Args:
        names: Of image files, relative to the folder that holds the class folders.
        classes: The names of the classes in order.

    Raises:
        ValueError: An image lies in none of the class folders.
    """
    number = {name: index for index, name in enumerate(classes)}
    folders = [name.partition("/")[0] if "/" in name else "" for name in names]
    for name, folder in zip(names, folders, strict=True):
        if folder not in number:
            raise ValueError(f"{name} is not in a class folder of the training images")
    return [number[folder] for folder in folders]


# --- the images of a source, by split ---------------------------------------------------------------------------------


@attrs.frozen
class Listing:
    """The image files of a source, by split, with their classes.

    Args:
        folders: The folder of each split.
        names: The names of its images, relative to that folder.
        test_fraction: The share that was held out as the test split; None where the source has one.
        classes: The names of the classes in order; empty where there are no labels.
        labels: The class of each image, by split; empty where there are none.
        unlabelled: Why there are no labels, or an empty string.
    """

    folders: dict[str, Path]
    names: dict[str, list[str]]
    test_fraction: float | None
    classes: list[str]
    labels: dict[str, list[int]]
    unlabelled: str

    @property
    def files(self) -> int:
        """The number of image files in all splits."""
        return sum(len(names) for names in self.names.values())

    def digest(self) -> str:
        """The SHA-256 of the names and sizes of the files, split by split."""
        digest = hashlib.sha256()
        for split, names in self.names.items():
            for name in names:
                digest.update(os.fsencode(f"{split}/{name}") + b"\0%d\n" % _size(self.folders[split] / name))
        return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link that leads nowhere is named when it is read
        return -1


def list_source(root: Path, test_fraction: float | None = None) -> Listing:
    """List the images of a folder: of train/ and val/ (or test/), or of all of it, with a share held out for tests.

    Args:
        root: The folder.
        test_fraction: The share to hold out where there is neither val/ nor test/; None: `TEST_FRACTION`.

    Raises:
        ConfigError: There are no images, or a folder cannot be read, or a share is asked for beside test images.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: {'is not a folder' if root.exists() else 'no such folder'}")
    train, test = split_folder(root, "train") or root, split_folder(root, "test")
    if test is not None and train == root:
        raise ConfigError(f"{root}: there is {test.name}/, but no train/ beside it")
    names = {"train": _names(train)}
    if test is not None and test_fraction is not None:
        raise ConfigError(f"{root} has test images of its own, in {test.name}/", "--test-fraction")
    if test is not None:
        return _labelled({"train": train, "test": test}, names | {"test": _names(test)}, None)
    share = TEST_FRACTION if test_fraction is None else test_fraction
    return _labelled({"train": train, "test": train}, _hold_out(names["train"], share, train), share)


def _names(folder: Path) -> list[str]:
    try:
        names = list_images(folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read: {error}") from error
    if not names:
        raise ConfigError(f"{folder}: no image in it (looked for {', '.join(IMAGE_SUFFIXES)})")
    return names


def _hold_out(names: list[str], share: float, folder: Path) -> dict[str, list[str]]:
    """Choose test images by a hash of their names, so that most of the choice stays when images are added."""
    count = max(1, round(share * len(names)))
    if count >= len(names):
        raise ConfigError(f"{share} of the {len(names)} images in {folder} leaves none to train on", "--test-fraction")
    chosen = set(sorted(names, key=lambda name: hashlib.blake2b(os.fsencode(name)).digest())[:count])
    return {"train": [name for name in names if name not in chosen], "test": sorted(chosen)}


def _labelled(folders: dict[str, Path], names: dict[str, list[str]], share: float | None) -> Listing:
    classes = class_names(folders["train"])
    try:
        labels = {split: number_classes(names[split], classes) for split in names}
    except ValueError as error:
        return Listing(folders, names, share, [], {}, str(error))
    return Listing(folders, names, share, classes, labels, "")
