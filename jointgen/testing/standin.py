"""A stand-in for a part of the model, for priors that are made of one, such as a mixture of posteriors."""

from __future__ import annotations

import math

from torch import Tensor

from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.distributions import ReadyDraw, sum_event
from jointgen.contracts.noise import NoiseSource
from jointgen.contracts.numerics import LOG_2PI
from jointgen.contracts.space import Space
from jointgen.testing.randomness import normal_like

GIVEN = {"x": Space((3,))}
"""The Spaces of the inputs of the stand-in."""
STAND_IN = Capabilities({"sample": "exact", "mean": "exact"})
"""What the stand-in can do."""


class StandIn:
    """A part that draws from N(W x, 1/4) with a fixed W, as a prior calls it."""

    def __init__(self, space: Space):
        self.shape, self.weight = space.shape, normal_like("stand-in", GIVEN["x"].size, space.size)

    def __call__(self, x: Tensor, k: int = 1, rows: Tensor | None = None) -> StandInLaw:
        """Return the distributions at x, as `jointgen.plugin.PartCall` says."""
        mean = (x @ self.weight.to(x.dtype)).unflatten(1, self.shape)
        return StandInLaw(mean[rows] if rows is not None else mean.repeat_interleave(k, 0))


class StandInLaw:
    """B rows of independent N(mean, 1/4) variables; mean is (B, *shape)."""

    def __init__(self, mean: Tensor):
        self.mean = mean

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """Draw by one normal number per element."""
        return ReadyDraw(sample=self.mean + 0.5 * noise.normal(*self.mean.shape[1:]), mean=self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return -sum (v - mean)^2 / (2 / 4) + 1/2 log 2 pi + log 1/2, (B, *shape) -> (B,) nats."""
        return -sum_event(2 * (value - self.mean) ** 2 + 0.5 * LOG_2PI - math.log(2))
