"""`jointgen data prepare`: the same bytes however often it was killed and on however many threads; all that can be in
a folder is packed, skipped by name, or refused in one line."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from jointgen.errors import ConfigError, JointgenError, MissingFileError
from jointgen.images import prepare as packing
from jointgen.images.decode import read_image
from jointgen.images.prepare import prepare_images, report, verify
from jointgen.images.shards import REMEDY, read_manifest

SIDE = 8
SHARD = 4 * 3 * SIDE * SIDE  # bytes of four images
Said = Callable[..., Any]


def photograph(number: int, width: int = 21, height: int = 17) -> Image.Image:
    pixels = np.random.RandomState(number).randint(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def fill(root: Path, **counts: int) -> Path:
    """fill(root, train__cat=5): so many different images in root/train/cat."""
    number = 0
    for name, count in counts.items():
        folder = root / name.replace("__", "/")
        folder.mkdir(parents=True)
        for index in range(count):
            photograph(number := number + 1, 20 + index).save(folder / f"{index:02d}.png")
    return root


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only processes that are killed need what they wrote to be on the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten training images, three of them broken, in three shards, and three test images in one."""
    root = fill(tmp_path / "source", train__cat=6, train__dog=7, val__cat=1, val__dog=2)
    (root / "train/cat/01.png").write_bytes((root / "train/cat/01.png").read_bytes()[:200])
    (root / "train/dog/03.png").write_text("no image at all")
    (root / "train/dog/06.png").write_bytes(b"")
    return root


def pack(source: Path, dest: Path, **options: Any) -> packing.PreparedManifest:
    options = {"size": SIDE, "shard_bytes": SHARD, **options}
    return prepare_images(source, dest, **options)[0]


def contents(dest: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in dest.iterdir() if file.name != packing.LOCK}


def rows(dest: Path, split: str) -> np.ndarray:
    return np.concatenate([np.load(file) for file in sorted(dest.glob(f"{split}-0*.npy"))])


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        pack(*arguments, **options)
    (line,) = caught.value.lines
    assert "\n" not in line
    return line


# --- what is written -------------------------------------------------------------------------------------------------


def test_images_and_labels_in_the_order_of_the_folders(source: Path, tmp_path: Path) -> None:
    manifest = pack(source, tmp_path / "dest")
    whole = [f"cat/{i:02d}.png" for i in (0, 2, 3, 4, 5)] + [f"dog/{i:02d}.png" for i in (0, 1, 2, 4, 5)]
    expected = np.stack([read_image(source / "train" / name, SIDE, SIDE, 3) for name in whole])
    assert np.array_equal(rows(tmp_path / "dest", "train"), expected)
    assert np.load(tmp_path / "dest/train-labels.npy").tolist() == [0] * 5 + [1] * 5
    assert np.load(tmp_path / "dest/test-labels.npy").tolist() == [0, 1, 1]
    assert manifest.classes == ["cat", "dog"]
    # 13 files in fours: the broken ones leave their shards shorter, and none is moved to another
    assert [shard.rows for shard in manifest.splits["train"].shards] == [3, 4, 3, 0]
    assert read_manifest(tmp_path / "dest") == manifest and manifest.finished


