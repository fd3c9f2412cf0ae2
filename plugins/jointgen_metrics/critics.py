"""Checks of learned log-ratios on rows that their critics have not seen."""

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
MIN_ROWS = 4
"""Rows of a batch that can be re-paired; a last batch of fewer is left out."""


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
        sides = {"positive": E(ratio.num, ratio), "negative": E(ratio.den, ratio)}
        reason = next(filter(None, map(model.missing, sides.values())), "")
        statistics = (
            () if reason else (self._collect(ratio, {s: model.row_function(expr) for s, expr in sides.items()}),)
        )
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

    def _collect(self, ratio: Ratio, sides: dict[str, Callable[[Batch], Tensor]]) -> StatisticSpec:
        def outputs(batch: Batch) -> KeptRows:
            if batch.rows < MIN_ROWS:
                return KeptRows.of(batch.index[:0], **{side: torch.empty(0) for side in sides})
            return KeptRows.of(batch.index, **{side: rows(batch) for side, rows in sides.items()})

        return StatisticSpec(f"critic {ratio.name}", outputs, KeptRows)


def _positive(kept: KeptRows) -> FigureValue:
    return _identity(-kept.in_order()["positive"])


def _negative(kept: KeptRows) -> FigureValue:
    return _identity(kept.in_order()["negative"])


def _identity(logs: Tensor) -> FigureValue:
    """The log of the mean of exp, with its standard error by the logarithm's slope.

    With heavy tails the true error is larger than this one.
    """
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
