"""Diagonal Gaussians."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import LOG_2PI, Capabilities, NoiseSource, Space, sum_event
from jointgen_families.bins import Bins, log_bin_mass
from jointgen_families.location_scale import (
    LocationScale,
    LocationScaleDistribution,
    LocationScaleDraw,
    LocationScaleModule,
)


class GaussianDraw(LocationScaleDraw):
    """A draw that knows its density.

    The gradients through the sample's mean and through the density's mean cancel, so neither is computed.
    """

    def __init__(self, law: DiagonalGaussian, eps: Tensor):
        super().__init__(law.mean, law.scale, eps)
        self._law = law

    def log_prob(self) -> Tensor:
        """Return the log-density of the sample with its total gradient, (B,) nats."""
        return self._law.standard_log_prob(self._eps)


class DiagonalGaussian(LocationScaleDistribution):
    """B rows of independent N(mean, scale^2) variables."""

    def draw(self, noise: NoiseSource) -> GaussianDraw:
        """Draw mean + scale eps, with one eps per element (Kingma & Welling 2014, section 2.4)."""
        return GaussianDraw(self, noise.normal(*self.mean.shape[1:]))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return -sum 1/2 ((v - mean) / scale)^2 + log scale + 1/2 log 2 pi, (B, *shape) -> (B,) nats."""
        return self.standard_log_prob(self.standardize(value))

    def log_prob_each(self, value: Tensor) -> Tensor:
        """Return the log-density of every dimension, (B, *shape) -> (B, *shape) nats."""
        return -(0.5 * self.standardize(value) ** 2 + (self.log_scale + 0.5 * LOG_2PI))

    def standard_log_prob(self, eps: Tensor) -> Tensor:
        """Return the log-density at mean + scale eps, (B, *shape) -> (B,) nats."""
        return sum_event(torch.add(torch.rsub(self.log_scale, -0.5 * LOG_2PI), eps**2, alpha=-0.5))

    def moments(self) -> DiagonalGaussian:
        """Return the same Gaussian without a gradient."""
        return DiagonalGaussian(self.mean.detach(), self.log_scale.detach(), self.space)

    def log_prob_bins(self, value: Tensor) -> Tensor:
        """Return the log of the exact mass of each value's bin, (B, *shape) -> (B,) nats (docs/concepts/densities.md).

        The bins at the edges are *not* extended to infinity, as in the formula of the AS-VAE paper and of IAF. The
        mass outside [low, high] is lost, so the code length is valid but a little looser than PixelCNN++'s.
        """
        bins = Bins(self.space)
        return sum_event(log_bin_mass(*self.standard_bins(bins.level(value), bins)))

    def kl_to(self, other: DiagonalGaussian) -> Tensor:
        """Return KL(self || other) = sum log(s'/s) + (s^2 + (m - m')^2) / (2 s'^2) - 1/2, (B,) nats.

        To N(0, I) this is Kingma & Welling 2014, appendix B.
        """
        log_ratio = other.log_scale - self.log_scale  # log s'/s
        standard = (self.mean - other.mean) * torch.exp(-other.log_scale)
        return sum_event(log_ratio + 0.5 * (torch.exp(-2 * log_ratio) + standard**2 - 1))


@attrs.frozen
class Gaussian(LocationScale):
    """A diagonal Gaussian, for encoders and decoders of real variables. Its scale is the standard deviation."""

    name: ClassVar[str] = "gaussian"

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self.check(space)
        bins = space.bins is not None
        kl_to = ("normal", "gaussian")
        return Capabilities(self.readings(), kl_to=kl_to, bin_mass=bins, moments=True, each_density=True)

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        self.check(space)
        return LocationScaleModule(self, space, DiagonalGaussian)
