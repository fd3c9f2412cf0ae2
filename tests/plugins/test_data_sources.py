"""Data sources: what comes out has the shape, range and rows that were promised; what cannot be read says why."""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import pytest
import torch
import torchvision
from jointgen_data import arrays, digits, jointgen_register
from jointgen_data.arrays import Arrays
from jointgen_data.cifar10 import CIFAR10
from jointgen_data.common import FlippedRows, TensorRows, hashed_shares, held_out_rows
from jointgen_data.digits import Digits
from jointgen_data.image_folder import ImageFolder
from jointgen_data.mnist import MNIST
from jointgen_data.prepared import PreparedImages
from jointgen_data.toys import Ring
from jointgen_data.vision import find_files
from PIL import Image
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from support.paths import SHARED_DATA
from support.sources import everything
from torch.nn import functional as F
from torchvision.transforms import v2

from jointgen.config.fields import MAX_SIDE
from jointgen.contracts.noise import Noise
from jointgen.contracts.observation import observe
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.images.folders import list_images
from jointgen.images.prepare import prepare_images
from jointgen.registry.components import Registrar, Registry
from jointgen.runtime.console import LEVELS, printed

real_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"no real data at {SHARED_DATA}")


def observed(space: Space, raw: torch.Tensor) -> torch.Tensor:
    return observe(space, raw, Noise(0).named("x", len(raw))).read("sample")


def problem(source: Any, split: str | None = None) -> str:
    """The one line that spaces(), or open(split), complains with."""
    with pytest.raises(ConfigError) as caught:
        source.spaces() if split is None else source.open(split)
    assert len(caught.value.lines) == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- registration ----------------------------------------------------------------------------------------------------


def registry() -> Registry:
    filled = Registry()
    jointgen_register(Registrar(filled, "test"))
    return filled


def test_every_source_loads_and_says_what_it_is_and_from_where() -> None:
    components = registry().components("data")
    names = {"arrays", "cifar10", "digits", "grid", "image_folder", "linear_gaussian", "mnist", "moons"}
    names |= {"celeba", "fashion_mnist", "huggingface", "kmnist", "prepared", "ring", "svhn", "table", "in_python"}
    assert {component.name for component in components} == names
    for component in components:
        assert component.paper and component.summary
        assert {"spaces", "open"} <= set(dir(component.load()))


def test_listing_imports_neither_torch_nor_torchvision() -> None:
    code = (
        "import sys, jointgen_data\n"
        "from jointgen.registry.components import Registrar, Registry\n"
        "registry = Registry()\n"
        "jointgen_data.jointgen_register(Registrar(registry, 'test'))\n"
        "assert len(registry.components('data')) == 17\n"
        "assert not {'torch', 'torchvision', 'sklearn', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- every source that needs no files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [Digits(labels=True), Digits(observe="binarise"), Ring(rows=64, labels=True)])
def test_rows_fit_the_spaces_and_repeat(source: Any) -> None:
    spaces, rows = source.spaces(), source.open("train")
    index = torch.tensor([3, 0, 3])
    taken, again = rows.take(index), source.open("train").take(index)
    assert list(taken) == list(spaces)
    for name, space in spaces.items():
        assert observed(space, taken[name]).shape == (3, *space.shape)
        assert torch.equal(taken[name], again[name])
        assert torch.equal(taken[name][0], taken[name][2])
        assert torch.equal(taken[name][1], rows.take(torch.tensor([0]))[name][0])


@pytest.mark.parametrize("source", [Digits(), Ring(rows=8), MNIST("nowhere"), CIFAR10("nowhere"), ImageFolder("x")])
def test_a_misspelt_split_is_named(source: Any) -> None:
    assert problem(source, "valid") == "split: 'valid' is neither 'train' nor 'test'"


def test_a_misspelt_observation_is_refused_even_without_a_recipe() -> None:
    with pytest.raises(ValueError, match="binarize"):
        Digits(observe="binarize")  # type: ignore[arg-type]


# --- digits ----------------------------------------------------------------------------------------------------------


def test_digits_split_is_a_partition_of_the_data_set() -> None:
    train, test = (everything(Digits(labels=True).open(split)) for split in ("train", "test"))
    assert (len(train["x"]), len(test["x"])) == (1500, 297)
    images, labels = load_digits(return_X_y=True)
    rows = torch.cat([torch.cat([part["x"].flatten(1).long(), part["y"][:, None]], 1) for part in (train, test)])
    expected = np.concatenate([images, labels[:, None]], 1).astype(int).tolist()
    assert sorted(rows.tolist()) == sorted(expected)


def test_digits_are_the_same_where_scikit_learn_keeps_its_file_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    read = digits._read_digits.__wrapped__
    before = read()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert all(map(np.array_equal, before, read()))


def test_digits_split_is_not_by_writer() -> None:
    """The file is ordered by writer. Its last 297 rows give 297 * 297 / 1797 = 49 rows to a mixed test split."""
    last = {tuple(row) for row in load_digits().data[-297:].astype(int).tolist()}
    test = everything(Digits().open("test"))["x"].flatten(1).tolist()
    assert 20 < sum(tuple(row) in last for row in test) < 80


def test_digits_split_mixes_the_classes() -> None:
    """297 test rows of 10 classes are 29.7 each; a binomial's 5 standard deviations are 26."""
    counts = everything(Digits(labels=True).open("test"))["y"].bincount(minlength=10)
    assert counts.sum() == 297
    assert ((counts > 29.7 - 26) & (counts < 29.7 + 26)).all()


def test_digits_dequantise_and_binarise_between_their_seventeen_levels() -> None:
    raw = everything(Digits().open("test"))["x"]
    assert raw.dtype == torch.uint8
    assert (int(raw.min()), int(raw.max())) == (0, 16)
    space = Digits().spaces()["x"]
    assert space == Space((1, 8, 8), "real", 0.0, 1.0, 17)
    x = observed(space, raw)
    assert x.min() >= 0 and x.max() < 1
    assert ((x - (raw + 0.5) / 17).abs() < 0.5 / 17 + 1e-6).all()
    bits = observed(Digits(observe="binarise").spaces()["x"], raw)
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    assert (bits[raw == 0] == 0).all()
    assert (bits[raw == 16] == 1).all()


# --- MNIST and CIFAR-10 -----------------------------------------------------------------------------------------------


@real_data
def test_mnist_is_mnist() -> None:
    source = MNIST(str(SHARED_DATA / "mnist"), labels=True)
    train, test = source.open("train"), source.open("test")
    assert (len(train), len(test)) == (60_000, 10_000)
    assert everything(train)["y"][:5].tolist() == [5, 0, 4, 1, 9]
    assert everything(test)["y"][:5].tolist() == [7, 2, 1, 0, 4]
    x = everything(train)["x"]
    assert x.dtype == torch.uint8
    assert x.float().mean().item() / 255 == pytest.approx(0.1307, abs=5e-5)  # the mean that everybody normalises by
    assert source.spaces() == {"x": Space((1, 28, 28), "binary", 0.0, 1.0, 256), "y": Space((10,), "label")}


@real_data
def test_mnist_in_negative_is_white_where_it_was_black() -> None:
    plain, negative = (MNIST(str(SHARED_DATA / "mnist"), negative=negative) for negative in (False, True))
    one, other = (source.open("test").take(torch.tensor([0, 9]))["x"] for source in (plain, negative))
    assert torch.equal(one.int() + other.int(), torch.full_like(one, 255).int())


def test_mnist_padded_is_the_same_image_in_a_black_frame() -> None:
    plain, padded = (MNIST(str(SHARED_DATA / "mnist"), observe="dequantise", pad=pad) for pad in (False, True))
    assert padded.spaces() == {"x": Space((1, 32, 32), "real", 0.0, 1.0, 256)}
    index = torch.arange(7)
    small, large = plain.open("test").take(index)["x"], padded.open("test").take(index)["x"]
    assert large.shape == (7, 1, 32, 32)
    assert torch.equal(large[:, :, 2:-2, 2:-2], small)
    assert large.sum() == small.sum() > 0


@real_data
def test_cifar10_is_cifar10_and_only_training_images_flip(tmp_path: Path) -> None:
    subprocess.run([sys.executable, SHARED_DATA / "cifar10" / "rebuild.py", tmp_path], check=True, capture_output=True)
    source = CIFAR10(str(tmp_path), flip=True, labels=True)
    train, test = source.open("train"), source.open("test")
    shutil.rmtree(tmp_path)  # 178 MiB that pytest would keep
    assert (len(train), len(test)) == (50_000, 10_000)
    assert everything(train)["y"][:6].tolist() == [6, 9, 9, 4, 1, 1]
    assert everything(test)["y"][:6].tolist() == [3, 8, 8, 0, 6, 6]
    sheet = np.array(Image.open(SHARED_DATA / "cifar10" / "test_batch.webp").convert("RGB"))  # 100 rows of 100 images
    second = torch.from_numpy(sheet[:32, 32:64]).permute(2, 0, 1)
    assert torch.equal(test.take(torch.tensor([1]))["x"][0], second)
    channel_means = train.take(torch.arange(50_000))["x"].float().mean((0, 2, 3)) / 255
    assert channel_means.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)  # as everybody normalises
    assert hasattr(train, "augment") and not hasattr(test, "augment")
    assert source.spaces()["x"] == Space((3, 32, 32), "real", 0.0, 1.0, 256)


