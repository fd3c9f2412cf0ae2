"""Augmentations by hand, in the rows of data and in front of a critic; exact under resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from jointgen_augment.augmentations import Colour, Cutout, Mirror, Translation
from jointgen_augment.critic import Augmented
from jointgen_augment.torchvision import TorchVision
from jointgen_nets.mlp import MLPDiscriminator
from support.noise import WrittenSource
from support.runs import stop_after, weights

import jointgen
from jointgen.contracts.augmentations import augmented_rows, augmented_values
from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError, StoppedError


def numbers(value: Any) -> Any:
    """A source of this noise, (rows, ...)."""
    return WrittenSource(torch.tensor(value))


IMAGE = torch.arange(12.0).view(1, 1, 3, 4)


def test_mirror_by_hand() -> None:
    found = Mirror(p=0.5)(IMAGE.expand(2, 1, 3, 4), numbers([0.49, 0.51]))
    assert found[0, 0, 0].tolist() == [3.0, 2.0, 1.0, 0.0] and torch.equal(found[1], IMAGE[0])


def test_translation_by_hand() -> None:
    """A third of 3 and a quarter of 4 are one pixel; u = 0 moves up and left by one, u near 1 down and right."""
    edge, zero = Translation(share=0.3, fill="edge"), Translation(share=0.3, fill="zero")
    both = IMAGE.expand(2, 1, 3, 4)
    u = [[0.0, 0.0], [0.99, 0.4]]
    moved, filled = edge(both, numbers(u)), zero(both, numbers(u))
    # the value at (i, j) comes from (i - 1, j - 1), and from (i + 1, j) in the second
    assert moved[0, 0].tolist() == [[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 1.0, 2.0], [4.0, 4.0, 5.0, 6.0]]
    assert moved[1, 0].tolist() == [[4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0], [8.0, 9.0, 10.0, 11.0]]
    assert filled[0, 0].tolist() == [[0.0] * 4, [0.0, 0.0, 1.0, 2.0], [0.0, 4.0, 5.0, 6.0]]
    assert filled[1, 0].tolist() == [[4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0], [0.0] * 4]


def test_cutout_by_hand() -> None:
    """Half of 4 x 4 pixels is 2 x 2: centred at 2 it covers 1 and 2, at 0 only 0."""
    ones = torch.ones(2, 1, 4, 4)
    found = Cutout(fill="zero")(ones, numbers([[0.45, 0.45], [0.0, 0.0]]))
    assert found[0, 0].tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    assert found[1, 0].tolist() == [[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_colour_by_hand() -> None:
    """One pixel of three channels, brighter by 0.25, channels apart by 1.5 and then by 1.25 times as much."""
    image = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    found = Colour(brightness=1.0)(image, numbers([[0.75, 0.75, 0.75]]))
    expected = 0.65 + torch.tensor([-0.2, 0.0, 0.2]) * 1.5 * 1.25
    torch.testing.assert_close(found.flatten(), expected)


SIGNED = Space((3, 1, 1), low=-1.0, high=1.0)
"""The range of images of the authors of DiffAugment, https://github.com/mit-han-lab/data-efficient-gans."""


def test_colour_is_the_published_one() -> None:
    """Drawn at 0.75: brightness adds 0.75 - 0.5, saturation multiplies by 2 * 0.75, contrast by 0.75 + 0.5."""
    image = torch.tensor([-0.6, -0.2, 0.2]).view(1, 3, 1, 1)
    found = augmented_values([Colour()], image, SIGNED, numbers([[0.75, 0.75, 0.75]]))
    # -0.35, 0.05, 0.45; then -0.55, 0.05, 0.65; then -0.7, 0.05, 0.8
    torch.testing.assert_close(found.flatten(), torch.tensor([-0.7, 0.05, 0.8]))


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_gaps_are_filled_as_published(low: float) -> None:
    """White pixels: a gap is 0 of [-1, 1], which is grey, whatever the range of the variable."""
    space = Space((1, 8, 8), low=low, high=1.0)
    grey, white = (low + 1.0) / 2, torch.ones(1, 1, 8, 8)
    moved = augmented_values([Translation()], white, space, numbers([[0.0, 0.5]]))  # down by one pixel, an eighth
    assert moved[0, 0, 0].tolist() == [grey] * 8 and (moved[0, 0, 1:] == 1.0).all()
    cut = augmented_values([Cutout()], white, space, numbers([[0.45, 0.0]]))  # rows 2 to 5, columns 0 and 1
    assert (cut[0, 0, 2:6, :2] == grey).all() and cut.sum().item() == pytest.approx(56 + 8 * grey)


def test_rows_stay_levels() -> None:
    """Four levels: brightness 1/4 lifts 0 by 3/4 of a level, which rounds to 1, and 3 stays at the top."""
    raw = torch.tensor([[0, 3]], dtype=torch.uint8).view(1, 1, 1, 2)
    bright = Colour(brightness=1.0, contrast=0.0, saturation=0.0)
    space = Space((1, 1, 2), "real", -1.0, 1.0, 4)
    found = augmented_rows([bright], raw, space, numbers([[0.75, 0.5, 0.5]]))
    assert found.dtype == torch.uint8 and found.flatten().tolist() == [1, 3]


