"""Trunks and discriminators: shapes, rows, gradients, conditions, dropout and initialisation."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import jointgen_nets
import pytest
import torch
from jointgen_nets.common import Centre, initialise
from jointgen_nets.conv import ConvDecoder, ConvDiscriminator, ConvEncoder
from jointgen_nets.mlp import MLP, MLPDiscriminator
from torch import Tensor, nn
from torch.nn.utils import parametrize

from jointgen.contracts.networks import Discriminator, Dropout, Network
from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.registry.components import Registrar, Registry

torch.set_num_threads(1)

X = Space((3, 16, 16), low=0.0, high=1.0, bins=256)
BITS = Space((1, 16, 16), kind="binary", bins=256)
Z = Space((6,))
EPS = Space((5,))
LABEL = Space((10,), kind="label")
SPATIAL = Space((4, 2, 2))  # a code that is an image-shaped one, but smaller than x

SMOOTH: list[Any] = ["leaky_relu", "elu", "silu", "tanh", "gated"]
ENCODERS: list[Any] = [
    MLP(),
    MLP(hidden=[]),
    *(MLP(hidden=[12, 9], activation=name) for name in SMOOTH),
    MLP(init="dcgan"),
    MLP(init="torch"),
    ConvEncoder(),
    ConvEncoder(widths=[8, 32], norm="group", activation="relu"),
    ConvEncoder(widths=[4], init="torch"),
    ConvEncoder(widths=[4, 8], norm="group", activation="gated"),
]
DECODERS: list[Any] = [
    MLP(),
    ConvDecoder(),
    ConvDecoder(upsample="transposed", norm="group"),
    ConvDecoder(widths=[16, 8], activation="elu", init="dcgan"),
    ConvDecoder(widths=[16, 8], activation="gated", norm="group"),
]
CRITICS: list[Any] = [
    MLPDiscriminator(),
    MLPDiscriminator(hidden=[]),
    MLPDiscriminator(spectral_norm=True, init="torch"),
    ConvDiscriminator(),
    ConvDiscriminator(widths=[8, 16], features=20, spectral_norm=True),
]
ENCODER_INPUTS: list[dict[str, Space]] = [
    {"x": X},
    {"x": BITS},
    {"x": X, "eps": EPS},
    {"y": LABEL, "x": X, "eps": EPS},
]
DECODER_INPUTS: list[dict[str, Space]] = [{"z": Z}, {"z": Z, "y": LABEL}, {"z": SPATIAL}]
CRITIC_INPUTS: list[dict[str, Space]] = [
    {"x": X},
    {"x": X, "z": Z},
    {"z": Z, "x": BITS, "y": LABEL},
    {"x": X, "z": SPATIAL},
    {"x": X, "x_recon": X},
]


def builds() -> list[Any]:
    """(what to build, its inputs, its output) of every network with every kind of input."""
    nets = [(config, inputs, (2, 6)) for config in ENCODERS for inputs in ENCODER_INPUTS]
    nets += [(config, inputs, (3, 16, 16)) for config in DECODERS for inputs in DECODER_INPUTS]
    nets += [(config, inputs, ()) for config in CRITICS for inputs in CRITIC_INPUTS]
    return [pytest.param(*case, id=f"{case[0]} {'+'.join(map(str, case[1].values()))}") for case in nets]


def build(config: Any, inputs: Mapping[str, Space], output: tuple[int, ...]) -> Any:
    torch.manual_seed(0)
    return config.build(inputs, output) if output else config.build(inputs)


def rows(inputs: Mapping[str, Space], count: int = 6, seed: int = 1) -> list[Tensor]:
    """Values that each Space allows, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return [value_in(space, count, generator) for space in inputs.values()]


def value_in(space: Space, count: int, generator: torch.Generator) -> Tensor:
    if space.kind == "label":
        return nn.functional.one_hot(torch.arange(count) % space.shape[0], space.shape[0]).double()
    uniform = torch.rand(count, *space.shape, generator=generator, dtype=torch.float64)
    return (uniform > 0.5).double() if space.kind == "binary" else uniform


def test_everything_is_registered_and_loads() -> None:
    registry = Registry()
    jointgen_nets.jointgen_register(Registrar(registry, "test"))
    kinds = ("encoder", "decoder", "discriminator")
    assert [registry.names(kind) for kind in kinds] == [["conv", "mlp", "resnet", "switch"]] * 3
    for component in registry.components():
        assert component.summary and component.paper
        if component.name != "switch":  # which has keys without defaults
            assert isinstance(component.load()(), Discriminator if component.kind == "discriminator" else Network)