@pytest.mark.parametrize(
    ("source", "looked_for"),
    [(MNIST, "MNIST/raw/train-images-idx3-ubyte"), (CIFAR10, "cifar-10-batches-py/data_batch_1")],
)
def test_a_missing_torchvision_set_says_where_it_looked_and_what_to_do(
    source: Any, looked_for: str, tmp_path: Path
) -> None:
    message = problem(source(str(tmp_path)), "train")
    name = source.__name__
    assert message.startswith(f"root: no {name} under '{tmp_path}' (looked for {tmp_path}/{looked_for})")
    assert "download = true" in message
    assert source(str(tmp_path)).spaces()  # which needs no files


def idx(array: np.ndarray) -> bytes:
    """A file of MNIST's format: two zeros, 8 for bytes, the number of axes, their lengths, the bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


IMAGES, LABELS = "MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-labels-idx1-ubyte"


@pytest.fixture
def small_mnist(tmp_path: Path) -> Path:
    """Ten training images, each of the level of its label, and the same for tests."""
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    for split in ("train", "t10k"):
        levels = np.arange(10)
        (tmp_path / f"MNIST/raw/{split}-images-idx3-ubyte").write_bytes(
            idx(np.full((28, 28, 10), levels).transpose(2, 0, 1))
        )
        (tmp_path / f"MNIST/raw/{split}-labels-idx1-ubyte").write_bytes(idx(levels))
    return tmp_path


def test_files_in_the_format_of_mnist_are_read(small_mnist: Path) -> None:
    rows = everything(MNIST(str(small_mnist), labels=True).open("train"))
    assert rows["x"].shape == (10, 1, 28, 28) and rows["x"].dtype == torch.uint8
    assert (
        rows["x"].amax((1, 2, 3)).tolist()
        == rows["x"].amin((1, 2, 3)).tolist()
        == rows["y"].tolist()
        == list(range(10))
    )


def header(*lengths: int, kind: int = 8) -> bytes:
    return struct.pack(f">BBBB{len(lengths)}I", 0, 0, kind, len(lengths), *lengths)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (IMAGES, b"not an image", "its header is not that of N x 28 x 28 bytes"),
        (IMAGES, b"", "its header is not that of N x 28 x 28 bytes"),
        (IMAGES, header(10, 28, 28)[:-1], "its header is not that of"),
        (IMAGES, header(10, 28, 28, kind=9) + bytes(7840), "its header is not that of"),
        (IMAGES, header(10, 14, 56) + bytes(7840), "its header is not that of"),
        (IMAGES, header(7840), "its header is not that of"),
        (IMAGES, header(0, 28, 28), "its header is not that of"),
        (IMAGES, header(10, 28, 28) + bytes(7839), "7855 bytes, where its header says 10 rows"),
        (IMAGES, header(10, 28, 28) + bytes(7841), "7857 bytes, where its header says 10 rows"),
        (IMAGES, header(2**32 - 1, 28, 28) + bytes(7840), "7856 bytes, where its header says 4294967295 rows"),
        (LABELS, header(9) + bytes(9), "9 labels of 10 images"),
        (LABELS, header(10) + bytes(9), "17 bytes, where its header says 10 rows"),
        (LABELS, header(10) + bytes([0] * 9 + [10]), "it holds 10, and labels are 0 to 9"),
        (LABELS, header(10, 1) + bytes(10), "its header is not that of N bytes"),
        (LABELS, b"\x1f\x8b" + bytes(40), "its header is not that of N bytes"),
    ],
)
def test_files_of_mnist_that_are_damaged_or_lie(name: str, data: bytes, said: str, small_mnist: Path) -> None:
    (small_mnist / name).write_bytes(data)
    assert problem(MNIST(str(small_mnist)), "train").startswith(f"root: {small_mnist / name}: is damaged: {said}")
    assert len(MNIST(str(small_mnist)).open("test")) == 10


@pytest.mark.parametrize(("source", "name"), [(MNIST, LABELS), (CIFAR10, "cifar-10-batches-py/data_batch_1")])
def test_files_of_torchvision_that_are_no_files(source: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    os.mkfifo(tmp_path / name)
    assert problem(source(str(tmp_path)), "train") == f"root: {tmp_path / name}: is a pipe; expected a file"


def test_a_damaged_file_of_cifar_is_named_before_anything_is_unpickled(tmp_path: Path) -> None:
    """The damage is a pickle that would write a file."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "attacked",)

    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(Attack()))
    message = problem(CIFAR10(str(tmp_path)), "train")
    assert message.startswith(f"root: {folder / 'data_batch_1'}: is damaged: its MD5 is not the published one; ")
    assert not (tmp_path / "attacked").exists()


def test_a_download_that_fails_is_one_line_for_the_user(tmp_path: Path) -> None:
    def offline(root: Path) -> None:
        raise OSError("no route\nto host")

    with pytest.raises(ConfigError, match=r"^root: Some cannot be fetched into '.*': no route to host$"):
        find_files("Some", str(tmp_path), ["a"], offline)
    with pytest.raises(ConfigError, match=r"^root: Some was fetched into '.*', and .*/a is not there$"):
        find_files("Some", str(tmp_path), ["a"], lambda root: None)
    assert find_files("Some", str(tmp_path), ["a"], lambda root: (root / "a").touch()) == tmp_path


