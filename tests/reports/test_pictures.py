from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from jointgen.contracts.space import Space
from jointgen.reports import pictures


def pixels(image: Image.Image) -> Tensor:
    """(H, W) or (H, W, 3) uint8."""
    return torch.tensor(list(image.tobytes()), dtype=torch.uint8).reshape(image.height, image.width, -1).squeeze(-1)


def test_grid_places_tiles_row_by_row() -> None:
    """Five 50x60 tiles in rows of 3: two rows of 3 * 60 + 2 * 2 by 2 * 50 + 2, the sixth place empty."""
    levels = torch.arange(5) / 5.0
    image = pictures.grid(levels.view(5, 1, 1, 1).expand(5, 1, 50, 60), columns=3)
    assert image.mode == "L" and image.size == (184, 102)
    found = pixels(image)
    for i in range(5):
        top, left = i // 3 * 52, i % 3 * 62
        assert (found[top : top + 50, left : left + 60] == round(51 * i)).all()
    assert (found[52:, 124:] == 128).all()
    assert (found[:, 60:62] == 128).all() and (found[50:52] == 128).all()


@pytest.mark.parametrize(("side", "scale", "width"), [(8, "auto", 48), (28, "auto", 56), (64, "auto", 64), (8, 2, 16)])
def test_small_images_are_enlarged_by_repeating_pixels(side: int, scale: Any, width: int) -> None:
    image = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    shown = pictures.grid(image, scale=scale)
    assert shown.size == (width, width)
    small = shown.resize((side, side), Image.Resampling.NEAREST)
    assert torch.equal(pixels(small), (image[0, 0] * 255).round().to(torch.uint8))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "RGB")])
def test_channels(channels: int, mode: str) -> None:
    images = torch.rand(2, channels, 48, 48, generator=torch.Generator().manual_seed(0))
    shown = pictures.grid(images)
    assert shown.mode == mode
    first = pixels(shown)[:, :48].reshape(48, 48, -1)
    kept = images[0, : first.shape[-1]].permute(1, 2, 0)
    assert torch.equal(first, (kept * 255).round().to(torch.uint8))


def test_out_of_range_and_nan() -> None:
    shown = pictures.grid(torch.tensor([-1.0, 2.0, float("nan"), float("inf")]).view(4, 1, 1, 1), scale=1)
    assert pixels(shown)[0, ::3].tolist() == [0, 255, 0, 255]


def test_reconstruction_stands_at_the_right_of_its_truth() -> None:
    truth = torch.tensor([0.0, 0.2, 0.4]).view(3, 1, 1, 1).expand(3, 1, 48, 48)
    image = pictures.side_by_side(truth, truth + 0.1, columns=5)  # rounded down to two pairs in a row
    found = pixels(image)
    assert image.size == (4 * 48 + 2 + 8 + 2, 2 * 48 + 2)
    lefts = [0, 50, 106, 156]
    assert [int(found[0, left]) for left in lefts] == [round(255 * v) for v in (0.0, 0.1, 0.2, 0.3)]
    assert [int(found[50, left]) for left in lefts] == [102, 128, 128, 128]


def test_shapes_must_match() -> None:
    with pytest.raises(AssertionError, match="beside"):
        pictures.side_by_side(torch.zeros(2, 1, 4, 4), torch.zeros(3, 1, 4, 4))


@pytest.mark.parametrize(
    ("space", "values", "expected"),
    [
        (Space((1, 1, 3), low=-1.0, high=1.0), [-1.0, 0.0, 3.0], [0.0, 0.5, 1.0]),
        (Space((1, 1, 3), kind="binary"), [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
        (Space((1, 1, 3)), [2.0, 4.0, 6.0], [0.0, 0.5, 1.0]),  # no bounds: those of the values
        (Space((1, 1, 3)), [5.0, 5.0, 5.0], [0.0, 0.0, 0.0]),
    ],
)
def test_render_scales_to_the_unit_interval(space: Space, values: list[float], expected: list[float]) -> None:
    images = pictures.render(torch.tensor(values).view(1, 1, 1, 3), space)
    assert images is not None and images.flatten().tolist() == expected


@pytest.mark.parametrize("space", [Space((2,)), Space((10,), kind="label")])
def test_what_is_no_image_is_not_rendered(space: Space) -> None:
    assert pictures.render(torch.zeros(4, *space.shape), space) is None


def test_saves_the_same_bytes_at_once(tmp_path: Path) -> None:
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for name in ("samples/a.png", "samples/b.png"):
        pictures.save(images, tmp_path / name)
    data = (tmp_path / "samples/a.png").read_bytes()
    assert data == (tmp_path / "samples/b.png").read_bytes()
    assert sorted(os.listdir(tmp_path / "samples")) == ["a.png", "b.png"]
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (3 * 48 + 2 * 2, 48)


def test_scatter(tmp_path: Path) -> None:
    truth = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    points = torch.tensor([[1.0, -1.0], [100.0, 0.0], [float("nan"), 0.0]])
    image = pictures.scatter(points, truth, tmp_path / "toy.png")
    assert image.size == (480, 480) and (tmp_path / "toy.png").is_file()
    # the frame leaves out half a percent at each end, so it is 1.2 * 1.98 = 2.376 wide and begins at -1.188:
    # 1 is at (1 + 1.188) / 2.376 * 480 = 442 pixels, and -1 at 38
    assert image.getpixel((442, 442)) == pictures._POINT
    assert image.getpixel((38, 442)) == pictures._TRUTH
    assert image.getpixel((240, 240)) == (255, 255, 255)


@pytest.mark.parametrize("points", [torch.zeros(3, 2), torch.full((3, 2), float("nan")), torch.zeros(0, 2)])
def test_scatter_of_a_collapsed_or_diverged_model(points: Tensor) -> None:
    assert pictures.scatter(points).size == (480, 480)
