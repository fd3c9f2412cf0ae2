"""The likelihood of PixelCNN++: a mixture of discretised logistics for each pixel (Salimans et al. 2017).

Everything here is in the paper's units, in which the range [low, high] of the data is [-1, 1] (docs/zoo/papers.md).
Shapes: K components, C channels, P = C (C - 1) / 2 pairs of channels.
"""

from __future__ import annotations

import math

import attrs
import torch
from einops import rearrange
from torch import Tensor, nn

from jointgen.plugin import (
    Capabilities,
    ConfigError,
    NoiseSource,
    ReadyDraw,
    Space,
    at_least_float32,
    positive,
    sum_event,
    valid_log_scale,
    valid_size,
)
from jointgen_families.bins import Bins, extended_logistic_log_mass
from jointgen_families.draws import standard_logistic, straight_through
from jointgen_families.location_scale import check_init_scale, check_quantised
from jointgen_families.means import where_reached


def mean_within(location: Tensor, scale: Tensor) -> Tensor:
    """Return the mean of a logistic variable y that is clamped to [-1, 1], elementwise.

    It is 1 - the integral of y's distribution function over [-1, 1], which is
    1 - s softplus((1 - m) / s) + s softplus((-1 - m) / s), written so that nothing large cancels.
    """
    from_below, from_above = (torch.log1p(torch.exp(-(location - end).abs() / scale)) for end in (-1, 1))
    return location.clamp(-1, 1) + scale * (from_below - from_above)


