"""The continuous Bernoulli: the density on [0, 1] that is proportional to a Bernoulli's lambda^x (1 - lambda)^(1-x)."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import (
    Capabilities,
    ConfigError,
    NoiseSource,
    ReadyDraw,
    Space,
    at_least_float32,
    log1mexp,
    sum_event,
)
from jointgen_families.bins import Bins
from jointgen_families.draws import inner_uniform
from jointgen_families.location_scale import check_real
from jointgen_families.means import where_reached

# |logit| below which series replace closed forms that are 0 / 0 at 0. Their first term left out is below 1e-12; the
# closed forms lose no more than 1e-6 in float32 (the quantile's gradient, which cancels twice, 1e-5).
NEAR_ZERO, NEAR_ZERO_QUANTILE = 0.3, 0.03


def _either(logits: Tensor, bound: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return (|logit| < bound, logits for a series, |logits| for a closed form).

    where() differentiates both branches, so each is given harmless arguments where it is not used.
    """
    is_near = logits.abs() < bound
    return is_near, torch.where(is_near, logits, 0.0), torch.where(is_near, 1.0, logits.abs())


def log_sinhc(t: Tensor) -> Tensor:
    """Return log[sinh(t/2) / (t/2)] for |t| < 0.3 by its series, t^2/24 - t^4/2880 + t^6/181440 - t^8/9676800."""
    s = t * t
    return s / 24 * (1 - s / 120 * (1 - s / 63 * (1 - s * 3 / 160)))


def log_density(logits: Tensor, x: Tensor) -> Tensor:
    """Return the log of exp(logit x) logit / (e^logit - 1), elementwise, for x in [0, 1]; finite for any logit.

    Away from 0, with a = |logit| and d the distance of x from the end where the density is highest, it is
    -a d + log a - log(1 - e^-a): no exponential of a large number, and no difference of two large ones.
    """
    is_near, near, a = _either(logits, NEAR_ZERO)
    d = torch.where(logits > 0, 1 - x, x)
    return torch.where(is_near, near * (x - 0.5) - log_sinhc(near), -a * d + torch.log(a) - log1mexp(-a))


def log_mass(logits: Tensor, centre: Tensor, width: float) -> Tensor:
    """Return the log of the mass of the bin of this centre and width in [0, 1], elementwise.

    Near logit 0 it is the density at the centre times width sinh(logit width / 2) / (logit width / 2); away from it
    e^(-a d) (1 - e^(-a width)) / (1 - e^-a), with d the distance of the bin's nearer end (see `log_density`).
    """
    is_near, near, a = _either(logits, NEAR_ZERO)
    series = near * (centre - 0.5) - log_sinhc(near) + math.log(width) + log_sinhc(near * width)
    d = (torch.where(logits > 0, 1 - centre, centre) - width / 2).clamp(min=0)  # rounding may leave -1e-8
    return torch.where(is_near, series, -a * d + log1mexp(-a * width) - log1mexp(-a))


def mean_of(logits: Tensor) -> Tensor:
    """Return the mean 1 / (1 - e^-logit) - 1 / logit, elementwise; 1/2 at 0 (docs/concepts/densities.md)."""
    is_near, near, a = _either(logits, NEAR_ZERO)
    s = near * near
    series = 0.5 + near / 12 * (1 - s / 60 * (1 - s / 42 * (1 - s / 40)))
    upper = -1 / torch.expm1(-a) - 1 / a  # at +a; at -a it is one minus that
    return torch.where(is_near, series, torch.where(logits > 0, upper, 1 - upper))


