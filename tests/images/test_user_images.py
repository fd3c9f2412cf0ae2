"""The user's own images become raw rows of any image variable, whatever form they come in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.images.user_images import read_user_images

GREY = Space((1, 8, 8), "real", 0.0, 1.0, 256)
COLOUR = Space((3, 8, 8), "real", 0.0, 1.0, 256)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def bands(width: int, height: int, *colours: tuple[int, ...]) -> Image.Image:
    """Vertical bands of equal width."""
    pixels = np.zeros((height, width, len(colours[0])), np.uint8)
    for i, colour in enumerate(colours):
        pixels[:, i * width // len(colours) : (i + 1) * width // len(colours)] = colour
    return Image.fromarray(pixels)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def only_colour(values: torch.Tensor) -> tuple[int, ...]:
    """The one colour of a single image (1, C, H, W)."""
    assert (values == values[:, :, :1, :1]).all(), values
    return tuple(values[0, :, 0, 0].tolist())


# --- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [0, 90])
def test_the_middle_of_a_long_image_is_taken(turn: int, tmp_path: Path) -> None:
    """24 x 8 in three square bands: the middle square is all green, lying and standing."""
    path = save(bands(24, 8, RED, GREEN, BLUE).rotate(turn, expand=True), tmp_path / "a.png")
    assert only_colour(read_user_images(path, COLOUR).values) == GREEN


def test_a_space_need_not_be_square(tmp_path: Path) -> None:
    """32 x 32 in four bands to 8 high, 4 wide: the middle half of the width, which is green and then blue."""
    path = save(bands(32, 32, RED, GREEN, BLUE, WHITE), tmp_path / "a.png")
    image = read_user_images(path, Space((3, 8, 4), "real", 0.0, 1.0, 256)).values[0]
    assert image[:, 4].argmax(0).tolist() == [1, 1, 2, 2]
    assert image[0].max() < 30, "red and white lie outside"


def test_an_image_of_the_right_size_is_taken_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (8, 8), np.uint8)
    values = read_user_images(save(Image.fromarray(pixels), tmp_path / "a.png"), GREY).values
    assert values.dtype == torch.uint8
    assert values[0, 0].tolist() == pixels.tolist()


# --- colours ---------------------------------------------------------------------------------------------------------


def transparent() -> Image.Image:
    image = Image.new("RGBA", (9, 9), (*RED, 0))
    assert image.has_transparency_data
    return image


@pytest.mark.parametrize(
    ("make", "colour", "grey"),
    [
        (lambda: Image.new("RGB", (9, 9), RED), RED, 76),  # ITU-R 601-2 luma: 0.299 * 255
        (lambda: Image.new("L", (9, 9), 200), (200, 200, 200), 200),
        (lambda: Image.new("1", (9, 9), 1), WHITE, 255),
        (transparent, WHITE, 255),
        (lambda: Image.new("RGB", (9, 9), GREEN).convert("P"), GREEN, 150),
        (lambda: Image.fromarray(np.full((9, 9), 51 * 256 + 7, np.uint16)), (51, 51, 51), 51),
    ],
    ids=["rgb", "grey", "bits", "transparent", "palette", "16 bits"],
)
def test_colours_become_what_the_space_has(
    make: Callable[[], Image.Image], colour: tuple[int, ...], grey: int, tmp_path: Path
) -> None:
    path = save(make(), tmp_path / "a.png")
    assert only_colour(read_user_images(path, COLOUR).values) == colour
    assert only_colour(read_user_images(path, GREY).values) == (grey,)


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    """EXIF orientation 6: the camera was turned, the left half belongs on top."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(bands(16, 16, WHITE, (0, 0, 0)), tmp_path / "a.png", exif=exif)
    image = read_user_images(path, GREY).values[0, 0].float()
    assert image[:3].min() > 200
    assert image[5:].max() < 50


# --- levels ----------------------------------------------------------------------------------------------------------


def test_levels_end_on_ends(tmp_path: Path) -> None:
    """Digits as people export them, 255 / 16 a level, come back as the levels 0 to 16 that they were."""
    levels = np.arange(64).reshape(8, 8) % 17
    path = save(Image.fromarray(np.round(levels * 255 / 16).astype(np.uint8)), tmp_path / "a.png")
    values = read_user_images(path, Space((1, 8, 8), "real", 0.0, 1.0, 17)).values
    assert values[0, 0].tolist() == levels.tolist()


def test_without_bins_values_lie_between_the_bounds(tmp_path: Path) -> None:
    pixels = np.full((2, 8, 8), 51, np.uint8)  # a fifth of 255
    pixels[1] = 255
    np.save(tmp_path / "a.npy", pixels)
    values = read_user_images(tmp_path / "a.npy", Space((1, 8, 8), "real", -1.0, 1.0)).values
    assert values[:, 0, 0, 0].tolist() == pytest.approx([-0.6, 1.0])


