"""Every check of an objective or a metric can fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from support.checks import failures
from torch import Tensor

from jointgen.contracts.distributions import sum_event
from jointgen.contracts.metrics import MetricFigure, StatisticSpec, per_row
from jointgen.contracts.statistics import Mean
from jointgen.objectives import E, Objective, Pointwise, cycle, p, q


@attrs.frozen
class Composed:
    of: Callable[[], Any]

    def objective(self) -> Any:
        return self.of()


def difference(a: Tensor, b: Tensor) -> Tensor:
    return a - b


@attrs.frozen(eq=False)
class Restless:
    """A distance that changes from call to call, so that no gradient is the sum of its terms'."""

    calls: list[int] = attrs.field(factory=list)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        self.calls.append(1)
        return len(self.calls) * sum_event((a - b).square())


@attrs.frozen
class Misprinted(Pointwise):
    def __str__(self) -> str:
        return "seven"


def test_objectives() -> None:
    bound = E(q.xz, p.log_x_given_z + p.log_z - q.log_z_given_x)
    assert failures("objective", Composed(lambda: Objective.of(bound))) == {}
    count = iter(range(1, 100))
    restless = failures("objective", Composed(lambda: Objective.of(next(count) * bound)))
    assert "two calls of objective() give different objectives" in restless["objective is built and prints"]
    none = failures("objective", Composed(lambda: bound))
    assert "is an expression; an objective is Objective.of(expression)" in none["objective is built and prints"]
    cycled = failures("objective", Composed(lambda: Objective.of(E(q.xz, -cycle(p, "x|z", distance=Restless())))))
    assert "is not the sum of its terms'" in cycled["gradients reach what the objective says"]
    misprinted = failures(
        "objective", Composed(lambda: Objective.of(E(q.xz, p.log_x_given_z - Misprinted("exp", p.log_z))))
    )
    assert "cannot be read: unknown ratio or weight 'seven'" in misprinted["the text that it prints is read back"]
    pixels = E(q.xz, cycle(p, "x|z", distance=difference))
    wide = failures("objective", Composed(lambda: Objective.of(bound, reports=(("pixels", pixels),))))
    assert "raises RuntimeError" in wide["reports are numbers of rows"]


@attrs.frozen
class Metric:
    measure: Callable[[Any], MetricFigure]

    def figures(self, subject: Any) -> list[MetricFigure]:
        return [self.measure(subject)]


def test_metrics() -> None:
    good = Metric(
        lambda s: MetricFigure("rows", "rows", "counted", (per_row("rows", lambda batch: torch.ones(batch.rows)),))
    )
    assert failures("metric", good) == {}
    summed = StatisticSpec("n", lambda batch: Mean.of(torch.ones(1)))
    assert (
        "n of 6 rows says that it is of 1"
        in failures("metric", Metric(lambda s: MetricFigure("n", "rows", "", (summed,))))["statistics count their rows"]
    )
    mute = failures("metric", Metric(lambda s: MetricFigure("n", "rows", "")))
    assert "its note does not say why" in mute["figures say what they are"]
    count = iter(range(1000))
    drifts = per_row("n", lambda b: torch.full((b.rows,), float(next(count))))
    drifting = failures("metric", Metric(lambda s: MetricFigure("n", "", "", (drifts,))))
    assert "n on the same rows again" in drifting["figures are estimated and repeat"]
