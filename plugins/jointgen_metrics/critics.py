"""Checks of learned log-ratios on rows that their critics have not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import attrs
import torch
from torch import Tensor

from jointgen.objectives import E, Ratio
from jointgen.plugin import (
    Batch,
    Display,
    FigureValue,
    KeptRows,
    Mean,
    MetricFigure,
    ModelView,
    StatisticSpec,
    in_float64,
    log_mean_exp,
    mean_and_error,
)

DISPLAY = Display(group="critics")
MIN_ROWS = 4
"""Rows of a batch that can be re-paired; a last batch of fewer is left out."""

Sides = Sequence[tuple[float, Callable[[Batch], Tensor]]]
"""The critic as a function of a batch, (B,), on each component of a side with its share."""


@attrs.frozen
class Critics:
    """Identities that each learned log-ratio f = log a/b must fulfil, in nats, and the accuracy of its sign.

    log E_a exp(-f) and log E_b exp(f) are 0 for the true log-ratio. A critic that has memorised the training rows
    fulfils them there, and not on the evaluated rows. The accuracy is the share of rows, of both sides, whose sign is
    right.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        ratios = [ratio for ratio in model.ratios.values() if ratio.kind == "log_ratio"]
        return [figure for ratio in ratios for figure in self._of(model, ratio)]

    def _of(self, model: ModelView, ratio: Ratio) -> list[MetricFigure]:
        sides = {"positive": ratio.num.components, "negative": ratio.den.components}
        outputs = {s: [(share, E(product, ratio)) for share, product in side] for s, side in sides.items()}
        reason = next(filter(None, (model.missing(expr) for side in outputs.values() for _, expr in side)), "")
        statistics: tuple[StatisticSpec, ...] = ()
        if not reason:
            functions = {s: [(share, model.row_function(e)) for share, e in side] for s, side in outputs.items()}
            statistics = (self._collect(ratio, functions),)
        name, note = ratio.name, reason or "of a critic: 0 is necessary for a log-ratio, not sufficient"
        above, below = f"log E[{ratio.num}] exp(-{name})", f"log E[{ratio.den}] exp({name})"
        return [
            MetricFigure(
                f"{name}/positive_log_mean_exp", "nats", above, statistics, note=note, finish=_positive, display=DISPLAY
            ),
            MetricFigure(
                f"{name}/negative_log_mean_exp", "nats", below, statistics, note=note, finish=_negative, display=DISPLAY
            ),
            MetricFigure(
                f"{name}/accuracy",
                "share",
                f"the sign of {name} on both sides",
                statistics,
                None,
                reason,
                _accuracy,
                display=DISPLAY,
            ),
        ]

    def _collect(self, ratio: Ratio, sides: Mapping[str, Sides]) -> StatisticSpec:
        """Collect, for each row, the log of exp(-f) above and of exp(f) below, and the share of signs that are right.

        Over a mixture each row has a draw of every component, so these are weighted means of its components.
        """

        def outputs(batch: Batch) -> KeptRows:
            if batch.rows < MIN_ROWS:
                nothing = torch.empty(0)
                return KeptRows.of(batch.index[:0], positive=nothing, negative=nothing, right=nothing)
            positive = [(share, f(batch)) for share, f in sides["positive"]]
            negative = [(share, -f(batch)) for share, f in sides["negative"]]
            right = sum(share * in_float64(f > 0) for side in (positive, negative) for share, f in side)
            logs = {"positive": _over_mixture(positive), "negative": _over_mixture(negative)}
            return KeptRows.of(batch.index, **logs, right=torch.as_tensor(right) / 2)

        return StatisticSpec(f"critic {ratio.name}", outputs, KeptRows)


def _over_mixture(outputs: Sequence[tuple[float, Tensor]]) -> Tensor:
    """log sum_i share_i exp(-f_i) of each row."""
    if len(outputs) == 1:
        return -outputs[0][1]
    return torch.stack([math.log(share) - f for share, f in outputs]).logsumexp(0)


def _positive(kept: KeptRows) -> FigureValue:
    return _identity(kept.in_order()["positive"])


def _negative(kept: KeptRows) -> FigureValue:
    return _identity(kept.in_order()["negative"])


def _identity(logs: Tensor) -> FigureValue:
    """The log of the mean of exp, with its standard error by the logarithm's slope.

    With heavy tails the true error is larger than this one.
    """
    if len(logs) < 2:
        return None, None
    logs = in_float64(logs)
    value = log_mean_exp(logs, 0)
    relative = (logs - value).exp().std() / math.sqrt(len(logs))
    return float(value), float(relative)


def _accuracy(kept: KeptRows) -> FigureValue:
    return mean_and_error(Mean.of(kept.in_order()["right"].double()))
