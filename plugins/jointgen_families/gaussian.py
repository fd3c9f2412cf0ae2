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
    """A draw that knows its density: eps has no gradient, so the mean's two ways, which cancel, need not be taken."""

    def __init__(self, law: DiagonalGaussian, eps: Tensor):
        super().__init__(law.mean, law.scale, eps)
        self._law = law

    def log_prob(self) -> Tensor:
        """(B,) nats of the sample, with the whole gradient."""
        return self._law.standard_log_prob(self._eps)


class DiagonalGaussian(LocationScaleDistribution):
    """B independent N(mean, scale^2)."""

    def draw(self, noise: NoiseSource) -> GaussianDraw:
        """One eps per element; z = mean + scale eps (Kingma & Welling 2014, section 2.4)."""
        return GaussianDraw(self, noise.normal(*self.mean.shape[1:]))

    def log_prob(self, value: Tensor) -> Tensor:
        """(B, *shape) -> (B,) nats: -sum 1/2 ((v - mean) / scale)^2 + log scale + 1/2 log 2 pi."""
        return self.standard_log_prob(self.standardize(value))

    def standard_log_prob(self, eps: Tensor) -> Tensor:
        """(B, *shape) -> (B,) nats, the density at mean + scale eps."""
        return -sum_event(0.5 * eps**2 + (self.log_scale + 0.5 * LOG_2PI))

    def moments(self) -> DiagonalGaussian:
        """Itself, without a gradient."""
        return DiagonalGaussian(self.mean.detach(), self.log_scale.detach(), self.space)

    def log_prob_bins(self, value: Tensor) -> Tensor:
        """(B, *shape) -> (B,) nats: log of the exact mass of the bin in which each value lies (docs/densities.md).

        The bins at the edges are *not* extended to infinity (the AS-VAE paper's and IAF's formula): mass outside
        [low, high] is lost, so the code length stays valid but is a little looser than PixelCNN++'s.
        """
        bins = Bins(self.space)
        return sum_event(log_bin_mass(*self.standard_bins(bins.level(value), bins)))

    def kl_to(self, other: DiagonalGaussian) -> Tensor:
        """(B,) nats: KL(self || other) = sum log(s'/s) + (s^2 + (m - m')^2) / (2 s'^2) - 1/2.

        To N(0, I) this is Kingma & Welling 2014, appendix B.
        """
        log_ratio = other.log_scale - self.log_scale  # log s'/s
        standard = (self.mean - other.mean) * torch.exp(-other.log_scale)
        return sum_event(log_ratio + 0.5 * (torch.exp(-2 * log_ratio) + standard**2 - 1))


@attrs.frozen
class Gaussian(LocationScale):
    """Diagonal Gaussian, for encoders and decoders of real variables. Its scale is the standard deviation."""

    name: ClassVar[str] = "gaussian"

    def capabilities(self, space: Space) -> Capabilities:
        self.check(space)
        bins = space.bins is not None
        return Capabilities(self.readings(), kl_to=("normal", "gaussian"), bin_mass=bins, moments=True)

    def build(self, space: Space) -> nn.Module:
        self.check(space)
        return LocationScaleModule(self, space, DiagonalGaussian)
