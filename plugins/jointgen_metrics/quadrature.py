"""Integrals of f(z) over one or two dimensions, for many rows at once, on grids that are refined where the mass is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from jointgen.plugin import in_float64, with_slope

LogF = Callable[[Tensor, Tensor], Tensor]
"""Maps places (N, Z), and the row of each (N,) int64, to log f, (N,)."""

CELLS_PER_AXIS = 32
"""Cells of the first grid along an axis."""
NEGLIGIBLE_NATS = 30.0
"""Nats below a row's largest cell at which another is left out: a share of 1e-13."""
MAX_CELL_SHARE = 0.5
"""The share of a row's largest cell above which the row's grid is still too coarse to be believed."""
MAX_REFINEMENTS = 30
"""Refinements, at the most, each of half the width."""
MAX_CELLS = 1 << 17
"""Cells of a row, at the most."""


@attrs.frozen(eq=False)
class Integral:
    """The integrals of B rows.

    Args:
        value: (B,) logs of the integrals.
        change: (B,) what the last refinement of a row's grid changed.
    """

    value: Tensor
    change: Tensor


@attrs.frozen(eq=False)
class Cells:
    """N cubes of one width.

    Args:
        centre: (N, Z) centres.
        row: (N,) int64, the row that each belongs to.
        width: The width of all cells.
        value: (N,) log f at the centres.
        most: (N,) the largest value of the tangent plane at the centre, a bound wherever log f is concave in the cell.
    """

    centre: Tensor
    row: Tensor
    width: float
    value: Tensor
    most: Tensor

    def log_mass(self) -> Tensor:
        """The (N,) log masses by the midpoint rule; its error falls faster than any power of the width for smooth f."""
        return self.value + self.centre.shape[1] * math.log(self.width)

    def split(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Halves the cells that are kept in every direction: (centres, rows) of the new cells."""
        corners = list(itertools.product((-0.25, 0.25), repeat=self.centre.shape[1]))
        shift = self.width * self.centre.new_tensor(corners)  # (2^Z, Z)
        return (self.centre[keep][:, None] + shift).flatten(0, 1), self.row[keep].repeat_interleave(len(corners))


def integrate(
    log_f: LogF, rows: int, size: int, reach: float, *, like: Tensor, chunk: int, tolerance: float
) -> Integral:
    """Integrates f over R^size for many rows.

    Args:
        log_f: The function.
        rows: The number of rows.
        size: The number of dimensions, 1 or 2.
        reach: Half the width of the first grid; it is widened where f has not yet fallen off at its sides.
        like: A tensor with the dtype and device of the places.
        chunk: Places at which log_f is evaluated at once.
        tolerance: What one more refinement may still change, in nats.
    """
    cells = _first(log_f, rows, size, reach, like, chunk)
    while _reaches_out(cells, rows):
        reach *= 2
        cells = _first(log_f, rows, size, reach, like, chunk)
    value = _log_sum(cells.log_mass(), cells.row, rows)
    change = torch.full_like(value, math.inf)
    left = torch.ones_like(change, dtype=torch.bool)  # rows whose grid is refined further
    for _ in range(MAX_REFINEMENTS):
        keep = left[cells.row] & (cells.most >= _largest(cells.value, cells.row, rows)[cells.row] - NEGLIGIBLE_NATS)
        cells = _cells(log_f, *cells.split(keep), cells.width / 2, chunk, like.device)
        mass = cells.log_mass()
        refined = _log_sum(mass, cells.row, rows)
        change = torch.where(left, (refined - value).abs(), change)
        value = torch.where(left, refined, value)
        coarse = _largest(mass, cells.row, rows) - value > math.log(MAX_CELL_SHARE)
        few = cells.row.bincount(minlength=rows) <= MAX_CELLS
        left = left & ((change > tolerance) | coarse) & few
        if not left.any():
            break
    return Integral(value, change)


def _first(log_f: LogF, rows: int, size: int, reach: float, like: Tensor, chunk: int) -> Cells:
    """The first grid: the whole cube, for every row. Cells lie where there is float64."""
    width, home = 2 * reach / CELLS_PER_AXIS, in_float64(like[:0]).device
    axis = (torch.arange(CELLS_PER_AXIS, dtype=like.dtype, device=home) + 0.5) * width - reach
    centre = torch.cartesian_prod(*[axis] * size).view(-1, size)
    row = torch.arange(rows, device=home).repeat_interleave(len(centre))
    return _cells(log_f, centre.repeat(rows, 1), row, width, chunk, like.device)


def _cells(log_f: LogF, centre: Tensor, row: Tensor, width: float, chunk: int, device: torch.device) -> Cells:
    values, most = [centre.new_empty(0, dtype=torch.float64)], [centre.new_empty(0, dtype=torch.float64)]
    for places, rows in zip(centre.split(chunk), row.split(chunk), strict=True):
        of = rows.to(device)
        value, slope = with_slope(lambda z, of=of: log_f(z, of), places.to(device))  # type: ignore[misc]
        values.append(in_float64(value))
        most.append(in_float64(value) + 0.5 * width * in_float64(slope).abs().sum(1))
    return Cells(centre, row, width, torch.cat(values), torch.cat(most))


def _reaches_out(cells: Cells, rows: int) -> bool:
    """Whether some row's f is not negligible in the outermost cells."""
    outermost = cells.centre.abs().amax(1) >= cells.centre.abs().max() * (1 - 1e-6)
    return bool((outermost & (cells.value > _largest(cells.value, cells.row, rows)[cells.row] - NEGLIGIBLE_NATS)).any())


def _largest(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """(rows,) maxima; -inf where a row has no values."""
    return values.new_full((rows,), -math.inf).scatter_reduce(0, row, values, "amax")


def _log_sum(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """(rows,) log of the sum of exp; -inf where a row has no values."""
    top = _largest(values, row, rows)
    total = torch.zeros_like(top).index_add(0, row, (values - top[row]).exp())
    return torch.where(total > 0, top + total.log(), -math.inf)
