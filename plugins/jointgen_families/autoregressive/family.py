"""PixelCNN and PixelCNN++ as families: of priors over images (`like = "x"`), and of decoders with a context."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import (
    Capabilities,
    ConfigError,
    Counter,
    NoiseSource,
    ReadyDraw,
    Space,
    at_least_float32,
    valid_depth,
    valid_size,
)
from jointgen_families.autoregressive.laws import CategoricalLaw, LogisticMixtureLaw, centred
from jointgen_families.autoregressive.networks import GatedNet, ResidualNet, TwoStreams, with_ones
from jointgen_families.autoregressive.streams import CausalConv, Cursor
from jointgen_families.bins import Bins

LawName = Literal["categorical", "logistic_mixture"]
START_ROWS = 128
"""So many rows of data, at the most, start the scales of the layers."""


def _is_odd(instance: Any, attribute: attrs.Attribute[int], value: int) -> None:
    if value % 2 == 0:
        raise ValueError(f"'kernel' must be odd, got {value}")


@attrs.frozen
class Autoregressive:
    """The base of autoregressive families of images: p(x) is the product over pixels and channels of p(x_i | x_<i).

    Args:
        width: The number of features of each layer.
        blocks: The number of gated layers, or of residual blocks in each half of the network.
        law: The law of a pixel. categorical: a softmax over the levels of each channel, given the channels before it.
            logistic_mixture: a mixture of discretised logistics whose channels are coupled, of quantised data.
        components: The number of components of a logistic mixture.
        context: How many numbers every layer is given besides: the output of a decoder's network; of a prior, learned.
        context_map: Whether the context is a map over the image, (context, H, W), in place of one vector.
    """

    name: ClassVar[str]

    width: int = attrs.field(default=16, validator=valid_size)
    blocks: int = attrs.field(default=2, validator=valid_depth)
    law: LawName = attrs.field(default="categorical", validator=attrs.validators.in_(get_args(LawName)))
    components: int = attrs.field(default=10, validator=valid_size)
    context: int = attrs.field(default=16, validator=valid_size)
    context_map: bool = False

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self.check(space)
        return Capabilities({"sample": "none"}, bin_mass=space.kind == "real", draws="D passes")

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Return the shape of the context."""
        self.check(space)
        return (self.context, *space.shape[1:]) if self.context_map else (self.context,)

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        self.check(space)
        return AutoregressiveModule(self, space)

    def network(self, channels: int) -> TwoStreams:
        """Build the network of an image with so many channels."""
        raise NotImplementedError

    def check(self, space: Space) -> None:
        """Raise ConfigError for a variable that the family does not serve."""
        if not space.is_image:
            raise ConfigError(f'"{self.name}" is a family of images (C, H, W), this variable is {space}', "type")
        if levels_of(space) is None:
            raise ConfigError(f'"{self.name}" is a family of levels, and this variable has none: {space}', "type")
        if self.law == "logistic_mixture" and space.kind != "real":
            raise ConfigError(f'"{self.law}" is a law of quantised grey levels; "categorical" is one of bits', "law")


@attrs.frozen
class PixelCNN(Autoregressive):
    """The gated PixelCNN (van den Oord et al., NIPS 2016), with a softmax over levels as PixelRNN has.

    Args:
        kernel: n, odd: a layer sees (n + 1) / 2 rows of n columns, and (n + 1) / 2 pixels of its own row.
    """

    name: ClassVar[str] = "pixelcnn"

    kernel: int = attrs.field(default=5, validator=[valid_size, _is_odd])

    def network(self, channels: int) -> TwoStreams:
        """Build the network of an image with so many channels."""
        return GatedNet(channels, self.width, self.blocks, self.kernel, self.context)


@attrs.frozen
class PixelCNNPP(Autoregressive):
    """PixelCNN++ (Salimans et al., ICLR 2017): residual blocks in two streams, shortcuts, mixtures of logistics.

    Its network keeps one resolution, where the paper's halves it twice, and has no dropout.
    """

    name: ClassVar[str] = "pixelcnnpp"

    law: LawName = attrs.field(default="logistic_mixture", validator=attrs.validators.in_(get_args(LawName)))

    def network(self, channels: int) -> TwoStreams:
        """Build the network of an image with so many channels."""
        return ResidualNet(channels, self.width, self.blocks, self.context)


def levels_of(space: Space) -> int | None:
    """Return the number of values that each number of an image can have, or None where it is real."""
    return 2 if space.kind == "binary" else space.bins


class AutoregressiveModule(nn.Module):
    """The family's module: a context, (B, K) or (B, K, H, W) -> AutoregressiveDistribution."""

    def __init__(self, config: Autoregressive, space: Space):
        super().__init__()
        levels, (channels, *_) = levels_of(space), space.shape
        assert levels is not None, "check() refuses it"
        self.space, self.levels, self.context = space, levels, config.context
        self.network = config.network(channels)
        self.law: CategoricalLaw | LogisticMixtureLaw
        if config.law == "categorical":
            self.law = CategoricalLaw(config.width, channels, levels)
        else:
            self.law = LogisticMixtureLaw(config.width, space, config.components)

    def forward(self, params: Tensor) -> AutoregressiveDistribution:
        """Return the distribution of each row."""
        context = at_least_float32(params)
        return AutoregressiveDistribution(self, context if context.ndim == 4 else context[:, :, None, None])

    def level(self, value: Tensor) -> Tensor:
        """Return the levels of an image, (B, C, H, W), as numbers 0..L-1."""
        return value.round() if self.space.kind == "binary" else Bins(self.space).level(value)

    @torch.no_grad()
    def start_at_values(self, values: Tensor) -> None:
        """Start the scales of all layers from rows of data, (N, C, H, W) (Salimans & Kingma 2016, section 3)."""
        level = self.level(values[:START_ROWS])
        layers = [layer for layer in self.modules() if isinstance(layer, CausalConv)]
        for layer in layers:
            layer.is_starting = True
        AutoregressiveDistribution(self, level.new_zeros(len(level), self.context, 1, 1)).log_mass(level)
        for layer in layers:
            layer.is_starting = False


