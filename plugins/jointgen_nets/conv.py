"""Convolutional networks after DCGAN, for images of any number of channels.

Each stage halves or doubles the size, so L stages need a size that is a multiple of 2^L: three stages need a multiple
of 8, for which 28x28 images are padded to 32x32. Group norm keeps rows independent. There is no batch norm, because it
would couple the rows of a batch: log q(z|x) of one image would depend on its neighbours, and N processes would not
equal one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import attrs
from torch import Tensor, nn

from jointgen.plugin import ConfigError, Space, below_one, valid_layers, valid_size
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
from jointgen_nets.mlp import MLPDiscriminator

NormName = Literal["none", "group"]
UpsampleName = Literal["transposed", "nearest"]

some_widths: Any = attrs.validators.and_(attrs.validators.min_len(1), valid_layers)
one_norm = attrs.validators.in_(get_args(NormName))

# --- shapes ----------------------------------------------------------------------------------------------------------


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape as 3x32x32."""
    return "x".join(map(str, shape))


def halved(shape: Sequence[int], stages: int, what: str) -> tuple[int, int]:
    """Return the size (h, w) of an image (C, H, W) after `stages` halvings.

    Raises:
        ConfigError: The size cannot be halved so often; `what` names the image.
    """
    multiple = 2**stages
    _, H, W = shape
    if H % multiple or W % multiple:
        raise ConfigError(
            f"{stages} stages need a size that is a multiple of {multiple}, {what} is {shape_text(shape)}", "widths"
        )
    return H // multiple, W // multiple


class Split:
    """The division of a network's inputs into images and vectors.

    Images are the inputs of the largest size, which are concatenated by channels; all others are vectors.

    Args:
        inputs: The Spaces of the inputs by name.
        kind: The kind of network, such as "conv encoder", for messages.

    Raises:
        ConfigError: No input is an image.
    """

    def __init__(self, inputs: Mapping[str, Space], kind: str):
        largest = max((space.shape[1:] for space in inputs.values() if len(space.shape) == 3), default=None)
        if largest is None:
            shapes = ", ".join(f"{name} is {shape_text(space.shape)}" for name, space in inputs.items())
            raise ConfigError(f'a {kind} needs an image (C, H, W), {shapes}; use "mlp"', "type")
        spaces = list(inputs.values())
        self.is_image = [len(space.shape) == 3 and space.shape[1:] == largest for space in spaces]
        self.vectors = [space for space, image in zip(spaces, self.is_image, strict=True) if not image]
        channels = sum(space.shape[0] for space, image in zip(spaces, self.is_image, strict=True) if image)
        self.shape = (channels, *largest)
        self.names = " and ".join(name for name, image in zip(inputs, self.is_image, strict=True) if image)

    def __call__(self, values: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the images as one tensor, (B, C, H, W), and the vectors in order."""
        pairs = list(zip(values, self.is_image, strict=True))
        images = [value for value, image in pairs if image]
        return joined(images), [value for value, image in pairs if not image]


# --- stages ----------------------------------------------------------------------------------------------------------


def normaliser(norm: str, width: int) -> nn.Module:
    """Return group norm over groups of at least four channels, so that a 1x1 map is not normalised to zero, or none."""
    return nn.GroupNorm(math.gcd(width, 8 if width >= 32 else 1), width) if norm == "group" else nn.Identity()


class Halve(nn.Module):
    """A stage that halves the size: convolution k4 s2, norm, added maps of the vectors, activation, dropout.

    The vectors are added after the norm, which would otherwise remove their mean again.

    Args:
        before: The channels of its input.
        shape: The shape of its output (C, H, W).
        vectors: The Spaces of the vectors.
        config: The encoder, for norm, activation and dropout.
    """

    def __init__(self, before: int, shape: tuple[int, int, int], vectors: Sequence[Space], config: ConvEncoder):
        super().__init__()
        shape = (before_activation(config.activation, shape[0]), *shape[1:])
        self.conv = nn.Conv2d(before, shape[0], kernel_size=4, stride=2, padding=1)
        self.norm = normaliser(config.norm, shape[0])
        self.added = AddedMaps(vectors, shape)
        self.after = nn.Sequential(*activated(config.activation, config.dropout))

    def forward(self, h: Tensor, vectors: Sequence[Tensor]) -> Tensor:
        """Return the stage's feature map, (B, *shape)."""
        return self.after(self.added(self.norm(self.conv(h)), vectors))


def doubler(upsample: str, before: int, after: int) -> list[nn.Module]:
    """Return layers that double the size, (B, before, h, w) -> (B, after, 2h, 2w)."""
    if upsample == "transposed":
        return [nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1)]
    return [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, kernel_size=3, padding=1)]


