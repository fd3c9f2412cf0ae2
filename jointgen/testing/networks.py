"""Checks of networks: encoders, decoders and discriminators."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from jointgen.contracts.networks import NoisyLayer, OffersFeatures
from jointgen.contracts.observation import example
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.testing.check import (
    Promises,
    described,
    expect,
    expect_close,
    expect_equal,
    expect_finite,
    expect_shape,
    promise,
)
from jointgen.testing.randomness import no_global_randomness, noise, perturb

NETWORKS: Promises = []

IMAGE = Space((2, 16, 16), low=0.0, high=1.0, bins=256)
BITS = Space((1, 16, 16), kind="binary", bins=256)
VECTOR, CODE, NOISE = Space((5,)), Space((4,)), Space((3,))
LABEL = Space((3,), kind="label")
ODD = Space((1, 7, 9))

Setting = tuple[Mapping[str, Space], tuple[int, ...]]
"""The Spaces of the inputs by name, and the shape of the output."""

SETTINGS: dict[str, Sequence[Setting]] = {
    "encoder": (
        ({"x": IMAGE}, (6,)),
        ({"x": BITS, "y": LABEL}, (4,)),
        ({"x": IMAGE, "eps": NOISE}, (4,)),
        ({"x": VECTOR}, (2,)),
        ({"x": VECTOR, "eps": NOISE}, (2,)),
        ({"x": ODD}, (2,)),
    ),
    "decoder": (
        ({"z": CODE}, IMAGE.shape),
        ({"z": CODE, "y": LABEL}, BITS.shape),
        ({"z": CODE}, (5,)),
        ({"z": CODE, "eps": NOISE}, (5,)),
        ({"z": CODE}, ODD.shape),
    ),
    "discriminator": (
        ({"x": IMAGE, "z": CODE}, ()),
        ({"x": BITS}, ()),
        ({"x": VECTOR, "z": CODE}, ()),
        ({"x": VECTOR, "y": LABEL}, ()),
        ({"z": CODE}, ()),
        ({"x": ODD}, ()),
    ),
}
"""Inputs and outputs by kind; a network serves some of them and refuses the others with a ConfigError."""


@attrs.frozen
class Net:
    """A network for these inputs and this output.

    Args:
        config: The component.
        inputs: The Spaces of the inputs by name.
        output: The shape of the output, () for a discriminator.
    """

    config: Any
    inputs: Mapping[str, Space]
    output: tuple[int, ...]

    def built(self, seed: int = 0) -> nn.Module:
        """Return a float64 module a little off its start."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            net = self.config.build(self.inputs, self.output) if self.output else self.config.build(self.inputs)
        expect(isinstance(net, nn.Module), f"build() returns a {type(net).__name__}, it must be an nn.Module")
        perturb(net, 0.02)
        return net.double()

    def values(self, rows: int = 6) -> list[Tensor]:
        """Return example inputs."""
        return [example(space, noise(rows, name)) for name, space in self.inputs.items()]

    def run(self, net: nn.Module, values: Sequence[Tensor]) -> Tensor:
        """Run a forward pass with named noise for every dropout layer, as the engine does."""
        for number, layer in enumerate(module for module in net.modules() if isinstance(module, NoisyLayer)):
            layer.noise = noise(len(values[0]), f"dropout{number}")
        return net(*values)

    def __str__(self) -> str:
        inputs = ", ".join(f"{name}: {space}" for name, space in self.inputs.items())
        return f"{described(self.config)} of {inputs}" + (
            f" to {'x'.join(map(str, self.output))}" if self.output else ""
        )


def nets_of(kind: str, config: Any, settings: Sequence[Setting] | None) -> list[Net]:
    """Return the network in the given settings, or in all of SETTINGS that it serves."""
    nets = [Net(config, *setting) for setting in settings or SETTINGS[kind]]
    found = nets if settings else [net for net in nets if _serves(net)]
    expect(found, f"{described(config)} serves none of the {len(nets)} settings tried for a {kind}; give settings")
    return found


def _serves(net: Net) -> bool:
    try:
        net.built()
    except ConfigError as error:
        lines = [line for line in error.lines if not line or "\n" in line]
        expect(not lines, f"{described(net.config)} refuses {net} without a line that says why")
        return False
    return True


# --- promises --------------------------------------------------------------------------------------------------------


