"""Folders as they are: links, pipes, locks and depth are listed, left out or named; nothing hangs."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jointgen.errors import FileError
from jointgen.images.folders import class_names, list_images, list_source


def test_a_folder_is_listed_once_however_many_links_lead_to_it(tmp_path: Path) -> None:
    """Eleven levels with four links each to the next: 4^11 = 4,194,304 paths to the last, and one image there."""
    for level in range(11):
        (tmp_path / str(level)).mkdir()
        for link in range(4):
            (tmp_path / str(level) / f"link_{link}").symlink_to(tmp_path / str(level + 1))
    (tmp_path / "11").mkdir()
    (tmp_path / "11/a.png").touch()
    assert list_images(tmp_path / "0") == ["/".join(["link_0"] * 11) + "/a.png"]
    assert list_images(tmp_path) == ["11/a.png"], "its own name goes before those of links"


def test_no_link_leads_to_a_folder_above(tmp_path: Path) -> None:
    (tmp_path / "photos/deep").mkdir(parents=True)
    (tmp_path / "photos/a.png").touch()
    (tmp_path / "private.png").touch()
    (tmp_path / "photos/deep/up").symlink_to(tmp_path)
    (tmp_path / "photos/deep/top").symlink_to("/")
    assert list_images(tmp_path / "photos") == ["a.png"]


@contextmanager
def folders_in(root: Path, name: str, levels: int) -> Iterator[None]:
    """Make root/name/name/..., with a.png in the last; and remove it, because pytest's own clearing up recurses."""
    here = os.getcwd()
    try:
        os.chdir(root)
        for _ in range(levels):
            os.mkdir(name)
            os.chdir(name)
        Path("a.png").touch()
        os.chdir(here)
        yield
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-r", root / name], check=True)


@pytest.mark.parametrize("levels", [300, 1500])
def test_folders_of_any_depth(levels: int, tmp_path: Path) -> None:
    with folders_in(tmp_path, "n", levels):
        assert list_images(tmp_path) == ["n/" * levels + "a.png"]
        assert class_names(tmp_path) == ["n"]


def test_a_path_that_is_too_long_for_the_system_is_one_line(tmp_path: Path) -> None:
    with folders_in(tmp_path, "n" * 200, 30), pytest.raises(FileError) as caught:
        list_images(tmp_path)
    (line,) = caught.value.lines
    assert line.startswith(f"{tmp_path}/nnn") and len(line) <= 2_000
    assert caught.value.reason == "cannot be read: File name too long"


def test_a_locked_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.png").touch()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).rstrip("/").endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for listing in (list_images, list_source):
        with pytest.raises(FileError, match=rf"^{tmp_path}/locked/?: cannot be read: Permission denied$"):
            listing(tmp_path)
    with pytest.raises(FileError, match=r"cannot be read: Permission denied$"):
        class_names(tmp_path / "locked")


def test_what_is_named_like_an_image_is_listed_and_what_is_not_is_left(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    for name in ("self.png", "self"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "nowhere.JPG").symlink_to("gone")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png/b.png").touch()
    (tmp_path / ".hidden.png").touch()
    odd = [os.fsdecode(name) for name in (b"\xff\xfe.png", b"line\nend.png", b"\x1b[31m.png")]
    for name in odd:
        (tmp_path / name).touch()
    assert list_images(tmp_path) == sorted([*odd, "folder.png/b.png", "nowhere.JPG", "pipe.png", "self.png"])


@pytest.mark.parametrize("root", ["gone", "gone/deeper", "a.png", "a.png/deeper", "x" * 300, "self", "a\0b"])
def test_a_source_that_is_no_folder_is_one_line(root: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(FileError) as caught:
        list_source(tmp_path / root)
    said = {"a.png": "is not a folder", "x" * 300: "cannot be read: File name too long", "a\0b": "cannot be read: "}
    said["self"] = "is a link that leads back to itself"
    assert caught.value.reason.startswith(said.get(root, "no such folder"))


def test_a_name_keeps_its_split_when_images_are_added(tmp_path: Path) -> None:
    for index in range(40):
        (tmp_path / f"{index}.png").touch()
    before = list_source(tmp_path, 0.25).names
    assert len(before["test"]) == 10
    (tmp_path / "another.png").touch()
    after = list_source(tmp_path, 0.25).names
    assert len(set(before["test"]) - set(after["test"])) <= 1