# --- every network ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "inputs", "output"), builds())
def test_output_has_the_shape_asked_for_and_rows_are_independent(config: Any, inputs: Any, output: Any) -> None:
    net, values = build(config, inputs, output).double(), rows(inputs)
    out = net(*values)
    assert out.shape == (6, *output) and out.dtype == torch.float64
    order = torch.tensor([4, 2, 0, 5, 3, 1])
    torch.testing.assert_close(net(*(v[order] for v in values)), out[order], rtol=0, atol=1e-10)
    torch.testing.assert_close(net(*(v[2:3] for v in values)), out[2:3], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("config", "inputs", "output"), builds())
def test_gradients_reach_every_parameter_and_every_input(config: Any, inputs: Any, output: Any) -> None:
    net, values = build(config, inputs, output).double(), [v.requires_grad_() for v in rows(inputs)]
    net(*values).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    for value in values:
        assert value.grad is not None and value.grad.abs().sum() > 0


@pytest.mark.parametrize(("config", "inputs", "output"), builds())
def test_every_input_matters(config: Any, inputs: Any, output: Any) -> None:
    net, values = build(config, inputs, output).double().eval(), rows(inputs)
    out = net(*values)
    for i in range(len(values)):
        others = [v.roll(1, 0) if j == i else v for j, v in enumerate(values)]
        assert (net(*others) - out).abs().max() > 1e-6


@pytest.mark.parametrize(("config", "inputs", "output"), builds())
def test_state_survives_a_round_trip_and_a_copy(config: Any, inputs: Any, output: Any) -> None:
    net, values = build(config, inputs, output).double().eval(), rows(inputs)
    torch.manual_seed(9)
    other = (config.build(inputs, output) if output else config.build(inputs)).double().eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(*values), net(*values))
    assert torch.equal(copy.deepcopy(net)(*values), net(*values))


def test_the_global_seed_decides_the_start() -> None:
    first, again = (build(ConvEncoder(), {"x": X}, (2,)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 24, 32, 64])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("norm", ["none", "group"])
def test_conv_networks_take_any_multiple_of_eight_and_any_channels(size: int, channels: int, norm: Any) -> None:
    image = Space((channels, size, size), low=0.0, high=1.0, bins=256)
    x, z = rows({"x": image, "z": Z}, 2)
    assert build(ConvEncoder(norm=norm), {"x": image}, (12,)).double()(x).shape == (2, 12)
    for upsample in ("nearest", "transposed"):
        decoder = build(ConvDecoder(norm=norm, upsample=upsample), {"z": Z}, (2 * channels, size, size))
        assert decoder.double()(z).shape == (2, 2 * channels, size, size)
    for critic in (ConvDiscriminator(), ConvDiscriminator(spectral_norm=True)):
        assert build(critic, {"x": image, "z": Z}, ()).double()(x, z).shape == (2,)
        assert build(critic, {"x": image}, ()).double()(x).shape == (2,)


def test_conv_networks_take_oblong_images() -> None:
    oblong = Space((2, 8, 24))
    assert build(ConvEncoder(), {"x": oblong}, (3,)).double()(*rows({"x": oblong})).shape == (6, 3)
    assert build(ConvDecoder(), {"z": Z}, oblong.shape).double()(*rows({"z": Z})).shape == (6, 2, 8, 24)


def test_a_conv_critic_of_codes_alone_has_two_hidden_layers() -> None:
    """A recipe's one discriminator serves all critics, those that see no image too."""
    net = build(ConvDiscriminator(features=9, dropout=0.5, spectral_norm=True), {"z": Z}, ())
    linear = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(9, 6), (9, 9), (1, 9)]
    assert all(parametrize.is_parametrized(layer, "weight") for layer in linear)
    assert sum(isinstance(layer, Dropout) for layer in net.modules()) == 2


def test_two_images_of_one_size_are_concatenated_by_channels() -> None:
    net = build(ConvDiscriminator(widths=[8]), {"x": X, "y": BITS}, ())
    assert net.convs[0].weight.shape == (8, 4, 4, 4)
    assert len(net.added.maps) == 0