def test_the_report_counts_and_names(source: Path, tmp_path: Path) -> None:
    photograph(0).convert("L").save(source / "val/dog/grey.jpg")
    told = report(pack(source, tmp_path / "dest"))
    assert told.held.startswith("10 train + 4 test images 3x8x8, 2 classes, ")
    assert told.held.endswith("; converted: 1 of mode L; 3 skipped")
    assert [line.split(": ")[0] for line in told.skipped] == [
        f"skipped train/{name}.png" for name in ("cat/01", "dog/03", "dog/06")
    ]
    assert str(tmp_path) not in "".join(told.skipped), "the manifest must not say where the images lay"


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_bytes_do_not_depend_on_the_number_of_workers(source: Path, tmp_path: Path, workers: int) -> None:
    for index in range(40):  # several tasks a shard
        photograph(100 + index).save(source / f"train/dog/more_{index}.png")
    for name, threads in (("one", 1), ("many", workers)):
        pack(source, tmp_path / name, workers=threads, shard_bytes=9 * SHARD)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_files_of_every_kind(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    photograph(0).convert("CMYK").save(folder / "cmyk.jpg")
    photograph(0).quantize(8).save(folder / "palette.png")
    photograph(0).convert("1").save(folder / "bits.png")
    photograph(0).convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(np.full((9, 9), 0x4080, np.uint16)).save(folder / "sixteen.png")
    photograph(0).save(folder / "grün 猫.webp", lossless=True)
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "nowhere.png").symlink_to("gone.png")
    (folder / "link.png").symlink_to("alpha.png")
    (folder / "again").symlink_to(folder)  # a circle
    (folder / ".hidden").mkdir()
    (folder / ".hidden/a.png").write_text("")
    os.mkfifo(folder / "pipe.png")  # opening it would wait for ever
    (folder / "random.png").symlink_to("/dev/urandom")
    (folder / "self.png").symlink_to("self.png")
    manifest = pack(folder, tmp_path / "dest", test_fraction=0.2)
    kept = manifest.splits["train"], manifest.splits["test"]
    skipped = {one.name: one.reason for split in kept for one in split.skipped}
    assert "decompression bomb" in skipped.pop("bomb.png")
    assert skipped == {
        "nowhere.png": "no such file",
        "pipe.png": "is a pipe; expected a file",
        "random.png": "is a device; expected a file",
        "self.png": "is a link that leads back to itself",
    }
    assert sum(split.files for split in kept) == 12 and sum(split.rows for split in kept) == 7
    assert {"CMYK", "P", "1", "RGBA"} <= {mode for split in kept for mode in split.modes}


def bomb() -> bytes:
    """A small PNG that says it is 60,000 x 60,000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_without_a_test_folder_a_share_is_held_out_by_name(tmp_path: Path) -> None:
    source = fill(tmp_path / "source", cat=15, dog=5)
    manifest = pack(source, tmp_path / "a")
    assert {name: split.files for name, split in manifest.splits.items()} == {"train": 18, "test": 2}
    assert manifest.classes == ["cat", "dog"]
    everything = np.concatenate([rows(tmp_path / "a", split) for split in ("train", "test")])
    assert len({image.tobytes() for image in everything}) == 20
    held_out = {image.tobytes() for image in rows(tmp_path / "a", "test")}
    photograph(999).save(source / "dog/another.png")  # one more of 21 leaves 2 held out, or moves one
    pack(source, tmp_path / "b")
    assert held_out & {image.tobytes() for image in rows(tmp_path / "b", "test")}
    assert pack(source, tmp_path / "c", test_fraction=0.5).splits["test"].files == 10


def test_images_outside_class_folders_have_no_labels_and_the_report_says_why(source: Path, tmp_path: Path) -> None:
    photograph(1).save(source / "train/loose.png")
    manifest = pack(source, tmp_path / "dest")
    assert manifest.classes == [] and not (tmp_path / "dest/train-labels.npy").exists()
    assert "no labels (loose.png is not in a class folder of the training images)" in report(manifest).held


# --- kills -----------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from jointgen.runtime import atomic_files as files
from jointgen.images.prepare import prepare_images

def die_at(call, count):
    def wrapped(*arguments, **options):
        nonlocal count
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return wrapped

source, dest, where, count = sys.argv[1:]
progress = lambda done, total: None
if where == "progress":
    progress = die_at(progress, int(count))
else:
    setattr(os, where, die_at(getattr(os, where), int(count)))
prepare_images(source, dest, size=8, shard_bytes=768, progress=progress)
"""


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("fsync", 1),  # before the first manifest is whole
        ("progress", 1),  # within the first shard
        ("fsync", 3),  # a shard is written aside, but not flushed
        ("replace", 2),  # a shard is flushed, but has no name
        ("replace", 3),  # a shard is whole, but not in the manifest
        ("progress", 3),
        ("replace", 10),  # the shards of a split are whole, its labels are not
        ("replace", 16),  # everything is whole, but the manifest does not say so
    ],
)
def test_killed_and_begun_again_it_ends_with_the_same_bytes(
    source: Path, tmp_path: Path, where: str, count: int
) -> None:
    pack(source, tmp_path / "whole")
    dest = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(source), str(dest), where, str(count)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    kept = {name: os.stat(dest / name).st_mtime_ns for name in whole_shards(dest)}
    assert not (dest / "manifest.json").exists() or not read_manifest(dest).finished
    pack(source, dest)
    assert contents(dest) == contents(tmp_path / "whole")
    assert all(os.stat(dest / name).st_mtime_ns == when for name, when in kept.items()), "whole shards are kept"
    assert len(kept) == {("progress", 3): 2, ("replace", 10): 4, ("replace", 16): 5}.get((where, count), 0)


