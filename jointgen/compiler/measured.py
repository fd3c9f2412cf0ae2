"""What gates and controlled weights read: figures that the updates of a step compute anyway. Torch-free.

An expectation in a gate must stand in an update, as a term of it: its mean over the global batch is a figure of the
step, reduced over processes and micro-batches already. Nothing is computed a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from jointgen.contracts.critics import decision_boundary
from jointgen.errors import ConfigError, Problems, suggest
from jointgen.objectives.algebra import Constant, Expr, Weight, summands
from jointgen.objectives.expressions import Expectation, Ratio
from jointgen.objectives.gates import STEP, Comparison, Figure, Gate, weights_in

if TYPE_CHECKING:
    from jointgen.compiler.plan import Plan

At = Callable[[Weight], Any]
"""A weight -> its value in a step."""
Figures = Mapping[str, Any]
"""The figures of a step by name."""


@attrs.frozen
class Measured:
    """A weighted sum of figures of a step.

    Args:
        terms: (weights, the name of a figure, or None for 1).
    """

    terms: tuple[tuple[tuple[float | Weight, ...], str | None], ...]

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the figures."""
        return tuple(name for _, name in self.terms if name is not None)

    def is_known(self, figures: Figures) -> bool:
        """Whether all its figures are there."""
        return all(name in figures for name in self.figures)

    def value(self, figures: Figures, at: At) -> Any:
        """The sum."""
        total: Any = 0.0
        for weights, name in self.terms:
            value = 1.0 if name is None else figures[name]
            for weight in weights:
                value = value * (at(weight) if isinstance(weight, Weight) else weight)
            total = total + value
        return total


def measured(expr: Expr, plan: Plan, whose: str) -> Measured:
    """Find the figures that an expression of a gate or of a control is made of.

    Raises:
        ConfigError: No update computes one of its terms, or there is no such figure.
    """
    found: list[tuple[tuple[float | Weight, ...], str | None]] = []
    for outer, source in summands(expr):
        if isinstance(source, Constant):
            found.append(((*outer, source.value), None))
        elif isinstance(source, Figure):
            found.append((outer, _known_figure(source.name, plan, whose)))
        elif source.is_summand and not isinstance(source, Expectation):  # a term of the batch
            found.append((outer, _label(str(source), plan, whose)))
        elif not isinstance(source, Expectation):
            raise ConfigError(f"{whose}: {source} stands outside an expectation E[...](...)")
        else:
            for share, one in source.components:
                for inner, term in one.terms:
                    weights = (*outer, *inner) if share == 1.0 else (*outer, share, *inner)
                    if isinstance(term, Constant):
                        found.append(((*weights, term.value), None))
                    else:
                        found.append((weights, _label(f"{one.sign} {term}", plan, whose)))
    return Measured(tuple(found))


def _label(term: str, plan: Plan, whose: str) -> str:
    """The figure that is the mean of a term, of the first update that has it."""
    labels = [summand.label for update in plan.updates for summand in update.summands if not summand.penalty]
    for label in labels:
        if label.split("/", 1)[1] == term:
            return label
    terms = dict.fromkeys(label.split("/", 1)[1] for label in labels)
    raise ConfigError(f"{whose} reads {term}, which is no term of an update{suggest(term, terms)}")


def _known_figure(name: str, plan: Plan, whose: str) -> str:
    known = {STEP, *(f"{update.name}/loss" for update in plan.updates)}
    for output in (output for update in plan.updates for output in update.critics):
        known |= {f"{output.ratio.name}/{figure}" for figure in critic_figure_names(output.ratio)}
    if name not in known:
        raise ConfigError(f"{whose} reads {name!r}, which is no figure of a step{suggest(name, known)}")
    return name


def critic_figure_names(ratio: Ratio) -> list[str]:
    """The figures of a critic that a step has of it, see `jointgen.engine.critic_statistics`."""
    names = ["positive_mean", "negative_mean", "max_abs"]
    if ratio.kind == "log_ratio":
        names += ["positive_log_mean_exp", "negative_log_mean_exp", "saturation"]
    if ratio.kind != "critic" and decision_boundary(ratio.loss) is not None:
        names += ["positive_accuracy", "negative_accuracy"]
    return names


# --- gates -----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Condition:
    """When an update runs, beside its `every`.

    Args:
        update: The update's name.
        unless: The names of updates in whose steps it does not run.
        gate: The condition under which it runs; None for always.
        sides: What each comparison of its gate compares.
    """

    update: str
    unless: tuple[str, ...]
    gate: Gate | None
    sides: Mapping[Comparison, tuple[Measured, Measured]]

    @property
    def figures(self) -> tuple[str, ...]:
        """The figures that the gate reads, but for the number of the step."""
        read = (name for pair in self.sides.values() for side in pair for name in side.figures)
        return tuple(dict.fromkeys(name for name in read if name != STEP))


def conditions_of(plan: Plan) -> tuple[Condition, ...]:
    """Find the updates of a plan that have a gate, or that make way for others.

    Raises:
        ConfigError: A gate reads what no update computes; there is a problem for each such gate.
    """
    found, problems = [], Problems()
    for update in (one.update for one in plan.updates):
        if update.when is None and not update.unless:
            continue
        sides: dict[Comparison, tuple[Measured, Measured]] = {}
        for comparison in [] if update.when is None else update.when.comparisons():
            with problems.collect():
                whose = f"the gate of update {update.name!r}"
                sides[comparison] = measured(comparison.left, plan, whose), measured(comparison.right, plan, whose)
        found.append(Condition(update.name, update.unless, update.when, sides))
    problems.raise_any()
    return tuple(found)


# --- controlled weights ----------------------------------------------------------------------------------------------


@attrs.frozen
class Drive:
    """A controlled weight and the figures that drive it."""

    weight: Weight
    control: Measured


def drives_of(plan: Plan) -> tuple[Drive, ...]:
    """Find the controlled weights of a plan, with what drives them.

    Raises:
        ConfigError: A control reads what no update computes, or such a weight stands in a report; there is a problem
            for each such weight.
    """
    found, problems = [], Problems()
    for weight in (one for one in plan.objective.weights.values() if one.control is not None):
        with problems.collect():
            for name, report in plan.objective.reports:
                if weight in weights_in(report):
                    only = "a driven weight has a value while it trains only"
                    raise ConfigError(f"weight {weight.name!r}: it stands in the report {name!r}; {only}")
            assert weight.control is not None
            control = measured(weight.control.of, plan, f"the control of weight {weight.name!r}")
            if STEP in control.figures:
                other = "{ start = .., to = .., over = .., after = .. }"
                raise ConfigError(f"weight {weight.name!r}: no control reads the number of the step; write {other}")
            found.append(Drive(weight, control))
    problems.raise_any()
    return tuple(found)
