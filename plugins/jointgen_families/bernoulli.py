"""Independent Bernoulli bits, with relaxed readings where a gradient is needed."""

from __future__ import annotations

from typing import Literal, get_args

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jointgen.plugin import Capabilities, ConfigError, Draw, NoiseSource, PathKind, Space, between, sum_event
from jointgen_families.draws import straight_through

PathName = Literal["straight-through", "relaxed", "none"]

MAX_SUMMED = 10  # so many bits have patterns that can be summed over
EDGE = 1e-6  # uniform numbers keep this distance from 0 and 1, where logits are infinite


def open_uniform(noise: NoiseSource, *shape: int) -> Tensor:
    """Return uniform numbers in [1e-6, 1 - 1e-6], (B, *shape)."""
    return noise.uniform(*shape).clamp(EDGE, 1 - EDGE)


class BernoulliDraw:
    """A draw of bits: one logistic number l per element, and readings that are computed when they are read.

    - relaxed: sigmoid((logit + l) / temperature), a binary-concrete draw (Maddison et al. 2017, section 3.2), whose
      gradient is exact for the *concrete* distribution.
    - sample: the bit [relaxed > 1/2], which is Bernoulli(sigmoid(logit)) at any temperature. With a straight-through
      path its gradient is that of the relaxed reading, which is biased for an expectation under the bits; the
      temperature trades bias against variance. With a relaxed path the sample is the relaxed reading itself.
    - mean: sigmoid(logit), without noise.

    Args:
        logits: The logits of the bits, (B, *shape).
        logistic: The logistic numbers l, (B, *shape).
        temperature: The temperature of the relaxed reading.
        path: The gradient path of the sample.
    """

    def __init__(self, logits: Tensor, logistic: Tensor, temperature: float, path: PathName):
        self._logits, self._logistic, self._temperature, self._path = logits, logistic, temperature, path

    def read(self, reading: str) -> Tensor:
        """Return the reading, (B, *shape)."""
        if reading == "mean":
            return torch.sigmoid(self._logits)
        assert reading in ("sample", "relaxed"), f"a Bernoulli draw has no reading {reading!r}"
        relaxed = torch.sigmoid((self._logits + self._logistic) / self._temperature)
        if "relaxed" in (reading, self._path):
            return relaxed
        bits = (relaxed > 0.5).to(relaxed.dtype)
        return bits if self._path == "none" else straight_through(bits, relaxed)