WIDE = [16, 16, 16, 16]
CANNOT: list[tuple[Any, dict[str, Space], tuple[int, ...], str]] = [
    (
        ConvEncoder(widths=WIDE),
        {"x": Space((3, 40, 40))},
        (2,),
        "widths: 4 stages need a size that is a multiple of 16, x is 3x40x40",
    ),
    (
        ConvDecoder(),
        {"z": Z},
        (1, 28, 28),
        "widths: 3 stages need a size that is a multiple of 8, the output is 1x28x28",
    ),
    (
        ConvDiscriminator(),
        {"z": Z, "x": Space((1, 8, 12))},
        (),
        "widths: 3 stages need a size that is a multiple of 8, x is 1x8x12",
    ),
    (ConvEncoder(), {"x": Z}, (2,), 'type: a conv encoder needs an image (C, H, W), x is 6; use "mlp"'),
    (ConvDecoder(), {"z": Z}, (12,), 'type: a conv decoder makes images (C, H, W), the output is 12; use "mlp"'),
]


@pytest.mark.parametrize(("config", "inputs", "output", "message"), CANNOT)
def test_shapes_that_cannot_be_served_are_a_config_error(
    config: Any, inputs: dict[str, Space], output: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        build(config, inputs, output)
    assert error.value.lines == [message]


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: MLP(hidden=[8, 0]), "0"),
        (lambda: MLP(dropout=1.0), "1.0"),
        (lambda: MLP(activation="gelu"), "gelu"),
        (lambda: MLPDiscriminator(init="he"), "he"),
        (lambda: ConvEncoder(widths=[]), "0"),
        (lambda: ConvEncoder(norm="batch"), "batch"),
        (lambda: ConvDecoder(upsample="bilinear"), "bilinear"),
        (lambda: ConvDiscriminator(features=0), "0"),
    ],
)
def test_a_value_out_of_range_is_named(make: Any, value: str) -> None:
    with pytest.raises(ValueError, match=value):
        make()


# --- inputs ----------------------------------------------------------------------------------------------------------


def test_inputs_of_known_range_are_centred() -> None:
    # 2 (v - low) / (high - low) - 1: bits to -1 and 1; on [-3, 5], 1 is the middle; codes and one-hot labels stay
    spaces = [Space((2,), kind="binary"), Space((2,), low=-3.0, high=5.0), Space((2,)), Space((2,), kind="label")]
    values = torch.tensor([[[0.0, 1.0]], [[1.0, 5.0]], [[7.0, -7.0]], [[0.0, 1.0]]])
    bits, ranged, code, label = Centre(spaces)(*values)
    assert [bits.tolist(), ranged.tolist()] == [[[-1.0, 1.0]], [[0.0, 1.0]]]
    assert [code.tolist(), label.tolist()] == [[[7.0, -7.0]], [[0.0, 1.0]]]


@pytest.mark.parametrize("config", [MLP(hidden=[]), ConvEncoder(activation="tanh")], ids=str)
def test_networks_see_centred_inputs(config: Any) -> None:
    """With zero biases, an image of middle grey is an input of zeros, and tanh and linear maps send zeros to zeros."""
    net = build(config, {"x": X}, (2,)).double()
    assert net(torch.full((1, 3, 16, 16), 0.5, dtype=torch.float64)).abs().max() < 1e-12


def test_critics_see_centred_inputs() -> None:
    for config in (MLPDiscriminator(), ConvDiscriminator()):
        net = build(config, {"x": X, "z": Z}, ()).double()
        middle, origin = torch.full((1, 3, 16, 16), 0.5), torch.zeros(1, 6)
        assert net(middle.double(), origin.double()).abs().max() < 1e-12


def test_further_variables_enter_the_first_hidden_layer_by_an_added_linear_map() -> None:
    net = build(MLPDiscriminator(hidden=[7, 5]), {"x": X, "z": Z}, ()).double()
    x, z = rows({"x": X, "z": Z})
    h = net.first(2 * x.flatten(1) - 1) + z @ net.added.maps[0].weight.T
    assert net.first.weight.shape == (7, 768) and net.added.maps[0].weight.shape == (7, 6)
    torch.testing.assert_close(net(x, z), net.rest(h).squeeze(1))


def test_noise_is_added_to_every_feature_map_of_a_conv_encoder() -> None:
    # AVB: a weight for every position of the map; 16x16 halves to 8x8, 4x4, 2x2
    net = build(ConvEncoder(widths=[4, 6, 8]), {"x": X, "eps": EPS}, (2,))
    assert [stage.added.maps[0].weight.shape for stage in net.stages] == [(4 * 64, 5), (6 * 16, 5), (8 * 4, 5)]


