"""Residual convolutional networks for images of any size and any number of channels.

Blocks are of the pre-activation kind (He et al., ECCV 2016), with nearest-neighbour doubling and average pooling on
both branches, as the GAN literature has them (Gulrajani et al. 2017, appendix F; Miyato et al. 2018, appendix B).
Differences: group norm in place of batch norm, which would couple the rows of a batch, and a flat hidden layer at the
end of a critic in place of a sum over positions, so that codes and labels can enter it.

A stage halves the size, rounded up, or goes back to the size that was halved: 28 -> 14 -> 7 -> 4 and up again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import attrs
from torch import Tensor, nn
from torch.nn import functional as F

from jointgen.plugin import ConfigError, Dropout, Space, below_one, valid_count, valid_size
from jointgen_nets.common import (
    ACTIVATIONS,
    Centre,
    InitName,
    initialise,
    joined,
    one_init,
    spectrally_normalised,
    total_size,
)
from jointgen_nets.conv import (
    NormName,
    Split,
    normaliser,
    one_norm,
    shape_text,
    some_widths,
    widths_down,
    widths_up,
)
from jointgen_nets.mlp import MLPDiscriminator

ResidualActivation = Literal["relu", "leaky_relu", "elu", "silu"]
Size = tuple[int, int]


def sizes_down(shape: Sequence[int], stages: int) -> list[Size]:
    """Return the sizes (h, w) of an image (C, H, W) before and after each of so many halvings, rounded up.

    >>> sizes_down((1, 28, 28), 3)
    [(28, 28), (14, 14), (7, 7), (4, 4)]
    """
    _, h, w = shape
    sizes = [(h, w)]
    for _ in range(stages):
        h, w = math.ceil(h / 2), math.ceil(w / 2)
        sizes.append((h, w))
    return sizes


def resized(h: Tensor, size: Size) -> Tensor:
    """Bring a feature map (B, C, H, W) to a size: by pooling pairs if it is smaller, by repeating if it is larger."""
    height, width = h.shape[2:]
    if (height, width) == size:
        return h
    if size[0] < height or size[1] < width:
        return F.avg_pool2d(h, 2, ceil_mode=True, count_include_pad=False)
    return F.interpolate(h, size=size)


class Block(nn.Module):
    """A residual block: h + conv(act(norm(conv(act(norm(h)))))), with a change of size and of width.

    Vectors (labels, codes, noise) shift every channel between the two convolutions by a linear map, after the norm.

    Args:
        before, after: The channels of its input and output.
        size: The size (h, w) of its output.
        vectors: The Spaces of the vectors.
        config: The network, for norm, activation and dropout.
    """

    def __init__(self, before: int, after: int, size: Size, vectors: Sequence[Space], config: Any):
        super().__init__()
        self.size = size
        self.norm1, self.norm2 = normaliser(config.norm, before), normaliser(config.norm, after)
        self.activation = ACTIVATIONS[config.activation]()
        self.dropout = Dropout(config.dropout) if config.dropout else nn.Identity()
        self.conv1 = nn.Conv2d(before, after, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(after, after, kernel_size=3, padding=1)
        self.added = nn.ModuleList(nn.Linear(space.size, after, bias=False) for space in vectors)
        same = before == after
        self.skip = nn.Identity() if same else nn.Conv2d(before, after, kernel_size=1, bias=False)

    def forward(self, h: Tensor, vectors: Sequence[Tensor]) -> Tensor:
        """Return the block's output, (B, after, *size)."""
        up = self.size[0] > h.shape[2] or self.size[1] > h.shape[3]
        g = self.activation(self.norm1(h))
        g = self.norm2(self.conv1(resized(g, self.size) if up else g))
        for linear, value in zip(self.added, vectors, strict=True):
            g = g + linear(value.flatten(1))[:, :, None, None]
        g = self.conv2(self.dropout(self.activation(g)))
        return self.skip(resized(h, self.size)) + resized(g, self.size)


class Stage(nn.Module):
    """So many blocks, the first of which changes size and width; the arguments are those of `Block`."""

    def __init__(self, before: int, after: int, size: Size, vectors: Sequence[Space], config: Any):
        super().__init__()
        widths = [before, *[after] * config.blocks]
        self.blocks = nn.ModuleList(Block(b, a, size, vectors, config) for b, a in pairwise(widths))

    def forward(self, h: Tensor, vectors: Sequence[Tensor]) -> Tensor:
        """Return the stage's output, (B, after, *size)."""
        for block in self.blocks:
            h = block(h, vectors)
        return h


