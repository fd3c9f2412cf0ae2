"""Discretised logistics: the density of quantised data is the mass that a logistic puts on each bin."""

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
    """A draw by one logistic number l and one place u in a bin for each element.

    - sample: mean + scale l, moved to the fraction u of its bin; beyond the range, of the bin at that edge. Its
      gradient is that of mean + scale l (straight-through). It is biased for the bins, most where they are wide
      against the scale and where much of the mass lies beyond an edge.
    - smoothed: mean + stop(scale) l, in no bin and not kept in the range.
    - mean: the logistic's location. Where it lies near an edge, draws are on average further inside.
    """

    def __init__(self, mean: Tensor, scale: Tensor, eps: Tensor, u: Tensor, bins: Bins):
        super().__init__(mean, scale, eps)
        self._u, self._bins = u, bins

    def read(self, reading: str) -> Tensor:
        """Return the reading, (B, *shape)."""
        y = super().read(reading)
        if reading != "sample":
            return y
        return straight_through(self._bins.within(self._bins.level(y), self._u), y)


class DiscretizedLogisticDistribution(LocationScaleDistribution):
    """B rows of independent piecewise-constant densities on [low, high]: the logistic mass of a bin over its width."""

    def __init__(self, mean: Tensor, log_scale: Tensor, space: Space, edges: EdgeName):
        super().__init__(mean, log_scale, space)
        self.bins, self.edges = Bins(space), edges

    def draw(self, noise: NoiseSource) -> DiscretizedLogisticDraw:
        """Draw by two uniform numbers per element."""
        shape = self.mean.shape[1:]
        eps, u = standard_logistic(noise, *shape), noise.uniform(*shape)
        return DiscretizedLogisticDraw(self.mean, self.scale, eps, u, self.bins)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the sum of the log masses of the values' bins, - D log bin width, (B, *shape) -> (B,) nats.

        Dequantised data thus trains the likelihood of its levels. With extended edges the density integrates to 1.
        Values outside the range count to the bin at that edge.
        """
        return self.log_prob_bins(value) + self.space.log_det_to_data

    def log_prob_bins(self, value: Tensor) -> Tensor:
        """Return the log of the exact mass of each value's bin, (B, *shape) -> (B,) nats."""
        return sum_event(self._log_masses(value))

    def log_prob_each(self, value: Tensor) -> Tensor:
        """Return the log mass of every value's bin, - log bin width, (B, *shape) -> (B, *shape) nats."""
        return self._log_masses(value) + self.space.log_det_to_data / self.space.size

    def _log_masses(self, value: Tensor) -> Tensor:
        level = self.bins.level(value)
        m, delta = self.standard_bins(level, self.bins)
        if self.edges == "bounded":
            return logistic_log_mass(m, delta)
        return extended_logistic_log_mass(m, delta, level, self.bins.count)


@attrs.frozen
class DiscretizedLogistic(LocationScale):
    """Discretised logistics, for decoders of quantised data. A scale s gives a standard deviation of s pi / sqrt 3.

    Args:
        scale: As for `LocationScale`, as are init_scale, max_log_scale and mean.
        min_log_scale: The least log scale; -7 is a quarter of a level of an 8-bit image in [0, 1].
        edges: With extended edges, the bins at both ends take the tails beyond the range, so that all masses sum to 1
            (PixelCNN++). With bounded ones they do not: the mass outside is lost, and the code length is valid but
            looser (IAF with scale = "global", and the AS-VAE paper). Under both, a draw that falls outside is put into
            the bin at that edge, so that draws follow the density of extended edges; the log_prob of bounded edges is
            a lower bound of it.
    """

    name: ClassVar[str] = "discretized_logistic"

    min_log_scale: float = -7.0
    edges: EdgeName = attrs.field(default="extended", validator=attrs.validators.in_(get_args(EdgeName)))

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self.check(space)
        return Capabilities(self.readings(sample="straight-through"), bin_mass=True, each_density=True)

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        self.check(space)
        return LocationScaleModule(self, space, functools.partial(DiscretizedLogisticDistribution, edges=self.edges))

    def check(self, space: Space) -> None:
        """Raise ConfigError for a variable that the family does not serve."""
        super().check(space)
        check_quantised(self.name, space)
