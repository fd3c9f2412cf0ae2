"""How many codes of a codebook are used, and how evenly (van den Oord et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from jointgen.plugin import Batch, Display, FigureValue, MetricFigure, ModelView, StatisticSpec
from jointgen_metrics.codes import encoded, encoder_of, suffixed
from jointgen_metrics.information import rows_of


@attrs.frozen
class CodeUsage:
    """How many codes of its codebook q draws for held-out rows, `codes_used`, and how evenly, `code_perplexity`.

    The perplexity is exp of the entropy of how often each code is drawn, over all rows and positions: K where all K
    codes are drawn equally often, 1 where one is drawn always. Both grow with the number of rows, so those of other
    numbers of rows, such as perplexities of a batch, are not comparable: each figure says of how many rows it is.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        variables = quantised(model)
        if not variables:
            return [MetricFigure("code_perplexity", "codes", "", note="no conditional of q draws from a codebook")]
        return [figure for v in variables for figure in self._figures(model, v, variables)]

    def _figures(self, model: ModelView, variable: str, variables: list[str]) -> list[MetricFigure]:
        size = model.capabilities(encoder_of(model, variable)).codes

        def counts(batch: Batch) -> Counts:
            return Counts.of(model.nearest_codes("q", variable, encoded(model, batch, "mean")), size)

        statistics = (StatisticSpec(f"codes of {variable}", counts, Counts),)
        q = f"q({encoder_of(model, variable)})"
        return [
            MetricFigure(
                suffixed("codes_used", variable, variables),
                "codes",
                f"codes that {q} draws at least once on these rows, of {size}",
                statistics,
                finish=lambda found: (float(found.used) if found.n else None, None),
                protocol=rows_of,
                display=Display(group="codes", order=4),
            ),
            MetricFigure(
                suffixed("code_perplexity", variable, variables),
                "codes",
                f"exp of the entropy of how often {q} draws each of {size} codes on these rows",
                statistics,
                finish=perplexity,
                protocol=rows_of,
                display=Display(group="codes", order=5),
            ),
        ]


def quantised(model: ModelView) -> list[str]:
    """The variables that conditionals of q draw from a codebook."""
    if "q" not in model.joints:
        return []
    drawn = [factor for factor in model.joints["q"].factors if not factor.is_root]
    return [v for factor in drawn if model.capabilities(factor).codes for v in factor.out]


def perplexity(found: Counts) -> FigureValue:
    """Return exp of the entropy of the codes' shares; it has no standard error."""
    if not found.n:
        return None, None
    shares = found.counts[found.counts > 0].double() / found.counts.sum()
    return math.exp(-float((shares * shares.log()).sum())), None


@attrs.frozen(eq=False)
class Counts:
    """The statistic that counts how often each code is drawn.

    Args:
        n: The number of rows.
        counts: (K,) int64, at all their positions.
    """

    n: int
    counts: Tensor

    @classmethod
    def of(cls, numbers: Tensor, size: int) -> Counts:
        """Count the codes of a batch, (B, P) numbers from 0 to size - 1."""
        return cls(len(numbers), numbers.flatten().bincount(minlength=size).cpu())

    @property
    def used(self) -> int:
        """How many codes are drawn at least once."""
        return int((self.counts > 0).sum())

    def merge(self, other: Counts) -> Counts:
        """The counts of both sets of rows."""
        return Counts(self.n + other.n, self.counts + other.counts)

    def tensors(self) -> dict[str, Tensor]:
        """See `Statistic.tensors`."""
        return {"n": torch.tensor(self.n), "counts": self.counts}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Counts:
        """See `Statistic.from_tensors`."""
        return cls(int(tensors["n"]), tensors["counts"])
