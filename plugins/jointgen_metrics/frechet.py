"""The Fréchet distance (FID) of Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, eq. 6."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from jointgen.plugin import Batch, ExtractorField, FeatureBatch, MetricFigure, ModelView, in_float64, valid_count
from jointgen_metrics.generation import Against, Compared, Reading, side_by_side


@attrs.frozen(eq=False)
class Moments:
    """The statistic of features: their mean and covariance, in double precision; see `Mean`.

    Args:
        n: The number of rows.
        mean: (F,) means.
        m2: (F, F) sum of outer products of deviations from the mean.
    """

    n: int
    mean: Tensor
    m2: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """The statistic of a batch of features, (B, F), on the CPU."""
        values = in_float64(features)
        mean = values.mean(0)
        centred = values - mean
        return cls(len(values), mean.cpu(), (centred.T @ centred).cpu())

    def merge(self, other: Moments) -> Moments:
        """The statistic of both sets of rows together (Chan, Golub & LeVeque 1983, eq. 2.1)."""
        n = self.n + other.n
        apart = other.mean - self.mean
        m2 = (self.m2 + other.m2).addr_(apart, apart, alpha=self.n * other.n / n)
        return Moments(n, self.mean + apart * (other.n / n), m2)

    @property
    def covariance(self) -> Tensor:
        """(F, F), divided by n - 1."""
        return self.m2 / (self.n - 1)

    def tensors(self) -> dict[str, Tensor]:
        """See `Statistic.tensors`."""
        return {"n": torch.tensor([self.n]), "mean": self.mean, "m2": self.m2}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Moments:
        """See `Statistic.from_tensors`."""
        return cls(int(tensors["n"]), tensors["mean"], tensors["m2"])


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared 2-Wasserstein distance of two Gaussians, |m_a - m_b|^2 + tr(A + B - 2 (A B)^1/2).

    (A B)^1/2 has the same trace as (A^1/2 B A^1/2)^1/2, whose matrices are symmetric.
    """
    A, B = a.covariance, b.covariance
    values, vectors = torch.linalg.eigh(A)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = root @ B @ root
    cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + A.trace() + B.trace() - 2 * cross
    return max(0.0, float(distance))  # rounding can leave a little less


@attrs.frozen
class FID:
    """The Fréchet distance between Gaussians fitted to features of draws and of data (Heusel et al. 2017, eq. 6).

    A squared distance of features; lower is better. Few draws bias it upwards, and with fewer rows than features, whose
    covariance is then singular, by multiples; the figure says so.

    Args:
        samples: The number of draws; published figures usually have 50000.
        reading: "mean" scores the decoder's means, "sample" adds the likelihood's own noise.
        extractor: The extractor of features; None for the first that suits the data and is available.
        against: The split of the data, all of whose rows are taken.
    """

    samples: int = attrs.field(default=10_000, validator=valid_count)
    reading: Reading = "mean"
    extractor: ExtractorField | None = None
    against: Against = "train"

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        return [self._figure(compared) for compared in side_by_side(model, self)]

    def _figure(self, compared: Compared) -> MetricFigure:
        unit, estimator = "squared distance", "Gaussians fitted to features of draws and of data"
        if why := compared.absent:
            return compared.missing("fid", unit, estimator, why)
        statistics = (
            compared.of_draws("moments", _moments, Moments, self.samples),
            compared.of_real("moments", _moments, Moments, self.against),
        )
        return compared.figure("fid", unit, estimator, statistics, finish=_finish, remark=_remark, better="lower")


def _moments(extracted: FeatureBatch, batch: Batch) -> Moments:
    return Moments.of(extracted.features)


def _finish(draws: Moments, data: Moments) -> tuple[float | None, float | None]:
    return (frechet_distance(draws, data), None) if min(draws.n, data.n) > 1 else (None, None)


def _remark(draws: Moments, data: Moments) -> str:
    rows, features = min(draws.n, data.n), len(data.mean)
    return f"{rows} rows for {features} features: biased upwards by much" if rows <= features else ""
