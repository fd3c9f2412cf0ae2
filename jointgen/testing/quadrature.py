"""Integrals over a variable of one or two dimensions, or over all patterns of a few bits."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from jointgen.contracts.space import Space
from jointgen.testing.laws import Law

PANELS = {1: (64, 8, 8), 2: (14, 5, 5)}
"""For each number of dimensions, per axis: panels between quantiles of samples, panels beyond them at each end, and
points in each panel."""
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
    samples = law.draws(module, row, 4000, "quadrature").flatten(1)
    inner, outer, order = PANELS[samples.shape[1]]
    edges = [_edges(column, law.space, inner, outer) for column in samples.T]
    axes = [_axis(one, order) for one in edges]
    points = torch.cartesian_prod(*(points for points, _ in axes)).reshape(-1, *law.space.shape)
    weights = axes[0][1] if len(axes) == 1 else torch.outer(axes[0][1], axes[1][1]).flatten()
    return Grid(points, weights, edges[0])


def _patterns(space: Space) -> Grid:
    bits = torch.tensor([0.0, 1.0], dtype=torch.float64)
    points = torch.cartesian_prod(*[bits] * space.size).reshape(-1, *space.shape)
    return Grid(points, torch.ones(len(points), dtype=torch.float64), torch.empty(0))


def _edges(samples: Tensor, space: Space, panels: int, outer: int) -> Tensor:
    """Return panels between quantiles, then wider and wider ones, within the range of the Space if all samples are."""
    inner = torch.quantile(samples, torch.linspace(0, 1, panels + 1, dtype=torch.float64))
    spread = (inner[-1] - inner[0]).clamp(min=1e-9)
    beyond = 2 * spread * 2.0 ** torch.arange(1 - outer, 1, dtype=torch.float64)
    edges = torch.cat([inner, inner[0] - beyond, inner[-1] + beyond])
    if space.range is not None:
        low, high = space.range
        ends = [low, high]
        if space.bins is not None and space.bins <= MANY_BINS:  # a density may have steps there
            ends = torch.linspace(low, high, space.bins + 1).tolist()
        edges = torch.cat([edges, torch.tensor(ends, dtype=torch.float64)])
        if inner[0] >= low and inner[-1] <= high:
            edges = edges.clamp(low, high)
    return torch.unique(edges)


def _axis(edges: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Return the Gauss-Legendre points and weights of all panels."""
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(order))
    half = (edges[1:] - edges[:-1])[:, None] / 2
    centre = (edges[1:] + edges[:-1])[:, None] / 2
    return (centre + half * nodes).flatten(), (half * weights).flatten()


def panel_masses(grid: Grid, values: Tensor) -> Tensor:
    """Return the integral over each panel of a grid of one dimension."""
    return (grid.weights * values).reshape(len(grid.edges) - 1, -1).sum(1)


def integrals(edges: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the integral of f, (N,) -> (N,), between each edge and the next."""
    points, weights = _axis(edges, 32)
    return (weights * f(points)).reshape(len(edges) - 1, -1).sum(1)