def test_gated_layer_is_a_map_times_the_gate_of_another() -> None:
    net = build(MLP(hidden=[5, 4], activation="gated"), {"z": Z}, (2,)).double()
    (z,) = rows({"z": Z})
    h = z
    for layer, width in ((net.layers[0], 5), (net.layers[2], 4)):
        value, gate = layer.weight[:width], layer.weight[width:]  # biases are zero at the start
        h = (h @ value.T) * torch.sigmoid(h @ gate.T)
    torch.testing.assert_close(net(z), h @ net.layers[4].weight.T)
    decoder = build(ConvDecoder(widths=[6, 4], activation="gated"), {"z": Z}, (3, 8, 8))
    convs = [m.weight.shape for m in decoder.modules() if isinstance(m, nn.Conv2d)]
    assert convs == [(8, 6, 3, 3), (3, 4, 3, 3)]  # 6 -> 4 values and 4 gates -> an image, which has no gate


# --- initialisation --------------------------------------------------------------------------------------------------


def test_initialisation() -> None:
    layers = nn.Sequential(nn.Linear(300, 500), nn.Conv2d(20, 30, 4), nn.ConvTranspose2d(30, 20, 4))
    initialise(layers, "xavier")
    # variance 2 / (fan in + fan out): 2/800 = 0.05^2; the convolutions' fans are 16 x (20 + 30) = 800 as well
    assert [layer.weight.std().item() for layer in layers] == pytest.approx([0.05] * 3, rel=0.03)
    bound = math.sqrt(6 / 800)
    assert all(layer.weight.abs().max() <= bound + 1e-6 and not layer.bias.any() for layer in layers)
    initialise(layers, "dcgan")
    assert [layer.weight.std().item() for layer in layers] == pytest.approx([0.02] * 3, rel=0.03)
    before = copy.deepcopy(layers.state_dict())
    assert all(torch.equal(initialise(layers, "torch").state_dict()[name], before[name]) for name in before)


# --- dropout and spectral norm ---------------------------------------------------------------------------------------

DROPPING: list[Any] = [
    (MLP(dropout=0.3), {"x": X}, (2,)),
    (ConvEncoder(dropout=0.3), {"x": X, "eps": EPS}, (2,)),
    (ConvDecoder(dropout=0.3), {"z": Z}, (3, 16, 16)),
    (MLPDiscriminator(dropout=0.3), {"x": X, "z": Z}, ()),
    (ConvDiscriminator(dropout=0.3, spectral_norm=True), {"x": X, "z": Z}, ()),
]


def name_dropout(net: nn.Module, name: str, count: int = 6) -> None:
    for i, layer in enumerate(m for m in net.modules() if isinstance(m, Dropout)):
        layer.noise = Noise(0, dtype=torch.float64).named(f"{name}{i}", count)


@pytest.mark.parametrize(("config", "inputs", "output"), DROPPING)
def test_dropout_needs_named_noise_and_is_a_function_of_it(config: Any, inputs: Any, output: Any) -> None:
    net, values = build(config, inputs, output).double(), rows(inputs)
    assert not any(isinstance(layer, nn.Dropout | nn.Dropout2d) for layer in net.modules())
    with pytest.raises(AssertionError, match="names the noise"):
        net(*values)
    outs = []
    for name in "aab":
        name_dropout(net, name)
        outs.append(net(*values))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])
    net.eval()
    assert torch.equal(net(*values), net(*values))


def test_no_dropout_layer_where_the_rate_is_zero() -> None:
    assert not any(isinstance(m, Dropout) for m in build(ConvEncoder(), {"x": X}, (2,)).modules())


@pytest.mark.parametrize(
    "config", [MLPDiscriminator(spectral_norm=True), ConvDiscriminator(spectral_norm=True)], ids=str
)
def test_spectral_norm_bounds_every_weight_and_leaves_slopes_to_torch_func(config: Any) -> None:
    net, values = build(config, {"x": X, "z": Z}, ()).double(), rows({"x": X, "z": Z})
    state = copy.deepcopy(net.state_dict())
    net(*values)
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())  # no pass moves it
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            for _ in range(100):
                layer.parametrizations.weight[0].follow(layer.parametrizations.weight.original)
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1.0, abs=0.02)
    slope = torch.func.grad(lambda x: net(x, values[1]).sum())(values[0])  # a penalty, in training mode
    assert slope.shape == values[0].shape and slope.abs().sum() > 0
