"""Checks of objectives and of metrics on a tiny model with Gaussian parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch

from jointgen.contracts.metrics import MetricFigure
from jointgen.contracts.noise import Noise
from jointgen.data.split import open_split
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.gradient_check import check_ownership
from jointgen.errors import ConfigError, OwnershipError
from jointgen.evaluation.evaluate import evaluate
from jointgen.inference.streams import batches
from jointgen.objectives import Objective, Vocabulary, as_stages, parse
from jointgen.registry.discovery import load_plugins
from jointgen.testing.check import Promises, described, expect, expect_close, expect_shape, promise
from jointgen.testing.evaluation import model_of, raw_rows, tiny

OBJECTIVES: Promises = []
METRICS: Promises = []


@attrs.frozen
class OnTinyModel:
    """An objective or a metric on the tiny model.

    Args:
        config: The component.
        tables: Changes to the tiny recipe.
    """

    config: Any
    tables: Mapping[str, Any] = attrs.field(factory=dict)

    def __str__(self) -> str:
        return described(self.config)


# --- objectives ------------------------------------------------------------------------------------------------------


@promise(OBJECTIVES)
def objective_is_built_and_prints(subject: OnTinyModel) -> None:
    stages = as_stages(subject.config.objective())
    resolve = load_plugins().registry.default
    for stage in stages:
        expect(isinstance(stage.objective, Objective), f"objective() gives a {type(stage.objective).__name__}")
        text = str(stage.objective.complete(resolve))
        expect("maximise" in text, f"it prints as {text!r}, which is no equation")
    again = as_stages(subject.config.objective())
    expect(again == stages, "two calls of objective() give different objectives")


@promise(OBJECTIVES)
def the_text_that_it_prints_is_read_back(subject: OnTinyModel) -> None:
    for stage in as_stages(subject.config.objective()):
        whole = stage.objective
        words = Vocabulary(whole.joints, whole.ratios, whole.weights)
        for update in whole.updates:
            text = str(update.maximize)
            try:
                again = parse(text, words)
            except ConfigError as error:
                raise AssertionError(f"what it prints cannot be read: {error}") from error
            expect(str(again) == text, f"it prints {text!r}; read back, that prints {again!s:}")


@promise(OBJECTIVES)
def gradients_reach_what_the_objective_says(subject: OnTinyModel) -> None:
    """The gradient of every term reaches the parts that the plan says, as a run checks at its start."""
    compiled = tiny(subject.config, subject.tables)
    for plan in compiled.plans:
        try:
            check_ownership(plan, compiled.parts, raw_rows(compiled, 6), 6)
        except OwnershipError as error:
            raise AssertionError(str(error)) from error


@promise(OBJECTIVES)
def reports_are_numbers_of_rows(subject: OnTinyModel) -> None:
    compiled = tiny(subject.config, subject.tables)
    model = model_of(compiled)
    for name, expr in model.view.reports.items():
        if not model.view.missing(expr):
            found = model.view.per_row(expr, as_observed=False)(StepInputs(raw_rows(compiled, 6), Noise(0), 6))
            expect_shape(f"the report {name!r} of 6 rows", found, (6,))


# --- metrics ---------------------------------------------------------------------------------------------------------

WITHOUT = {
    "decoder": {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "implicit"}},
    "objective": {"type": "ali"},
}
"""Changes that make a model without a likelihood, for which a metric says what it cannot measure, and why."""


@promise(METRICS)
def figures_say_what_they_are(subject: OnTinyModel) -> None:
    for tables in (subject.tables, {**subject.tables, **WITHOUT}):
        for figure in subject.config.figures(model_of(tiny(tables=tables)).view):
            expect(
                isinstance(figure, MetricFigure),
                f"figures() has a {type(figure).__name__}, it must be a MetricFigure",
            )
            expect(figure.name and figure.unit, f"{figure} has no name or no unit")
            if not figure.statistics:
                expect(figure.note, f"{figure.name} does not exist for this model, and its note does not say why")


@promise(METRICS)
def statistics_count_their_rows(subject: OnTinyModel) -> None:
    """They survive files and merging, and know over how many rows they are."""
    compiled = tiny(tables=subject.tables)
    model, split = model_of(compiled), open_split(compiled.binding, "test").first(6)
    for statistic in {c.key: c for figure in subject.config.figures(model.view) for c in figure.statistics}.values():
        (batch,) = batches(model.view, split, 6, seed=0)
        with torch.no_grad():
            found = statistic.compute(batch)
        expect(
            isinstance(found, statistic.kind),
            f"{statistic.key} gives a {type(found).__name__}, not a {statistic.kind.__name__}",
        )
        expect(found.n == 6, f"{statistic.key} of 6 rows says that it is of {found.n}")
        tensors = found.tensors()
        again = statistic.kind.from_tensors(tensors).tensors()
        expect(tensors.keys() == again.keys(), f"{statistic.key}: from_tensors(tensors()) has other tensors")
        twice = found.merge(statistic.kind.from_tensors(tensors))
        expect(twice.n == 12, f"{statistic.key} merged with itself says that it is of {twice.n} rows, not 12")


@promise(METRICS)
def figures_are_estimated_and_repeat(subject: OnTinyModel) -> None:
    compiled = tiny(tables=subject.tables)
    model, split = model_of(compiled), open_split(compiled.binding, "test").first(40)
    first, again = (evaluate(model, split, [subject.config], batch=16) for _ in range(2))
    for name, estimate in first.items():
        if estimate.value is not None:
            expect_close(f"{name} on the same rows again", again[name].value or 0.0, estimate.value, 1e-12)
            expect(estimate.n > 0, f"{name} is over no rows")
