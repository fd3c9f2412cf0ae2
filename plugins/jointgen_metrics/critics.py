"""Learned log-ratios on rows that their critics have not seen."""

from __future__ import annotations

import math
from collections.abc import Callable

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
    log_mean_exp,
    mean_and_error,
)

DISPLAY = Display(group="critics")
FEWEST = 4  # rows of a batch that can be re-paired; what a last batch of fewer would say is left out


@attrs.frozen
class Critics:
    """Of each log-ratio f of a : b, log E_a exp(-f) and log E_b exp(f), which are 0 for log a/b, and the accuracy of
    its sign. A critic that knows the training rows by heart fulfils the identities there and not here.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        ratios = [ratio for ratio in model.ratios.values() if ratio.kind == "log_ratio"]
        return [measure for ratio in ratios for measure in self._of(model, ratio)]

    def _of(self, model: ModelView, ratio: Ratio) -> list[MetricFigure]:
        sides = {"positive": E(ratio.num, ratio), "negative": E(ratio.den, ratio)}
        reason = next(filter(None, map(model.missing, sides.values())), "")
        collects = () if reason else (self._collect(ratio, {s: model.row_function(expr) for s, expr in sides.items()}),)
        name, note = ratio.name, reason or "of a critic: 0 is necessary for a log-ratio, not sufficient"
        above, below = f"log E[{ratio.num}] exp(-{name})", f"log E[{ratio.den}] exp({name})"
        return [
            MetricFigure(
                f"{name}/positive_log_mean_exp", "nats", above, collects, note=note, finish=_positive, display=DISPLAY
            ),
            MetricFigure(
                f"{name}/negative_log_mean_exp", "nats", below, collects, note=note, finish=_negative, display=DISPLAY
            ),
            MetricFigure(
                f"{name}/accuracy",
                "share",
                f"the sign of {name} on both sides",
                collects,
                None,
                reason,
                _accuracy,
                display=DISPLAY,
            ),
        ]

    def _collect(self, ratio: Ratio, sides: dict[str, Callable[[Batch], Tensor]]) -> StatisticSpec:
        def outputs(batch: Batch) -> KeptRows:
            if batch.rows < FEWEST:
                return KeptRows.of(batch.index[:0], **{side: torch.empty(0) for side in sides})
            return KeptRows.of(batch.index, **{side: rows(batch) for side, rows in sides.items()})

        return StatisticSpec(f"critic {ratio.name}", outputs, KeptRows)


def _positive(kept: KeptRows) -> FigureValue:
    return _identity(-kept.in_order()["positive"])


def _negative(kept: KeptRows) -> FigureValue:
    return _identity(kept.in_order()["negative"])


def _identity(logs: Tensor) -> FigureValue:
    """log of the mean of exp, with its error by the logarithm's slope: that of heavy tails is larger than it looks."""
    if len(logs) < 2:
        return None, None
    logs = logs.double()
    value = log_mean_exp(logs, 0)
    relative = (logs - value).exp().std() / math.sqrt(len(logs))
    return float(value), float(relative)


def _accuracy(kept: KeptRows) -> FigureValue:
    sides = kept.in_order()
    right = (sides["positive"] > 0).double() + (sides["negative"] < 0).double()
    return mean_and_error(Mean.of(right / 2))
