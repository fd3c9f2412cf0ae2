"""The Fréchet distance (FID): Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, eq 6."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from jointgen.plugin import Batch, ExtractorField, FeatureBatch, MetricFigure, ModelView, positive
from jointgen_metrics.generation import Against, Compared, Reading, side_by_side


@attrs.frozen(eq=False)
class Moments:
    """Number, mean (F,) and `m2`, the sum of outer products of deviations from it (F, F), in double precision.

    Merged as jointgen.contracts.statistics.Mean is (Chan, Golub and LeVeque 1983).
    """

    n: int
    mean: Tensor
    m2: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """(B, F) -> their moments, on the CPU."""
        values = features.double()
        mean = values.mean(0)
        centred = values - mean
        return cls(len(values), mean.cpu(), (centred.T @ centred).cpu())

    def merge(self, other: Moments) -> Moments:
        n = self.n + other.n
        apart = other.mean - self.mean
        m2 = (self.m2 + other.m2).addr_(apart, apart, alpha=self.n * other.n / n)
        return Moments(n, self.mean + apart * (other.n / n), m2)

    @property
    def covariance(self) -> Tensor:
        return self.m2 / (self.n - 1)

    def tensors(self) -> dict[str, Tensor]:
        return {"n": torch.tensor([self.n]), "mean": self.mean, "m2": self.m2}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Moments:
        return cls(int(tensors["n"]), tensors["mean"], tensors["m2"])


def frechet_distance(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(A + B - 2 (A B)^1/2), the squared 2-Wasserstein distance of two Gaussians.

    (A B)^1/2 has the trace of (A^1/2 B A^1/2)^1/2, whose matrices are symmetric.
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
    """The Fréchet distance between Gaussians fitted to the features of draws and of data; biased upwards by few draws.

    samples: draws; published figures usually have 50000.
    reading: "mean" scores the decoder's means, "sample" adds the likelihood's own noise.
    extractor: of the features; without one, that which suits the data and can be had.
    against: the split of the data, all of whose rows are taken.
    """

    samples: int = attrs.field(default=10_000, validator=positive)
    reading: Reading = "mean"
    extractor: ExtractorField | None = None
    against: Against = "train"

    def figures(self, model: ModelView) -> list[MetricFigure]:
        return [self._measure(compared) for compared in side_by_side(model, self)]

    def _measure(self, compared: Compared) -> MetricFigure:
        unit, how = "squared distance", "Gaussians fitted to features of draws and of data"
        if why := compared.absent:
            return compared.missing("fid", unit, how, why)
        collects = (
            compared.of_draws("moments", _moments, Moments, self.samples),
            compared.of_real("moments", _moments, Moments, self.against),
        )
        return compared.measure("fid", unit, how, collects, finish=_finish, better="lower")


def _moments(extracted: FeatureBatch, batch: Batch) -> Moments:
    return Moments.of(extracted.features)


def _finish(draws: Moments, data: Moments) -> tuple[float | None, float | None]:
    return (frechet_distance(draws, data), None) if min(draws.n, data.n) > 1 else (None, None)
