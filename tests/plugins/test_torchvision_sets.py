"""Fashion-MNIST, KMNIST, SVHN and CelebA, from small files in their real form that are made up here.

The data sets themselves are not beside the checkout.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from jointgen_data.celeba import CelebA
from jointgen_data.mnist import KMNIST, FashionMNIST
from jointgen_data.svhn import SVHN
from PIL import Image
from scipy.io import savemat
from support.sources import everything

from jointgen.contracts.space import Space
from jointgen.errors import ConfigError

SETS = {
    FashionMNIST: "FashionMNIST/raw/train-images-idx3-ubyte",
    KMNIST: "KMNIST/raw/train-images-idx3-ubyte",
    SVHN: "train_32x32.mat",
    CelebA: "celeba/list_eval_partition.txt",
}


def problem(source: Any, split: str = "train") -> str:
    with pytest.raises(ConfigError) as caught:
        source.open(split)
    assert len(caught.value.lines) == 1
    return str(caught.value)


@pytest.mark.parametrize(("source", "looked_for"), SETS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_nothing_is_fetched_unless_asked_for(source: Any, looked_for: str, tmp_path: Path) -> None:
    name = source.__name__
    assert source(str(tmp_path)).spaces()  # which needs no files
    said = problem(source(str(tmp_path)))
    assert said.startswith(f"root: no {name} under '{tmp_path}' (looked for {tmp_path}/{looked_for})")
    assert "download = true" in said
    assert hasattr(torchvision.datasets, name), "it can be fetched"
    assert not list(tmp_path.iterdir())


# --- the form of MNIST ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [FashionMNIST, KMNIST])
def test_sets_of_the_form_of_mnist_are_read_as_torchvision_reads_them(source: Any, tmp_path: Path) -> None:
    folder = tmp_path / source.__name__ / "raw"
    folder.mkdir(parents=True)
    images = np.random.RandomState(0).randint(0, 256, (10, 28, 28)).astype(np.uint8)
    for split in ("train", "t10k"):
        head = struct.pack(">BBBB3I", 0, 0, 8, 3, *images.shape)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 10) + bytes(range(10)))
    rows = everything(source(str(tmp_path), labels=True).open("train"))
    theirs = getattr(torchvision.datasets, source.__name__)(tmp_path, train=True)
    assert torch.equal(rows["x"][:, 0], theirs.data) and torch.equal(rows["y"], theirs.targets)
    assert source(str(tmp_path)).count_rows("test") == 10


def test_clothes_are_dequantised_and_characters_binarised_unless_asked_for() -> None:
    assert FashionMNIST("x").spaces()["x"] == Space((1, 28, 28), "real", 0.0, 1.0, 256)
    assert KMNIST("x").spaces()["x"] == Space((1, 28, 28), "binary", 0.0, 1.0, 256)


# --- SVHN -------------------------------------------------------------------------------------------------------------


def house_numbers(folder: Path) -> np.ndarray:
    images = np.random.RandomState(0).randint(0, 256, (32, 32, 3, 4)).astype(np.uint8)
    for name in ("train_32x32.mat", "test_32x32.mat"):
        savemat(folder / name, {"X": images, "y": np.array([[1], [10], [9], [10]], np.uint8)})
    return images


def test_house_numbers_are_channels_first_and_ten_is_zero(tmp_path: Path) -> None:
    images = house_numbers(tmp_path)
    rows = everything(SVHN(str(tmp_path), labels=True).open("test"))
    assert rows["y"].tolist() == [1, 0, 9, 0]
    assert torch.equal(rows["x"], torch.from_numpy(images.transpose(3, 2, 0, 1).copy()))


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (b"no matrix", "is damaged: "),
        ({"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))}, "is damaged: X is float64 (32, 32, 3, 2), not uint8"),
        ({"y": np.ones((2, 1))}, "is damaged: X is "),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((3, 1))}, "is damaged: y is not 2 digits, 1 to 10"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[0], [1]])}, "is damaged: y is not 2 digits"),
    ],
)
def test_a_damaged_file_of_house_numbers_is_named(held: Any, said: str, tmp_path: Path) -> None:
    house_numbers(tmp_path)
    path = tmp_path / "train_32x32.mat"
    if isinstance(held, bytes):
        path.write_bytes(held)
    else:
        savemat(path, held)
    assert problem(SVHN(str(tmp_path))).startswith(f"root: {path}: {said}")
    assert len(SVHN(str(tmp_path)).open("test")) == 4


# --- CelebA -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Six faces, red above, green in the middle square and blue below: 1 to 3 to train on, 4 for validation."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{number:06}.jpg" for number in range(1, 7)]
    for name in names:
        image = Image.new("RGB", (178, 218), (0, 255, 0))
        image.paste((255, 0, 0), (0, 0, 178, 20))
        image.paste((0, 0, 255), (0, 198, 178, 218))
        image.save(folder / "img_align_celeba" / name, quality=100, subsampling=0)
    splits = "".join(f"{name} {split}\n" for name, split in zip(names, "000122", strict=True))
    (folder / "list_eval_partition.txt").write_text(splits)
    values = ["-1  1", " 1 -1", " 1  1", "-1 -1", "-1  1", " 1 -1"]
    lines = [f"{name} {value}\n" for name, value in zip(names, values, strict=True)]
    (folder / "list_attr_celeba.txt").write_text("6\nBald Smiling \n" + "".join(lines))
    return tmp_path


def test_faces_are_the_middle_square_with_the_attribute_that_is_asked_for(faces: Path) -> None:
    source = CelebA(str(faces), size=16, labels=True)
    assert source.spaces() == {"x": Space((3, 16, 16), "real", 0.0, 1.0, 256), "y": Space((2,), "label")}
    train, test = everything(source.open("train")), everything(source.open("test"))
    assert train["y"].tolist() == [1, 0, 1] and test["y"].tolist() == [1, 0]
    assert everything(CelebA(str(faces), size=16, labels=True, attribute="Bald").open("train"))["y"].tolist() == [
        0,
        1,
        1,
    ]
    assert train["x"].shape == (3, 3, 16, 16)
    assert train["x"][:, 1].min() > 230 and train["x"][:, [0, 2]].max() < 25, "the stripes above and below are cut off"
    assert (source.count_rows("train"), source.count_rows("test")) == (3, 2)


def test_faces_that_cannot_be_read_or_have_no_such_attribute(faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = problem(CelebA(str(faces), size=16, labels=True, attribute="Smilling"))
    assert wrong == "attribute: 'Smilling' is none of its attributes; did you mean 'Smiling'? (known: Bald, Smiling)"
    (faces / "celeba/img_align_celeba/000002.jpg").write_bytes(b"torn")
    rows = CelebA(str(faces), size=16, labels=True).open("train")
    assert everything(rows)["y"].tolist() == [1, 1], "labels stay with their images"
    assert "skipped" in capsys.readouterr().err
    assert "more than 0 files cannot be read" in problem(CelebA(str(faces), size=16, max_broken=0))
    (faces / "celeba/list_eval_partition.txt").write_text("000001.jpg 1\n")
    assert "has no image of the train split, 0" in problem(CelebA(str(faces), size=16))
