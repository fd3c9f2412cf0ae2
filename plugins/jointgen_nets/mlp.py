"""Multilayer perceptrons: a trunk for encoders and decoders, and a critic's network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import attrs
from torch import Tensor, nn

from jointgen.plugin import Space, below_one, valid_layers
from jointgen_nets.common import (
    ActivationName,
    AddedMaps,
    Centre,
    InitName,
    activated,
    activations,
    before_activation,
    initialise,
    joined,
    one_activation,
    one_init,
    spectrally_normalised,
    total_size,
)


def _default_hidden() -> list[int]:
    return [256, 256]


@attrs.frozen
class MLP:
    """A fully connected trunk over all its inputs, flattened and concatenated.

    Args:
        hidden: The widths of the hidden layers; none gives a linear map.
        activation: The activation after every hidden layer; leaky_relu has slope 0.2, and a gated layer is
            (W h + b) times sigmoid(V h + c).
        dropout: The dropout rate after every hidden activation.
        init: The initialisation: xavier (as in the AS-VAE paper), dcgan, or torch's own.
    """

    hidden: list[int] = attrs.field(factory=_default_hidden, validator=valid_layers)
    activation: ActivationName = attrs.field(default="relu", validator=one_activation)
    dropout: float = attrs.field(default=0.0, validator=below_one)
    init: InitName = attrs.field(default="xavier", validator=one_init)

    @property
    def feature_layers(self) -> int:
        """How many activations `features` of the module returns: one for each hidden layer."""
        return len(self.hidden)

    def build(self, inputs: Mapping[str, Space], output: tuple[int, ...]) -> nn.Module:
        """Build the trunk; see `jointgen.plugin.Network`."""
        return initialise(MLPNet(self, inputs, output), self.init)


class MLPNet(nn.Module):
    """The trunk's module: one (B, *shape) tensor for each input -> (B, *output)."""

    def __init__(self, config: MLP, inputs: Mapping[str, Space], output: tuple[int, ...]):
        super().__init__()
        self.centre, self.output = Centre(inputs.values()), output
        sizes = [total_size(inputs), *config.hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            outputs = before_activation(config.activation, after)
            layers += [nn.Linear(before, outputs), *activated(config.activation, config.dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], math.prod(output)))

    def features(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the activations of the hidden layers in order, (B, width) each."""
        values = [value.flatten(1) for value in self.centre(*inputs)]
        seen, _ = activations(self.layers, joined(values))
        return tuple(seen[1:])

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output, (B, *output)."""
        values = [value.flatten(1) for value in self.centre(*inputs)]
        out = self.layers(joined(values))
        return out if len(self.output) == 1 else out.unflatten(1, self.output)  # (B, *output)


@attrs.frozen
class MLPDiscriminator:
    """A fully connected critic with leaky ReLUs (slope 0.2) over one variable or several.

    The first variable enters the first layer. Every further one enters the first hidden layer by an added linear
    map, which is initialised by its own size, so that 16 codes are not drowned by 784 pixels.

    Args:
        hidden: The widths of the hidden layers.
        dropout: The dropout rate after every hidden activation.
        init: The initialisation, as for `MLP`.
        spectral_norm: Whether every weight is divided by its largest singular value.
    """

    hidden: list[int] = attrs.field(factory=_default_hidden, validator=valid_layers)
    dropout: float = attrs.field(default=0.0, validator=below_one)
    init: InitName = attrs.field(default="xavier", validator=one_init)
    spectral_norm: bool = False

    @property
    def feature_layers(self) -> int:
        """How many activations `features` of the module returns: one for each hidden layer."""
        return len(self.hidden)

    def build(self, inputs: Mapping[str, Space]) -> nn.Module:
        """Build the critic's network; see `jointgen.plugin.Discriminator`."""
        net = initialise(MLPCritic(self, inputs), self.init)
        return spectrally_normalised(net) if self.spectral_norm else net


class MLPCritic(nn.Module):
    """The critic's module: one (B, *shape) tensor for each variable -> (B,)."""

    def __init__(self, config: MLPDiscriminator, inputs: Mapping[str, Space]):
        super().__init__()
        self.centre = Centre(inputs.values())
        first, *others = inputs.values()
        sizes = [*config.hidden, 1]
        self.first = nn.Linear(first.size, sizes[0])
        self.added = AddedMaps(others, sizes[:1])
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [*activated("leaky_relu", config.dropout), nn.Linear(before, after)]
        self.rest = nn.Sequential(*layers)

    def features(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the activations of the hidden layers in order, (B, width) each."""
        first, *others = self.centre(*inputs)
        seen, _ = activations(self.rest, self.added(self.first(first.flatten(1)), others))
        return tuple(seen)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the outputs, (B,)."""
        first, *others = self.centre(*inputs)
        h = self.added(self.first(first.flatten(1)), others)
        return self.rest(h).squeeze(1)  # (B,)