# --- encoder ---------------------------------------------------------------------------------------------------------


def widths_down() -> list[int]:
    """The usual channels of stages that halve an image."""
    return [32, 64, 128]


def widths_up() -> list[int]:
    """The usual channels of stages that double an image."""
    return [128, 64, 32]


@attrs.frozen
class ConvEncoder:
    """Strided convolutions (k4 s2) over the image, then a linear map to the output.

    Inputs that are not images (labels, an implicit encoder's noise, codes) are added to the feature map after
    every convolution by a linear map of their own (AVB). Images of one size are concatenated by channels.

    Args:
        widths: The channels of each stage; each stage halves the size.
        activation: The activation after every stage.
        norm: Group norm after each convolution, or none.
        dropout: The dropout rate after every activation.
        init: The initialisation: xavier, dcgan, or torch's own.
    """

    widths: list[int] = attrs.field(factory=widths_down, validator=some_widths)
    activation: ActivationName = attrs.field(default="silu", validator=one_activation)
    norm: NormName = attrs.field(default="none", validator=one_norm)
    dropout: float = attrs.field(default=0.0, validator=below_one)
    init: InitName = attrs.field(default="xavier", validator=one_init)

    @property
    def feature_layers(self) -> int:
        """How many activations `features` of the module returns: one for each stage."""
        return len(self.widths)

    def build(self, inputs: Mapping[str, Space], output: tuple[int, ...]) -> nn.Module:
        """Build the trunk; see `jointgen.plugin.Network`."""
        return initialise(ConvEncoderNet(self, inputs, output), self.init)


