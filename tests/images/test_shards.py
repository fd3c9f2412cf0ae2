"""Prepared sets that somebody changed: whatever was done to them is one line that names the file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jointgen.errors import ConfigError, FileError
from jointgen.images.prepare import prepare_images, verify
from jointgen.images.shards import REMEDY, check_files, read_manifest
from jointgen.runtime.hashing import sha256_of

SIDE = 4
Say = Callable[..., Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five training images of two classes in two shards, one broken file, and two test images. Tests only read it."""
    root = tmp_path_factory.mktemp("images")
    for folder, count in {"train/cat": 3, "train/dog": 2, "val/cat": 1, "val/dog": 1}.items():
        (root / folder).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (5, 6), (index, 2, 3)).save(root / folder / f"{index}.png")
    (root / "train/dog/9.png").write_text("no image")
    prepare_images(root, root / "made", SIDE, shard_bytes=3 * 3 * SIDE * SIDE)
    return root / "made"


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    for file in made.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_a_class_that_stands_twice(copied: Path) -> None:
    file = copied / "manifest.json"
    whole = json.loads(file.read_text())
    written = json.dumps({**whole, "classes": [*whole["classes"], "cat"], "sha256": ""}, indent=1)
    digest = sha256_of(written.encode())
    file.write_text(written.replace('"sha256": ""', f'"sha256": "{digest}"', 1))
    with pytest.raises(ConfigError, match="classes that stand twice: 'cat'"):
        read_manifest(copied)


def fault(folder: Path) -> str:
    """What opening says, which reads no shard; verify says the same."""
    with pytest.raises(ConfigError) as opening:
        check_files(folder, read_manifest(folder))
    with pytest.raises(ConfigError) as verifying:
        verify(folder)
    (line,) = opening.value.lines
    assert verifying.value.lines == [line]
    assert "\n" not in line
    return line


