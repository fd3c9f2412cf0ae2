"""Integrals over a variable of one or two dimensions, or over all labels or all patterns of a few bits."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from jointgen.contracts.space import Space
from jointgen.testing.laws import Law

SHARES = (1 / 2000, 1 / 200, 1 / 40)
"""Shares of the samples below (and above) the edges of the panels in the tails, besides all of them."""
PANELS = {1: (64, 8, 8), 2: (14, 2, 5)}
"""For each number of dimensions, per axis: panels between the quantiles 0.05 and 0.95 of samples, panels beyond all of
them at each end, and points in each panel."""
MANY_BINS = 64  # a density with more bins is treated as smooth


@attrs.frozen
class Grid:
    """Points and weights such that sum_i weights_i f(points_i) is the integral, or the sum, of f.

    Args:
        points: The points, (N, *shape).
        weights: The weights, (N,).
        edges: The edges of the panels, for one dimension only.
    """

    points: Tensor
    weights: Tensor
    edges: Tensor

    def integral(self, values: Tensor) -> Tensor:
        """Return the integral of a function from its values at the points."""
        return (self.weights * values).sum()


def grid_of(law: Law, module: nn.Module, row: Tensor) -> Grid:
    """Return a grid that follows samples of the distribution of one row of params and goes well beyond them."""
    if law.space.kind == "binary":
        return _patterns(law.space)
    if law.space.kind == "label":
        return Grid(torch.eye(law.space.size).double(), torch.ones(law.space.size).double(), torch.empty(0))
    samples = law.draws(module, row, 4000, "quadrature").flatten(1)
    inner, outer, order = PANELS[samples.shape[1]]
    edges, axes, weights = zip(*(_axis(column, law.space, inner, outer, order) for column in samples.T), strict=True)
    points = torch.cartesian_prod(*axes).reshape(-1, *law.space.shape)
    return Grid(points, weights[0] if len(weights) == 1 else torch.outer(*weights).flatten(), edges[0])


def _patterns(space: Space) -> Grid:
    bits = torch.tensor([0.0, 1.0], dtype=torch.float64)
    points = torch.cartesian_prod(*[bits] * space.size).reshape(-1, *space.shape)
    return Grid(points, torch.ones(len(points), dtype=torch.float64), torch.empty(0))


def _axis(samples: Tensor, space: Space, panels: int, outer: int, order: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the edges, the points and the weights of the panels of one axis.

    Panels lie between quantiles, and beyond the samples go on to infinity, in a scale in which 1 / x^p is smooth:
    a heavy tail has much of its mass where no sample is. They end with the range of the Space if all samples do.
    """
    shares = torch.tensor(SHARES, dtype=torch.float64)
    inner = torch.linspace(0.05, 0.95, panels + 1, dtype=torch.float64)
    quantiles = torch.quantile(samples, torch.cat([torch.tensor([0.0, 1.0]).double(), shares, inner, 1 - shares]))
    scale = _Scale(*torch.quantile(samples, torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist())
    least, most = scale.squashed(quantiles[:2])
    beyond = torch.linspace(0, 1, outer + 1, dtype=torch.float64)
    low, high = scale.ends
    squashed = torch.cat([scale.squashed(quantiles), low + (least - low) * beyond, most + (high - most) * beyond])
    if space.range is not None:
        ends = list(space.range)
        if space.bins is not None and space.bins <= MANY_BINS:  # a density may have steps there
            ends = torch.linspace(*space.range, space.bins + 1).tolist()
        within = scale.squashed(torch.tensor(ends, dtype=torch.float64))
        squashed = torch.cat([squashed, within])
        if quantiles.min() >= space.range[0] and quantiles.max() <= space.range[1]:
            squashed = squashed.clamp(within[0], within[-1])
    edges = torch.unique(squashed)
    points, weights = _gauss_legendre(edges, order)
    return scale.stretched(edges), scale.stretched(points), weights * scale.slopes(points)


@attrs.frozen
class _Scale:
    """A line whose ends are squashed: u = x between low and high, and beyond them x = high + v / (1 - v / width)."""

    low: float
    high: float

    @property
    def width(self) -> float:
        return max(self.high - self.low, 1e-9)

    @property
    def ends(self) -> tuple[float, float]:
        """The u of minus infinity and infinity."""
        return self.low - self.width, self.high + self.width

    def squashed(self, x: Tensor) -> Tensor:
        """Return u of x."""
        over = x - x.clamp(self.low, self.high)
        return x - over + over / (1 + over.abs() / self.width)

    def stretched(self, u: Tensor) -> Tensor:
        """Return x of u."""
        over = u - u.clamp(self.low, self.high)
        return u - over + over / (1 - over.abs() / self.width).clamp(min=0.0)

    def slopes(self, u: Tensor) -> Tensor:
        """Return dx/du."""
        over = u - u.clamp(self.low, self.high)
        return 1 / (1 - over.abs() / self.width) ** 2


def _gauss_legendre(edges: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Return the points and weights of all panels."""
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(order))
    half = (edges[1:] - edges[:-1])[:, None] / 2
    centre = (edges[1:] + edges[:-1])[:, None] / 2
    return (centre + half * nodes).flatten(), (half * weights).flatten()


def panel_masses(grid: Grid, values: Tensor) -> Tensor:
    """Return the integral over each panel of a grid of one dimension."""
    return (grid.weights * values).reshape(len(grid.edges) - 1, -1).sum(1)


def integrals(edges: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the integral of f, (N,) -> (N,), between each edge and the next."""
    points, weights = _gauss_legendre(edges, 32)
    return (weights * f(points)).reshape(len(edges) - 1, -1).sum(1)
