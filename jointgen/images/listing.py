"""What there is to prepare: the images of a folder by split, with their classes, before any is read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import attrs

from jointgen.errors import ConfigError
from jointgen.images.folders import SUFFIXES, class_names, list_images, number_classes, split_folder

TEST_FRACTION = 0.1


@attrs.frozen
class Listing:
    """The image files of a source. folders, names: by split.  labels: none where `unlabelled` says why."""

    folders: dict[str, Path]
    names: dict[str, list[str]]
    test_fraction: float | None
    classes: list[str]
    labels: dict[str, list[int]]
    unlabelled: str

    @property
    def files(self) -> int:
        return sum(len(names) for names in self.names.values())

    def digest(self) -> str:
        """SHA-256 of the names and sizes, split by split."""
        digest = hashlib.sha256()
        for split, names in self.names.items():
            for name in names:
                digest.update(os.fsencode(f"{split}/{name}") + b"\0%d\n" % _size(self.folders[split] / name))
        return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link that leads nowhere: named when it is read
        return -1


def list_source(root: Path, test_fraction: float | None = None) -> Listing:
    """train/ and val/ or test/ under `root`; without these, shares of train/ or of `root` itself.

    Raises ConfigError where there are no images or folders cannot be read.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: {'is not a folder' if root.exists() else 'no such folder'}")
    train, test = split_folder(root, "train") or root, split_folder(root, "test")
    if test is not None and train == root:
        raise ConfigError(f"{root}: there is {test.name}/, but no train/ beside it")
    names = {"train": _names(train)}
    if test is not None and test_fraction is not None:
        raise ConfigError(f"--test-fraction: {root} has test images of its own, in {test.name}/")
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
        raise ConfigError(f"{folder}: no image in it (looked for {', '.join(SUFFIXES)})")
    return names


def _hold_out(names: list[str], share: float, folder: Path) -> dict[str, list[str]]:
    """Chosen by a hash of the name: neither the order nor most of the choice changes when images are added."""
    count = max(1, round(share * len(names)))
    if count >= len(names):
        raise ConfigError(f"--test-fraction: {share} of the {len(names)} images in {folder} leaves none to train on")
    chosen = set(sorted(names, key=lambda name: hashlib.blake2b(os.fsencode(name)).digest())[:count])
    return {"train": [name for name in names if name not in chosen], "test": sorted(chosen)}


def _labelled(folders: dict[str, Path], names: dict[str, list[str]], share: float | None) -> Listing:
    classes = class_names(folders["train"])
    try:
        labels = {split: number_classes(names[split], classes) for split in names}
    except ValueError as error:
        return Listing(folders, names, share, [], {}, str(error))
    return Listing(folders, names, share, classes, labels, "")
