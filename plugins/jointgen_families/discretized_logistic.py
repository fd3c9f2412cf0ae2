"""Discretised logistics: quantised data scored by the mass that a logistic puts on each bin."""

from __future__ import annotations

import functools
from typing import ClassVar, Literal, get_args

import attrs
from torch import Tensor, nn

from jointgen.plugin import Capabilities, NoiseSource, Space, sum_event
from jointgen_families.bins import Bins, extended_logistic_log_mass, logistic_log_mass
from jointgen_families.draws import standard_logistic, straight_through
from jointgen_families.location_scale import (
    LocationScale,
    LocationScaleDistribution,
    LocationScaleDraw,
    LocationScaleModule,
    check_quantised,
)

EdgeName = Literal["extended", "bounded"]


class DiscretizedLogisticDraw(LocationScaleDraw):
    """One logistic number l per element, a place u in its bin, and the readings.

    sample: mean + scale l, moved into its bin at the fraction u; beyond the range, into the bin at that edge. Its
        gradient is that of mean + scale l (straight-through): biased for the bins, most where they are wide against
        the scale and where much of the mass lies beyond an edge.
    smoothed: mean + stop(scale) l, in no bin and not kept in the range.
    mean: the logistic's own location; no noise. Where it lies near an edge, draws are on average further inside.
    """

    def __init__(self, mean: Tensor, scale: Tensor, eps: Tensor, u: Tensor, bins: Bins):
        super().__init__(mean, scale, eps)
        self._u, self._bins = u, bins

    def read(self, reading: str) -> Tensor:
        """(B, *shape)."""
        y = super().read(reading)
        if reading != "sample":
            return y
        return straight_through(self._bins.within(self._bins.level(y), self._u), y)


class DiscretizedLogisticDistribution(LocationScaleDistribution):
    """B rows of independent piecewise-constant densities on [low, high]: each bin's logistic mass over its width."""

    def __init__(self, mean: Tensor, log_scale: Tensor, space: Space, edges: EdgeName):
        super().__init__(mean, log_scale, space)
        self.bins, self.edges = Bins(space), edges

    def draw(self, noise: NoiseSource) -> DiscretizedLogisticDraw:
        shape = self.mean.shape[1:]
        eps, u = standard_logistic(noise, *shape), noise.uniform(*shape)
        return DiscretizedLogisticDraw(self.mean, self.scale, eps, u, self.bins)

    def log_prob(self, value: Tensor) -> Tensor:
        """(B, *shape) -> (B,) nats: the log masses of the values' bins - D log bin width, a density on [low, high].

        What dequantised data trains is thus the likelihood of its levels. Extended edges make it integrate to 1.
        Values outside the range count to the bin at that edge.
        """
        return self.log_prob_bins(value) + self.space.log_det_to_data

    def log_prob_bins(self, value: Tensor) -> Tensor:
        """(B, *shape) -> (B,) nats: log of the exact mass of the bin in which each value lies."""
        level = self.bins.level(value)
        m, delta = self.standard_bins(level, self.bins)
        if self.edges == "bounded":
            return sum_event(logistic_log_mass(m, delta))
        return sum_event(extended_logistic_log_mass(m, delta, level, self.bins.count))


@attrs.frozen
class DiscretizedLogistic(LocationScale):
    """Discretised logistic, for decoders of quantised data. Its scale s gives a standard deviation of s pi / sqrt 3.

    edges: extended, the bins at both ends take the tails beyond the range, so that all masses sum to 1 (PixelCNN++);
        bounded, they do not: mass outside is lost, a valid but looser code length (IAF with scale = "global", and
        the AS-VAE paper). A draw that falls outside is put into the bin at that edge under both, so that draws
        follow the density of extended edges; under bounded ones, log_prob is a lower bound of theirs.
    min_log_scale: -7 is a quarter of a level of an 8-bit image in [0, 1].
    """

    name: ClassVar[str] = "discretized_logistic"

    min_log_scale: float = -7.0
    edges: EdgeName = attrs.field(default="extended", validator=attrs.validators.in_(get_args(EdgeName)))

    def capabilities(self, space: Space) -> Capabilities:
        self.check(space)
        return Capabilities(self.readings(sample="straight-through"), bin_mass=True)

    def build(self, space: Space) -> nn.Module:
        self.check(space)
        return LocationScaleModule(self, space, functools.partial(DiscretizedLogisticDistribution, edges=self.edges))

    def check(self, space: Space) -> None:
        super().check(space)
        check_quantised(self.name, space)