class LogisticMixtureDistribution:
    """B rows of independent pixels; the channels of a pixel share the component that they are drawn from.

    Args:
        logits: The logits of the components' weights, (B, K, H, W).
        locations: The components' locations, (B, K, C, H, W).
        log_scales: The logarithms of their scales, (B, K, C, H, W).
        coefficients: (B, K, P, H, W), with P = 0 where channels are not coupled. Channel c of component k is located
            at location_c + sum_{c' < c} coefficient_{c c'} x_c', x_c' the centre of the earlier channel's bin; for
            red, green and blue: m_G + c0 R and m_B + c1 R + c2 G.
        space: The Space of the variable.
    """

    def __init__(self, logits: Tensor, locations: Tensor, log_scales: Tensor, coefficients: Tensor, space: Space):
        self.log_weights = torch.log_softmax(logits, 1)
        self.locations, self.log_scales, self.coefficients = locations, log_scales, coefficients
        assert space.range is not None
        low, high = space.range
        self.space, self.bins, self._half = space, Bins(space), (high - low) / 2
        self._middle = low + self._half

    @property
    def mean(self) -> Tensor:
        """sum_k w_k E[y clamped to the range | k] for a logistic y at the component's location, (B, C, H, W).

        It is the expectation of a draw up to the place in a bin, where for a coupled channel the earlier channels are
        replaced by their expectations. Locations alone would not do, because at an edge they may lie far beyond it.
        """
        expected: list[Tensor] = []  # of each channel given the component, (B, K, H, W)
        for channel in range(self.locations.shape[2]):
            location = self._location(channel, expected)
            expected.append(mean_within(location, self.log_scales[:, :, channel].exp()))
        mixed = [(self.log_weights.exp() * each).sum(1) for each in expected]
        return self._middle + self._half * torch.stack(mixed, 1)

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """Draw a component for each pixel, then its channels in order, each put into its bin.

        The gradient of the sample is that of the chosen component's undiscretised draw (straight-through). None
        reaches the weights: the exact gradient of a mixture's draw, by its distribution function, has a second moment
        that grows exponentially in the gap between two components over their scale.
        """
        return ReadyDraw(sample=self.draw_values(noise), mean=self.mean)

    def draw_values(self, noise: NoiseSource) -> Tensor:
        """Return the sample of `draw`, (B, C, H, W)."""
        shape = self.locations.shape[2:]
        picked = self._pick(noise.uniform(1, *shape[1:]))  # (B, 1, H, W)
        eps, places = standard_logistic(noise, *shape), noise.uniform(*shape)
        sample: list[Tensor] = []
        earlier: list[Tensor] = []
        for channel in range(shape[0]):
            location = self._location(channel, earlier).gather(1, picked)
            scale = self.log_scales[:, :, channel].gather(1, picked).exp()
            y = location + scale * eps[:, channel : channel + 1]
            value = self._middle + self._half * y
            level = self.bins.level(value)
            earlier.append(straight_through(self._centre(level), y))
            sample.append(straight_through(self.bins.within(level, places[:, channel : channel + 1]), value))
        return torch.cat(sample, 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the sum of the log masses of the values' bins, - D log bin width, (B, C, H, W) -> (B,) nats."""
        return self.log_prob_bins(value) + self.space.log_det_to_data

    def log_prob_bins(self, value: Tensor) -> Tensor:
        """Return the sum over pixels of log sum_k w_k prod_c P_k(bin of x_c | bins of x_<c), (B,) nats."""
        level = self.bins.level(value).unsqueeze(1)  # (B, 1, C, H, W)
        earlier = list(self._centre(level).unbind(2))
        locations = torch.stack([self._location(c, earlier[:c]) for c in range(len(earlier))], 2)
        per_unit = torch.exp(-self.log_scales)
        m, delta = (self._centre(level) - locations) * per_unit, 2 / self.bins.count * per_unit
        log_mass = extended_logistic_log_mass(m, delta, level, self.bins.count).sum(2)  # (B, K, H, W)
        return sum_event(torch.logsumexp(self.log_weights + log_mass, 1))

    def _location(self, channel: int, earlier: list[Tensor]) -> Tensor:
        """Return a channel's location, (B, K, H, W), given the earlier channels, (B, K or 1, H, W) each."""
        location = self.locations[:, :, channel]
        if self.coefficients.shape[2] == 0:
            return location
        first = channel * (channel - 1) // 2
        for i, x in enumerate(earlier):
            location = location + self.coefficients[:, :, first + i] * x
        return location

    def _pick(self, u: Tensor) -> Tensor:
        """Return the component that u, (B, 1, H, W), falls into; the last takes what rounding leaves."""
        return (u >= self.log_weights.exp().cumsum(1)[:, :-1]).sum(1, keepdim=True)

    def _centre(self, level: Tensor) -> Tensor:
        return (2 * level + 1) / self.bins.count - 1


@attrs.frozen
class LogisticMixture:
    """A mixture of discretised logistics for each pixel, for decoders of quantised images (PixelCNN++).

    Args:
        components: The number of components per pixel; at the start their locations are spread evenly over the range.
        coupling: Whether the location of a channel depends linearly on the channels before it, by coefficients
            tanh(output).
        init_scale: The scale of every component at a zero output, where the range of the data is [-1, 1].
        min_log_scale: Log scales, in the same units, are clamped to this from below.
        max_log_scale: Log scales are clamped to this from above.
    """

    components: int = attrs.field(default=10, validator=valid_size)
    coupling: bool = True
    init_scale: float = attrs.field(default=0.1, validator=positive)
    min_log_scale: float = attrs.field(default=-7.0, validator=valid_log_scale)
    max_log_scale: float = attrs.field(default=3.0, validator=valid_log_scale)

    @init_scale.validator
    def _within_bounds(self, attribute: attrs.Attribute[float], value: float) -> None:
        check_init_scale(value, self.min_log_scale, self.max_log_scale)

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self._check(space)
        return Capabilities({"sample": "straight-through", "mean": "exact"}, bin_mass=True)

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Return the trunk's shape: K weights, K C locations, K C log scales and K P coefficients for each pixel."""
        self._check(space)
        return (sum(self.split(space)), *space.shape[1:])

    def split(self, space: Space) -> list[int]:
        """Return how many weights, locations, log scales and coefficients a pixel has."""
        C = space.shape[0]
        return [self.components * n for n in (1, C, C, C * (C - 1) // 2 if self.coupling else 0)]

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        self._check(space)
        return LogisticMixtureModule(self, space)

    def _check(self, space: Space) -> None:
        check_quantised("logistic_mixture", space)
        if len(space.shape) != 3:
            raise ConfigError(f'"logistic_mixture" is a family of images (C, H, W), this variable is {space}', "type")


class LogisticMixtureModule(nn.Module):
    """The family's module: (B, *outputs) -> LogisticMixtureDistribution.

    A component's location is the trunk's output + offset + the component's own place.
    """

    def __init__(self, config: LogisticMixture, space: Space):
        super().__init__()
        self.config, self.space = config, space
        self.offset = nn.Parameter(torch.zeros(space.shape))  # on [-1, 1]

    def forward(self, params: Tensor) -> LogisticMixtureDistribution:
        """Return the distribution of each row."""
        K, sizes = self.config.components, self.config.split(self.space)
        logits, *rest = at_least_float32(params).split(sizes, 1)
        locations, log_scales, coefficients = (rearrange(part, "b (k c) h w -> b k c h w", k=K) for part in rest)
        locations = locations + self.offset + self._places(logits)
        log_scales = log_scales + math.log(self.config.init_scale)
        return LogisticMixtureDistribution(
            logits,
            locations,
            log_scales.clamp(self.config.min_log_scale, self.config.max_log_scale),
            torch.tanh(coefficients),
            self.space,
        )

    @torch.no_grad()
    def start_at(self, mean: Tensor) -> None:
        """Shift all components so that a zero output has this mean (*shape), kept 1 % of the range from its ends."""
        assert self.space.range is not None
        low, high = self.space.range
        unit = ((2 * mean.double() - low - high) / (high - low)).clamp(-0.98, 0.98)
        places, scale = self._places(unit), unit.new_full((), self.config.init_scale)
        self.offset.copy_(where_reached(lambda shift: mean_within(shift + places, scale).mean(0), unit, bound=4.0))

    def _places(self, like: Tensor) -> Tensor:
        """Return the components' own places, evenly over [-1, 1], (K, 1, 1, 1)."""
        K = self.config.components
        places = (2 * torch.arange(K, dtype=like.dtype, device=like.device) + 1) / K - 1
        return rearrange(places, "k -> k 1 1 1")
