"""Distances between the aggregate posterior q(z) and the prior p(z), by draws of both."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from jointgen.plugin import (
    MAX_SIZE,
    Batch,
    Display,
    FigureValue,
    KeptRows,
    MetricFigure,
    ModelView,
    Noise,
    Provenance,
    StatisticSpec,
    between,
    in_float64,
)
from jointgen_metrics.codes import NO_CODES, codes_of, encoded, prior_codes

CHUNK_ROWS = 256
"""Rows whose kernels with all others are held at a time."""


def code_draws(model: ModelView, code: str, rows: int) -> StatisticSpec:
    """Keep draws of a code, (n, D) each: of q(z), one for each x ("q"), of p(z) ("p"), and of p(z) again ("again")."""

    def of(batch: Batch) -> KeptRows:
        priors = {name: prior_codes(model, batch, name)[code] for name in ("p", "again")}
        values = {"q": encoded(model, batch)[code], **priors}
        return KeptRows.of(batch.index, **{name: value.flatten(1) for name, value in values.items()})

    return StatisticSpec(f"draws of {code}", of, KeptRows, rows=rows)


# --- sliced Wasserstein ----------------------------------------------------------------------------------------------


@attrs.frozen
class SlicedWasserstein:
    """The sliced 2-Wasserstein distance between q(z) and p(z), in units of the code (Rabin et al. 2012).

    The root of the mean over directions of the squared distance between projections of as many draws of each; 0 only
    where the two sets are equal. Two sets of draws of one distribution are apart too: `sw_z_floor` is the distance
    between two sets of p's draws, beside which `sw_z` is read.

    Args:
        rows: Draws of each, one code for each x.
        directions: Fixed directions, in orthonormal bases (Rowland et al. 2019).
    """

    rows: int = attrs.field(default=10_000, validator=between(2, MAX_SIZE))
    directions: int = attrs.field(default=256, validator=between(1, 100_000))

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        if not (codes := codes_of(model)):
            return [MetricFigure("sw_z", "code units", "", note=NO_CODES)]
        return [figure for code in codes for figure in self._figures(model, code)]

    def _figures(self, model: ModelView, code: str) -> list[MetricFigure]:
        spec, is_data = code_draws(model, code, self.rows), model.is_data(model.joints["p"].drawn_by(code))
        beside = "" if is_data else f"two sets of draws of one distribution are apart, too: sw_{code}_floor"
        distance = self._figure(f"sw_{code}", "q's draws and p's", spec, "q", beside)
        distance = attrs.evolve(distance, better="lower")
        if is_data:
            why = f"p({code}) is data, of which there is one set"
            return [distance, MetricFigure(f"sw_{code}_floor", "code units", "p's draws and others", note=why)]
        floor = self._figure(f"sw_{code}_floor", "p's draws and others", spec, "again", "what draws of p itself have")
        return [distance, floor]

    def _figure(self, name: str, between: str, spec: StatisticSpec, against: str, note: str) -> MetricFigure:
        def finish(kept: KeptRows) -> FigureValue:
            draws = kept.in_order()
            along = directions(draws["p"].shape[1], self.directions)
            return sliced_wasserstein(draws[against], draws["p"], along), None

        def protocol(collected: Provenance) -> str:
            return f"{collected.rows} draws, {self.directions} directions"

        title = name.replace("sw_", "sliced Wasserstein of ").replace("_", " ")
        display = Display(title, "codes", 0)
        estimator = f"sliced 2-Wasserstein distance between {between}"
        return MetricFigure(
            name, "code units", estimator, (spec,), note=note, finish=finish, protocol=protocol, display=display
        )


def directions(size: int, count: int) -> Tensor:
    """The directions, (size, count) unit vectors, always the same: orthonormal bases of R^size, the last one cut."""
    width = min(size, count)
    bases = Noise(0, "sliced Wasserstein").named(f"directions in {size}", math.ceil(count / width)).normal(size, width)
    return torch.linalg.qr(bases).Q.movedim(0, 1).flatten(1)[:, :count]


def sliced_wasserstein(a: Tensor, b: Tensor, along: Tensor) -> float:
    """The distance between draws a and b, (n, D) each, along directions (D, K).

    On a line, optimal transport takes the i-th smallest draw to the i-th smallest.
    """
    ranked = [in_float64((draws.float() @ along).sort(0).values) for draws in (a, b)]
    return (ranked[0] - ranked[1]).square().mean().sqrt().item()


# --- maximum mean discrepancy ----------------------------------------------------------------------------------------


def are_positive(instance: object, attribute: attrs.Attribute[list[float]], value: list[float]) -> None:
    """Validates a list of one or more numbers above 0."""
    if not value or min(value) <= 0:
        raise ValueError(f"{attribute.name!r} must be a list of numbers > 0: {value}")


@attrs.frozen
class MMD:
    """The squared maximum mean discrepancy between q(z) and p(z) (Gretton et al. 2012, eq. 4).

    The estimate is unbiased, and so at times below 0; its standard error is the jackknife's. The kernel is the mean
    over scales of c / (c + |a - b|^2), with c = scale x the mean squared distance of two draws of p(z): the inverse
    multiquadratics of Tolstikhin et al. 2018 (for N(0, I), c = scale x 2 D).

    Args:
        rows: Draws of each, one code for each x; time is quadratic in them.
        scales: The scales of the kernel.
    """

    rows: int = attrs.field(default=2000, validator=between(2, 1_000_000))
    scales: list[float] = attrs.field(factory=lambda: [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0], validator=are_positive)

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        if not (codes := codes_of(model)):
            return [MetricFigure("mmd_z", "MMD^2", "", note=NO_CODES)]
        return [self._figure(model, code) for code in codes]

    def _figure(self, model: ModelView, code: str) -> MetricFigure:
        def finish(kept: KeptRows) -> FigureValue:
            draws = kept.in_order()
            if kept.n < 2:
                return None, None
            q, p = in_float64(draws["q"]), in_float64(draws["p"])
            return squared_mmd(q, p, [scale * mean_squared_distance(p) for scale in self.scales])

        spec = code_draws(model, code, self.rows)
        estimator = "unbiased, inverse multiquadratic kernels, draws of q and of p"
        scales = f"scales {', '.join(f'{scale:g}' for scale in self.scales)} of the mean squared distance under p"
        return MetricFigure(
            f"mmd_{code}",
            "MMD^2",
            estimator,
            (spec,),
            finish=finish,
            better="lower",
            protocol=scales,
            display=Display(f"MMD of {code}", "codes", 1),
        )


def mean_squared_distance(draws: Tensor) -> float:
    """The mean of |a - b|^2 over pairs of different rows of (n, D), which is twice the summed variance."""
    return 2 * draws.var(0).sum().item()


def squared_mmd(a: Tensor, b: Tensor, widths: list[float]) -> FigureValue:
    """The U statistic of (m, D) draws of each, m at least 2, and its standard error.

    U is the mean over i != j of h_ij = k(a_i, a_j) + k(b_i, b_j) - k(a_i, b_j) - k(b_i, a_j). Without row i it is
    U_i = (S - 2 R_i) / ((m - 1) (m - 2)), for R_i the sum of h over j and S the sum of all R_i.
    """
    m = len(a)
    R = torch.cat([_row_sums(a, b, start, widths) for start in range(0, m, CHUNK_ROWS)])
    U = R.sum() / (m * (m - 1))
    if m < 3:
        return U.item(), None
    without = (R.sum() - 2 * R) / ((m - 1) * (m - 2))
    return U.item(), ((m - 1) / m * (without - U).square().sum()).sqrt().item()


def _row_sums(a: Tensor, b: Tensor, start: int, widths: list[float]) -> Tensor:
    """R_i of CHUNK_ROWS rows."""
    x, y = a[start : start + CHUNK_ROWS], b[start : start + CHUNK_ROWS]
    h = kernel(x, a, widths) + kernel(y, b, widths) - kernel(x, b, widths) - kernel(y, a, widths)
    h[torch.arange(len(x)), start + torch.arange(len(x))] = 0.0
    return h.sum(1)


def kernel(a: Tensor, b: Tensor, widths: list[float]) -> Tensor:
    """The kernel, the mean over c of c / (c + |a - b|^2), of rows (n, D) and (m, D) -> (n, m)."""
    squared = torch.cdist(a, b).square()
    return sum((c / (c + squared) for c in widths), start=torch.zeros_like(squared)) / len(widths)