def rewrite(folder: Path, change: Callable[[Any], Any]) -> None:
    """Change the manifest as somebody does who knows how it is hashed."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    manifest["sha256"] = ""
    text = json.dumps(manifest, indent=1) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(text.replace('"sha256": ""', f'"sha256": "{digest}"'))


# --- the manifest ----------------------------------------------------------------------------------------------------


def test_a_changed_byte_anywhere_in_the_manifest_is_found(copied: Path) -> None:
    path = copied / "manifest.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(FileError) as caught:
            read_manifest(copied)
        (line,) = caught.value.lines
        assert line.startswith(f"{path}: "), place


def test_a_manifest_that_says_the_same_in_other_words_is_another(copied: Path) -> None:
    path = copied / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert fault(copied) == f"{path}: is damaged (its SHA-256 is another than it says); {REMEDY}"


def set_to(*keys: str | int, value: Any) -> Callable[[Any], None]:
    def change(manifest: Any) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value

    return change


def test_rewriting_what_is_right_changes_nothing(copied: Path) -> None:
    before = (copied / "manifest.json").read_bytes()
    rewrite(copied, lambda manifest: None)
    assert (copied / "manifest.json").read_bytes() == before


TRAIN = ("splits", "train")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_to(*TRAIN, "shards", 0, "name", value="../secret.npy"), "train.shards[0].name: '../secret.npy', and"),
        (set_to(*TRAIN, "shards", 0, "name", value="/etc/passwd"), "only 'train-00000.npy' can be there"),
        (set_to(*TRAIN, "shards", 1, "name", value="train-00000.npy"), "shards[1].name: 'train-00000.npy', and only"),
        (set_to(*TRAIN, "shards", 0, "name", value="a\x1b[31m"), "'a\\x1b[31m'"),
        (set_to(*TRAIN, "labels", "name", value="test-labels.npy"), "splits.train.labels: 'test-labels.npy' of 5 rows"),
        (set_to(*TRAIN, "labels", "rows", value=4), "'train-labels.npy' of 4 rows; expected train-labels.npy of 5"),
        (set_to(*TRAIN, "labels", "bytes", value=7), "splits.train.labels.bytes: 7 for 5 labels"),
        (set_to(*TRAIN, "labels", value=None), "splits.train: it is said to be finished, and is not"),
        (set_to(*TRAIN, "shards", 0, "rows", value=4), "splits.train.shards[0].rows: 4 of 3 files"),
        (set_to(*TRAIN, "shards", 0, "rows", value=2), "splits.train: 4 rows and 1 skipped files, of 6"),
        (set_to(*TRAIN, "shards", 0, "rows", value=-1), "splits.train.shards[0].rows: must be >= 0, got -1"),
        (set_to(*TRAIN, "shards", 0, "rows", value="3"), "shards[0].rows: expected a whole number, got '3'"),
        (set_to(*TRAIN, "shards", 0, "bytes", value=2**62), "bytes: 4611686018427387904 for 3 images of 48 bytes"),
        (set_to(*TRAIN, "shards", 0, "bytes", value=2**70), "has more than 64 bits"),
        (set_to(*TRAIN, "shards", 0, "sha256", value="0"), "shards[0].sha256: must be a SHA-256, got '0'"),
        (set_to(*TRAIN, "shards", value=[]), "splits.train: 0 rows and 1 skipped files, of 0"),
        (set_to(*TRAIN, "shards", value=None), "splits.train.shards: expected a list"),
        (set_to(*TRAIN, "files", value=0), "splits.train.files: must be > 0, got 0"),
        (set_to(*TRAIN, "files", value=60), "splits.train: it is said to be finished, and is not"),
        (set_to(*TRAIN, "skipped", value=[]), "splits.train: 5 rows and 0 skipped files, of 6"),
        (set_to(*TRAIN, "skipped", value={}), "splits.train.skipped: expected a list"),
        (set_to(*TRAIN, "modes", value={"RGB": 6}), "splits.train.modes: 6 images of 5"),
        (set_to("splits", value={}), "it does not have both splits"),
        (lambda manifest: manifest["splits"].pop("test"), "it does not have both splits"),
        (lambda manifest: manifest.pop("splits"), "splits: missing"),
        (lambda manifest: manifest.pop("plan"), "plan: missing"),
        (set_to("splits", value=[]), "splits: expected a table, got []"),
        (set_to("plan", "size", value=9), "bytes: 272 for 3 images of 243 bytes"),
        (set_to("plan", "size", value=10**9), "plan.size: must be <= 16,384"),
        (set_to("plan", "channels", value=2), "plan.channels: must be in (1, 3)"),
        (set_to("plan", "test_fraction", value=7), "plan.test_fraction: must be between 0 and 1, got 7"),
        (set_to("plan", "colour", value=7), "plan.colour: unknown key"),
        (set_to("classes", value=[]), "either classes or a reason"),
        (set_to("unlabelled", value="why"), "either classes or a reason"),
        (set_to("format", value=3), "has format 3; this version reads 1 and 2"),
        (set_to("format", value="2"), "has format '2'; this version reads 1 and 2"),
        (set_to("format", value=True), "format: expected a whole number"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_hashed_and_wrong(change: Callable[[Any], Any], said: str, copied: Path) -> None:
    rewrite(copied, change)
    line = fault(copied)
    assert line.startswith(f"{copied / 'manifest.json'}: ")
    assert said in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is damaged (Expecting value"),
        (b"\xff", "is damaged (byte 0 is not UTF-8)"),
        (b"[]", "is damaged (expected a table, got [])"),
        (b"{}", "has format None"),
        (b"[" * 100_000, "is damaged (nested too deeply)"),
        (b'{"format": NaN}', "is damaged (NaN is not JSON)"),
        (b'{"format": 2, "format": 2}', "is damaged (a key stands twice)"),
    ],
)
def test_a_manifest_that_is_noise(text: bytes, said: str, copied: Path) -> None:
    (copied / "manifest.json").write_bytes(text)
    assert said in fault(copied)


def test_a_manifest_that_is_no_file(copied: Path) -> None:
    path = copied / "manifest.json"
    for make, said in (
        (os.mkdir, "is a folder; expected a file"),
        (os.mkfifo, "is a pipe; expected a file"),
        (lambda path: os.symlink("/dev/zero", path), "is a device; expected a file"),
        (lambda path: os.symlink(path, path), "is a link that leads back to itself"),
    ):
        path.unlink()
        make(path)
        assert fault(copied) == f"{path}: {said}"
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_text("")


def test_sets_without_a_hash_are_read_checked_and_said(copied: Path, say: Say) -> None:
    """As jointgen wrote them before format 2."""
    manifest = json.loads((copied / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["format"] = 1
    (copied / "manifest.json").write_text(json.dumps(manifest))
    said = say("data", "verify", copied)
    assert said.status == 0
    assert said.problems == [
        f"jointgen: {copied}: an earlier version prepared it and its manifest has no hash: a change there may go "
        "unnoticed"
    ]
    manifest["splits"]["train"]["shards"][0]["name"] = "../secret.npy"
    (copied / "manifest.json").write_text(json.dumps(manifest))
    assert "'../secret.npy', and only 'train-00000.npy' can be there" in fault(copied)


# --- the files -------------------------------------------------------------------------------------------------------


def saved(array: np.ndarray, **options: Any) -> Callable[[Path], None]:
    return lambda path: np.save(path, array, **options)


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target.replace("PATH", str(path)))


@pytest.mark.parametrize("name", ["train-00001.npy", "train-labels.npy", "test-labels.npy"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, f"is missing; {REMEDY}"),
        (os.mkdir, "is a folder; expected a file"),
        (os.mkfifo, "is a pipe; expected a file"),
        (link_to("/dev/zero"), f"is a link out of the folder; {REMEDY}"),
        (link_to("../elsewhere.npy"), f"is a link out of the folder; {REMEDY}"),
        (link_to("PATH"), "is a link that leads back to itself"),
        (lambda path: path.write_bytes(b""), "is torn: 0 bytes, where the manifest says "),
        (lambda path: path.write_bytes(b"\x93NUMPY" + bytes(400)), "is torn: 406 bytes, where the manifest says "),
    ],
)
def test_a_file_that_is_another(name: str, make: Callable[[Path], Any], said: str, copied: Path) -> None:
    (copied / name).unlink()
    make(copied / name)
    assert fault(copied).startswith(f"{copied / name}: {said}")


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("train-00000.npy", np.zeros((3, 3, 4, 4), np.int8), "holds int8 (3, 3, 4, 4), which is not what the manifest"),
        ("train-00000.npy", np.zeros((3, 48), np.uint8), "holds uint8 (3, 48), which is not what the manifest says"),
        ("train-00000.npy", np.zeros((144,), np.uint8), "holds uint8 (144,), which is not"),
        ("train-00000.npy", np.zeros((3, 3, 4, 4), np.uint8, "F"), "holds uint8 (3, 3, 4, 4) in the order of Fortran"),
        ("train-labels.npy", np.zeros(5), "holds float64 (5,), which is not"),
        ("train-labels.npy", np.zeros(5, ">i8"), "holds >i8 (5,), which is not"),
        ("train-labels.npy", np.array([0, 0, 0, 1, 2]), "has labels 0 to 2, of 2 classes"),
        ("train-labels.npy", np.array([0, 0, 0, 1, -1]), "has labels -1 to 1, of 2 classes"),
    ],
)
def test_a_file_that_is_hashed_and_wrong(name: str, array: np.ndarray, said: str, copied: Path) -> None:
    np.save(copied / name, array)
    data = (copied / name).read_bytes()

    def change(manifest: Any) -> None:
        held = manifest["splits"]["train"]
        one = held["labels"] if "labels" in name else held["shards"][0]
        one["sha256"], one["bytes"] = hashlib.sha256(data).hexdigest(), len(data)

    rewrite(copied, change)
    line = fault(copied)
    assert line.startswith(f"{copied / name}: {said}") and line.endswith(REMEDY)


def test_headers_that_lie(copied: Path) -> None:
    path = copied / "train-00000.npy"
    whole = path.read_bytes()
    for old, new in (
        (b"(3, 3, 4, 4)", b"(9, 3, 4, 4)"),
        (b"(3, 3, 4, 4)", b"(1, 9, 4, 4)"),
        (b"(3, 3, 4, 4), }" + b" " * 18, b"(4611686018427387904, 9, 9, 9), }"),
        (b"(3, 3, 4, 4)", b"__import__()"),
        (b"|u1", b"|O8"),
        (b"False", b"True "),
        (b"NUMPY\x01", b"NUMPY\x09"),
    ):
        assert old in whole and len(old) == len(new)
        path.write_bytes(whole.replace(old, new))
        assert fault(copied).startswith(f"{path}: ")


def test_a_changed_byte_anywhere_in_any_file_is_found_by_verify(copied: Path) -> None:
    manifest = read_manifest(copied)
    for one in manifest.stored:
        path = copied / one.name
        whole = path.read_bytes()
        for place in (0, 7, 9, 60, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            with pytest.raises(ConfigError, match=f"^{path}: "):
                verify(copied)
        path.write_bytes(whole)
    assert verify(copied) == manifest
