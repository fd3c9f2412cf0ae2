"""The source of prepared images: the rows that image_folder gives, from mapped files, a batch at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from jointgen_data.image_folder import ImageFolder
from jointgen_data.prepared import PreparedImages, random_crop
from PIL import Image
from support.paths import SHARED_DATA, SHIPPED

from jointgen.config.recipe import read_recipe
from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.images.prepare import prepare_images
from jointgen.images.shards import REMEDY, PreparedSplit, StoredFile, read_manifest
from jointgen.registry.discovery import load_plugins
from jointgen.testing import checks

SIDE = 8
SHARD = 5 * 3 * SIDE * SIDE  # bytes of five images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """17 training images of two classes, one of them broken, and 6 test images."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.RandomState(0)
    for folder, count in {"train/cat": 9, "train/dog": 8, "val/cat": 3, "val/dog": 3}.items():
        (root / folder).mkdir(parents=True)
        for index in range(count):
            pixels = generator.randint(0, 256, (14, 11 + index, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{index}.png")
    (root / "train/cat/4.png").write_text("no image")
    return root


@pytest.fixture(scope="module")
def made(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared in four shards and two. Tests only read it."""
    dest = tmp_path_factory.mktemp("prepared") / "dest"
    prepare_images(images, dest, SIDE, shard_bytes=SHARD)
    return dest


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """One to damage."""
    for file in made.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def problem(source: PreparedImages, split: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        source.spaces() if split is None else source.open(split)
    (line,) = caught.value.lines
    assert "\n" not in line
    return line


@pytest.mark.parametrize("settings", [{}, {"labels": True, "flip": True}, {"crop": 5, "flip": True}, {"verify": True}])
def test_it_keeps_the_promises_of_a_data_source(made: Path, settings: dict[str, Any]) -> None:
    for check in checks("data", PreparedImages(str(made), **settings)):
        if settings.get("flip") or check.promise != "augmentation keeps shapes and types":
            check()


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_rows_are_those_of_the_folder(images: Path, made: Path, split: str) -> None:
    folder = ImageFolder(str(images), size=SIDE, labels=True)
    source = PreparedImages(str(made), labels=True)
    assert source.spaces() == folder.spaces()
    theirs, ours = folder.open(split), source.open(split)
    assert len(theirs) == len(ours)
    for index in (torch.arange(len(ours)), torch.randperm(len(ours), generator=torch.Generator().manual_seed(0))):
        twice = torch.cat([index, index[:3]])
        one, two = theirs.take(twice), ours.take(twice)
        assert all(torch.equal(one[name], two[name]) and one[name].dtype == two[name].dtype for name in one)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"no real data at {SHARED_DATA}")
def test_photographs_are_those_of_the_folder(tmp_path: Path) -> None:
    root = SHARED_DATA / "imagenet-sample"
    manifest, _ = prepare_images(root, tmp_path / "dest", 32, max_broken=0)
    assert manifest.splits["train"].modes == {"L": 5, "RGB": 224}
    theirs = ImageFolder(str(root), size=32, labels=True).open("test").take(torch.arange(44))
    ours = PreparedImages(str(tmp_path / "dest"), labels=True).open("test").take(torch.arange(44))
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_spaces_read_the_manifest_and_nothing_else(copied: Path) -> None:
    for file in copied.glob("*.npy"):
        file.unlink()
    source = PreparedImages(str(copied), labels=True)
    assert source.spaces() == {"x": Space((3, SIDE, SIDE), "real", 0.0, 1.0, 256), "y": Space((2,), "label")}
    assert attrs.evolve(source, crop=5, labels=False).spaces() == {"x": Space((3, 5, 5), "real", 0.0, 1.0, 256)}


def test_a_recipe_of_a_folder_takes_it_instead(made: Path) -> None:
    """As the README says: the keys of image_folder, root and size, do not stay behind."""
    recipe = SHIPPED / "asvae_imagenet.toml"
    words = ["data.type=prepared", f"data.path={made}", "data.flip=true"]
    assert read_recipe(recipe, words, registry=load_plugins().registry).data == PreparedImages(str(made), flip=True)


# --- augmentation ----------------------------------------------------------------------------------------------------


def test_crops_are_windows_of_the_stored_image_and_every_place_comes(made: Path) -> None:
    source = PreparedImages(str(made), crop=6, labels=True)
    rows: Any = source.open("train")
    index = torch.zeros(300, dtype=torch.int64)
    whole = rows.stored(index)
    assert whole["x"].shape == (300, 3, SIDE, SIDE)
    cropped = rows.augment(whole, Noise(0).named("augment", 300))
    image = whole["x"][0]
    windows = {
        image[:, top : top + 6, left : left + 6].numpy().tobytes(): (top, left) for top in range(3) for left in range(3)
    }
    places = [windows[crop.numpy().tobytes()] for crop in cropped["x"]]  # a KeyError where it is no window
    counts = [places.count(place) for place in windows.values()]
    # 300 / 9 = 33.3 each, standard deviation sqrt(300 * 1/9 * 8/9) = 5.4: four of them are 22
    assert len(counts) == 9 and min(counts) > 11 and max(counts) < 56
    assert torch.equal(cropped["y"], whole["y"])
    assert torch.equal(rows.take(index[:1])["x"][0], image[:, 1:7, 1:7]), "the centre where nothing is random"
    assert not hasattr(source.open("test"), "augment")


def test_a_crop_as_large_as_the_image_is_the_image() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 5), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert random_crop(images, 5, Noise(0).named("augment", 4)) is images


def test_flips_are_of_training_rows_one_coin_each(made: Path) -> None:
    source = PreparedImages(str(made), flip=True)
    rows: Any = source.open("train")
    raw = rows.stored(torch.arange(16))
    coins = Noise(7).named("flip", 16).uniform() < 0.5
    assert 0 < coins.sum() < 16
    flipped = rows.augment(raw, Noise(7).named("flip", 16))["x"]
    for row, heads in enumerate(coins):
        assert torch.equal(flipped[row], raw["x"][row].flip(-1) if heads else raw["x"][row])
    assert not hasattr(source.open("test"), "augment")
    assert not hasattr(PreparedImages(str(made)).open("train"), "augment")


# --- what is wrong ---------------------------------------------------------------------------------------------------


def test_nothing_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone", Path(__file__)):
        assert problem(PreparedImages(str(path))).startswith(
            f"path: nothing prepared in '{path}' (no manifest.json); see `"
        )


def test_not_finished(copied: Path) -> None:
    manifest = attrs.evolve(read_manifest(copied), finished=False)
    (copied / "manifest.json").write_text(manifest.to_json())
    assert problem(PreparedImages(str(copied))) == (
        f"path: '{copied}' is not finished; run the same `jointgen data prepare` to its end"
    )


def test_a_missing_a_torn_and_a_damaged_shard_are_named(copied: Path) -> None:
    source, shard = PreparedImages(str(copied)), copied / "train-00001.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert len(source.open("train")) == 16, "hashes of images only when they are asked for"
    assert f"{shard}: is damaged: its SHA-256 is not" in problem(attrs.evolve(source, verify=True), "train")
    shard.write_bytes(whole[:-7])
    message = f"{shard}: is torn: {len(whole) - 7} bytes, where the manifest says {len(whole)}; {REMEDY}"
    assert problem(source, "train") == f"path: {message}"
    shard.write_bytes(b"x" * len(whole))
    assert problem(source, "train").startswith(f"path: {shard}: is damaged: numpy cannot read its header")
    shard.unlink()
    (copied / "train-00002.npy").unlink()
    with pytest.raises(ConfigError) as caught:
        source.open("train")
    missing = [f"path: {copied / f'train-0000{number}.npy'}: is missing; {REMEDY}" for number in (1, 2)]
    assert caught.value.lines == missing
    assert len(source.open("test")) == 6


def test_rows_are_counted_where_the_files_are_what_the_manifest_says(copied: Path) -> None:
    source = PreparedImages(str(copied))
    assert (source.count_rows("train"), source.count_rows("test")) == (16, 6)
    (copied / "test-00001.npy").unlink()
    assert source.count_rows("train") == 16
    with pytest.raises(ConfigError, match=r"^path: .*test-00001\.npy: is missing; "):
        source.count_rows("test")


def test_a_damaged_manifest(copied: Path) -> None:
    text = (copied / "manifest.json").read_text()
    for damage in ("", "[]", "{}", text[:-30], text.replace('"size": 8', '"size": "eight"'), text.replace("plan", "p")):
        (copied / "manifest.json").write_text(damage)
        assert problem(PreparedImages(str(copied))).startswith(f"path: {copied / 'manifest.json'}: ")


def test_labels_are_read_to_the_last_byte_also_where_nobody_asks_for_them(copied: Path) -> None:
    labels = copied / "train-labels.npy"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-8] + bytes([1 - whole[-8]]) + whole[-7:])  # the last dog becomes a cat
    for asked in (False, True):
        message = problem(PreparedImages(str(copied), labels=asked), "train")
        assert message == f"path: {labels}: is damaged: its SHA-256 is not the manifest's; {REMEDY}"


def test_crops_and_labels_that_are_not_there(images: Path, tmp_path: Path, made: Path) -> None:
    assert problem(PreparedImages(str(made), crop=9)) == ("crop: 9 is more than the 8 pixels of the prepared images")
    prepare_images(images / "train/dog", tmp_path / "flat", SIDE)
    assert problem(PreparedImages(str(tmp_path / "flat"), labels=True)).startswith(
        f"labels: the images in '{tmp_path / 'flat'}' have none: 0.png is not in a class folder"
    )
    with pytest.raises(ValueError, match="crop"):
        PreparedImages("x", crop=0)


# --- memory ----------------------------------------------------------------------------------------------------------

MEASURED = """
import json, re, sys
from pathlib import Path
import torch
from jointgen_data.prepared import PreparedImages

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

rows = PreparedImages(sys.argv[1]).open("train")
rows.take(torch.arange(64))
before = anonymous()
for start in range(0, len(rows), 64):
    rows.take(torch.arange(start, min(start + 64, len(rows))))
print(json.dumps([len(rows), anonymous() - before]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts memory as Linux does")
def test_memory_holds_a_batch_and_not_the_data(tmp_path: Path) -> None:
    """64 MiB of images in four shards, all of them read: a copy of a single shard would show as 16 MiB."""
    for index in range(2):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (index, 0, 0)).save(tmp_path / f"images/{index}.png")
    made = tmp_path / "made"
    prepare_images(tmp_path / "images", made, 64)
    manifest, stored = read_manifest(made), []
    for number in range(4):
        np.save(made / f"train-0000{number}.npy", np.full((1366, 3, 64, 64), number, np.uint8))
        size = (made / f"train-0000{number}.npy").stat().st_size
        stored.append(StoredFile(f"train-0000{number}.npy", 1366, size, "0" * 64))
    plan = attrs.evolve(manifest.plan, shard_files=1366)
    train = PreparedSplit(4 * 1366, stored, modes={"RGB": 4 * 1366})
    manifest = attrs.evolve(manifest, plan=plan, splits=manifest.splits | {"train": train})
    (made / "manifest.json").write_text(manifest.to_json())
    told = subprocess.run([sys.executable, "-c", MEASURED, str(made)], capture_output=True, text=True, check=True)
    rows, grown = json.loads(told.stdout)
    assert rows == 4 * 1366
    assert grown < 4 << 20, f"grew by {grown / 2**20:.1f} MiB"