@promise(NETWORKS)
def output_has_the_shape_asked_for(net: Net) -> None:
    found = net.run(net.built(), net.values())
    expect_shape("the output for 6 rows", found, (6, *net.output))
    expect_finite("the output", found)
    expect(found.dtype == torch.float64, f"the output of a float64 network is {found.dtype}")
    single = net.run(net.built().float(), [value.float() for value in net.values()])
    expect(single.dtype == torch.float32, f"the output of a float32 network is {single.dtype}")


@promise(NETWORKS)
def rows_do_not_mix(net: Net) -> None:
    """This holds in evaluation; batch statistics may mix rows in training."""
    module, values, order = net.built().eval(), net.values(), torch.tensor([4, 2, 0, 5, 3, 1])
    whole = module(*values)
    permuted = module(*(value[order] for value in values))
    expect_close("outputs of permuted rows are not the permuted outputs", permuted, whole[order], 1e-9)
    alone = module(*(value[2:3] for value in values))
    expect_close("the output of a row alone is not its output among others", alone, whole[2:3], 1e-9)


@promise(NETWORKS, lambda net: isinstance(net.config, OffersFeatures))
def features_are_of_each_row_and_as_many_as_declared(net: Net) -> None:
    """For values such as `features[2] f(x)`: a network may show fewer layers than it declares, but no more."""
    module: Any = net.built().eval()
    values = net.values()
    whole, alone = module.features(*values), module.features(*(value[2:3] for value in values))
    expect(isinstance(whole, tuple), f"features() returns a {type(whole).__name__}, it must be a tuple of tensors")
    declared = net.config.feature_layers
    expect(1 <= len(whole) <= declared, f"features() shows {len(whole)} layers, feature_layers says {declared}")
    expect(len(alone) == len(whole), f"features() shows {len(alone)} layers of one row and {len(whole)} of six")
    for nth, (features, of_row) in enumerate(zip(whole, alone, strict=True), start=1):
        expect(len(features) == len(values[0]), f"features[{nth}] has {len(features)} rows for {len(values[0])}")
        expect_close(f"features[{nth}] of a row alone are not those among others", of_row, features[2:3], 1e-9)


def _state_moves(net: Net) -> bool:
    """Return whether a forward pass in training changes buffers, on which the output depends."""
    module = net.built().train()
    before = copy.deepcopy(module.state_dict())
    net.run(module, net.values())
    return any(not torch.equal(before[name], value) for name, value in module.state_dict().items())


@promise(NETWORKS)
def gradients_reach_every_parameter_and_every_input(net: Net) -> None:
    module, values = net.built(), [value.requires_grad_() for value in net.values()]
    net.run(module, values).square().sum().backward()
    for name, parameter in module.named_parameters():
        expect(parameter.grad is not None and bool((parameter.grad != 0).any()), f"no gradient reaches {name!r}")
    for name, value in zip(net.inputs, values, strict=True):
        expect(value.grad is not None and bool((value.grad != 0).any()), f"no gradient reaches the input {name!r}")


@promise(NETWORKS)
def state_survives_a_round_trip_and_a_copy(net: Net) -> None:
    module, values = net.built().eval(), net.values()
    wanted, other = module(*values), net.built(seed=1).eval()
    other.load_state_dict(module.state_dict())
    expect_equal("a network loaded from the state_dict computes something else", other(*values), wanted)
    expect_equal("a deep copy computes something else", copy.deepcopy(module)(*values), wanted)


@promise(NETWORKS)
def evaluation_is_deterministic_and_reads_no_global_generator(net: Net) -> None:
    module, values = net.built(), net.values()
    with no_global_randomness("a forward pass (use jointgen.plugin.Dropout for dropout)"):
        net.run(module, values)
        first, second = (module.eval()(*values) for _ in range(2))
    expect_equal("two forward passes in evaluation differ", first, second)


@promise(NETWORKS)
def training_and_evaluation_agree_without_dropout(net: Net) -> None:
    module, values = net.built(), net.values()
    if any(isinstance(layer, NoisyLayer) and layer.is_noisy for layer in module.modules()) or _state_moves(net):
        return
    expect_close("train() and eval() give different outputs", module.train()(*values), module.eval()(*values), 1e-12)


@promise(NETWORKS)
def the_build_is_a_function_of_the_seed(net: Net) -> None:
    first, again = net.built().state_dict(), net.built().state_dict()
    for name in first:
        expect_equal(f"{name!r} differs between two builds of one seed", again[name], first[name])