def quantile(logits: Tensor, u: Tensor) -> Tensor:
    """Return the quantile F^-1(u) = log(1 + u (e^logit - 1)) / logit, elementwise; u at logit 0.

    Near 0 it is the cumulant series of a Bernoulli(u) variable: sum_k kappa_k logit^(k - 1) / k!. The density of
    -logit is the mirror image, so the closed form is only used with exponents below 0.
    """
    is_near, near, a = _either(logits, NEAR_ZERO_QUANTILE)
    v, skew = u * (1 - u), 1 - 2 * u
    series = u + near * v / 2 * (1 + near / 3 * (skew + near / 4 * (1 - 6 * v + near / 5 * skew * (1 - 12 * v))))
    mirrored = torch.where(logits > 0, 1 - u, u)
    from_end = -torch.log1p(mirrored * torch.expm1(-a)) / a
    return torch.where(is_near, series, torch.where(logits > 0, 1 - from_end, from_end))


class ContinuousBernoulliDistribution:
    """B rows of independent continuous Bernoulli variables on the range of a Space.

    Args:
        logits: log lambda / (1 - lambda), (B, *shape).
        space: The Space of the variable.
    """

    def __init__(self, logits: Tensor, space: Space):
        assert space.range is not None
        self.logits, self.space = logits, space
        self._low, self._range = space.range[0], space.range[1] - space.range[0]

    @property
    def mean(self) -> Tensor:
        """The expectation, which is not lambda, (B, *shape)."""
        return self._low + self._range * mean_of(self.logits)

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """Draw by one uniform number per element and the inverse distribution function."""
        x = quantile(self.logits, inner_uniform(noise, *self.logits.shape[1:]))
        return ReadyDraw(sample=self._low + self._range * x, mean=self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density, (B, *shape) -> (B,) nats; outside [low, high] the same exponential continues."""
        size = value[0].numel()
        return sum_event(log_density(self.logits, self._unit(value))) - size * math.log(self._range)

    def log_prob_each(self, value: Tensor) -> Tensor:
        """Return the log-density of every dimension, (B, *shape) -> (B, *shape) nats."""
        return log_density(self.logits, self._unit(value)) - math.log(self._range)

    def log_prob_bins(self, value: Tensor) -> Tensor:
        """Return the log of the exact mass of each value's bin, (B, *shape) -> (B,) nats; the masses sum to 1."""
        bins = Bins(self.space)
        centre = self._unit(bins.centre(bins.level(value)))
        return sum_event(log_mass(self.logits, centre, 1 / bins.count))

    def _unit(self, value: Tensor) -> Tensor:
        return (value - self._low) / self._range


@attrs.frozen
class ContinuousBernoulli:
    """Continuous Bernoulli variables, for decoders of real variables whose range is known.

    It is a proper density of grey values with an exact sample path (Loaiza-Ganem & Cunningham 2019;
    docs/concepts/densities.md). Its nats are those of a density and cannot be compared with those of binarised images.
    """

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self._check(space)
        return Capabilities({"sample": "exact", "mean": "exact"}, bin_mass=space.bins is not None, each_density=True)

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Return the shape of the parameters that the trunk must output, without the batch axis."""
        self._check(space)
        return space.shape

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        self._check(space)
        return ContinuousBernoulliModule(space)

    def _check(self, space: Space) -> None:
        check_real("continuous_bernoulli", space)
        if space.range is None:
            raise ConfigError(f'"continuous_bernoulli" needs a variable of known range, this one is {space}', "type")


class ContinuousBernoulliModule(nn.Module):
    """The family's module: (B, *shape) -> ContinuousBernoulliDistribution with logits = params + offset."""

    def __init__(self, space: Space):
        super().__init__()
        self.space = space
        self.offset = nn.Parameter(torch.zeros(space.shape))

    def forward(self, params: Tensor) -> ContinuousBernoulliDistribution:
        """Return the distribution of each row."""
        return ContinuousBernoulliDistribution(at_least_float32(params) + self.offset, self.space)

    @torch.no_grad()
    def start_at(self, mean: Tensor) -> None:
        """Set the offset so that a zero output has this mean (*shape), kept 1 % of the range from its ends."""
        assert self.space.range is not None
        low, high = self.space.range
        unit = ((mean.double() - low) / (high - low)).clamp(0.01, 0.99)
        self.offset.copy_(where_reached(mean_of, unit, bound=128.0))  # at 100 it is 0.99