class BernoulliDistribution:
    """B rows of independent Bernoulli(sigmoid(logits)) bits; logits (B, *shape)."""

    def __init__(self, logits: Tensor, temperature: float, path: PathName):
        self.logits, self._temperature, self._path = logits, temperature, path

    @property
    def mean(self) -> Tensor:
        """The probabilities of a one, (B, *shape)."""
        return torch.sigmoid(self.logits)

    def draw(self, noise: NoiseSource) -> BernoulliDraw:
        """Draw by one uniform number per element."""
        u = open_uniform(noise, *self.logits.shape[1:])
        return BernoulliDraw(self.logits, torch.logit(u), self._temperature, self._path)

    def values(self) -> Tensor:
        """Return all patterns of D bits, (2^D, *shape)."""
        shape, size = self.logits.shape[1:], self.logits[0].numel()
        number = torch.arange(1 << size, device=self.logits.device)[:, None]
        bits = number >> torch.arange(size - 1, -1, -1, device=self.logits.device) & 1
        return bits.to(self.logits.dtype).view(-1, *shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the sum of v log p + (1 - v) log(1 - p), minus the cross-entropy, (B, *shape) -> (B,) nats.

        It is a log-probability where the values are bits. At grey values it is only a cross-entropy. With a relaxed
        path, values are rounded to the bits that they relax, so that the likelihood is always that of bits.
        """
        return -sum_event(self._cross_entropy(value))  # the sign is changed of B numbers, not of each bit's

    def log_prob_each(self, value: Tensor) -> Tensor:
        """Return the log-probability of every bit, (B, *shape) -> (B, *shape) nats; see `log_prob`."""
        return -self._cross_entropy(value)

    def _cross_entropy(self, value: Tensor) -> Tensor:
        value = value.round() if self._path == "relaxed" else value
        return F.binary_cross_entropy_with_logits(self.logits, value, reduction="none")


@attrs.frozen
class Bernoulli:
    """Independent bits, for binary variables.

    Args:
        path: The gradient path of the reading "sample": straight-through, bits with a borrowed gradient, which is
            biased (see `BernoulliDraw`); relaxed, binary-concrete values with their exact gradient, which are scored
            as the bits that they round to; or none.
        temperature: The temperature of the reading "relaxed" and of the straight-through gradient
            (docs/concepts/densities.md).

    x thus gets a sample path in one of two ways: the encoder sees hard bits whose gradient is borrowed (option 3
    of docs/concepts/densities.md) or the relaxed values (option 2). A critic sees like with like by its view, "relaxed"
    on both sides; without it a relaxed path would show it soft draws beside hard data.
    """

    path: PathName = attrs.field(default="straight-through", validator=attrs.validators.in_(get_args(PathName)))
    temperature: float = attrs.field(default=0.5, validator=between(0.001, 1000.0))

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self._check(space)
        paths: dict[str, PathKind] = {"sample": self.path, "relaxed": "exact", "mean": "exact"}
        return Capabilities(paths, values=1 << space.size if space.size <= MAX_SUMMED else 0, each_density=True)

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Return the shape of the parameters that the trunk must output, without the batch axis."""
        self._check(space)
        return space.shape

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        self._check(space)
        return BernoulliModule(self, space)

    def _check(self, space: Space) -> None:
        if space.kind != "binary":
            raise ConfigError(f'"bernoulli" is a family of binary variables, this one is {space}', "type")


class BernoulliModule(nn.Module):
    """The family's module: (B, *shape) -> BernoulliDistribution with logits = params + offset."""

    def __init__(self, config: Bernoulli, space: Space):
        super().__init__()
        self.config = config
        self.offset = nn.Parameter(torch.zeros(space.shape))

    def forward(self, params: Tensor) -> BernoulliDistribution:
        """Return the distribution of each row."""
        return BernoulliDistribution(params + self.offset, self.config.temperature, self.config.path)

    @torch.no_grad()
    def start_at(self, mean: Tensor) -> None:
        """Set the offset to logit(mean), with the mean (*shape) kept in [0.01, 0.99]: some pixels are never on."""
        self.offset.copy_(torch.logit(mean, eps=0.01))

    def view(self, reading: str, draw: Draw, noise: NoiseSource) -> Tensor:
        """Return the concrete draw that observed bits would have come from, (B, *shape).

        With grey g (kept in [.001, .999]) and bit b, the logistic noise l is drawn from its distribution *given*
        b = [logit g + l > 0], so that the view is above 1/2 exactly where b = 1 and, b ~ Bernoulli(g), is a plain
        concrete draw of logit g (docs/concepts/densities.md).

        That is logit(g) + logit(u') with u' = 1 - g + u g for b = 1 and (1 - u)(1 - g) for b = 0. Written in the
        bit's own probability r, it is +-[log1p(u r / (1 - r)) - log1p(-u)], whose sign rounding cannot change.
        """
        assert reading == "relaxed", f"no reading {reading!r} of data here"
        bits, grey = draw.read("sample"), draw.read("mean").clamp(0.001, 0.999)
        u = open_uniform(noise, *bits.shape[1:])
        is_on = bits > 0.5
        r = torch.where(is_on, grey, 1 - grey)
        distance = torch.log1p(u * r / (1 - r)) - torch.log1p(-u)
        return torch.sigmoid(torch.where(is_on, distance, -distance) / self.config.temperature)