# --- folders and arrays ----------------------------------------------------------------------------------------------


def test_a_folder_is_read_at_any_depth_and_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for i, name in enumerate(["c.png", "b/a.jpg", "b/deep/z.bmp", "._c.png"]):
        Image.new("L", (9, 9), 10 * i).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "broken.png").write_bytes((tmp_path / "c.png").read_bytes()[:40])
    counts: list[tuple[int, int]] = []
    found = read_user_images(tmp_path, GREY, "x", lambda done, total: counts.append((done, total)))
    assert found.origins == [str(tmp_path / name) for name in ("b/a.jpg", "b/deep/z.bmp", "c.png")]
    assert found.values[:, 0, 0, 0].tolist() == [10, 20, 0]
    assert len(found.skipped) == 1 and found.skipped[0].startswith(f"{tmp_path / 'broken.png'}: cannot be read: ")
    assert counts[-1] == (4, 4)
    assert found.take(torch.tensor([1]))["x"].shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("shape", "n"),
    [
        ((8, 8), 1),
        ((8, 8, 3), 1),
        ((5, 8, 8), 5),
        ((5, 8, 8, 1), 5),
        ((5, 1, 8, 8), 5),
        ((5, 8, 8, 3), 5),
        ((5, 3, 8, 8), 5),
        ((5, 16, 8, 4), 5),
    ],
)
def test_arrays_of_every_layout(shape: tuple[int, ...], n: int, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full(shape, 255, np.uint8))
    for space in (GREY, COLOUR):
        found = read_user_images(tmp_path / "a.npy", space)
        assert found.values.shape == (n, *space.shape)
        assert (found.values == 255).all()
    assert found.origins[-1] == f"{tmp_path / 'a.npy'}[{n - 1}]"


def test_of_several_arrays_the_variables_own_is_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.full((2, 8, 8), 7, np.uint8), other=np.zeros((3, 8, 8), np.uint8), y=np.arange(2))
    assert read_user_images(tmp_path / "a.npz", GREY, "x").values.unique().tolist() == [7]
    np.savez(tmp_path / "b.npz", images=np.full((2, 8, 8), 9, np.uint8), y=np.arange(2))
    assert read_user_images(tmp_path / "b.npz", GREY, "x").values.unique().tolist() == [9]


# --- what cannot be read ---------------------------------------------------------------------------------------------


def pickled(path: Path) -> None:
    np.save(path, np.array([object()], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("none.png", lambda path: None, "no such file"),
        ("pipe.png", os.mkfifo, "is a pipe; expected a file"),
        ("self.png", lambda path: path.symlink_to(path), "is a link that leads back to itself"),
        ("a.png", lambda path: path.write_bytes(b"no image"), "cannot be read: cannot identify image file"),
        ("a.txt", lambda path: path.write_text("no image"), "cannot be read: cannot identify image file"),
        ("empty", lambda path: path.mkdir(), "no image in this folder"),
        ("a.npy", lambda path: np.save(path, np.zeros((2, 8, 8), np.float32)), "it holds float32 (2, 8, 8)"),
        ("a.npy", lambda path: np.save(path, np.zeros((0, 8, 8), np.uint8)), "shape (0, 8, 8) is not (N, H, W)"),
        ("a.npy", lambda path: np.save(path, np.zeros((2, 5, 8, 8), np.uint8)), "shape (2, 5, 8, 8) is not (N, H, W)"),
        ("a.npy", pickled, "cannot be read: Object arrays cannot be loaded"),
        ("a.npz", lambda path: np.savez(path, a=np.zeros(3), b=np.zeros(2, int)), "it holds a: float64 (3,), b: int64"),
        ("a.npz", lambda path: path.write_bytes(b"PK torn"), "cannot be read"),
    ],
)
def test_what_is_no_image_is_said(name: str, write: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    with pytest.raises(ConfigError) as caught:
        read_user_images(tmp_path / name, GREY)
    (problem,) = caught.value.lines
    assert problem.startswith(f"--images: {tmp_path / name}: ")
    assert said in problem


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (Space((2,)), "x is 2 real, not a grey or colour image"),
        (Space((5, 8, 8), "real", 0.0, 1.0, 256), "not a grey or colour image"),
        (Space((1, 8, 8)), "without a range that pixels could be brought to"),
    ],
)
def test_a_variable_that_is_no_image_is_said(space: Space, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        read_user_images(tmp_path, space, "x")
