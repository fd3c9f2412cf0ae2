"""Gaussians with correlations, to match distributions of correlated codes."""

from __future__ import annotations

import torch
from torch import Tensor

from jointgen.plugin import LOG_2PI, NoiseSource, Space, in_float64, sum_event
from jointgen_families.location_scale import LocationScaleDraw

JITTER = 1e-5
"""The share of independent noise that is added to a correlation matrix, so that one without full rank has a root."""


class CorrelatedGaussian:
    """B Gaussians value = mean + scale * (root @ N(0, I)), with root @ root' their correlation.

    Args:
        mean: The means, (B, *shape).
        log_scale: The logarithms of the standard deviations, (B, *shape).
        correlation: The correlations, (B, D, D) with ones on the diagonal, for D numbers in a value.
        space: The Space of the variable.
    """

    def __init__(self, mean: Tensor, log_scale: Tensor, correlation: Tensor, space: Space):
        self.mean, self.log_scale, self.space = mean, log_scale, space
        doubles = in_float64(correlation)
        eye = torch.eye(correlation.shape[-1], dtype=torch.float64, device=doubles.device)
        mixed = (doubles + JITTER * eye) / (1 + JITTER)  # float32 cannot root what is nearly singular
        self.root = torch.linalg.cholesky(mixed).to(mean)

    def draw(self, noise: NoiseSource) -> LocationScaleDraw:
        """Draw by D normal numbers."""
        eps = self.root @ noise.normal(self.space.size).unsqueeze(2)
        return LocationScaleDraw(self.mean, self.log_scale.exp(), eps.view_as(self.mean))

    def standardize(self, value: Tensor) -> Tensor:
        """Return root^-1 ((value - mean) / scale), (B, *shape): N(0, I) for draws of this distribution."""
        scaled = (value - self.mean) * torch.exp(-self.log_scale)
        return torch.linalg.solve_triangular(self.root, scaled.flatten(1).unsqueeze(2), upper=False).view_as(value)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density, (B, *shape) -> (B,) nats."""
        diagonal = self.root.diagonal(dim1=1, dim2=2).log().sum(1)
        return -sum_event(0.5 * self.standardize(value) ** 2 + self.log_scale + 0.5 * LOG_2PI) - diagonal
