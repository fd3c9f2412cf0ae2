"""Lists folders of image files as people have them, with links, pipes and whatever else a disk may hold.

They are laid out as ImageNet is (train/CLASS/*, val/CLASS/* or test/), with only one of these, by class, or flat.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from jointgen.errors import ConfigError, FileError, MissingFileError, placing
from jointgen.runtime.regular_files import unreadable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
SPLIT_FOLDERS = {"train": ("train",), "test": ("val", "test")}
"""The folders that may hold a split; the first that exists does."""
TEST_FRACTION = 0.1
"""The share of the images that is held out where a source has no test images of its own."""

# --- files in folders -------------------------------------------------------------------------------------------------


def list_images(folder: str | Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[str]:
    """List the image files in a folder at any depth, by their ending.

    Hidden files and folders are left out (macOS leaves ._name.jpg beside each image). Links are followed, but each
    folder is listed once, under its own name rather than a link's, and no link leads to a folder that it lies in. What
    has the ending and is no file (a pipe, a link to nowhere) is listed, so that whoever reads it names it.

    Returns:
        Sorted names relative to `folder`, with "/" between their parts.

    Raises:
        FileError: A folder cannot be read.
    """
    endings = tuple(suffixes)
    names: list[str] = []
    folders = [(False, "")]  # a heap of (whether it is a link, its name): what is there itself comes before links
    listed = {_identity(parent) for parent in Path(os.path.realpath(folder)).parents}
    while folders:
        _, below = heapq.heappop(folders)
        path = os.path.join(folder, below)
        with _readable(path):
            here = _identity(path)
            if here in listed:
                continue
            listed.add(here)
            for entry in _visible_entries(path):
                if _is_folder(entry):
                    heapq.heappush(folders, (entry.is_symlink(), f"{below}{entry.name}/"))
                elif entry.name.lower().endswith(endings):
                    names.append(below + entry.name)
    return sorted(names)


def class_names(folder: Path) -> list[str]:
    """The sorted names of the class folders; their order numbers the classes, as in torchvision's ImageFolder.

    Raises:
        FileError: The folder cannot be read.
    """
    with _readable(folder):
        return sorted(entry.name for entry in _visible_entries(folder) if _is_folder(entry))


@contextmanager
def _readable(folder: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unreadable(folder, error) from None


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _visible_entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a locked folder
        return False


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
        root: The source.
        folders: The folder of each split.
        names: The names of its images, relative to that folder.
        test_fraction: The share that was held out as the test split; None where the source has one.
        classes: The names of the classes in order; empty where there are no labels.
        labels: The class of each image, by split; empty where there are none.
        unlabelled: Why there are no labels, or an empty string.
    """

    root: Path
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

    @property
    def held_out(self) -> str:
        """One line about the share that was held out, or an empty string."""
        if self.test_fraction is None:
            return ""
        kept = f"{len(self.names['test'])} of its {self.files} images are held out as the test split"
        only = self.folders["train"].name
        has = "no test images of its own" if self.folders["train"] == self.root else f"no other images than {only}/"
        return f"{self.root} has {has}: {kept} (a share of {self.test_fraction:g}, by name)"

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


def list_source(
    root: Path,
    test_fraction: float | None = None,
    splits: Iterable[str] = ("train", "test"),
    option: str = "--test-fraction",
) -> Listing:
    """List the images of a folder, with a share of them held out for tests where it has no test images of its own.

    Args:
        root: The folder: with train/ and val/ (or test/), with one of these only, or with images anywhere.
        test_fraction: The share to hold out where there are no test images; None: `TEST_FRACTION`.
        splits: The splits that are wanted. Where a share is held out, all are listed.
        option: The key or option that gives the share.

    Raises:
        FileError: There are no images, or a folder cannot be read.
        ConfigError: The share leaves a split without images, or stands beside test images.
    """
    train, test = split_folders(root)
    if test is None:
        share = TEST_FRACTION if test_fraction is None else test_fraction
        listed = _names(train)
        with placing(option):
            names = _hold_out(listed, share, train, asked=test_fraction is not None)
        return _labelled(root, {"train": train, "test": train}, names, share)
    if test_fraction is not None:
        raise ConfigError(f"{root} has test images of its own, in {test.name}/", option)
    folders = {split: folder for split, folder in (("train", train), ("test", test)) if split in splits}
    return _labelled(root, {"train": train, "test": test}, {split: _names(folders[split]) for split in folders}, None)


def split_folders(root: Path) -> tuple[Path, Path | None]:
    """The folder of the training images and, where there is one beside it, that of the test images.

    Raises:
        FileError: `root` is not a folder that can be read, or has test images beside others that are not in train/.
    """
    try:
        if not stat.S_ISDIR(os.stat(root).st_mode):
            raise FileError(root, "is not a folder")
    except (OSError, ValueError) as error:
        problem = unreadable(root, error)
        raise (FileError(root, "no such folder") if isinstance(problem, MissingFileError) else problem) from None
    train, test = (
        next((root / name for name in SPLIT_FOLDERS[split] if os.path.isdir(root / name)), None)
        for split in ("train", "test")
    )
    if train is not None or test is None:
        return train or root, test
    others = [name for name in list_images(root) if not name.startswith(f"{test.name}/")]
    if others:
        lost = f"{len(others)} images outside it ({others[0]}, say)"
        raise FileError(root, f"has {test.name}/ and {lost}, but no train/; move those to train on to train/")
    return test, None


def _names(folder: Path) -> list[str]:
    names = list_images(folder)
    if not names:
        raise FileError(folder, f"no image in it (looked for {', '.join(IMAGE_SUFFIXES)})")
    return names


def _hold_out(names: list[str], share: float, folder: Path, asked: bool) -> dict[str, list[str]]:
    """Choose test images by a hash of their names, so that most of the choice stays when images are added."""
    count = round(share * len(names)) if asked else max(1, round(share * len(names)))
    if not 0 < count < len(names):
        lacking = "to test on" if count == 0 else "to train on"
        raise ConfigError(f"{share:g} of the {len(names)} images in {folder} leaves none {lacking}")
    chosen = set(sorted(names, key=lambda name: hashlib.blake2b(os.fsencode(name)).digest())[:count])
    return {"train": [name for name in names if name not in chosen], "test": sorted(chosen)}


def _labelled(root: Path, folders: dict[str, Path], names: dict[str, list[str]], share: float | None) -> Listing:
    classes = class_names(folders["train"])
    try:
        labels = {split: number_classes(names[split], classes) for split in names}
    except ValueError as error:
        return Listing(root, folders, names, share, [], {}, str(error))
    return Listing(root, folders, names, share, classes, labels, "")