# --- image folders ----------------------------------------------------------------------------------------------------

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def stripes(horizontal: bool, size: int = 90) -> Image.Image:
    """Red, green and blue thirds, side by side or one above the other; the middle square is green."""
    image = Image.new("RGB", (3 * size, size) if horizontal else (size, 3 * size), GREEN)
    image.paste(RED, (0, 0, size, size))
    image.paste(BLUE, (2 * size, 0, 3 * size, size) if horizontal else (0, 2 * size, size, 3 * size))
    return image


def photograph(width: int = 200, height: int = 150) -> Image.Image:
    noise = np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(noise)


def read_one(tmp_path: Path, image: Image.Image, name: str, size: int = 8, channels: Any = 3, **save: Any) -> Any:
    """(C, size, size) float levels of one image written to and read from a folder without classes."""
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    image.save(tmp_path / "train" / name, **save)
    rows = ImageFolder(str(tmp_path), size=size, channels=channels, max_broken=0).open("train")
    assert len(rows) == 1
    taken = rows.take(torch.tensor([0]))["x"]
    assert taken.dtype == torch.uint8
    assert taken.shape == (1, channels, size, size)
    return taken[0].float()


def colour(image: torch.Tensor) -> list[float]:
    """The one colour of an image that is all of one colour, to within a level."""
    assert (image.amax((1, 2)) - image.amin((1, 2))).max() <= 1
    return image.mean((1, 2)).tolist()


@pytest.mark.parametrize("horizontal", [True, False])
def test_the_centre_is_cropped_from_wide_and_tall_images(tmp_path: Path, horizontal: bool) -> None:
    image = read_one(tmp_path, stripes(horizontal), "a.png")
    assert colour(image[:, 1:-1, 1:-1]) == list(GREEN)
    assert image[1].min() > 230  # antialiasing lets a little of the neighbours in, as a resize before the crop does