class ConvEncoderNet(nn.Module):
    """The encoder's module: one (B, *shape) tensor for each input -> (B, *output)."""

    def __init__(self, config: ConvEncoder, inputs: Mapping[str, Space], output: tuple[int, ...]):
        super().__init__()
        self.centre, self.split, self.output = Centre(inputs.values()), Split(inputs, "conv encoder"), output
        channels, H, W = self.split.shape
        h, w = halved(self.split.shape, len(config.widths), self.split.names)
        self.stages = nn.ModuleList()
        for i, (before, after) in enumerate(pairwise([channels, *config.widths]), start=1):
            self.stages.append(Halve(before, (after, H >> i, W >> i), self.split.vectors, config))
        self.head = nn.Linear(config.widths[-1] * h * w, math.prod(output))

    def features(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the activation after each stage, (B, C, h, w) each."""
        h, vectors = self.split(self.centre(*inputs))
        seen = []
        for stage in self.stages:
            h = stage(h, vectors)
            seen.append(h)
        return tuple(seen)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output, (B, *output)."""
        return self.head(self.features(*inputs)[-1].flatten(1)).unflatten(1, self.output)  # (B, *output)


# --- decoder ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class ConvDecoder:
    """A linear map of all inputs to (widths[0], h, w), then stages that double the size up to the image's.

    Args:
        widths: The channels before each stage, the last of which makes the image; each stage doubles the size.
        upsample: Nearest (neighbour, then a 3x3 convolution), which leaves no checkerboard
            (docs/concepts/as-vae-on-photographs.md; Odena et al., Distill 2016), or transposed convolutions (k4 s2).
        activation: The activation before every stage.
        norm: Group norm before each activation, or none.
        dropout: The dropout rate after every activation.
        init: The initialisation: xavier, dcgan, or torch's own.
    """

    widths: list[int] = attrs.field(factory=widths_up, validator=some_widths)
    upsample: UpsampleName = attrs.field(default="nearest", validator=attrs.validators.in_(get_args(UpsampleName)))
    activation: ActivationName = attrs.field(default="silu", validator=one_activation)
    norm: NormName = attrs.field(default="none", validator=one_norm)
    dropout: float = attrs.field(default=0.0, validator=below_one)
    init: InitName = attrs.field(default="xavier", validator=one_init)

    def build(self, inputs: Mapping[str, Space], output: tuple[int, ...]) -> nn.Module:
        """Build the trunk; see `jointgen.plugin.Network`."""
        if len(output) != 3:
            raise ConfigError(
                f'a conv decoder makes images (C, H, W), the output is {shape_text(output)}; use "mlp"', "type"
            )
        return initialise(ConvDecoderNet(self, inputs, output), self.init)


class ConvDecoderNet(nn.Module):
    """The decoder's module: one (B, *shape) tensor for each input -> (B, C, H, W)."""

    def __init__(self, config: ConvDecoder, inputs: Mapping[str, Space], output: tuple[int, ...]):
        super().__init__()
        self.centre = Centre(inputs.values())
        first = before_activation(config.activation, config.widths[0])
        self.start = (first, *halved(output, len(config.widths), "the output"))
        self.head = nn.Linear(total_size(inputs), math.prod(self.start))
        layers: list[nn.Module] = []
        outputs = [*(before_activation(config.activation, width) for width in config.widths[1:]), output[0]]
        for width, inner, after in zip(config.widths, [self.start[0], *outputs], outputs, strict=False):
            layers += [normaliser(config.norm, inner), *activated(config.activation, config.dropout)]
            layers += doubler(config.upsample, width, after)
        self.layers = nn.Sequential(*layers)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output, (B, *output)."""
        values = [value.flatten(1) for value in self.centre(*inputs)]
        return self.layers(self.head(joined(values)).unflatten(1, self.start))  # (B, C, H, W)


# --- discriminator ---------------------------------------------------------------------------------------------------


@attrs.frozen
class ConvDiscriminator:
    """Strided convolutions (k4 s2, leaky ReLU 0.2) over the image, then a hidden layer, then one number.

    Every variable that is not an image enters the hidden layer by an added linear map
    (docs/concepts/as-vae-on-photographs.md). A critic that sees no image, such as one of codes alone, has two hidden
    layers instead, because a recipe may have one discriminator for all of its critics.

    Args:
        widths: The channels of each stage; each stage halves the size.
        features: The width of the hidden layer.
        dropout: The dropout rate after every activation.
        init: The initialisation: xavier, dcgan, or torch's own.
        spectral_norm: Whether every weight is divided by its largest singular value.
    """

    widths: list[int] = attrs.field(factory=widths_down, validator=some_widths)
    features: int = attrs.field(default=128, validator=valid_size)
    dropout: float = attrs.field(default=0.0, validator=below_one)
    init: InitName = attrs.field(default="xavier", validator=one_init)
    spectral_norm: bool = False

    @property
    def feature_layers(self) -> int:
        """How many activations `features` of the module returns: one for each stage, and the hidden layer's."""
        return len(self.widths) + 1

    def build(self, inputs: Mapping[str, Space]) -> nn.Module:
        """Build the critic's network; see `jointgen.plugin.Discriminator`."""
        if all(len(space.shape) < 3 for space in inputs.values()):
            hidden = [self.features, self.features]
            return MLPDiscriminator(hidden, self.dropout, self.init, self.spectral_norm).build(inputs)
        net = initialise(ConvCritic(self, inputs), self.init)
        return spectrally_normalised(net) if self.spectral_norm else net


class ConvCritic(nn.Module):
    """The critic's module: one (B, *shape) tensor for each variable -> (B,)."""

    def __init__(self, config: ConvDiscriminator, inputs: Mapping[str, Space]):
        super().__init__()
        self.centre, self.split = Centre(inputs.values()), Split(inputs, "conv discriminator")
        h, w = halved(self.split.shape, len(config.widths), self.split.names)
        layers: list[nn.Module] = []
        for before, after in pairwise([self.split.shape[0], *config.widths]):
            layers += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1)]
            layers += activated("leaky_relu", config.dropout)
        self.convs = nn.Sequential(*layers)
        # not an attribute: `features` is a method. Under this name it stands in checkpoints
        self._modules["features"] = nn.Linear(config.widths[-1] * h * w, config.features)
        self.added = AddedMaps(self.split.vectors, (config.features,))
        self.score = nn.Sequential(*activated("leaky_relu", config.dropout), nn.Linear(config.features, 1))

    def features(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the activation after each stage, (B, C, h, w) each, and that of the hidden layer, (B, features)."""
        image, vectors = self.split(self.centre(*inputs))
        seen, h = activations(self.convs, image)
        hidden, _ = activations(self.score, self._hidden(h, vectors))
        return (*seen[1:], h, *hidden)

    def _hidden(self, h: Tensor, vectors: Sequence[Tensor]) -> Tensor:
        hidden: Any = self._modules["features"]
        return self.added(hidden(h.flatten(1)), vectors)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the outputs, (B,)."""
        image, vectors = self.split(self.centre(*inputs))
        return self.score(self._hidden(self.convs(image), vectors)).squeeze(1)  # (B,)
