"""In the place of a part of the model, for a prior that is made of one (a mixture of the encoder's posteriors)."""

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
"""What the stand-in for a part is given."""
STAND_IN = Capabilities({"sample": "exact", "mean": "exact"})


class StandIn:
    """In the place of a part that a prior is made of: N(W x, 1/4), W fixed."""

    def __init__(self, space: Space):
        self.shape, self.weight = space.shape, normal_like("stand-in", GIVEN["x"].size, space.size)

    def __call__(self, x: Tensor, k: int = 1, rows: Tensor | None = None) -> StandInLaw:
        mean = (x @ self.weight.to(x.dtype)).unflatten(1, self.shape)
        return StandInLaw(mean[rows] if rows is not None else mean.repeat_interleave(k, 0))


class StandInLaw:
    """B rows of N(mean, 1/4); mean (B, *shape)."""

    def __init__(self, mean: Tensor):
        self.mean = mean

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        return ReadyDraw(sample=self.mean + 0.5 * noise.normal(*self.mean.shape[1:]), mean=self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """(B, *shape) -> (B,) nats: -sum (v - mean)^2 / (2 / 4) + 1/2 log 2 pi + log 1/2."""
        return -sum_event(2 * (value - self.mean) ** 2 + 0.5 * LOG_2PI - math.log(2))