LEVEL_100 = Image.new("L", (20, 30), 100)


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (Image.new("RGB", (20, 30), (10, 20, 30)), "a.png", (10, 20, 30)),
        (LEVEL_100, "a.JPEG", (100, 100, 100)),
        (LEVEL_100.convert("LA"), "a.png", (100, 100, 100)),
        (Image.new("P", (20, 30), 0), "black.png", (0, 0, 0)),
        (Image.new("RGB", (20, 30), RED).quantize(2), "a.png", RED),
        (Image.new("1", (20, 30), 1), "a.png", (255, 255, 255)),
        (Image.new("RGBA", (20, 30), (10, 20, 30, 255)), "a.png", (10, 20, 30)),
        # alpha 51 / 255 = 0.2 over white: 0.2 * (10, 20, 30) + 0.8 * 255 = (206, 208, 210)
        (Image.new("RGBA", (20, 30), (10, 20, 30, 51)), "a.png", (206, 208, 210)),
        # 16 bits: 0x4080 >> 8 = 0x40 = 64
        (Image.fromarray(np.full((30, 20), 0x4080, np.uint16)), "a.png", (64, 64, 64)),
        # no ink, then full cyan ink: white, and all but red
        (Image.new("CMYK", (20, 30), (0, 0, 0, 0)), "a.jpg", (255, 255, 255)),
        (Image.new("CMYK", (20, 30), (255, 0, 0, 0)), "a.jpg", (0, 255, 255)),
        (Image.new("RGB", (1, 1), (10, 20, 30)), "tiny.png", (10, 20, 30)),
        (Image.new("RGB", (1000, 2), (10, 20, 30)), "wide.png", (10, 20, 30)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_any_mode_becomes_rgb(tmp_path: Path, image: Image.Image, name: str, expected: tuple[int, ...]) -> None:
    assert colour(read_one(tmp_path, image, name)) == pytest.approx(expected, abs=1.5)  # JPEG rounds


def test_one_channel_is_luma(tmp_path: Path) -> None:
    """ITU-R 601: 0.299 * 255 = 76.2 for red."""
    assert colour(read_one(tmp_path, Image.new("RGB", (20, 30), RED), "a.png", channels=1)) == [76.0]


def test_small_images_are_antialiased(tmp_path: Path) -> None:
    """A checkerboard of single pixels at an eighth of its size is grey; nearest neighbours would keep 0 or 255."""
    board = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    image = read_one(tmp_path, Image.fromarray(board), "a.png", size=16)
    assert (image[:, 2:-2, 2:-2] - 127.5).abs().max() < 3


def test_a_large_jpeg_is_read_as_a_large_png_is(tmp_path: Path) -> None:
    """libjpeg may decode at a fraction of the size; what is left after resizing must not show it."""
    ramp = np.add.outer(np.arange(1024), np.arange(1024)) // 9  # 0..227
    image = Image.fromarray(ramp.astype(np.uint8))
    for form in ("png", "jpeg"):
        (tmp_path / form).mkdir()
    png = read_one(tmp_path / "png", image, "a.png", size=32)
    jpeg = read_one(tmp_path / "jpeg", image, "a.jpg", size=32, quality=95)
    assert (png - jpeg).abs().max() <= 2


def test_a_photograph_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    """EXIF orientation 6: turn by 90 degrees clockwise, so that the left half comes to lie on top."""
    image = Image.new("RGB", (40, 40), BLUE)
    image.paste(RED, (0, 0, 20, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read_one(tmp_path, image, "a.png", exif=exif)
    assert turned[:, 0].mean(1).tolist() == pytest.approx(RED, abs=1)
    assert turned[:, -1].mean(1).tolist() == pytest.approx(BLUE, abs=1)


def test_a_damaged_exif_block_neither_warns_nor_costs_the_image(tmp_path: Path) -> None:
    """Pillow warns of it (warnings are errors here); the pixels are fine."""
    torn = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x09\x00\x12\x01"
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        image = Image.new("RGB", (20, 20), (10, 20, 30))
        image.save(tmp_path / "proof.jpg", exif=torn)
        with Image.open(tmp_path / "proof.jpg") as proof:
            proof.getexif()
    assert colour(read_one(tmp_path, image, "a.jpg", exif=torn)) == pytest.approx((10, 20, 30), abs=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes; every image is good. Noise, so that no two are alike."""
    for split, counts in {"train": (5, 3), "val": (1, 2)}.items():
        for name, count in zip(("cat", "dog"), counts, strict=True):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                photograph(40 + 7 * index, 50).save(tmp_path / split / name / f"{index}.png")
    return tmp_path


def break_three(folder: Path) -> list[str]:
    """A torn JPEG, a text that calls itself one and an empty file, among the cats; sorted."""
    cats = folder / "train" / "cat"
    photograph().save(cats / "0_torn.jpg")
    (cats / "0_torn.jpg").write_bytes((cats / "0_torn.jpg").read_bytes()[:5000])
    (cats / "2_text.jpg").write_text("no image at all")
    (cats / "9_empty.png").write_bytes(b"")
    return [str(cats / name) for name in ("0_torn.jpg", "2_text.jpg", "9_empty.png")]


def test_broken_files_are_skipped_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = everything(ImageFolder(str(folder), size=8, labels=True).open("train"))
    broken = break_three(folder)
    source = ImageFolder(str(folder), size=8, labels=True)
    with printed(LEVELS["quiet"]):  # what is missing is said all the same
        rows = source.open("train")
    assert rows.skipped == broken
    said = capsys.readouterr().err.splitlines()
    assert source.open("train").skipped == broken
    assert capsys.readouterr().err == "", "each file is named once"
    assert all(line.startswith(f"jointgen: skipped {name}: ") for line, name in zip(said, broken, strict=True))
    for name, values in everything(rows).items():  # neither images nor labels have moved against each other
        assert torch.equal(values, whole[name])


def test_broken_files_beyond_the_limit_are_an_error_that_names_them(folder: Path) -> None:
    first, second, third = break_three(folder)
    assert len(ImageFolder(str(folder), max_broken=3).open("train")) == 8
    message = problem(ImageFolder(str(folder), max_broken=2), "train")
    assert message.startswith("max_broken: more than 2 files cannot be read")
    assert first in message and second in message and third in message
    assert "truncated" in message
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


@pytest.mark.parametrize("size", [2**21, 2**31, 2**62])
def test_images_that_no_memory_holds_are_an_error_that_says_so(size: int, folder: Path) -> None:
    """A side of 2^21: 8 * 3 * 2^42 bytes = 96 TiB."""
    with attrs.validators.disabled():  # which allow no more than what a machine could hold
        source = ImageFolder(str(folder), size=size)
    message = problem(source, "train")
    assert message.startswith("size: 8 images take ") and "GiB of memory, which this machine does not give" in message
    assert size > 2**21 or "take 98,304.0 GiB" in message


def test_a_moving_image_is_its_first_picture(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (9, 9), colour) for colour in (RED, GREEN, BLUE)]
    first, *others = pictures
    options: dict[str, Any] = {"save_all": True, "append_images": others}
    assert colour(read_one(tmp_path, first, "a.webp", lossless=True, **options)) == list(RED)
    for name in ("b.png", "c.tiff"):
        (tmp_path / name).mkdir()
        assert colour(read_one(tmp_path / name, first, name, **options)) == list(RED)


def test_a_file_that_may_not_be_read_is_a_broken_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked, opened = str(folder / "train/dog/1.png"), Image.open

    def refuse(file: Any) -> Any:
        if file == locked:
            raise PermissionError(errno.EACCES, "Permission denied", file)
        return opened(file)

    monkeypatch.setattr(Image, "open", refuse)
    source = ImageFolder(str(folder), size=8)
    assert source.open("train").skipped == [locked]
    assert f"{locked} (Permission denied); repair" in problem(attrs.evolve(source, max_broken=0), "train")


def test_nothing_but_broken_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    (tmp_path / "train" / "a.jpg").write_text("no image")
    assert "none of the 1 images" in problem(ImageFolder(str(tmp_path)), "train")


def test_order_and_pixels_do_not_depend_on_the_number_of_threads(folder: Path) -> None:
    for index in range(150):  # more than two chunks
        photograph(20 + index % 11, 20).save(folder / "train" / "dog" / f"more_{index}.png")
    one, three = (everything(ImageFolder(str(folder), size=8, labels=True, workers=n).open("train")) for n in (1, 3))
    assert len(one["x"]) == 158
    assert torch.equal(one["x"], three["x"])
    assert one["y"].tolist() == three["y"].tolist() == [0] * 5 + [1] * 153


def test_a_folder_knows_its_labels_before_any_image_is_read(folder: Path) -> None:
    for image in folder.rglob("*.png"):
        image.write_bytes(b"")
    spaces = ImageFolder(str(folder), size=32, channels=1, labels=True).spaces()
    assert spaces == {"x": Space((1, 32, 32), "real", 0.0, 1.0, 256), "y": Space((2,), "label")}
    assert ImageFolder("nowhere", labels=True, classes=1000).spaces()["y"] == Space((1000,), "label")


def test_test_images_come_from_val_and_are_numbered_by_the_training_classes(folder: Path) -> None:
    shutil.rmtree(folder / "val" / "cat")
    rows = ImageFolder(str(folder), size=8, labels=True).open("test")
    assert everything(rows)["y"].tolist() == [1, 1]  # dogs, though the only class in val
    (folder / "val").rename(folder / "test")
    assert len(ImageFolder(str(folder), size=8).open("test")) == 2


def test_folders_without_classes_and_hidden_files(folder: Path) -> None:
    (folder / "train" / "cat" / "._0.png").write_bytes(b"what macOS leaves")
    (folder / "train" / "notes.txt").write_text("not an image")
    photograph().save(folder / "train" / "loose.WEBP")
    rows = ImageFolder(str(folder), max_broken=0).open("train")
    assert len(rows) == 9 and rows.skipped == []
    assert "loose.WEBP is not in a class folder" in problem(ImageFolder(str(folder), labels=True), "train")


def test_flips_are_of_training_rows_one_coin_each(folder: Path) -> None:
    source = ImageFolder(str(folder), size=8, labels=True, flip=True)
    rows = source.open("train")
    raw = everything(rows)
    coins = Noise(7).named("flip", 8).uniform() < 0.5
    assert 0 < coins.sum() < 8
    assert isinstance(rows, FlippedRows)
    flipped = rows.augment(raw, Noise(7).named("flip", 8))
    for row, heads in enumerate(coins):
        assert torch.equal(flipped["x"][row], raw["x"][row].flip(-1) if heads else raw["x"][row])
    assert flipped["x"].dtype == torch.uint8
    assert torch.equal(flipped["y"], raw["y"])
    assert not hasattr(source.open("test"), "augment")
    assert not hasattr(attrs.evolve(source, flip=False).open("train"), "augment")


def test_links_are_followed_but_not_in_circles(folder: Path) -> None:
    (folder / "train" / "dog" / "back").symlink_to(folder / "train")
    (folder / "train" / "dog" / "up").symlink_to(folder)  # would lead to the test images
    (folder / "train" / "bird").symlink_to(folder / "train" / "dog")  # dogs stay dogs
    (folder / "wolves").mkdir()
    photograph().save(folder / "wolves" / "a.png")
    (folder / "train" / "wolf").symlink_to(folder / "wolves")
    rows = ImageFolder(str(folder), size=8, labels=True).open("train")
    assert everything(rows)["y"].bincount().tolist() == [0, 5, 3, 1]


def scatter(root: Path, **counts: int) -> Path:
    """scatter(root, val__cat=5): so many images, each of its own grey level, in root/val/cat; `here` is root itself."""
    level = 0
    for name, count in counts.items():
        place = root / name.replace("__", "/").replace("here", ".")
        place.mkdir(parents=True)
        for index in range(count):
            Image.new("L", (9, 9), level := level + 1).save(place / f"{index:02d}.png")
    return root


@pytest.mark.parametrize(
    ("counts", "labels", "has"),
    [
        ({"here": 30}, 0, "no test images of its own"),
        ({"cat": 20, "dog": 10}, 2, "no test images of its own"),
        ({"val__cat": 20, "val__dog": 10}, 2, "no other images than val/"),
        ({"train__cat": 30}, 1, "no other images than train/"),
    ],
    ids=["flat", "classes", "only val", "only train"],
)
def test_photographs_as_people_have_them(
    counts: dict[str, int], labels: int, has: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = scatter(tmp_path / "photos", **counts)
    source = ImageFolder(str(root), size=8, channels=1, labels=labels > 0)
    train, test = everything(source.open("train")), everything(source.open("test"))
    assert (len(train["x"]), len(test["x"])) == (27, 3)
    assert sorted(torch.cat([train["x"], test["x"]])[:, 0, 0, 0].tolist()) == list(range(1, 31)), "a partition"
    held_out = "3 of its 30 images are held out as the test split (a share of 0.1, by name)"
    assert capsys.readouterr().err == f"jointgen: {root} has {has}: {held_out}\n"
    prepared, _ = prepare_images(root, tmp_path / "prepared", 8, 1)  # which holds out the same images
    assert prepared.plan.test_fraction == 0.1
    for split, theirs in (("train", train), ("test", test)):
        rows = everything(PreparedImages(str(tmp_path / "prepared"), labels=labels > 0).open(split))
        assert all(torch.equal(rows[name], theirs[name]) for name in theirs)
    if labels:
        assert source.spaces()["y"] == Space((labels,), "label")


@pytest.mark.parametrize("labels", [False, True])
def test_a_folder_is_walked_once_for_a_source(folder: Path, monkeypatch: pytest.MonkeyPatch, labels: bool) -> None:
    walked: list[str] = []
    monkeypatch.setattr(
        "jointgen.images.folders.list_images", lambda folder: walked.append(Path(folder).name) or list_images(folder)
    )
    source = ImageFolder(str(folder), size=8, labels=labels)
    source.spaces()
    for split in ("train", "test", "train"):
        assert len(source.open(split)) == source.count_rows(split)
    assert walked == ["train", "val"]
    fresh = ImageFolder(str(folder), size=8, labels=labels)
    assert (source, repr(source), hash(source)) == (fresh, repr(fresh), hash(fresh))
    assert len(attrs.evolve(source, root=str(folder / "train" / "cat"), labels=False).open("train")) < 8, "no copy"
    flat = ImageFolder(str(folder / "train"), size=8, test_fraction=0.5)  # both splits are of the same files
    assert [len(flat.open(split)) for split in ("train", "test")] == [4, 4]
    assert walked[3:] == ["train"]


def test_bounds_are_those_of_what_can_be_made() -> None:
    assert Ring(rows=10**8).count_rows("train") == 10**8
    assert PreparedImages("x", crop=MAX_SIDE).crop == 16_384, "as large as `jointgen data prepare` makes them"
    for refused in (lambda: Ring(rows=10**9 + 1), lambda: PreparedImages("x", crop=MAX_SIDE + 1)):
        with pytest.raises(ValueError, match="must be <= "):
            refused()


def test_files_are_counted_before_any_is_read(folder: Path) -> None:
    for image in folder.rglob("*.png"):
        image.write_bytes(b"")
    source = ImageFolder(str(folder))
    assert (source.count_rows("train"), source.count_rows("test")) == (8, 3)
    with pytest.raises(ConfigError, match=r"^root: .*/gone: no such folder$"):
        ImageFolder(str(folder / "gone")).count_rows("train")


def test_the_share_that_is_held_out_can_be_chosen(folder: Path, tmp_path: Path) -> None:
    scatter(tmp_path / "photos", here=10)
    source = ImageFolder(str(tmp_path / "photos"), test_fraction=0.4)
    assert [len(source.open(split)) for split in ("train", "test")] == [6, 4]
    for share, lacking in ((1e-12, "test"), (1 - 1e-12, "train")):
        message = problem(attrs.evolve(source, test_fraction=share), "train")
        assert message.startswith(f"test_fraction: {share:g} of the 10 images in ")
        assert message.endswith(f"leaves none to {lacking} on")
    assert problem(ImageFolder(str(folder), test_fraction=0.4), "train").endswith("test images of its own, in val/")


def test_folders_that_hold_nothing_to_train_on(tmp_path: Path) -> None:
    source = ImageFolder(str(tmp_path / "photos"))
    assert problem(source, "train") == f"root: {tmp_path}/photos: no such folder"
    (tmp_path / "photos").mkdir()
    assert problem(source, "test").startswith(f"root: {tmp_path}/photos: no image in it (looked for .jpg, ")
    assert "no class folder" in problem(attrs.evolve(source, labels=True))
    scatter(tmp_path / "mixed", val=2, cat=3)
    assert problem(ImageFolder(str(tmp_path / "mixed")), "train") == (
        f"root: {tmp_path}/mixed: has val/ and 3 images outside it (cat/00.png, say), but no train/; "
        "move those to train on to train/"
    )
    assert problem(ImageFolder(str(tmp_path / "photos.png")), "train").endswith("no such folder")


def test_classes_that_do_not_fit(folder: Path) -> None:
    source = ImageFolder(str(folder), labels=True, classes=3)
    assert problem(source, "train") == f"classes: 3, but '{folder}/train' has 2 class folders"
    (folder / "val" / "bird").mkdir()
    photograph().save(folder / "val" / "bird" / "a.png")
    assert "bird/a.png is not in a class folder" in problem(attrs.evolve(source, classes=2), "test")


@pytest.mark.parametrize("wrong", [{"size": 0}, {"channels": 2}, {"max_broken": -1}, {"workers": -1}, {"classes": 0}])
def test_image_folder_keys_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImageFolder("x", **wrong)


def test_reading_is_silent_where_nobody_watches(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ImageFolder(str(folder), size=8).open("train")
    assert capfd.readouterr() == ("", "")


@real_data
def test_imagenet_photographs_of_152_sizes() -> None:
    source = ImageFolder(str(SHARED_DATA / "imagenet-sample"), size=32, labels=True, max_broken=0)
    train, test = source.open("train"), source.open("test")
    assert (len(train), len(test)) == (229, 44)
    assert source.spaces()["y"] == Space((18,), "label")
    counts = everything(train)["y"].bincount()
    assert len(counts) == 18 and counts.min() == 10 and counts.max() == 13


@real_data
def test_imagenet_photographs_are_those_that_torchvision_and_torch_read() -> None:
    """Same order and labels; and pixels as torch's own antialiased resize of the centre square.

    On the border ours sees what lies beyond the square, as a resize before the crop does, so it is left out.
    """
    sample = str(SHARED_DATA / "imagenet-sample")
    ours = everything(ImageFolder(sample, size=32, labels=True, max_broken=0).open("test"))
    theirs = torchvision.datasets.ImageFolder(str(SHARED_DATA / "imagenet-sample/val"))
    assert ours["y"].tolist() == theirs.targets
    whole = [row for row, (image, _) in enumerate(theirs) if sum(image.size) % 2 == 0]  # a centre without half pixels
    assert len(whole) == 21
    for row in whole:
        square = v2.functional.pil_to_tensor(v2.functional.center_crop(theirs[row][0], [min(theirs[row][0].size)]))
        expected = F.interpolate(square[None].float(), (32, 32), mode="bicubic", antialias=True)[0].clamp(0, 255)
        difference = (ours["x"][row] - expected).abs()[:, 2:-2, 2:-2]
        assert difference.mean() < 1  # of 256 levels; rounding alone makes it 0.25


# --- arrays -----------------------------------------------------------------------------------------------------------

FORMS = ["npy", "npz", "safetensors"]


def write(path: Path, form: str, x: np.ndarray) -> Arrays:
    """The array alone in a file, and the source that reads it and holds out the last rows."""
    file = path / f"data.{form}"
    if form == "npy":
        np.save(file, x)
    elif form == "npz":
        np.savez(file, images=x)
    else:
        save_file({"images": np.ascontiguousarray(x)}, file)
    return Arrays(str(file), split="last")


@pytest.mark.parametrize("form", FORMS)
def test_float_arrays_are_left_as_they_are(tmp_path: Path, form: str) -> None:
    x = np.random.RandomState(0).randn(20, 3).astype(np.float32)
    source = write(tmp_path, form, x)
    assert source.spaces() == {"x": Space((3,))}
    train, test = everything(source.open("train"))["x"], everything(source.open("test"))["x"]
    assert torch.equal(train, torch.from_numpy(x[:18]))  # a tenth of 20 rows is the test split
    assert torch.equal(test, torch.from_numpy(x[18:]))
    assert torch.equal(observed(source.spaces()["x"], test), test)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("shape", "row", "axes"),
    [
        ((10, 6), (6,), (0, 1)),
        ((10, 6, 5), (1, 6, 5), None),
        ((10, 6, 5, 3), (3, 6, 5), (0, 3, 1, 2)),
        ((10, 6, 5, 1), (1, 6, 5), (0, 3, 1, 2)),
        ((10, 3, 6, 5), (3, 6, 5), (0, 1, 2, 3)),
        ((10, 3, 6, 4), (3, 6, 4), (0, 1, 2, 3)),  # either could be the channels: the second axis wins
        ((10, 2, 6, 5), (2, 6, 5), (0, 1, 2, 3)),
    ],
)
def test_uint8_arrays_are_levels_with_channels_first(
    tmp_path: Path, form: str, shape: tuple[int, ...], row: tuple[int, ...], axes: tuple[int, ...] | None
) -> None:
    x = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    source = write(tmp_path, form, x)
    assert source.spaces() == {"x": Space(row, "real", 0.0, 1.0, 256)}
    taken = source.open("train").take(torch.tensor([4, 2]))["x"]
    expected = x[:, None] if axes is None else x.transpose(axes)
    assert torch.equal(taken, torch.from_numpy(np.ascontiguousarray(expected[[4, 2]])))
    assert taken.is_contiguous()


def test_float_images_get_channels_first_and_vectors_of_one_number_an_axis(tmp_path: Path) -> None:
    images = np.random.RandomState(0).rand(10, 8, 7, 3)
    assert write(tmp_path, "npy", images).spaces() == {"x": Space((3, 8, 7))}
    assert write(tmp_path, "npz", images[:, :, :, 0]).spaces() == {"x": Space((8, 7))}  # may be a sequence of vectors
    column = write(tmp_path, "safetensors", images[:, 0, 0, 0])
    assert column.spaces() == {"x": Space((1,))}
    assert column.open("test").take(torch.tensor([0]))["x"].shape == (1, 1)


def test_arrays_of_other_byte_and_axis_orders_are_the_same_numbers(tmp_path: Path) -> None:
    x = np.random.RandomState(0).randn(10, 4)
    for variant in (x.astype(">f8"), np.asfortranarray(x)):
        rows = write(tmp_path, "npy", variant).open("train")
        assert torch.equal(everything(rows)["x"], torch.from_numpy(x[:9]))


def test_the_ways_to_observe_uint8(tmp_path: Path) -> None:
    x = np.random.RandomState(0).randint(0, 256, (10, 6)).astype(np.uint8)
    source = write(tmp_path, "npy", x)
    assert attrs.evolve(source, observe="dequantise").spaces() == source.spaces()
    assert attrs.evolve(source, observe="binarise").spaces() == {"x": Space((6,), "binary", 0.0, 1.0, 256)}
    as_is = attrs.evolve(source, observe="none")
    assert as_is.spaces() == {"x": Space((6,))}
    raw = everything(as_is.open("train"))["x"]
    assert torch.equal(observed(as_is.spaces()["x"], raw), torch.from_numpy(x[:9]).float())


def test_bits_have_two_levels_and_must_say_so(tmp_path: Path) -> None:
    bits = np.random.RandomState(0).randint(0, 2, (10, 4, 4)).astype(np.uint8)
    source = write(tmp_path, "npy", bits)
    assert problem(attrs.evolve(source, observe="binarise"), "train").startswith("levels: 'x' of ")
    source = attrs.evolve(source, observe="binarise", levels=2)
    x = observed(source.spaces()["x"], everything(source.open("train"))["x"])
    assert torch.equal(x, torch.from_numpy(bits[:9, None]).float())  # a Bernoulli of 0 or 1 is what it was


def test_several_variables_with_labels_and_a_test_file(tmp_path: Path) -> None:
    generator = np.random.RandomState(0)
    for name, rows in (("train", 12), ("test", 5)):
        images, labels = generator.randint(0, 256, (rows, 4, 4)).astype(np.uint8), generator.randint(0, 3, rows)
        np.savez_compressed(tmp_path / f"{name}.npz", images=images, digit=labels, other=np.zeros(7))
    keys = {"x": "images", "y": "digit"}
    paths = [str(tmp_path / f"{name}.npz") for name in ("train", "test")]
    source = Arrays(paths[0], paths[1], variables=keys, classes=3)
    assert source.spaces() == {"x": Space((1, 4, 4), "real", 0.0, 1.0, 256), "y": Space((3,), "label")}
    for path, split in zip(paths, ("train", "test"), strict=True):
        values, file = everything(source.open(split)), np.load(path)
        assert torch.equal(values["x"][:, 0], torch.from_numpy(file["images"]))
        assert values["y"].dtype == torch.int64
        assert values["y"].tolist() == file["digit"].tolist()


def test_a_file_larger_than_memory_is_mapped(tmp_path: Path) -> None:
    """A terabyte of holes: where a write might need memory for every page, Linux refuses to map it."""
    file, rows = tmp_path / "data.npy", 2**40 // 2**18
    with file.open("wb") as opened:
        header = {"descr": "|u1", "fortran_order": False, "shape": (rows, 512, 512)}
        np.lib.format.write_array_header_1_0(opened, header)
        opened.write(np.full((1, 512, 512), 7, np.uint8).tobytes())  # so that it is not all zeros and ones
        opened.truncate(opened.tell() + (rows - 1) * 2**18)
    taken = Arrays(str(file)).open("train").take(torch.tensor([rows // 2, 0]))["x"]
    assert taken.sum((1, 2, 3)).tolist() == [0, 7 * 2**18]


def test_spaces_read_the_header_and_nothing_else(tmp_path: Path) -> None:
    """The values are NaN: spaces() does not notice, open() does."""
    source = write(tmp_path, "npy", np.full((100, 50), np.nan))
    assert source.spaces() == {"x": Space((50,))}
    assert "is not finite" in problem(source, "train")


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_cut_off_is_refused_before_it_is_read(tmp_path: Path, form: str) -> None:
    source = write(tmp_path, form, np.zeros((100, 50)))
    file = Path(source.path)
    file.write_bytes(file.read_bytes()[:1000])
    message = problem(source)
    assert message.startswith(f"path: '{file}' cannot be read as .{form}: ")
    if form == "npy":  # 128 bytes of header are followed by 872 of the 100 * 50 * 8
        assert message.endswith("its header promises 40,000 bytes, shape (100, 50), and 872 follow")


@pytest.mark.parametrize("form", ["npy", "npz"])
@pytest.mark.parametrize("shape", [(2**62, 2**62), (4, 2**62), (-1, 8), (4, 2), (2**31, 0, 2)])
def test_headers_that_lie_are_refused(tmp_path: Path, form: str, shape: tuple[int, ...]) -> None:
    held = io.BytesIO()
    np.lib.format.write_array_header_1_0(held, {"descr": "<f4", "fortran_order": False, "shape": shape})
    held.write(bytes(64))
    file = tmp_path / f"data.{form}"
    if form == "npy":
        file.write_bytes(held.getvalue())
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x.npy", held.getvalue())
    assert "its header promises " in problem(Arrays(str(file)))


def test_an_array_that_unpacks_to_more_than_the_memory_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    """100 MB of zeros are 100 kB in a .npz; the machine is said to have 50 MB."""
    np.savez_compressed(tmp_path / "data.npz", np.zeros((25_000, 1000), np.float32))
    monkeypatch.setattr("jointgen_data.array_files.machine_memory", lambda: 50 * 2**20)
    source = Arrays(str(tmp_path / "data.npz"))
    assert source.spaces() == {"x": Space((1000,))}
    assert "it takes 0.1 GiB of memory, and this machine has 0.0; save it as .npy" in problem(source, "train")


def test_other_members_of_an_archive_are_left_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=np.zeros((10, 2)))
    with zipfile.ZipFile(tmp_path / "data.npz", "a") as archive:
        archive.writestr("readme.txt", "no array")
    assert Arrays(str(tmp_path / "data.npz")).spaces() == {"x": Space((2,))}


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device"])
def test_a_path_that_is_no_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "data.npy"
    make = {
        "a folder": path.mkdir,
        "a pipe": lambda: os.mkfifo(path),
        "a device": lambda: path.symlink_to("/dev/zero"),
    }
    make[kind]()
    assert problem(Arrays(str(path))) == f"path: '{path}' is {kind}; expected a file"


@pytest.mark.parametrize("form", FORMS)
def test_files_that_are_not_what_they_say(tmp_path: Path, form: str) -> None:
    file = tmp_path / f"data.{form}"
    assert problem(Arrays(str(file))) == f"path: no file '{file}'"
    file.write_text("something else")
    assert problem(Arrays(str(file))).startswith(f"path: '{file}' cannot be read as .{form}: ")


def test_other_forms_are_named() -> None:
    assert problem(Arrays("data.csv")) == "path: 'data.csv' is none of .npy, .npz, .safetensors"


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.array([Trap()] * 10, dtype=object)
    for form in ("npy", "npz"):
        source = write(tmp_path, form, trap)
        assert "is object (10,); allowed are uint8, float16" in problem(source)
        assert "is object" in problem(source, "train")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (np.zeros((10, 3), np.int32), "is int32 (10, 3); allowed are uint8, float16"),
        (np.zeros((10, 3), bool), "save it as uint8 and give levels = 2"),
        (np.zeros((10, 3), complex), "is complex128"),
        (np.zeros((), np.float32), "holds no rows"),
        (np.zeros((0, 3), np.float32), "holds no rows"),
        (np.zeros(10, np.int64), "classes: "),
    ],
)
def test_types_and_shapes_that_cannot_be_used(tmp_path: Path, x: np.ndarray, complaint: str) -> None:
    assert complaint in problem(write(tmp_path, "npy", x))


def test_missing_keys_are_named_with_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    np.savez(file, images=np.zeros((10, 2)), digit=np.zeros(10))
    message = problem(Arrays(str(file), variables={"x": "imgaes"}))
    assert message.startswith(f"variables.x: '{file}' has no array 'imgaes'; did you mean 'images'?")
    assert "It holds digit, images" in problem(Arrays(str(file)))


def test_unequal_row_counts(tmp_path: Path) -> None:
    file = tmp_path / "data.safetensors"
    save_file({"a": np.zeros((10, 2)), "b": np.zeros((9, 2))}, file)
    message = problem(Arrays(str(file), variables={"x": "a", "c": "b"}))
    assert message == f"path: the arrays of '{file}' differ in rows: 'a' has 10, 'b' has 9"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path: Path, bad: float) -> None:
    x = np.zeros((5000, 2))
    x[4400, 1] = bad
    source = write(tmp_path, "npy", x)
    assert (
        problem(source, "train") == f"path: 'x' of '{source.path}' is not finite, or too large for float32, in row 4400"
    )
    assert len(source.open("test")) == 500


def test_rows_that_are_not_finite_are_named_by_their_numbers_in_the_file(tmp_path: Path, monkeypatch: Any) -> None:
    """Eight rows are checked at a time; 1e39 is infinite in float32, in which models compute."""
    monkeypatch.setattr(arrays, "BLOCK_NUMBERS", 16)
    x = np.zeros((100, 2))
    x[[3, 20, 21, 40, 60, 80, 97], 1] = [np.nan, 1e39, np.inf, -1e39, np.nan, -np.inf, np.nan]
    source = write(tmp_path, "npy", x)
    assert problem(source, "train").endswith("in rows 3, 20, 21, 40, 60, ... and 1 more")
    assert problem(source, "test").endswith("in row 97")


# --- arrays: which rows are held out ----------------------------------------------------------------------------------


def held_out(rows: int, share: float = 0.1, how: Literal["hash", "last"] = "hash") -> list[int]:
    """The numbers of the test rows; the training rows are all others."""
    (places,) = np.nonzero(held_out_rows(rows, share, how))
    return [int(place) for place in places]


def test_the_hash_of_a_row_is_that_of_splitmix64() -> None:
    """The first outputs of SplitMix64 seeded with 0 (as published with xoshiro), over 2^64."""
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert hashed_shares(0, 3).tolist() == pytest.approx([value / 2**64 for value in first], abs=2**-52)
    assert hashed_shares(1, 3).tolist() == hashed_shares(0, 3)[1:].tolist()


def test_held_out_rows_are_a_share_of_every_part_of_a_sorted_file() -> None:
    """Of ten classes of 1000 rows each, a tenth is 100 rows; 5 standard deviations of a binomial are 47."""
    chosen = np.array(held_out(10_000))
    counts = np.bincount(chosen // 1000, minlength=10)
    assert (np.abs(counts - 100) < 47).all()
    assert abs(len(chosen) - 1000) < 150


def test_held_out_rows_stay_so_when_rows_are_appended() -> None:
    assert held_out(500) == [row for row in held_out(800) if row < 500]


def test_one_row_at_the_least_is_held_out() -> None:
    """Row 2 has the smallest hash of the first four, 0.03."""
    assert held_out(4, share=1e-9) == [2]
    assert held_out(4, how="last") == [3]
    with pytest.raises(ConfigError, match=r"0\.999 of 4 rows leaves none to train on"):
        held_out(4, share=0.999)


def test_the_last_rows_are_held_out_where_that_is_asked_for() -> None:
    assert held_out(20, how="last", share=0.25) == [15, 16, 17, 18, 19]


def test_a_split_says_where_its_rows_are_in_the_file_and_how_it_was_chosen(tmp_path: Path) -> None:
    x = np.random.RandomState(0).randn(50, 3).astype(np.float32)
    source = attrs.evolve(write(tmp_path, "npy", x), split="hash", test_fraction=0.2)
    for split in ("train", "test"):
        rows = source.open(split)
        places = rows.places(torch.arange(len(rows)))
        assert torch.equal(everything(rows)["x"], torch.from_numpy(x[places]))
    train = source.open("train")
    assert train.remarks == [
        f"{50 - len(train)} of the 50 rows of '{source.path}' are held out for tests, by a hash of their number"
    ]


# --- arrays: values ---------------------------------------------------------------------------------------------------


def test_constant_columns_are_remarked_on(tmp_path: Path) -> None:
    x = np.random.RandomState(0).randn(50, 3)
    x[:, 1] = 4.0
    (_, remark) = write(tmp_path, "npy", x).open("train").remarks
    assert remark.startswith(f"'x' of '{tmp_path}/data.npy' is constant in 1 of its 3 columns (1): a density there has")
    levels = np.zeros((50, 4, 4), np.uint8)
    levels[:, 1] = 9
    assert len(write(tmp_path, "npy", levels).open("train").remarks) == 1  # dequantised, they have a width


def test_classes_without_a_row_are_remarked_on(tmp_path: Path) -> None:
    labels = attrs.evolve(write(tmp_path, "npy", np.arange(20) % 2 * 3), classes=5)
    (_, remark) = labels.open("train").remarks
    assert remark.endswith("has no row to train on of the classes 1, 2, 4")


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i4", "i8", "u2", "u4", "u8"])
def test_labels_of_any_whole_type_are_class_numbers(tmp_path: Path, dtype: str) -> None:
    source = attrs.evolve(write(tmp_path, "npy", np.array([2, 0, 1, 2], dtype)), classes=3)
    taken = everything(source.open("train"))["x"]
    assert (taken.dtype, taken.tolist()) == (torch.int64, [2, 0, 1])


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (np.array([0.0, 1.0, 2.0, 1.0]), "classes: is for labels, whole numbers (N,), but 'x' is float64 (4,)"),
        (np.array(["a", "b", "a", "b"]), "number the classes: np.unique(y, return_inverse=True)[1]"),
        (np.array([True, False, True, False]), "is bool (4,); allowed are"),
        (np.eye(4, dtype=np.int64), "of one-hot labels save y.argmax(1)"),
        (np.eye(4, dtype=np.uint8), "classes: is for labels, whole numbers (N,), but 'x' is uint8 (4, 4)"),
        (np.arange(4)[:, None], "labels have one axis: save y[:, 0]"),
        (np.array([0, 1, -1, 0]), "holds -1, but classes = 3 allows 0 to 2 (see row 2)"),
        (np.array([0, 2**62, 1, 0]), f"holds {2**62}, but classes = 3"),
    ],
)
def test_labels_that_are_no_class_numbers(tmp_path: Path, labels: np.ndarray, complaint: str) -> None:
    assert complaint in problem(attrs.evolve(write(tmp_path, "npy", labels), classes=3), "train")


def test_labels_and_levels_out_of_range(tmp_path: Path) -> None:
    labels = write(tmp_path, "npy", np.arange(10))
    assert "holds 8, but classes = 3 allows 0 to 2" in problem(attrs.evolve(labels, classes=3), "train")
    negative = write(tmp_path, "npz", np.arange(10) - 1)
    assert "holds -1, but classes = 30" in problem(attrs.evolve(negative, classes=30), "train")
    levels = write(tmp_path, "safetensors", np.arange(20, dtype=np.uint8).reshape(10, 2))
    assert "holds 17, but levels = 16 allows 0 to 15" in problem(attrs.evolve(levels, levels=16), "train")


def test_floats_whose_range_is_said_have_it_and_keep_to_it(tmp_path: Path) -> None:
    """Both ends are allowed, and -0.5 in row 7 of the file is not."""
    x = np.linspace(0.0, 1.0, 20).reshape(10, 2)
    source = attrs.evolve(write(tmp_path, "npy", x), ranges={"x": (0.0, 1.0)})
    assert source.spaces() == {"x": Space((2,), low=0.0, high=1.0)}
    assert torch.equal(everything(source.open("train"))["x"], torch.from_numpy(x[:9]))
    x[7, 1] = -0.5
    np.save(tmp_path / "data.npy", x)
    assert problem(source, "train") == (
        f"ranges.x: [0, 1], but 'x' of '{tmp_path}/data.npy' holds -0.5 to 0.894737 (see row 7)"
    )
    assert problem(attrs.evolve(source, ranges={"z": (0.0, 1.0)})) == "ranges.z: no variable of these arrays; known: x"
    levels = write(tmp_path, "npz", np.zeros((10, 2), np.uint8))
    assert problem(attrs.evolve(levels, ranges={"x": (0.0, 1.0)})).startswith(
        "ranges.x: is for floats, but 'images' of "
    )
    with pytest.raises(ValueError, match="must rise"):
        Arrays("x.npy", ranges={"x": (1.0, 1.0)})


def test_the_axis_of_the_channels_can_be_said(tmp_path: Path) -> None:
    """3 x 5 x 4 may be three channels of 5 x 4, or four of 3 x 5; and no guess takes 7 channels for such."""
    x = np.random.RandomState(0).rand(10, 3, 5, 4)
    source = write(tmp_path, "npy", x)
    assert source.spaces() == {"x": Space((3, 5, 4))} == attrs.evolve(source, channels="first").spaces()
    last = attrs.evolve(source, channels="last")
    assert last.spaces() == {"x": Space((4, 3, 5))}
    assert torch.equal(everything(last.open("test"))["x"], torch.from_numpy(x[9:].transpose(0, 3, 1, 2).copy()))
    seven = attrs.evolve(write(tmp_path, "npz", np.zeros((10, 9, 8, 7))), channels="last")
    assert seven.spaces() == {"x": Space((7, 9, 8))}
    flat = attrs.evolve(write(tmp_path, "npz", np.zeros((10, 9))), channels="last")
    assert problem(flat) == "channels: is for images, of four axes, but 'images' is (10, 9)"


def test_observations_that_floats_do_not_have(tmp_path: Path) -> None:
    source = write(tmp_path, "npy", np.zeros((10, 2)))
    for how in ("dequantise", "binarise"):
        assert problem(attrs.evolve(source, observe=how)).startswith(f"observe: '{how}' is for images")


def test_splits_that_leave_nothing_or_do_not_match(tmp_path: Path) -> None:
    source = write(tmp_path, "npy", np.zeros((1, 2)))
    assert problem(source, "train") == "test_fraction: 0.1 of 1 rows leaves none to train on"
    other = write(tmp_path, "npz", np.zeros((10, 3)))
    both = attrs.evolve(source, test_path=other.path, variables=None)
    assert problem(both, "test").startswith("test_path: 'x' is 3 real in 'images' of ")
    assert len(both.open("train")) == 1
    assert (
        problem(attrs.evolve(source, test_path="gone.npy"), "test")
        == f"test_path: no file 'gone.npy' in {str(Path.cwd())!r}"
    )


@pytest.mark.parametrize("wrong", [{"test_fraction": 0.0}, {"test_fraction": 1.0}, {"levels": 1}, {"levels": 257}])
def test_array_keys_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Arrays("x.npy", **wrong)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_of_unequal_length_are_our_mistake() -> None:
    with pytest.raises(AssertionError):
        TensorRows({"x": torch.zeros(3, 2), "y": torch.zeros(4)})
