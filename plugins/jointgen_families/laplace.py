"""Independent Laplace variables, whose negative log-density is an absolute error."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import Capabilities, NoiseSource, Space, log1mexp, sum_event
from jointgen_families.bins import Bins
from jointgen_families.draws import standard_laplace
from jointgen_families.location_scale import (
    LocationScale,
    LocationScaleDistribution,
    LocationScaleDraw,
    LocationScaleModule,
)


def laplace_log_mass(m: Tensor, delta: Tensor) -> Tensor:
    """Return the log of the mass of a bin of width delta about m, both standardised; finite wherever they are.

    The mass of a bin beside the mean is 1/2 e^-(m - delta/2) (1 - e^-delta). That of a bin about the mean is
    1/2 (1 - e^-a) + 1/2 (1 - e^-b) for the distances a, b of its ends. Nothing cancels in either.
    """
    m = m.abs()  # the mass is even in m
    beside = m >= delta / 2
    # where() differentiates both branches, so each is given harmless arguments where it is not used
    outer, width = torch.where(beside, m, 1.0), torch.where(beside, delta, 1.0)
    inner, around = torch.where(beside, 0.0, m), torch.where(beside, 1.0, delta)
    from_ends = -torch.expm1(-around / 2 - inner) - torch.expm1(inner - around / 2)
    return torch.where(beside, width / 2 - outer + log1mexp(-width), torch.log(from_ends)) - math.log(2)


class LaplaceDistribution(LocationScaleDistribution):
    """B rows of independent Laplace(mean, scale): density exp(-|v - mean| / scale) / (2 scale)."""

    def draw(self, noise: NoiseSource) -> LocationScaleDraw:
        """Draw by one uniform number per element."""
        return LocationScaleDraw(self.mean, self.scale, standard_laplace(noise, *self.mean.shape[1:]))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return -sum |v - mean| / scale + log 2 scale, (B, *shape) -> (B,) nats."""
        return sum_event(self.log_prob_each(value))

    def log_prob_each(self, value: Tensor) -> Tensor:
        """Return the log-density of every dimension, (B, *shape) -> (B, *shape) nats."""
        return -(self.standardize(value).abs() + self.log_scale + math.log(2))

    def log_prob_bins(self, value: Tensor) -> Tensor:
        """Return the log of the exact mass of each value's bin, (B,) nats; mass outside [low, high] is lost."""
        bins = Bins(self.space)
        return sum_event(laplace_log_mass(*self.standard_bins(bins.level(value), bins)))


@attrs.frozen
class Laplace(LocationScale):
    """Independent Laplace variables, for encoders and decoders. A scale b gives a standard deviation of b sqrt 2."""

    name: ClassVar[str] = "laplace"

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self.check(space)
        return Capabilities(self.readings(), bin_mass=space.bins is not None, each_density=True)

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        self.check(space)
        return LocationScaleModule(self, space, LaplaceDistribution)
