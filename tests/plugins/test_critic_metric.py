"""The metric of critics: the identities and the accuracy of a log-ratio, by closed form.

Data N(1, 1), a decoder of N(0, 1), and critics a x + b of x: log a/b is x - 1/2.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jointgen_asvae.objective import ASVAE
from jointgen_critics.losses import Wasserstein
from jointgen_metrics.critics import Critics

from jointgen.contracts.metrics import MetricFigure
from jointgen.contracts.noise import Noise
from jointgen.data.split import open_split
from jointgen.evaluation.evaluate import evaluate
from jointgen.objectives import log_ratio, p, q, score
from jointgen.testing.evaluation import model_of, tiny

ROWS = 20_000
F = log_ratio(q.x, p.x, name="f")


def subject(f: Any, ratio: Any = F, missing: str = "") -> Any:
    """A model whose data and whose samples are known, and so the critic's outputs on them."""

    def rows(expr: Any) -> Any:
        mean = 1.0 if str(expr.over) == "q(x)" else 0.0
        return lambda batch: f(mean + batch.noise.named(str(expr), batch.rows).normal(1)[:, 0])

    return SimpleNamespace(ratios={ratio.name: ratio}, missing=lambda expr: missing, row_function=rows)


def found(measures: list[MetricFigure], rows: int = ROWS) -> dict[str, tuple[float | None, float | None]]:
    batch = SimpleNamespace(rows=rows, index=torch.arange(rows), noise=Noise(0, dtype=torch.float64))
    return {m.name: m.finish(*[collect.compute(batch) for collect in m.statistics]) for m in measures}


def test_the_exact_ratio() -> None:
    """Means of exp are 1 with variance e - 1, and the sign is right with probability Phi(1/2) = 0.69."""
    figures = found(Critics().figures(subject(lambda x: x - 0.5)))
    for side in ("positive", "negative"):
        value, error = figures[f"f/{side}_log_mean_exp"]
        assert value == pytest.approx(0.0, abs=4 * math.sqrt((math.e - 1) / ROWS))
        assert error == pytest.approx(math.sqrt((math.e - 1) / ROWS), rel=0.1)
    value, error = figures["f/accuracy"]
    share = (1 + math.erf(0.5 / math.sqrt(2))) / 2
    assert value == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 2 / ROWS))
    assert error == pytest.approx(math.sqrt(share * (1 - share) / 2 / ROWS), rel=0.05)


def test_the_exact_ratio_against_a_mixture() -> None:
    """log N(1, 1) / (N(1, 1)/4 + 3 N(0, 1)/4): exp(-f) = 1/4 + 3/4 exp(1/2 - x) of mean 1 and variance 9/16 (e - 1)."""
    mixed = log_ratio(q.x, 0.25 * q.x + 0.75 * p.x, name="f")
    log_a, log_b = (lambda x, m=mean: -((x - m) ** 2) / 2 for mean in (1.0, 0.0))
    figures = found(
        Critics().figures(subject(lambda x: log_a(x) - (log_a(x).exp() / 4 + 3 * log_b(x).exp() / 4).log(), mixed))
    )
    value, error = figures["f/positive_log_mean_exp"]
    assert error == pytest.approx(0.75 * math.sqrt((math.e - 1) / ROWS), rel=0.1)
    assert value == pytest.approx(0.0, abs=4 * error)
    value, error = figures["f/negative_log_mean_exp"]
    assert value == pytest.approx(0.0, abs=4 * error)
    right = [(1 + math.erf(z / math.sqrt(2))) / 2 for z in (0.5, -0.5, 0.5)]  # f > 0 where x > 1/2: under a, a and b
    share = (right[0] + right[1] / 4 + 3 * right[2] / 4) / 2
    assert figures["f/accuracy"][0] == pytest.approx(share, abs=0.01)


def test_a_ratio_that_is_off_and_one_of_any_size() -> None:
    """With 3 added, log E_b exp(f) is 3 and log E_a exp(-f) is -3; times 1000 the exponentials overflow."""
    figures = found(Critics().figures(subject(lambda x: x + 2.5)))
    assert figures["f/negative_log_mean_exp"][0] == pytest.approx(3.0, abs=0.05)
    assert figures["f/positive_log_mean_exp"][0] == pytest.approx(-3.0, abs=0.05)
    huge = found(Critics().figures(subject(lambda x: 1000 * x)))
    assert all(math.isfinite(value or math.nan) for pair in huge.values() for value in pair)


def test_what_is_not_measured() -> None:
    w = score(q.x, p.x, name="w", loss=Wasserstein())
    assert Critics().figures(subject(lambda x: x, w)) == []
    notes = {(m.note, m.statistics) for m in Critics().figures(subject(lambda x: x, missing="decoder has no path"))}
    assert notes == {("decoder has no path", ())}
    few = found(Critics().figures(subject(lambda x: x)), rows=3)
    assert set(few.values()) == {(None, None)}


def test_a_models_critics_on_held_out_rows() -> None:
    """AS-VAE's literal f2 has q(x)q(z) below, whose rows are re-paired: a last batch of one row is left out."""
    model = model_of(tiny(ASVAE(form="literal")))
    figures = evaluate(model, open_split(model.compiled.binding, "test").first(9), [Critics()], batch=4)
    names = ("positive_log_mean_exp", "negative_log_mean_exp", "accuracy")
    assert [*figures] == [f"{name}/{what}" for name in ("f1", "f2") for what in names]
    assert {(figure.n, figure.split) for figure in figures.values()} == {(8, "test")}
    assert figures["f2/negative_log_mean_exp"].estimator == "log E[q(x)q(z)] exp(f2)"
    assert all(0 <= figures[f"{name}/accuracy"].value <= 1 for name in ("f1", "f2"))  # type: ignore[operator]
