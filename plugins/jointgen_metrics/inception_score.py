"""The inception score of Salimans et al., "Improved Techniques for Training GANs", 2016, section 4."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from jointgen.plugin import (
    Batch,
    ExtractorField,
    FeatureBatch,
    Mean,
    MetricFigure,
    ModelView,
    between,
    in_float64,
    valid_count,
)
from jointgen_metrics.generation import Compared, Reading, side_by_side


@attrs.frozen(eq=False)
class Predictions:
    """The statistic of a classifier's predictions in S splits, in double precision.

    Args:
        rows: (S,) rows of each split.
        p: (S, K) sums of p(y|x).
        negative_entropy: (S,) sums of -H(y|x).
    """

    rows: Tensor
    p: Tensor
    negative_entropy: Tensor

    @classmethod
    def of(cls, logits: Tensor, split: Tensor, splits: int) -> Predictions:
        """The statistic of logits (B, K), for rows that are in the splits (B,) int64."""
        log_p = in_float64(logits).log_softmax(1).cpu()
        member = torch.nn.functional.one_hot(split.cpu(), splits).double()  # (B, S)
        entropies = (log_p.exp() * log_p).nan_to_num(0.0).sum(1)  # 0 log 0 = 0
        return cls(member.sum(0).long(), member.T @ log_p.exp(), member.T @ entropies)

    @property
    def n(self) -> int:
        """The number of rows."""
        return int(self.rows.sum())

    def merge(self, other: Predictions) -> Predictions:
        """The statistic of both sets of rows together."""
        return Predictions(self.rows + other.rows, self.p + other.p, self.negative_entropy + other.negative_entropy)

    def scores(self) -> Tensor:
        """The score of each split that has rows: exp of the mutual information of x and y within it."""
        has = self.rows > 0
        marginal = self.p[has] / self.rows[has, None]
        entropy = -torch.special.xlogy(marginal, marginal).sum(1)
        return (self.negative_entropy[has] / self.rows[has] + entropy).exp()

    def tensors(self) -> dict[str, Tensor]:
        """See `Statistic.tensors`."""
        return {"rows": self.rows, "p": self.p, "negative_entropy": self.negative_entropy}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Predictions:
        """See `Statistic.from_tensors`."""
        return cls(tensors["rows"], tensors["p"], tensors["negative_entropy"])


@attrs.frozen
class InceptionScore:
    """The inception score of draws, exp E KL(p(y|x) : p(y)) of a classifier (Salimans et al. 2016, section 4).

    Higher is better, at most the number of classes. It sees no data, so it cannot tell draws that are copies.

    Args:
        samples: The number of draws; published figures usually have 50000.
        reading: "mean" scores the decoder's means, "sample" adds the likelihood's own noise.
        extractor: The extractor with classes; None for the first that suits the data and is available.
        splits: The score is the mean of this many splits, each of every splits-th draw. The published +- is their
            standard deviation, which is sqrt(splits) times the standard error here. Smaller splits have lower scores.
    """

    samples: int = attrs.field(default=10_000, validator=valid_count)
    reading: Reading = "mean"
    extractor: ExtractorField | None = None
    splits: int = attrs.field(default=10, validator=between(1, 10_000))

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        return [self._figure(compared) for compared in side_by_side(model, self)]

    def _figure(self, compared: Compared) -> MetricFigure:
        unit, estimator = "score", f"mean of {self.splits} splits"
        if why := compared.absent or _no_classes(compared):
            return compared.missing("is", unit, estimator, why)

        def predictions(extracted: FeatureBatch, batch: Batch) -> Predictions:
            assert extracted.logits is not None, f"{compared.extractor} has_classes"
            return Predictions.of(extracted.logits, batch.index % self.splits, self.splits)

        statistics = (compared.of_draws(f"predictions in {self.splits}", predictions, Predictions, self.samples),)
        details = f"{self.splits} splits"
        return compared.figure("is", unit, estimator, statistics, details, finish=_finish, better="higher")


def _no_classes(compared: Compared) -> str:
    return "" if compared.extractor.has_classes else f"the extractor {compared.extractor.name} has no classes"


def _finish(predictions: Predictions) -> tuple[float | None, float | None]:
    """The mean of the splits and its standard error."""
    splits = Mean.of(predictions.scores())
    return splits.value, splits.standard_error