class AutoregressiveDistribution:
    """B distributions of images.

    Args:
        module: The family's module.
        context: What its layers are given besides, (B, K, 1, 1) or (B, K, H, W).
    """

    def __init__(self, module: AutoregressiveModule, context: Tensor):
        self._module, self._context = module, context

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log mass of bits; of levels, a density that is even within a bin, (B, C, H, W) -> (B,) nats."""
        space = self._module.space
        return self.log_prob_bins(value) + (space.log_det_to_data if space.kind == "real" else 0.0)

    def log_prob_bins(self, value: Tensor) -> Tensor:
        """Return the log-probability of the values' levels in one pass of the network, (B,) nats."""
        return self.log_mass(self._module.level(value))

    def log_mass(self, level: Tensor) -> Tensor:
        """Return the log-probability of levels, (B, C, H, W) -> (B,) nats."""
        features = self._module.network(centred(level, self._module.levels), self._context)
        return self._module.law.log_mass(features, level)

    @torch.no_grad()
    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """Draw pixel by pixel, from what the layers keep of earlier ones; values lie evenly within their bins."""
        space = self._module.space
        _, height, width = space.shape
        level = draw_levels(self._module, self._context, PixelNoise(noise, height, width))
        if space.kind == "binary":
            return ReadyDraw(sample=level)
        return ReadyDraw(sample=Bins(space).within(level, noise.uniform(*space.shape)))


class PixelNoise:
    """Noise of images, drawn whole and handed out pixel by pixel, so that it does not depend on how one draws."""

    def __init__(self, noise: NoiseSource, height: int, width: int):
        self._noise, self._size = noise, (height, width)
        self._drawn: list[Tensor] = []

    def at(self, row: int, column: int) -> OnePixel:
        """Return the noise of one pixel."""
        return OnePixel(self, row, column)

    def whole(self, call: int, channels: int) -> Tensor:
        """Return the uniform numbers of the call-th request of every pixel, (B, channels, H, W)."""
        if call == len(self._drawn):
            self._drawn.append(self._noise.uniform(channels, *self._size))
        return self._drawn[call]

    @property
    def rows(self) -> int:
        """B."""
        return self._noise.rows

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type."""
        return self._noise.dtype


class OnePixel:
    """The noise of one pixel, a NoiseSource."""

    def __init__(self, noise: PixelNoise, row: int, column: int):
        self._noise, self._row, self._column, self._calls = noise, row, column, 0
        self.rows, self.dtype = noise.rows, noise.dtype

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform numbers, (B, channels, 1, 1)."""
        channels, height, width = shape
        assert height == width == 1, "one pixel"
        whole = self._noise.whole(self._calls, channels)
        self._calls += 1
        return whole[:, :, self._row : self._row + 1, self._column : self._column + 1]

    def normal(self, *shape: int) -> Tensor:
        """No law asks for normal numbers."""
        raise NotImplementedError


def draw_levels(module: AutoregressiveModule, context: Tensor, noise: PixelNoise) -> Tensor:
    """Draw the levels of images, (B, C, H, W), by one pass in all: each layer runs once at each pixel."""
    channels, height, width = module.space.shape
    network, law, rows = module.network, module.law, len(context)
    level = context.new_zeros(rows, channels, height, width)
    x = with_ones(context.new_zeros(rows, channels, height + 1, width + 1))  # moved down and right
    at = Cursor(height, width)

    def here(row: slice, column: slice) -> Tensor:
        return context if context.shape[2:] == (1, 1) else context[:, :, row, column]

    with Counter("drawing rows of pixels") as count:
        for r in range(height):
            at.row, at.column, row = r, None, slice(r, r + 1)
            vertical = network.vertical(x[:, :, row, 1:], here(row, slice(None)), at)
            for c in range(width):
                at.column, column = c, slice(c, c + 1)
                seen = [v[..., column] for v in vertical]
                features = network.horizontal(x[:, :, r + 1 : r + 2, column], seen, here(row, column), at)
                drawn = law.draw(features, noise.at(r, c))
                level[:, :, row, column] = drawn
                x[:, :channels, r + 1 : r + 2, c + 1 : c + 2] = centred(drawn, module.levels)
            count(r + 1, height)
    return level


def draw_levels_naively(module: AutoregressiveModule, context: Tensor, noise: PixelNoise) -> Tensor:
    """Draw the same levels by a pass of the whole network for every pixel, to test and to time against."""
    channels, height, width = module.space.shape
    level = context.new_zeros(len(context), channels, height, width)
    for r in range(height):
        for c in range(width):
            features = module.network(centred(level, module.levels), context)
            level[:, :, r : r + 1, c : c + 1] = module.law.draw(features[:, :, r : r + 1, c : c + 1], noise.at(r, c))
    return level
