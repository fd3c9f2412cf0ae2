"""The kernel distance (KID): Bińkowski et al., "Demystifying MMD GANs", 2018, section 4."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from jointgen.plugin import ExtractorField, FigureValue, KeptRows, MetricFigure, ModelView, positive
from jointgen_metrics.generation import Against, Compared, Reading, kept_features, side_by_side

CELLS = 2**23  # of a kernel's matrix at a time: 64 MB


@attrs.frozen
class KID:
    """Unbiased squared MMD between the features of draws and of data, by the kernel (a.b / F + 1)^3; at times below 0.

    It is of all pairs of rows at once, which has the expectation of the published mean over subsets of 1000 rows and
    less noise. The standard error is the jackknife's, to first order.

    samples: draws, and at the most so many rows of the data, evenly apart; the time is quadratic in them.
    reading: "mean" scores the decoder's means, "sample" adds the likelihood's own noise.
    extractor: of the features; without one, that which suits the data and can be had.
    against: the split of the data.
    """

    samples: int = attrs.field(default=10_000, validator=positive)
    reading: Reading = "mean"
    extractor: ExtractorField | None = None
    against: Against = "train"

    def figures(self, model: ModelView) -> list[MetricFigure]:
        return [self._measure(compared) for compared in side_by_side(model, self)]

    def _measure(self, compared: Compared) -> MetricFigure:
        unit, how = "squared MMD", "unbiased, cubic kernel, all pairs"
        if why := compared.absent:
            return compared.missing("kid", unit, how, why)
        collects = kept_features(compared, self.samples, self.against)
        return compared.measure("kid", unit, how, collects, finish=_finish, better="lower")


def _finish(draws: KeptRows, data: KeptRows) -> FigureValue:
    if min(draws.n, data.n) < 2:
        return None, None
    return kernel_distance(draws.in_order()["features"], data.in_order()["features"])


def kernel_distance(x: Tensor, y: Tensor) -> tuple[float, float]:
    """(estimate, standard error) from features (n, F) and (m, F), n and m at least 2.

    mean of k(x, x') - 2 mean of k(x, y) + mean of k(y, y') over pairs of different rows. Leaving out one x moves it by
    2 / n times how far that x's own mean of k(x, x') - k(x, y) is from the average one.
    """
    x, y = x.double(), y.double()
    within_x, within_y = _mean_of_others(x), _mean_of_others(y)
    across_x, across_y = _row_sums(x, y) / len(y), _row_sums(y, x) / len(x)
    estimate = within_x.mean() - across_x.mean() - across_y.mean() + within_y.mean()
    variance = sum(4 * (w - a).var() / len(w) for w, a in ((within_x, across_x), (within_y, across_y)))
    return float(estimate), float(variance) ** 0.5


def _mean_of_others(x: Tensor) -> Tensor:
    """(n,): of each row, the mean of the kernel with every other one."""
    own = _kernel(x.square().sum(1), x.shape[1])
    return (_row_sums(x, x) - own) / (len(x) - 1)


def _row_sums(x: Tensor, y: Tensor) -> Tensor:
    """(n,): of each row of x, the sum of the kernel with all rows of y."""
    blocks = x.split(max(1, CELLS // len(y)))
    return torch.cat([_kernel(block @ y.T, x.shape[1]).sum(1) for block in blocks])


def _kernel(products: Tensor, size: int) -> Tensor:
    return (products / size + 1.0) ** 3
