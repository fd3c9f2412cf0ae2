"""Hugging Face data sets from local files, by the library itself where it is installed; never from the network."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from jointgen_data import huggingface
from jointgen_data.huggingface import HuggingFace
from jointgen_data.image_folder import ImageFolder
from PIL import Image
from support.sources import everything

from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.testing import checks

installed = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="`datasets` is not installed: pip install 'jointgen[datasets]'"
)
SIDE = 8


def problem(source: HuggingFace, split: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        source.spaces() if split is None else source.open(split)
    (line,) = caught.value.lines
    assert "\n" not in line
    return line


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """12 training images of two classes and 4 test images, in the layout that `imagefolder` and image_folder read."""
    library: Any = huggingface.datasets
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    generator = np.random.RandomState(0)
    for folder, count in {"train/cat": 7, "train/dog": 5, "test/cat": 2, "test/dog": 2}.items():
        (tmp_path / "images" / folder).mkdir(parents=True)
        for index in range(count):
            pixels = generator.randint(0, 256, (14, 11 + index, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / folder / f"{index}.png")
    return tmp_path / "images"


def of_folder(images: Path, **options: Any) -> HuggingFace:
    return HuggingFace("imagefolder", data_dir=str(images), size=SIDE, **options)


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "datasets", None)
    for split in (None, "train"):
        assert problem(HuggingFace("mnist"), split) == (
            "type: 'huggingface' needs the package 'datasets': uv sync --extra datasets, or pip install "
            "'jointgen[datasets]'"
        )


@installed
def test_spaces_are_known_without_reading() -> None:
    source = HuggingFace("nowhere", size=16, channels=1, labels=True, classes=7)
    assert source.spaces() == {"x": Space((1, 16, 16), "real", 0.0, 1.0, 256), "y": Space((7,), "label")}
    assert problem(attrs.evolve(source, classes=None)).startswith("classes: labels need it")


@pytest.mark.parametrize("path", ["pandas", "loader.py"])
def test_a_form_of_files_that_executes_them_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions 3 and 4 of `datasets` unpickle. Here it has no function to load with, so no version is asked."""
    monkeypatch.setattr(huggingface, "datasets", SimpleNamespace(disable_progress_bars=lambda: None))
    told = problem(HuggingFace(path, data_files={"train": "evil.pkl", "test": "evil.pkl"}), "train")
    assert told.startswith(f"path: {path!r} would execute code of the data")


@installed
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_rows_are_those_of_the_folder(images: Path, split: str) -> None:
    ours = everything(of_folder(images, labels=True, classes=2).open(split))
    theirs = everything(ImageFolder(str(images), size=SIDE, labels=True).open(split))
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in theirs)


@installed
def test_it_keeps_the_promises_of_a_data_source(images: Path) -> None:
    for check in checks("data", of_folder(images, labels=True, classes=2, flip=True)):
        check()


@installed
def test_flips_are_of_training_rows(images: Path) -> None:
    source = of_folder(images, flip=True)
    rows: Any = source.open("train")
    raw, coins = everything(rows), Noise(7).named("flip", 12).uniform() < 0.5
    assert 0 < coins.sum() < 12
    flipped = rows.augment(raw, Noise(7).named("flip", 12))["x"]
    assert all(torch.equal(flipped[i], raw["x"][i].flip(-1) if heads else raw["x"][i]) for i, heads in enumerate(coins))
    assert not hasattr(source.open("test"), "augment")


@installed
def test_parquet_and_saved_data_sets_are_the_same_rows(images: Path, tmp_path: Path) -> None:
    library: Any = huggingface.datasets
    held = library.load_dataset("imagefolder", data_dir=str(images))
    held.save_to_disk(tmp_path / "saved")
    files = {split: str(tmp_path / f"{split}.parquet") for split in held}
    for split, file in files.items():
        held[split].to_parquet(file)
    options: Any = {"size": SIDE, "labels": True, "classes": 2}
    expected = everything(of_folder(images, labels=True, classes=2).open("train"))
    for source in (
        HuggingFace("parquet", data_files=files, **options),
        HuggingFace(str(tmp_path / "saved"), **options),
    ):
        found = everything(source.open("train"))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    gone = HuggingFace(str(tmp_path / "saved"), train_split="trian")
    assert "train_split: " in problem(gone, "train") and "did you mean 'train'?" in problem(gone, "train")


@installed
def test_slices_hold_out_a_part_of_one_split(images: Path) -> None:
    source = of_folder(images, train_split="train[:75%]", test_split="train[75%:]")
    assert (len(source.open("train")), len(source.open("test"))) == (9, 3)


@installed
def test_images_are_decoded_once(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = everything(of_folder(images).open("train"))

    def decode(*arguments: Any) -> Any:
        raise AssertionError("decoded again")

    monkeypatch.setattr(huggingface, "_decode_one", decode)
    assert torch.equal(everything(of_folder(images).open("train"))["x"], first["x"])


@installed
def test_several_processes_decode_the_same_grey_images(images: Path) -> None:
    one, two = (everything(of_folder(images, channels=1, workers=n).open("train"))["x"] for n in (1, 2))
    assert one.shape == (12, 1, SIDE, SIDE) and torch.equal(one, two)
    assert torch.equal(one, everything(ImageFolder(str(images), size=SIDE, channels=1).open("train"))["x"])


@installed
def test_broken_images_are_skipped_and_beyond_the_limit_named(images: Path) -> None:
    (images / "train/cat/2.png").write_bytes((images / "train/cat/2.png").read_bytes()[:100])
    (images / "train/dog/0.png").write_text("no image")
    whole = everything(ImageFolder(str(images), size=SIDE, labels=True).open("train"))
    found = everything(of_folder(images, labels=True, classes=2).open("train"))
    assert len(found["x"]) == 10
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    message = problem(of_folder(images, max_broken=1), "train")
    assert message.startswith("max_broken: more than 1 files cannot be read, the first of them row 2 of train (")
    assert "; row 7 of train (cannot identify image file" in message


@installed
def test_what_is_not_there_is_named(images: Path, tmp_path: Path) -> None:
    assert "image: 'imagefolder' has no column 'imgae'; did you mean 'image'?" in problem(
        of_folder(images, image="imgae"), "train"
    )
    assert problem(of_folder(images, label="digit", labels=True, classes=2), "train").startswith("label: ")
    assert problem(of_folder(images, test_split="validation"), "test").startswith("test_split: 'validation' of ")
    assert problem(of_folder(tmp_path / "gone"), "train").startswith("path: 'imagefolder' of ")
    assert problem(HuggingFace("nobody/nothing"), "train").startswith("path: 'nobody/nothing' cannot be loaded: ")
    assert "holds 1, but classes = 1 allows 0 to 0" in problem(of_folder(images, labels=True, classes=1), "train")
    assert "cannot be read as images" in problem(of_folder(images, image="label"), "train")


@installed
def test_nothing_but_broken_images(images: Path) -> None:
    shutil.rmtree(images / "train/dog")
    for file in (images / "train/cat").iterdir():
        file.write_text("no image")
    assert "has no image that can be read in the train split" in problem(of_folder(images), "train")
