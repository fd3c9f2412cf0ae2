"""Radial flows (Rezende & Mohamed 2015, section 4.1): layers that expand or contract the density around a centre."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jointgen.plugin import DensityKind, valid_depth
from jointgen_families.flows.chain import MIN_SLOPE, Chain
from jointgen_families.flows.distribution import Flow


@attrs.frozen
class Radial(Flow):
    """f(z) = z + beta (z - c) / (alpha + |z - c|), with alpha > 0 and beta > -alpha.

    Args:
        base: The Gaussian that the flow starts from.
        length: The number of layers.
        amortized: Whether the trunk outputs every layer's c, alpha and beta, length * (D + 2) numbers, for each row;
            learned ones that are the same for all rows are added to them.
    """

    name: ClassVar[str] = "radial"
    foreign_density: ClassVar[DensityKind] = "analytic"

    length: int = attrs.field(default=10, validator=valid_depth)
    amortized: bool = True

    def context_size(self, size: int) -> int:
        """Return how many numbers the trunk outputs for the flow."""
        return self.length * (size + 2) if self.amortized else 0

    def flow(self, size: int) -> nn.Module:
        """Build the flow's module, (B, context) -> Transform."""
        return RadialModule(self, size)


class RadialModule(nn.Module):
    """The flow's module: (B, context) -> Chain of RadialLayers, which start near the identity at different centres."""

    def __init__(self, config: Radial, size: int):
        super().__init__()
        self.amortized = config.amortized
        self.start = nn.Parameter(torch.randn(config.length, size + 2))
        with torch.no_grad():
            self.start[:, size:] *= 0.01

    def forward(self, context: Tensor) -> Chain:
        """Return the transform of each row."""
        params = self.start[None]  # (1 or B, length, D + 2)
        if self.amortized:
            params = params + context.unflatten(1, self.start.shape)
        return Chain([RadialLayer(layer) for layer in params.unbind(1)])


class RadialLayer:
    """f(z) = z + k u (z - c), u = alpha / (alpha + r), r = |z - c|, k = beta / alpha >= -1 + 1e-3.

    In the directions around c the map stretches by 1 + k u, outwards by 1 + k u^2, so
    log|det| = (D - 1) log(1 + k u) + log(1 + k u^2), which is Rezende & Mohamed's (2015) with k u = beta h.

    Args:
        params: The centre c and unbounded numbers for alpha and k, (1 or B, D + 2); at zero alpha = 1 and k = 0.
    """

    def __init__(self, params: Tensor):
        self.centre, raw_alpha, raw_k = params[:, :-2], params[:, -2], params[:, -1]
        self.alpha = positive_from(raw_alpha)
        self.k = positive_from(raw_k) - 1

    def forward(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(z0), (B, D), and log|det df/dz0|, (B,) nats."""
        away = z0 - self.centre
        u = self.alpha / (self.alpha + norm(away))
        return z0 + (self.k * u)[:, None] * away, self._log_det(u, z0.shape[1])

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return z0 with f(z0) = z, (B, D), and log|det df/dz0| there, (B,) nats."""
        away = z - self.centre
        u = self._u_from(norm(away) / self.alpha)
        return self.centre + away / (1 + self.k * u)[:, None], self._log_det(u, z.shape[1])

    def _u_from(self, s: Tensor) -> Tensor:
        """Return u of the z0 that is mapped to the distance s alpha from c, (B,).

        With r = alpha (1 - u) / u, |f(z0) - c| = r (1 + k u) is k u^2 + (s + 1 - k) u = 1, whose root in (0, 1] is
        taken in the form that subtracts nothing.
        """
        p, k = s + 1 - self.k, self.k
        half = (p.abs() + torch.sqrt((s - 1 - k) ** 2 + 4 * s)) / 2  # the square is p^2 + 4 k
        return torch.where(p >= 0, 1 / half, half / k.clamp(min=1))  # p < 0 only where k > 1

    def _log_det(self, u: Tensor, size: int) -> Tensor:
        return (size - 1) * torch.log1p(self.k * u) + torch.log1p(self.k * u**2)


def positive_from(raw: Tensor) -> Tensor:
    """Return a number above 1e-3 that is 1 at zero, by a softplus with an offset (docs/concepts/densities.md)."""
    return MIN_SLOPE + F.softplus(raw + math.log(math.expm1(1 - MIN_SLOPE)))


def norm(x: Tensor) -> Tensor:
    """Return the norm of each row, (B, D) -> (B,), with a zero gradient at zero."""
    return torch.linalg.vector_norm(x, dim=1)
