"""The inception score: Salimans et al., "Improved Techniques for Training GANs", 2016, section 4."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from jointgen.plugin import Batch, ExtractorField, FeatureBatch, Mean, MetricFigure, ModelView, positive
from jointgen_metrics.generation import Compared, Reading, side_by_side


@attrs.frozen(eq=False)
class Predictions:
    """Of each of S splits: rows (S,), the sum of p(y|x) (S, K), and the sum of -H(y|x) (S,), in double precision."""

    rows: Tensor
    p: Tensor
    negative_entropy: Tensor

    @classmethod
    def of(cls, logits: Tensor, split: Tensor, splits: int) -> Predictions:
        """logits (B, K); split (B,) int64, which split each row is in."""
        log_p = logits.double().log_softmax(1).cpu()
        member = torch.nn.functional.one_hot(split.cpu(), splits).double()  # (B, S)
        entropies = (log_p.exp() * log_p).nan_to_num(0.0).sum(1)  # 0 log 0 = 0
        return cls(member.sum(0).long(), member.T @ log_p.exp(), member.T @ entropies)

    @property
    def n(self) -> int:
        return int(self.rows.sum())

    def merge(self, other: Predictions) -> Predictions:
        return Predictions(self.rows + other.rows, self.p + other.p, self.negative_entropy + other.negative_entropy)

    def scores(self) -> Tensor:
        """exp of the mutual information of x and y within each split that has rows."""
        has = self.rows > 0
        marginal = self.p[has] / self.rows[has, None]
        entropy = -torch.special.xlogy(marginal, marginal).sum(1)
        return (self.negative_entropy[has] / self.rows[has] + entropy).exp()

    def tensors(self) -> dict[str, Tensor]:
        return {"rows": self.rows, "p": self.p, "negative_entropy": self.negative_entropy}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Predictions:
        return cls(tensors["rows"], tensors["p"], tensors["negative_entropy"])


@attrs.frozen
class InceptionScore:
    """exp E KL(p(y|x) : p(y)) of a classifier on draws; it sees no data, so it says nothing of draws that are copies.

    samples: draws; published figures usually have 50000.
    reading: "mean" scores the decoder's means, "sample" adds the likelihood's own noise.
    extractor: whose classes; without one, that which suits the data and can be had.
    splits: the score is their mean, each of every splits-th draw; the published +- is their standard deviation, which
        is sqrt(splits) times the standard error reported here. Smaller splits have lower scores.
    """

    samples: int = attrs.field(default=10_000, validator=positive)
    reading: Reading = "mean"
    extractor: ExtractorField | None = None
    splits: int = attrs.field(default=10, validator=positive)

    def figures(self, model: ModelView) -> list[MetricFigure]:
        return [self._measure(compared) for compared in side_by_side(model, self)]

    def _measure(self, compared: Compared) -> MetricFigure:
        unit, how = "score", f"mean of {self.splits} splits"
        if why := compared.absent or _no_classes(compared):
            return compared.missing("is", unit, how, why)

        def predictions(extracted: FeatureBatch, batch: Batch) -> Predictions:
            assert extracted.logits is not None, f"{compared.extractor} has_classes"
            return Predictions.of(extracted.logits, batch.index % self.splits, self.splits)

        collects = (compared.of_draws(f"predictions in {self.splits}", predictions, Predictions, self.samples),)
        details = f"{self.splits} splits"
        return compared.measure("is", unit, how, collects, details, finish=_finish, better="higher")


def _no_classes(compared: Compared) -> str:
    return "" if compared.extractor.has_classes else f"the extractor {compared.extractor.name} has no classes"


def _finish(predictions: Predictions) -> tuple[float | None, float | None]:
    """The mean of the splits and its standard error."""
    splits = Mean.of(predictions.scores())
    return splits.value, splits.standard_error
