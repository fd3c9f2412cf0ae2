"""Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020), by nearest neighbours."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from jointgen.plugin import ExtractorField, FigureValue, KeptRows, MetricFigure, ModelView, between, in_float64
from jointgen_metrics.generation import Against, Compared, Reading, kept_features, side_by_side

MAX_CELLS = 2**23
"""Distances that are held at a time: 64 MB."""
FIGURES = {
    "precision": ("fraction", "draws within a ball of data"),
    "recall": ("fraction", "data within a ball of draws"),
    "density": ("ratio", "balls of data that a draw is in, over k"),
    "coverage": ("fraction", "data whose ball has a draw in it"),
}
"""Unit, and what is averaged; a ball reaches from a row to its k-th nearest among its own kind."""


@attrs.frozen
class PRDC:
    """Precision, recall, density and coverage of draws in the space of features; higher is better.

    Precision and recall are those of Kynkäänniemi et al. 2019, density and coverage those of Naeem et al. 2020.

    Args:
        k: Neighbours; Naeem et al. take 5, and Kynkäänniemi et al. 3 with 50000 rows. Figures depend on k and the rows.
        samples: The number of draws, and at the most so many rows of the data, evenly apart; time is quadratic in it.
        reading: "mean" scores the decoder's means, "sample" adds the likelihood's own noise.
        extractor: The extractor of features; None for the first that suits the data and is available.
        against: The split of the data.
    """

    k: int = attrs.field(default=5, validator=between(1, 10_000))
    samples: int = attrs.field(default=10_000, validator=between(1, 1_000_000))
    reading: Reading = "mean"
    extractor: ExtractorField | None = None
    against: Against = "train"

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        return [figure for compared in side_by_side(model, self) for figure in self._figures(compared)]

    def _figures(self, compared: Compared) -> list[MetricFigure]:
        if why := compared.absent:
            return [compared.missing(name, unit, estimator, why) for name, (unit, estimator) in FIGURES.items()]
        statistics, found = kept_features(compared, self.samples, self.against), dict[str, float]()

        def figure(name: str, draws: KeptRows, data: KeptRows) -> FigureValue:
            if min(draws.n, data.n) <= self.k:
                return None, None
            if not found:  # four figures of the same distances
                found.update(prdc(draws.in_order()["features"], data.in_order()["features"], self.k))
            return found[name], None

        return [
            compared.figure(
                name,
                unit,
                estimator,
                statistics,
                f"k = {self.k}",
                finish=lambda draws, data, name=name: figure(name, draws, data),
                better="higher",
            )
            for name, (unit, estimator) in FIGURES.items()
        ]


def prdc(draws: Tensor, data: Tensor, k: int) -> dict[str, float]:
    """The four figures by name, from features (n, F) and (m, F), n and m more than k.

    A ball reaches from a row to its k-th nearest neighbour among its own kind. A row on the edge of a ball is in it.
    """
    centre = in_float64(data).mean(0)  # distances cancel less there
    x, y = in_float64(draws) - centre, in_float64(data) - centre
    radius_x, radius_y = _radii(x, k), _radii(y, k)
    recalled, covered = torch.zeros(len(y), dtype=torch.bool), torch.zeros(len(y), dtype=torch.bool)
    balls = []  # of data, that each draw is in
    for rows, radii in zip(_blocks(x, len(y)), _blocks(radius_x, len(y)), strict=True):
        apart = _squared_distances(rows, y)
        inside = apart <= radius_y
        balls.append(inside.sum(1))
        covered |= inside.any(0)
        recalled |= (apart <= radii[:, None]).any(0)
    count = torch.cat(balls).double()
    means = ((count > 0).double(), recalled.double(), count / k, covered.double())
    return {name: float(mean.mean()) for name, mean in zip(FIGURES, means, strict=True)}


def _radii(x: Tensor, k: int) -> Tensor:
    """(n,) squared distances of each row to its k-th nearest neighbour; the nearest of all is the row itself."""
    blocks = _blocks(x, len(x))
    return torch.cat([_squared_distances(block, x).kthvalue(k + 1, dim=1).values for block in blocks])


def _blocks(rows: Tensor, width: int) -> tuple[Tensor, ...]:
    return rows.split(max(1, MAX_CELLS // width))


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(n, F), (m, F) -> (n, m)."""
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0)
