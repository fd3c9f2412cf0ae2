"""The kernel distance (KID) of Bińkowski et al., "Demystifying MMD GANs", 2018, section 4."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from jointgen.plugin import ExtractorField, FigureValue, KeptRows, MetricFigure, ModelView, between, in_float64
from jointgen_metrics.generation import Against, Compared, Reading, kept_features, side_by_side

MAX_CELLS = 2**23
"""Cells of a kernel's matrix that are held at a time: 64 MB."""


@attrs.frozen
class KID:
    """The squared MMD between features of draws and of data, by the kernel (a.b / F + 1)^3 (Bińkowski et al. 2018).

    The estimate is unbiased, and so at times below 0. It takes all pairs of rows at once, which has the expectation of
    the published mean over subsets of 1000 rows and less noise. The standard error is the jackknife's, to first order.

    Args:
        samples: The number of draws, and at the most so many rows of the data, evenly apart; time is quadratic in it.
        reading: "mean" scores the decoder's means, "sample" adds the likelihood's own noise.
        extractor: The extractor of features; None for the first that suits the data and is available.
        against: The split of the data.
    """

    samples: int = attrs.field(default=10_000, validator=between(1, 1_000_000))
    reading: Reading = "mean"
    extractor: ExtractorField | None = None
    against: Against = "train"

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        return [self._figure(compared) for compared in side_by_side(model, self)]

    def _figure(self, compared: Compared) -> MetricFigure:
        unit, estimator = "squared MMD", "unbiased, cubic kernel, all pairs"
        if why := compared.absent:
            return compared.missing("kid", unit, estimator, why)
        statistics = kept_features(compared, self.samples, self.against)
        return compared.figure("kid", unit, estimator, statistics, finish=_finish, better="lower")


def _finish(draws: KeptRows, data: KeptRows) -> FigureValue:
    if min(draws.n, data.n) < 2:
        return None, None
    return kernel_distance(draws.in_order()["features"], data.in_order()["features"])


def kernel_distance(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Estimates the squared MMD from features (n, F) and (m, F), n and m at least 2.

    It is the mean of k(x, x') - 2 k(x, y) + k(y, y') over pairs of different rows. Leaving out one x moves it by 2 / n
    times the difference between that x's own mean of k(x, x') - k(x, y) and the average one.

    Returns:
        (estimate, standard error).
    """
    x, y = in_float64(x), in_float64(y)
    within_x, within_y = _mean_of_others(x), _mean_of_others(y)
    across_x, across_y = _row_sums(x, y) / len(y), _row_sums(y, x) / len(x)
    estimate = within_x.mean() - across_x.mean() - across_y.mean() + within_y.mean()
    variance = sum(4 * (w - a).var() / len(w) for w, a in ((within_x, across_x), (within_y, across_y)))
    return float(estimate), float(variance) ** 0.5


def _mean_of_others(x: Tensor) -> Tensor:
    """(n,) means of the kernel of each row with every other one."""
    own = _kernel(x.square().sum(1), x.shape[1])
    return (_row_sums(x, x) - own) / (len(x) - 1)


def _row_sums(x: Tensor, y: Tensor) -> Tensor:
    """(n,) sums of the kernel of each row of x with all rows of y."""
    blocks = x.split(max(1, MAX_CELLS // len(y)))
    return torch.cat([_kernel(block @ y.T, x.shape[1]).sum(1) for block in blocks])


def _kernel(products: Tensor, size: int) -> Tensor:
    return (products / size + 1.0) ** 3