def test_torchvision_draws_for_each_row() -> None:
    images = torch.rand(1, 3, 8, 8).expand(16, 3, 8, 8)
    found = TorchVision("RandomHorizontalFlip", {"p": 0.5})(images, Noise(0).named("a", 16))
    mirrored = [bool(torch.equal(one, images[0].flip(-1))) for one in found]
    assert 0 < sum(mirrored) < 16
    assert all(m or torch.equal(one, images[0]) for m, one in zip(mirrored, found, strict=True))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: TorchVision("RandomHorizontalFlop"), "transform: .*did you mean 'RandomHorizontalFlip'"),
        (lambda: TorchVision("RandomHorizontalFlip", {"q": 1}), "arguments: RandomHorizontalFlip does not take them"),
        (
            lambda: Augmented(MLPDiscriminator(hidden=[4])).build({"z": Space((4,))}),
            "by: augments images, and this critic sees z: 4 real",
        ),
        (
            lambda: Augmented(MLPDiscriminator(hidden=[4]), [TorchVision()]).build({"x": Space((1, 4, 4))}),
            r"by\[0\]: TorchVision carries no gradient",
        ),
    ],
)
def test_what_cannot_be_is_one_line(make: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make()


def test_a_critic_sees_augmented_images_only_while_it_trains() -> None:
    space = Space((1, 4, 4), low=-1.0, high=1.0)
    net = Augmented(MLPDiscriminator(hidden=[4]), [Mirror(p=1.0)]).build({"z": Space((2,)), "x": space})
    z, x = torch.randn(3, 2), (torch.rand(3, 1, 4, 4) * 2 - 1).requires_grad_()
    (layer,) = [one for one in net.modules() if type(one).__name__ == "AugmentingLayer"]
    layer.noise = Noise(0).named("critic", 3)
    seen: Any = net
    torch.testing.assert_close(net.train()(z, x), seen.net(z, x.flip(-1)))
    (gradient,) = torch.autograd.grad(net(z, x).sum(), x)
    assert (gradient != 0).any()
    assert torch.equal(net.eval()(z, x), seen.net(z, x))


# --- in a run --------------------------------------------------------------------------------------------------------

MLP = {"type": "mlp", "hidden": [8]}
RUN: dict[str, Any] = {
    "data": {"type": "digits", "augment": [{"type": "mirror"}, {"type": "torchvision", "transform": "RandomRotation"}]},
    "prior": {"type": "normal", "size": 2},
    "discriminator": {"type": "augmented", "of": MLP},
    "objective": {
        "type": "expression",
        "maximize": "E[q(x,z)](log p(x|z) + log p(z) - log q(z|x)) + E[p(x)](g)",
        "scores": {"g": {"of": "q(x) : p(x)", "loss": {"type": "hinge"}, "penalties": [{"type": "r1"}]}},
    },
    "optimizer": {"model": {"type": "muon", "schedule": {"type": "steps"}}, "critics": {"type": "nadam"}},
    "encoder": {"network": MLP, "family": {"type": "gaussian"}},
    "decoder": {"network": MLP, "family": {"type": "gaussian", "scale": "global", "mean": "sigmoid"}},
    "train": {"steps": 4, "batch": 16, "log_every": 1, "trackers": [], "threads": 1},
    "eval": {"rows": 16, "samples": 4, "metrics": [{"type": "rmse"}]},
}
RUN["data"]["augment"][1]["arguments"] = {"degrees": 20}


def test_a_run_with_augmentations_resumes_exactly(tmp_path: Path) -> None:
    """With a critic behind DiffAugment, a penalty on it, two optimizers of one table, and NAdam's own state."""
    jointgen.run(RUN, out=tmp_path / "whole", quiet=True)
    with pytest.raises(StoppedError):
        jointgen.run(RUN, out=tmp_path / "parts", quiet=True, stop=stop_after(2))
    jointgen.run(RUN, out=tmp_path / "parts", quiet=True, resume=True)
    one, other = (weights(tmp_path / name / "checkpoints/step-00000004") for name in ("whole", "parts"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_augment_of_what_is_no_image_is_refused(tmp_path: Path) -> None:
    linear = {"network": MLP, "family": {"type": "gaussian", "scale": "global"}}
    data = {"type": "ring", "augment": [{"type": "mirror"}]}
    tables = {**RUN, "data": data, "discriminator": MLP, "decoder": linear, "eval": {"rows": 16}}
    with pytest.raises(ConfigError) as caught:
        jointgen.run(tables, out=tmp_path / "run", quiet=True)
    assert caught.value.lines == ["data.augment: changes images, and this source has x: 2 real"]
    assert not (tmp_path / "run").exists()
