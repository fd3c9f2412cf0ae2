"""Residual networks: what a block computes, any size, where vectors enter, and the activations they offer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from jointgen_nets.resnet import Block, ResNetDecoder, ResNetDiscriminator, ResNetEncoder, resized, sizes_down
from torch import Tensor, nn
from torch.nn import functional as F

from jointgen.contracts.space import Space
from jointgen.errors import ConfigError

torch.set_num_threads(1)

IMAGE = Space((3, 12, 12), low=0.0, high=1.0, bins=256)
CODE, LABEL = Space((4,)), Space((5,), kind="label")
SMALL: dict[str, Any] = {"widths": [4, 8]}


def built(config: Any, inputs: dict[str, Space], output: tuple[int, ...] = ()) -> Any:
    torch.manual_seed(0)
    net: nn.Module = config.build(inputs, output) if output else config.build(inputs)
    return net.double().eval()


def draws(*spaces: Space, rows: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(rows, *space.shape, generator=generator, dtype=torch.float64) for space in spaces]


@pytest.mark.parametrize("norm", ["none", "group"])
def test_block_is_the_sum_of_both_branches(norm: str) -> None:
    """By hand, in functions: h 4x5x5 -> 8x3x3, with a label's shift between the two convolutions."""
    torch.manual_seed(0)
    block = Block(4, 8, (3, 3), [LABEL], ResNetEncoder(norm=norm, activation="relu", **SMALL)).double()
    h, y = draws(Space((4, 5, 5)), LABEL)
    h = h - 0.5
    w: dict[str, Tensor] = dict(block.named_parameters())

    def normed(g: Tensor, name: str) -> Tensor:
        return g if norm == "none" else F.group_norm(g, 1, w[f"{name}.weight"], w[f"{name}.bias"])

    g = F.conv2d(normed(h, "norm1").relu(), w["conv1.weight"], w["conv1.bias"], padding=1)
    g = normed(g, "norm2") + (y @ w["added.0.weight"].T)[:, :, None, None]
    g = F.conv2d(g.relu(), w["conv2.weight"], w["conv2.bias"], padding=1)
    wanted = resized(F.conv2d(h, w["skip.weight"]), (3, 3)) + resized(g, (3, 3))
    torch.testing.assert_close(block(h, [y]), wanted)


def test_pooling_takes_means_of_pairs_and_doubling_repeats() -> None:
    rows = torch.tensor([[[[1.0, 3.0, 5.0]]]])  # (1, 1, 1, 3): one row of three pixels
    assert resized(rows, (1, 2)).tolist() == [[[[2.0, 5.0]]]]  # what hangs over the edge does not count
    assert resized(torch.tensor([[[[1.0, 2.0]]]]), (1, 3)).tolist() == [[[[1.0, 1.0, 2.0]]]]
    assert sizes_down((1, 28, 9), 3) == [(28, 9), (14, 5), (7, 3), (4, 2)]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 9), (3, 28, 28), (2, 5, 16)])
def test_any_size_goes_down_and_up_again(shape: tuple[int, int, int]) -> None:
    image = Space(shape)
    x, z = draws(image, CODE)
    assert built(ResNetEncoder(blocks=2, **SMALL), {"x": image}, (2, 3))(x).shape == (3, 2, 3)
    assert built(ResNetDecoder(blocks=2, **SMALL), {"z": CODE}, shape)(z).shape == (3, *shape)
    assert built(ResNetDiscriminator(blocks=2, **SMALL), {"x": image, "z": CODE})(x, z).shape == (3,)


def test_labels_enter_every_block_of_both_sides() -> None:
    down = built(ResNetEncoder(**SMALL), {"x": IMAGE, "y": LABEL}, (2,))
    assert [tuple(stage.blocks[0].added[0].weight.shape) for stage in down.down.stages] == [(4, 5), (8, 5)]
    up = built(ResNetDecoder(**SMALL), {"z": CODE, "y": LABEL}, IMAGE.shape)
    assert [[tuple(m.weight.shape) for m in stage.blocks[0].added] for stage in up.stages] == [[(4, 5)], [(8, 5)]]
    assert up.head.weight.shape[1] == 4 + 5  # the code enters once, at the bottom, and the label there, too


def test_features_are_what_the_output_is_made_of() -> None:
    x, z = draws(IMAGE, CODE)
    config = ResNetDiscriminator(features=7, **SMALL)
    critic = built(config, {"x": IMAGE, "z": CODE})
    found = critic.features(x, z)
    assert [tuple(one.shape[1:]) for one in found] == [(4, 6, 6), (8, 3, 3), (7,)]
    assert len(found) == config.feature_layers
    torch.testing.assert_close(critic.score(found[-1]).squeeze(1), critic(x, z))
    encoder = built(ResNetEncoder(**SMALL), {"x": IMAGE}, (2,))
    torch.testing.assert_close(encoder.head(encoder.features(x)[-1].flatten(1)), encoder(x))
    assert len(encoder.features(x)) == ResNetEncoder(**SMALL).feature_layers


def test_critic_has_no_norm_and_spectral_norm_bounds_every_weight() -> None:
    critic = built(ResNetDiscriminator(spectral_norm=True, **SMALL), {"x": IMAGE})
    assert not any(isinstance(layer, nn.GroupNorm) for layer in critic.modules())
    weights = [m.weight for m in critic.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert len(weights) == 1 + 2 + 3 + 2  # the first; a block of one width; one that changes it; hidden layer, score
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1.0, rel=0.05)


def test_critic_of_codes_alone_has_two_hidden_layers() -> None:
    critic = built(ResNetDiscriminator(features=6, **SMALL), {"z": CODE})
    linear = [layer for layer in critic.modules() if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(6, 4), (6, 6), (1, 6)]


def test_shapes_that_are_no_images_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        built(ResNetEncoder(), {"x": CODE}, (2,))
    assert error.value.lines == ['type: a residual encoder needs an image (C, H, W), x is 4; use "mlp"']
    with pytest.raises(ConfigError) as error:
        built(ResNetDecoder(), {"z": CODE}, (5,))
    assert error.value.lines == ['type: a residual decoder makes images (C, H, W), the output is 5; use "mlp"']


@pytest.mark.parametrize("key", [{"blocks": 0}, {"widths": []}, {"norm": "batch"}, {"activation": "gelu"}])
def test_a_value_out_of_range_is_named(key: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(key)))):
        ResNetEncoder(**key)