class Down(nn.Module):
    """The way from an image to a flat vector of activations, which an encoder and a critic share.

    Args:
        inputs: The Spaces of the inputs by name.
        config: The network.
        kind: What kind of network it is, for messages.
        in_blocks: Whether inputs that are no images enter the blocks.
    """

    def __init__(self, inputs: Mapping[str, Space], config: Any, kind: str, in_blocks: bool):
        super().__init__()
        self.centre, self.split = Centre(inputs.values()), Split(inputs, kind)
        vectors = self.split.vectors if in_blocks else []
        self.in_blocks = in_blocks
        widths = config.widths
        self.first = nn.Conv2d(self.split.shape[0], widths[0], kernel_size=3, padding=1)
        self.stages = nn.ModuleList()
        sizes = sizes_down(self.split.shape, len(widths))
        for before, after, size in zip([widths[0], *widths], widths, sizes[1:], strict=False):
            self.stages.append(Stage(before, after, size, vectors, config))
        self.norm = normaliser(config.norm, widths[-1])
        self.activation = ACTIVATIONS[config.activation]()
        self.size = widths[-1] * math.prod(sizes[-1])

    def forward(self, *inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the activation after each stage, (B, C, h, w) each, and the inputs that are no images."""
        image, vectors = self.split(self.centre(*inputs))
        h, found = self.first(image), []
        for number, stage in enumerate(self.stages, start=1):
            h = stage(h, vectors if self.in_blocks else [])
            found.append(self.activation(self.norm(h) if number == len(self.stages) else h))
        return found, vectors


one_activation: Any = attrs.validators.in_(("relu", "leaky_relu", "elu", "silu"))


@attrs.frozen
class ResNetEncoder:
    """A residual trunk over an image of any size, then a linear map to the output.

    Inputs that are not images (labels, an implicit encoder's noise, codes) shift the channels of every block.

    Args:
        widths: The channels of each stage; each stage halves the size, rounded up.
        blocks: The residual blocks of each stage, the first of which halves.
        activation: The activation within and after the blocks.
        norm: Group norm before each activation, or none.
        dropout: The dropout rate within the blocks.
        init: The initialisation: xavier, dcgan, or torch's own.
    """

    widths: list[int] = attrs.field(factory=widths_down, validator=some_widths)
    blocks: int = attrs.field(default=1, validator=valid_count)
    activation: ResidualActivation = attrs.field(default="silu", validator=one_activation)
    norm: NormName = attrs.field(default="group", validator=one_norm)
    dropout: float = attrs.field(default=0.0, validator=below_one)
    init: InitName = attrs.field(default="xavier", validator=one_init)

    @property
    def feature_layers(self) -> int:
        """How many activations `features` of the module returns: one for each stage."""
        return len(self.widths)

    def build(self, inputs: Mapping[str, Space], output: tuple[int, ...]) -> nn.Module:
        """Build the trunk; see `jointgen.plugin.Network`."""
        return initialise(ResNetEncoderNet(self, inputs, output), self.init)


class ResNetEncoderNet(nn.Module):
    """The encoder's module: one (B, *shape) tensor for each input -> (B, *output)."""

    def __init__(self, config: ResNetEncoder, inputs: Mapping[str, Space], output: tuple[int, ...]):
        super().__init__()
        self.down, self.output = Down(inputs, config, "residual encoder", in_blocks=True), output
        self.head = nn.Linear(self.down.size, math.prod(output))

    def features(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the activation after each stage, (B, C, h, w) each."""
        found, _ = self.down(*inputs)
        return tuple(found)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output, (B, *output)."""
        return self.head(self.features(*inputs)[-1].flatten(1)).unflatten(1, self.output)  # (B, *output)


@attrs.frozen
class ResNetDecoder:
    """A linear map of all inputs to a small feature map, residual stages that double it, and a last convolution.

    Labels shift the channels of every block, too, so that a conditional generator has them at each size.

    Args:
        widths: The channels of each stage; each stage doubles the size, up to an image of any size.
        blocks: The residual blocks of each stage, the first of which doubles.
        activation: The activation within and after the blocks.
        norm: Group norm before each activation, or none.
        dropout: The dropout rate within the blocks.
        init: The initialisation: xavier, dcgan, or torch's own.
    """

    widths: list[int] = attrs.field(factory=widths_up, validator=some_widths)
    blocks: int = attrs.field(default=1, validator=valid_count)
    activation: ResidualActivation = attrs.field(default="silu", validator=one_activation)
    norm: NormName = attrs.field(default="group", validator=one_norm)
    dropout: float = attrs.field(default=0.0, validator=below_one)
    init: InitName = attrs.field(default="xavier", validator=one_init)

    def build(self, inputs: Mapping[str, Space], output: tuple[int, ...]) -> nn.Module:
        """Build the trunk; see `jointgen.plugin.Network`."""
        if len(output) != 3:
            raise ConfigError(
                f'a residual decoder makes images (C, H, W), the output is {shape_text(output)}; use "mlp"', "type"
            )
        return initialise(ResNetDecoderNet(self, inputs, output), self.init)


class ResNetDecoderNet(nn.Module):
    """The decoder's module: one (B, *shape) tensor for each input -> (B, C, H, W)."""

    def __init__(self, config: ResNetDecoder, inputs: Mapping[str, Space], output: tuple[int, ...]):
        super().__init__()
        self.centre, widths = Centre(inputs.values()), config.widths
        self.is_label = [space.kind == "label" for space in inputs.values()]
        labels = [space for space in inputs.values() if space.kind == "label"]
        sizes = sizes_down(output, len(widths))
        self.start = (widths[0], *sizes[-1])
        self.head = nn.Linear(total_size(inputs), math.prod(self.start))
        self.stages = nn.ModuleList()
        for before, after, size in zip([widths[0], *widths], widths, sizes[-2::-1], strict=False):
            self.stages.append(Stage(before, after, size, labels, config))
        self.norm = normaliser(config.norm, widths[-1])
        self.activation = ACTIVATIONS[config.activation]()
        self.last = nn.Conv2d(widths[-1], output[0], kernel_size=3, padding=1)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output, (B, *output)."""
        values = [value.flatten(1) for value in self.centre(*inputs)]
        labels = [value for value, label in zip(values, self.is_label, strict=True) if label]
        h = self.head(joined(values)).unflatten(1, self.start)
        for stage in self.stages:
            h = stage(h, labels)
        return self.last(self.activation(self.norm(h)))  # (B, C, H, W)


@attrs.frozen
class ResNetDiscriminator:
    """A residual trunk without norm over an image of any size, then a hidden layer, then one number.

    It is that of WGAN-GP and SN-GAN up to the hidden layer, which every variable that is not an image enters by an
    added linear map. A critic that sees no image has two hidden layers instead, because a recipe may have one
    discriminator for all of its critics.

    Args:
        widths: The channels of each stage; each stage halves the size, rounded up.
        blocks: The residual blocks of each stage, the first of which halves.
        features: The width of the hidden layer.
        activation: The activation within and after the blocks.
        dropout: The dropout rate within the blocks.
        init: The initialisation: xavier, dcgan, or torch's own.
        spectral_norm: Whether every weight is divided by its largest singular value.
    """

    widths: list[int] = attrs.field(factory=widths_down, validator=some_widths)
    blocks: int = attrs.field(default=1, validator=valid_count)
    features: int = attrs.field(default=128, validator=valid_size)
    activation: ResidualActivation = attrs.field(default="leaky_relu", validator=one_activation)
    dropout: float = attrs.field(default=0.0, validator=below_one)
    init: InitName = attrs.field(default="xavier", validator=one_init)
    spectral_norm: bool = False

    @property
    def norm(self) -> NormName:
        """A critic has no norm: with one, a gradient penalty would be of a row's whole group of channels."""
        return "none"

    @property
    def feature_layers(self) -> int:
        """How many activations `features` of the module returns: one for each stage, and the hidden layer's."""
        return len(self.widths) + 1

    def build(self, inputs: Mapping[str, Space]) -> nn.Module:
        """Build the critic's network; see `jointgen.plugin.Discriminator`."""
        if all(len(space.shape) < 3 for space in inputs.values()):
            hidden = [self.features, self.features]
            return MLPDiscriminator(hidden, self.dropout, self.init, self.spectral_norm).build(inputs)
        net = initialise(ResNetCritic(self, inputs), self.init)
        return spectrally_normalised(net) if self.spectral_norm else net


class ResNetCritic(nn.Module):
    """The critic's module: one (B, *shape) tensor for each variable -> (B,)."""

    def __init__(self, config: ResNetDiscriminator, inputs: Mapping[str, Space]):
        super().__init__()
        self.down = Down(inputs, config, "residual discriminator", in_blocks=False)
        self.hidden = nn.Linear(self.down.size, config.features)
        self.added = nn.ModuleList(
            nn.Linear(space.size, config.features, bias=False) for space in self.down.split.vectors
        )
        self.activation = ACTIVATIONS[config.activation]()
        self.score = nn.Linear(config.features, 1)

    def features(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the activation after each stage, (B, C, h, w) each, and that of the hidden layer, (B, features)."""
        found, vectors = self.down(*inputs)
        h = self.hidden(found[-1].flatten(1))
        for linear, value in zip(self.added, vectors, strict=True):
            h = h + linear(value.flatten(1))
        return (*found, self.activation(h))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the outputs, (B,)."""
        return self.score(self.features(*inputs)[-1]).squeeze(1)  # (B,)