def whole_shards(dest: Path) -> list[str]:
    try:
        return [one.name for split in read_manifest(dest).splits.values() for one in split.shards]
    except MissingFileError:
        return []


def test_ctrl_c_keeps_what_is_whole_and_goes_on(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "whole")

    def interrupt(done: int, total: int) -> None:
        if done > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(source, tmp_path / "dest", progress=interrupt)
    assert len(whole_shards(tmp_path / "dest")) == 2
    seen: list[tuple[int, int]] = []
    pack(source, tmp_path / "dest", progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (12, 16) and seen[-1] == (16, 16), "the shards that are there count as done"
    assert contents(tmp_path / "dest") == contents(tmp_path / "whole")


def test_what_is_finished_is_left_alone(source: Path, tmp_path: Path) -> None:
    manifest = pack(source, tmp_path / "dest")
    before = {file: os.stat(file).st_mtime_ns for file in (tmp_path / "dest").iterdir()}
    assert prepare_images(source, tmp_path / "dest", SIDE, shard_bytes=SHARD, max_broken=0) == (manifest, False)
    assert {file: os.stat(file).st_mtime_ns for file in (tmp_path / "dest").iterdir()} == before


# --- what stops it ---------------------------------------------------------------------------------------------------


def test_more_broken_files_than_allowed_are_named_also_over_interruptions(source: Path, tmp_path: Path) -> None:
    message = refusal(source, tmp_path / "dest", max_broken=1)
    assert message.startswith("--max-broken: more than 1 files cannot be read, the first of them cat/01.png (")
    assert "; dog/03.png (cannot identify image file 'dog/03.png')" in message
    assert len(whole_shards(tmp_path / "dest")) == 2
    assert refusal(source, tmp_path / "dest", max_broken=2).startswith("--max-broken: more than 2 ")
    pack(source, tmp_path / "dest", max_broken=3)
    pack(source, tmp_path / "whole")
    assert contents(tmp_path / "dest") == contents(tmp_path / "whole")


def test_a_full_disk_is_one_line_and_whole_shards_are_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, calls = os.fsync, iter(range(100))

    def fail(descriptor: int) -> None:
        if next(calls) == 6:  # manifest, its folder, shard 0, its folder, manifest, its folder, shard 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patched, pytest.raises(JointgenError) as caught:
        patched.setattr(os, "fsync", fail)
        pack(source, tmp_path / "dest")
    assert caught.value.exit_status == 1
    assert str(caught.value) == (
        f"{tmp_path / 'dest'} could not be written: the disk is full; the 1 whole shards so far are kept, and the "
        "same command continues after them"
    )
    assert sorted(contents(tmp_path / "dest")) == ["manifest.json", "train-00000.npy"]
    pack(source, tmp_path / "dest")
    pack(source, tmp_path / "whole")
    assert contents(tmp_path / "dest") == contents(tmp_path / "whole")


def test_another_preparation_is_never_overwritten(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    pack(source, dest)
    before = contents(dest)
    assert refusal(source, dest, size=9) == f"{dest}: holds another preparation (size 8, not 9); give another folder"
    assert "(channels 3, not 1)" in refusal(source, dest, channels=1)
    photograph(1).save(source / "train/cat/new.png")
    assert "(of other images, or of these before they changed)" in refusal(source, dest)
    (source / "train/cat/new.png").unlink()
    photograph(1, 99).save(source / "train/cat/00.png")  # the same name, another size
    assert "(of other images" in refusal(source, dest)
    assert contents(dest) == before


def test_destinations_that_cannot_be(source: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("")
    assert refusal(source, tmp_path / "other").endswith("holds other files (thesis.tex); give a new folder")
    assert refusal(source, tmp_path).endswith("holds other files (other); give a new folder")
    assert "lies inside" in refusal(source, source / "train/packed")
    assert "lies inside" in refusal(source / "train", source / "train")
    (tmp_path / "file").write_text("")
    assert refusal(source, tmp_path / "file") == f"{tmp_path / 'file'}: is not a folder"
    assert pack(source, source / "packed").finished  # beside train/ and val/


def test_a_destination_that_is_read_only(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert refusal(source, tmp_path / "dest") == f"{tmp_path / 'dest'}: cannot be written: Permission denied"


def test_two_at_once_are_one_and_a_refusal(source: Path, tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    with FileLock(tmp_path / "dest" / packing.LOCK):
        message = refusal(source, tmp_path / "dest")
    assert message == f"{tmp_path / 'dest'}: another `jointgen data prepare` is writing there"
    assert pack(source, tmp_path / "dest").finished


def test_a_manifest_or_a_shard_that_was_damaged_is_named(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    pack(source, dest)
    text = (dest / "manifest.json").read_text()
    for damaged, why in ((text[:50], "is damaged"), (text.replace('"format": 2', '"format": 3'), "has format 3")):
        (dest / "manifest.json").write_text(damaged)
        assert f"manifest.json: {why}" in refusal(source, dest)
    (dest / "manifest.json").write_text(text)
    (dest / "train-00001.npy").unlink()
    message = f"{dest / 'train-00001.npy'}: is missing; remove the folder and prepare it again"
    assert refusal(source, dest) == message


def test_no_link_leads_the_writing_out_of_the_folder(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "whole")
    (tmp_path / "thesis").write_text("years of work")
    dest = tmp_path / "dest"
    with pytest.raises(ConfigError):
        pack(source, dest, max_broken=0)  # begun
    for name in ("manifest.json", "train-00000.npy", "train-labels.npy"):
        (dest / f".tmp-{name}").symlink_to(tmp_path / "thesis")
    (dest / "train-00001.npy").symlink_to(tmp_path / "thesis")
    pack(source, dest)
    assert contents(dest) == contents(tmp_path / "whole")
    assert (tmp_path / "thesis").read_text() == "years of work"


def test_a_lock_that_is_a_link_is_not_opened(source: Path, tmp_path: Path) -> None:
    """To open it would empty the file that it leads to."""
    (tmp_path / "thesis").write_text("years of work")
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest/.lock").symlink_to(tmp_path / "thesis")
    assert refusal(source, tmp_path / "dest").startswith(f"{tmp_path / 'dest/.lock'}: is not a file, as ")
    assert (tmp_path / "thesis").read_text() == "years of work"


def test_sizes_that_no_machine_holds(source: Path, tmp_path: Path) -> None:
    assert refusal(source, tmp_path / "dest", size=10**9) == "--size: 1000000000 pixels a side; expected at most 16384"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda root: None, ": no such folder"),
        (lambda root: root.write_text(""), ": is not a folder"),
        (lambda root: root.mkdir(), ": no image in it (looked for .jpg, "),
        (
            lambda root: fill(root, val__cat=2, cat=1),
            "has val/ and 1 images outside it (cat/00.png, say), but no train/; move those to train on to train/",
        ),
        (lambda root: (fill(root, train__cat=2) / "val").mkdir(), "/val: no image in it"),
        (lambda root: fill(root, cat=1), "--test-fraction: 0.1 of the 1 images in "),
    ],
)
def test_sources_that_hold_nothing_to_prepare(make: Any, problem: str, tmp_path: Path) -> None:
    make(tmp_path / "source")
    assert problem in refusal(tmp_path / "source", tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


def test_a_test_fraction_beside_test_images_is_refused(source: Path, tmp_path: Path) -> None:
    message = refusal(source, tmp_path / "dest", test_fraction=0.2)
    assert message == f"--test-fraction: {source} has test images of its own, in val/"


@pytest.mark.parametrize(
    ("share", "lacking"), [(1e-12, "1e-12 of the 5 images in "), (0.09, "0.09 of the 5"), (0.95, "0.95 of the 5")]
)
def test_a_share_of_nobody_is_refused(share: float, lacking: str, tmp_path: Path) -> None:
    fill(tmp_path / "source", cat=5)
    message = refusal(tmp_path / "source", tmp_path / "dest", test_fraction=share)
    assert message.startswith(f"--test-fraction: {lacking}")
    assert message.endswith("none to train on" if share > 0.5 else "none to test on")
    assert not (tmp_path / "dest").exists()


def test_nothing_but_broken_files(tmp_path: Path) -> None:
    root = fill(tmp_path / "source", train__cat=2, val__cat=1)
    for file in (root / "train/cat").iterdir():
        file.write_text("no image")
    assert "none of its 2 images can be read: cannot identify" in refusal(root, tmp_path / "dest")


# --- verify ----------------------------------------------------------------------------------------------------------


def test_verify_reads_every_byte(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    pack(source, dest)
    assert verify(dest).finished
    shard = dest / "test-00000.npy"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    (dest / "train-labels.npy").unlink()
    with pytest.raises(ConfigError) as caught:
        verify(dest)
    assert caught.value.lines == [
        f"{dest / 'train-labels.npy'}: is missing; {REMEDY}",
        f"{shard}: is damaged: its SHA-256 is not the manifest's; {REMEDY}",
    ]


def test_verify_of_what_is_not_there_or_not_finished(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no prepared images"):
        verify(tmp_path)
    with pytest.raises(ConfigError):
        pack(source, tmp_path / "dest", max_broken=0)
    with pytest.raises(ConfigError, match="is not finished; run the same `jointgen data prepare` again"):
        verify(tmp_path / "dest")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prepares_says_so_and_verifies(source: Path, tmp_path: Path, say: Said) -> None:
    words = ["data", "prepare", source, tmp_path / "dest", "--size", "8", "--channels", "1", "--workers", "2"]
    said = say(*words)
    assert said.status == 0
    assert said.out.startswith(f"{tmp_path / 'dest'}: 10 train + 3 test images 1x8x8, 2 classes, ")
    assert "--set data.type=prepared --set data.path=" in said.out
    assert [line[:26] for line in said.problems] == ["jointgen: skipped train/ca", *["jointgen: skipped train/do"] * 2]
    assert "it was finished before, and nothing was done" in say(*words).out
    assert say("data", "verify", tmp_path / "dest").out == (
        f"{tmp_path / 'dest'}: the manifest agrees with itself, and 4 files with the manifest to the last byte "
        "(10 train + 3 test images, labels of 2 classes)\n"
    )
    assert "size 8, not 9" in say("data", "prepare", source, tmp_path / "dest", "--size", "9").refusal
    words = ["data", "prepare", source / "train", tmp_path / "other", "--size", "8", "--test-fraction", "1e-9"]
    assert say(*words).refusal.startswith("--test-fraction: 1e-09 of the 13 images in ")


def test_the_command_says_what_is_held_out(tmp_path: Path, say: Said) -> None:
    fill(tmp_path / "source", cat=20)
    said = say("data", "prepare", tmp_path / "source", tmp_path / "dest", "--size", "8")
    assert "18 train + 2 test images" in said.out
    assert "; the test images are held out, a share of 0.1\n" in said.out


def test_of_very_many_broken_files_the_first_are_printed(tmp_path: Path, say: Said) -> None:
    fill(tmp_path / "source", train__cat=1, val__cat=1)
    for number in range(30):
        (tmp_path / f"source/train/cat/broken_{number}.png").write_text("no image")
    words = ["data", "prepare", tmp_path / "source", tmp_path / "dest", "--size", "8", "--max-broken", "30"]
    problems = say(*words).problems
    assert len(problems) == 21 and problems[-1] == "jointgen: ... and 10 more"


def test_names_that_are_no_text_and_longer_than_a_line_are_told_on_one(tmp_path: Path, say: Said) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    photograph(0).save(folder / "a.png")
    for name in (b"\xff\xfe.png", b"b\nc.png"):
        os.link(folder / "a.png", os.fsencode(folder) + b"/" + name)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xffbroken\n.png")).write_text("no image")
    said = say("data", "prepare", folder, tmp_path / "dest", "--size", "8", "--test-fraction", "0.3")
    assert said.status == 0
    assert len(said.out.splitlines()) == 2 and said.out.encode()
    (line,) = said.problems
    assert line.startswith("jointgen: skipped ") and line.endswith("cannot identify image file '\\udcffbroken\\n.png'")


def test_ctrl_c_in_the_command(source: Path, tmp_path: Path, say: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "prepare_images", interrupted)
    said = say("data", "prepare", source, tmp_path / "dest", "--size", "8")
    assert said.status == 130
    assert said.problems == [f"jointgen: {tmp_path / 'dest'}: stopped; run the same command again to continue"]


def test_the_manifest_is_json_without_machine_paths(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "dest")
    text = (tmp_path / "dest/manifest.json").read_text()
    assert json.loads(text)["plan"]["size"] == SIDE
    assert str(tmp_path) not in text
