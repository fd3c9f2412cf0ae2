"""Objectives: updates in an order, the critics' own updates derived from their ratios, and stages of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs

from jointgen.errors import ConfigError
from jointgen.objectives.algebra import Expr, Weight, Weighted, summands
from jointgen.objectives.distributions import KL, Joint, LogDensity, names
from jointgen.objectives.expressions import Apply, E, Expectation, Ratio, Standardized

Order = Literal["model, critics", "critics, model", "same point"]
Resolve = Callable[[str, str], Any]
"""(registry kind, name) -> the component with its default settings."""
ONLY_STAGE = "train"
"""What the stage of an objective that has no more is called, unless it says otherwise."""


@attrs.frozen(cache_hash=True)
class PenaltyOf(Expr):
    """A penalty on a ratio's critic, of its positives and negatives; stands only in that critic's update."""

    ratio: Ratio
    penalty: Any

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.ratio,)

    def __str__(self) -> str:
        return f"{type(self.penalty).__name__}({self.ratio})"


@attrs.frozen
class Update:
    """What one player does in a step: maximise an expression over the parts that it trains.

    trains: part names; None means every conditional and prior that the gradient reaches (never a critic).
    every: runs at every such step.  times: so often within it, each time after the first on draws of its own.
    """

    name: str
    maximize: Expr
    trains: tuple[str, ...] | None = attrs.field(converter=attrs.converters.optional(names), default=None)
    every: int = 1
    times: int = 1

    def __attrs_post_init__(self) -> None:
        if self.every < 1 or self.times < 1:
            raise ConfigError(f"update {self.name}: every and times must be at least 1")
        for _, term in summands(self.maximize):
            if not isinstance(term, Expectation | PenaltyOf):
                raise ConfigError(f"update {self.name}: {term} stands outside an expectation E[...](...)")

    def __str__(self) -> str:
        return f"maximise {self.maximize}"


@attrs.frozen
class Objective:
    """A tuple of updates. A ratio contributes its critic's update unless an update of its name is written.

    order: "model, critics" and "critics, model" take turns; "same point" takes all gradients before any step.
    reports: further expressions that evaluation reports by name (AVB's elbo_estimate).
    note: what `jointgen explain` says about it, such as an advice.
    stage: what its stage is called where it is the only one.
    """

    updates: tuple[Update, ...]
    order: Order = "model, critics"
    reports: tuple[tuple[str, Expr], ...] = ()
    note: str = ""
    stage: str = ONLY_STAGE

    @classmethod
    def of(cls, maximize: Expr, **options: Any) -> Objective:
        """The usual case: one expression that trains the whole model."""
        return cls((Update("model", maximize),), **options)

    def __attrs_post_init__(self) -> None:
        if not self.updates:
            raise ConfigError("an objective needs at least one update")
        called = [update.name for update in self.updates]
        for name in called:
            if called.count(name) > 1:
                raise ConfigError(f"two updates are called {name!r}")
        self._check_names()

    def _check_names(self) -> None:
        """A ratio's name is that of its critic's part and of its critic's update, and means one thing in a text."""
        weights, parts = self.weights, {factor.part for joint in self.joints.values() for factor in joint.factors}
        for name in self.ratios:
            if name in parts:
                raise ConfigError(f"ratio {name!r} has the name of a part of the model")
            if name in weights:
                raise ConfigError(f"{name!r} names both a ratio and a weight")
            if any(u.name == name and name not in (u.trains or ()) for u in self.updates):
                raise ConfigError(f"update {name!r} has the name of a ratio and does not train its critic")

    def walk(self) -> Iterable[Expr]:
        for update in self.updates:
            yield from update.maximize.walk()
        for _, report in self.reports:
            yield from report.walk()

    @property
    def ratios(self) -> dict[str, Ratio]:
        return _by_name((e for e in self.walk() if isinstance(e, Ratio)), "ratios")

    @property
    def weights(self) -> dict[str, Weight]:
        found = (e.weight for e in self.walk() if isinstance(e, Weighted) and isinstance(e.weight, Weight))
        return _by_name(found, "weights")

    @property
    def joints(self) -> dict[str, Joint]:
        return _by_name((joint for expr in self.walk() for joint in _joints_in(expr)), "joints")

    def complete(self, resolve: Resolve) -> Objective:
        """Every name replaced by its component, and the critics' updates written out in their place in the order."""
        written = tuple(attrs.evolve(u, maximize=resolved(u.maximize, resolve)) for u in self.updates)
        reports = tuple((name, resolved(report, resolve)) for name, report in self.reports)
        whole = attrs.evolve(self, updates=written, reports=reports)
        _check_written(written, whole.ratios)
        critics = tuple(critic_update(r) for r in whole.ratios.values() if r.name not in {u.name for u in written})
        updates = critics + written if self.order == "critics, model" else written + critics
        return attrs.evolve(whole, updates=updates)

    def __str__(self) -> str:
        lines = [str(u) if len(self.updates) == 1 else f"{u.name}: {u}" for u in self.updates]
        lines += [ratio.definition for ratio in self.ratios.values()]
        lines += [weight.describe() for weight in self.weights.values()]
        return "\n".join(lines)


@attrs.frozen
class Stage:
    """A period of a run: `share` of the budget with one objective. Stages without a share divide what is left."""

    name: str
    objective: Objective
    share: float | None = None


def as_stages(objective: Objective | Sequence[Stage]) -> tuple[Stage, ...]:
    """Stages whose shares sum to 1. Raises ConfigError also where two have one name, by which recipes know them, and
    for what is neither an objective nor stages, such as a bare expression."""
    if isinstance(objective, Expr):
        raise ConfigError(f"{objective} is an expression; an objective is Objective.of(expression)")
    stages = (Stage(objective.stage, objective),) if isinstance(objective, Objective) else tuple(objective)
    for stage in stages:
        if not isinstance(stage, Stage):
            raise ConfigError(f"{stage!r} is no stage; write Stage(name, objective, share)")
    called = [stage.name for stage in stages]
    if twice := sorted({name for name in called if called.count(name) > 1}):
        raise ConfigError(f"two stages are called {twice[0]!r}")
    for stage in stages:
        if stage.share is not None and not 0.0 <= stage.share <= 1.0:
            raise ConfigError(f"stage {stage.name}: its share is between 0 and 1, got {stage.share:g}")
    given = sum(stage.share or 0.0 for stage in stages)
    open_ended = [stage for stage in stages if stage.share is None]
    if given > 1 + 1e-9 or (not open_ended and abs(given - 1) > 1e-9):
        raise ConfigError(f"the stages' shares sum to {given:g}; they must sum to 1")
    left = (1 - given) / len(open_ended) if open_ended else 0.0
    return tuple(attrs.evolve(s, share=left if s.share is None else s.share) for s in stages)


def _check_written(updates: Iterable[Update], ratios: Mapping[str, Ratio]) -> None:
    """A ratio's penalties and times shape the update that it contributes; a written one would drop them."""
    for update in updates:
        ratio = ratios.get(update.name)
        if ratio is not None and (ratio.penalties or ratio.times > 1) and update != critic_update(ratio):
            raise ConfigError(
                f"ratio {ratio.name!r} has penalties or times, which the update written for it would drop"
            )


def critic_update(ratio: Ratio) -> Update:
    """The critic's own update: its loss under the numerator and the denominator, less its penalties."""
    maximize = E(ratio.num, ratio.loss.positive(ratio)) + E(ratio.den, ratio.loss.negative(ratio))
    for penalty, weight in zip(ratio.penalties, _penalty_weights(ratio), strict=True):
        maximize = maximize - weight * PenaltyOf(ratio, penalty)
    return Update(ratio.name, maximize, trains=(ratio.name,), times=ratio.times)


def _penalty_weights(ratio: Ratio) -> Iterator[float | Weight]:
    """One that follows a schedule is called r1_f after its penalty and its ratio, and r1_f_2 where it is the second."""
    called: list[str] = []
    for penalty in ratio.penalties:
        called.append(f"{type(penalty).__name__.lower()}_{ratio.name}")
        weight, nth = penalty.weight, called.count(called[-1])
        name = called[-1] if nth == 1 else f"{called[-1]}_{nth}"
        yield float(weight) if isinstance(weight, int | float) else weight.named(name)


def resolved(expr: Expr, resolve: Resolve) -> Expr:
    """The expression with every component that it names by a string replaced by the component itself."""

    def one(node: Expr) -> Expr:
        if isinstance(node, Ratio):
            return _resolved_ratio(node, resolve)
        if isinstance(node, Apply) and isinstance(node.term, str):
            return attrs.evolve(node, term=resolve("term", node.term))
        return node

    return rebuilt(expr, one)


def _resolved_ratio(ratio: Ratio, resolve: Resolve) -> Ratio:
    loss = resolve("critic_loss", ratio.loss) if isinstance(ratio.loss, str) else ratio.loss
    if loss.is_ratio != (ratio.kind == "log_ratio"):
        sense = "a log-ratio: use log_ratio(...)" if loss.is_ratio else "only a score: use score(...)"
        raise ConfigError(f"{ratio.definition}: a critic trained by {type(loss).__name__} gives {sense}")
    penalties = tuple(resolve("penalty", p) if isinstance(p, str) else p for p in ratio.penalties)
    return attrs.evolve(ratio, loss=loss, penalties=penalties)


def unresolved(objective: Objective, name_of: Callable[[str, Any], str]) -> Objective:
    """The objective with every pointwise term that is an object replaced by its registered name."""

    def one(node: Expr) -> Expr:
        if isinstance(node, Apply) and not isinstance(node.term, str):
            return attrs.evolve(node, term=name_of("term", node.term))
        return node

    updates = tuple(attrs.evolve(u, maximize=rebuilt(u.maximize, one)) for u in objective.updates)
    reports = tuple((name, rebuilt(report, one)) for name, report in objective.reports)
    return attrs.evolve(objective, updates=updates, reports=reports)


def rebuilt(expr: Expr, one: Callable[[Expr], Expr]) -> Expr:
    """The expression with `one` applied to every expression in it, innermost first."""

    def field(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(field(v) for v in value)
        return rebuilt(value, one) if isinstance(value, Expr) else value

    node: Any = expr  # every expression is an attrs class
    held = attrs.asdict(node, recurse=False).items()
    changes = {name: field(value) for name, value in held if isinstance(value, Expr | tuple)}
    return one(attrs.evolve(node, **changes) if changes else node)


def _joints_in(expr: Expr) -> list[Joint]:
    if isinstance(expr, Expectation):
        return [marginal.joint for marginal in expr.over.marginals]
    if isinstance(expr, Ratio):
        views = [seen.joint for _, seen in expr.view if isinstance(seen, Standardized)]
        return [marginal.joint for side in (expr.num, expr.den) for marginal in side.marginals] + views
    if isinstance(expr, KL):
        return [expr.joint, expr.other_joint]
    if isinstance(expr, LogDensity):
        return [expr.joint]
    if isinstance(expr, Apply):
        return [value.joint for value in expr.values if value.joint is not None]
    return []


def _by_name(found: Iterable[Any], what: str) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for item in found:
        if named.setdefault(item.name, item) != item:
            raise ConfigError(f"two different {what} are called {item.name!r}")
    return named
