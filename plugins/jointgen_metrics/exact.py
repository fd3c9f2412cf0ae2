"""log p(x) itself, for models that are quadratic in the codes, or have so few codes that they can be integrated."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from jointgen.plugin import (
    LOG_2PI,
    NOISE_BLOCK,
    Batch,
    Display,
    MetricFigure,
    ModelView,
    Noise,
    between,
    in_float64,
    per_row,
    positive,
    valid_count,
    with_slope,
)
from jointgen_metrics.latents import Codes, Values, codes_of, slope_and_hessian
from jointgen_metrics.likelihood import EXACT_DISPLAY, bound, density_note, infers_codes, log_likelihood
from jointgen_metrics.quadrature import Integral, integrate

PROBES = 16
"""Pairs of codes at which a test finds out whether log p(x, z) is quadratic."""
FAR = 3.0
"""How many times further out than the prior's draws one code of a pair lies."""
MAX_GRID_DIMENSIONS = 2
"""So many numbers of a code, at the most, are integrated over on a grid."""


@attrs.frozen
class Exact:
    """log p(x) itself, in nats, neither a bound nor an estimate: the mean over rows.

    Where log p(x, z) is quadratic in z (linear networks and Gaussians), it is a Gaussian integral. Where z has one or
    two numbers, the integral over z is computed on a grid, which is refined until it no longer changes. A model without
    a code has it from one pass, for all rows.

    Args:
        rows: At most so many rows, evenly apart.
        chunk: At most so many points of grids are decoded at once.
        tolerance: Nats by which one more refinement may still change a row's integral. What the last one changed is a
            figure of its own, `exact_error`.
    """

    rows: int = attrs.field(default=100, validator=valid_count)
    chunk: int = attrs.field(default=4096, validator=valid_count)
    tolerance: float = attrs.field(default=1e-3, validator=[positive, between(0.0, 1e6)])

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        expr, _ = bound(model)
        if expr is not None and not infers_codes(model):
            return [log_likelihood(model, expr)]
        codes, reason = codes_of(model)
        if codes is None:
            return [MetricFigure("exact", "nats", "", note=reason)]
        if is_quadratic(codes):
            statistics = (per_row("exact", lambda batch: gaussian_integral(codes, batch), rows=self.rows),)
            estimator, note = "Gaussian integral over z", density_note(model)
            return [
                MetricFigure(
                    "exact", "nats", estimator, statistics, "exact", note, better="higher", display=EXACT_DISPLAY
                )
            ]
        if codes.size <= MAX_GRID_DIMENSIONS:
            return self._quadrature(codes)
        why = f"log p(x,z) is not quadratic in z, whose {codes.size} numbers are too many to integrate over"
        return [MetricFigure("exact", "nats", "", note=why)]

    def _quadrature(self, codes: Codes) -> list[MetricFigure]:
        def integral(batch: Batch) -> Integral:
            return batch.recall(f"exact {self}", lambda: self.integral(codes, batch))

        estimator, note = "integral over z on a grid", density_note(codes.model)
        value = per_row("exact", lambda batch: integral(batch).value, rows=self.rows, max_batch=NOISE_BLOCK)
        change = per_row("exact_error", lambda batch: integral(batch).change, rows=self.rows, max_batch=NOISE_BLOCK)
        return [
            MetricFigure("exact", "nats", estimator, (value,), "exact", note, better="higher", display=EXACT_DISPLAY),
            MetricFigure(
                "exact_error",
                "nats",
                "what the grid's last refinement changed",
                (change,),
                display=Display("exact, error", "likelihood", 5),
            ),
        ]

    def integral(self, codes: Codes, batch: Batch) -> Integral:
        """Integrates p(x, z) over z on a grid, for each row of a batch."""
        known = codes.known(codes.model.observe(batch)[1])

        def log_f(z: Tensor, row: Tensor) -> Tensor:
            return codes.log_joint(z, {name: value[row] for name, value in known.items()}, batch.noise)

        draws = codes.draw("p", known, batch.rows, batch.noise.renamed("exact"))
        reach = 2 * draws.abs().max().item() + 4  # generous for N(0, I), and grown where it does not suffice
        return integrate(log_f, batch.rows, codes.size, reach, like=draws, chunk=self.chunk, tolerance=self.tolerance)


def is_quadratic(codes: Codes) -> bool:
    """Whether log p(x, z) is a quadratic function of z, to rounding.

    Its slope halfway between two codes is then the mean of the slopes at both. The test takes x that p draws and codes
    far out, where any bend of a network shows.
    """
    noise = codes.model.noise(0, "exact").alone()
    given = _conditions(codes, noise)
    values = codes.model.draw("p", given, PROBES, noise)
    known = codes.known(values)
    a, b = codes.flat(values), FAR * codes.draw("p", known, PROBES, noise.renamed("far"))
    slopes = [
        in_float64(with_slope(lambda z: codes.log_joint(z, known, noise), place)[1]) for place in (a, b, (a + b) / 2)
    ]
    largest = torch.stack(slopes).abs().max()
    error = (0.5 * (slopes[0] + slopes[1]) - slopes[2]).abs().max()
    return bool(error <= math.sqrt(torch.finfo(a.dtype).eps) * largest)


def _conditions(codes: Codes, noise: Noise) -> Values:
    """Some values of what p takes from data sources, such as labels."""
    spaces = codes.model.spaces
    return {v: noise.named(f"given/{v}", PROBES).uniform(*spaces[v].shape) for v in codes.given}


def gaussian_integral(codes: Codes, batch: Batch) -> Tensor:
    """The log of the integral of p(x, z) over z where log p(x, z) is quadratic in z, (B,) float64.

    It is log p(x, z*) + Z/2 log 2 pi - 1/2 log det(-H) at the maximum z*, where the Hessian is H.
    """
    known = codes.known(codes.model.observe(batch)[1])

    def log_joint(z: Tensor) -> Tensor:
        return codes.log_joint(z, known, batch.noise)

    z = codes.draw("p", known, batch.rows, batch.noise.renamed("exact"))
    slope, hessian = slope_and_hessian(log_joint, z)
    root = torch.linalg.cholesky(-in_float64(hessian))  # (B, Z, Z)
    z = z + torch.cholesky_solve(in_float64(slope)[..., None], root)[..., 0].to(z)
    value, left = with_slope(log_joint, z)
    rest = torch.linalg.solve_triangular(root, in_float64(left)[..., None], upper=False)[..., 0]  # rounding of z*
    log_det = 2 * root.diagonal(dim1=1, dim2=2).log().sum(1)
    return in_float64(value) + 0.5 * rest.square().sum(1) + 0.5 * (codes.size * LOG_2PI - log_det)
