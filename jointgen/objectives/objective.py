"""Objectives: updates in an order, the updates of critics, and the stages of a run. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs

from jointgen.errors import ConfigError, suggest
from jointgen.objectives.aggregates import AggregateDensity
from jointgen.objectives.algebra import Expr, Tree, Weight, Weighted, Weights, check_size, summands
from jointgen.objectives.batch_terms import BatchTerm
from jointgen.objectives.components import Named, Resolve, uses, with_components
from jointgen.objectives.distributions import KL, Distribution, Joint, LogDensity, Marginal, names
from jointgen.objectives.estimators import Estimate
from jointgen.objectives.expressions import AsWritten, E, Expectation, PenaltyOf, Ratio, Standardized
from jointgen.objectives.gates import Gate, weights_in
from jointgen.objectives.schedules import Pace, Times, as_times, check_times, most_times, times_at
from jointgen.objectives.typesetting import as_latex, split_sum, words_in_latex
from jointgen.objectives.values import Features, Value

Order = Literal["model, critics", "critics, model", "same point"]
ONLY_STAGE = "train"
"""The name of the stage of an objective that has only one, unless the objective gives another."""


@attrs.frozen
class Update:
    """An expression and the parts that are trained to maximise it: one optimizer step of a training step.

    Args:
        name: The name of the update, which names the noise of its draws.
        maximize: A weighted sum of expectations and of terms of the whole batch, such as divergences.
        trains: The parts that take the gradient; None for every conditional and prior that it reaches, and no critic.
        every: The update runs at every step whose number this divides.
        times: How often it runs in such a step, a number or rules (`TimesRule`) of which the first that holds says it;
            each time after the first it has draws of its own.
        when: A condition on figures of the last step, under which the update runs.
        unless: The names of updates; it does not run in steps in which one of them does.

    Raises:
        ConfigError: A term stands outside an expectation, `every` or `times` is less than 1, or no rule holds for
            some steps.
    """

    name: str
    maximize: Expr
    trains: tuple[str, ...] | None = attrs.field(converter=attrs.converters.optional(names), default=None)
    every: int = 1
    times: Times = attrs.field(converter=as_times, default=1)
    when: Gate | None = None
    unless: tuple[str, ...] = attrs.field(converter=names, default=())

    def __attrs_post_init__(self) -> None:
        if self.name in self.unless:
            raise ConfigError(f"update {self.name}: it cannot make way for itself")
        if self.every < 1 or self.times == 0:
            raise ConfigError(f"update {self.name}: every and times must be at least 1")
        _check_times(f"update {self.name}", self.times)
        check_size(self.maximize)
        for weights, term in summands(self.maximize):
            if not isinstance(term, Expectation | PenaltyOf | BatchTerm):
                alone = Weights(weights) * term
                raise ConfigError(f"update {self.name}: {alone} stands outside an expectation E[...](...)")

    @property
    def most_times(self) -> int:
        """How often it runs in a step at the most."""
        return most_times(self.times)

    def times_at(self, step: int) -> int:
        """Return how often it runs in a step of the run, counted from 0, in which it is due."""
        return times_at(self.times, step)

    def __str__(self) -> str:
        return f"maximise {self.maximize}"


Constraints = tuple[tuple[str, tuple[Any, ...]], ...]
"""Parts, each with what its parameters are held to: registered components or their names."""


def _constraints(given: Mapping[str, Iterable[Any]] | Constraints) -> Constraints:
    return tuple((part, tuple(held)) for part, held in (given.items() if isinstance(given, Mapping) else given))


@attrs.frozen
class Objective:
    """The objective of a model: a tuple of updates to maximise, in an order.

    Each ratio in it contributes the update of its critic, unless an update of the ratio's name is written out.

    Args:
        updates: The updates.
        order: In which order updates run in a step. "model, critics" and "critics, model" run one after the other;
            "same point" takes all gradients before any part changes, as simultaneous gradient ascent does.
        reports: Further expressions, by the name under which evaluation reports them ("elbo_estimate" of AVB).
        paces: How often critics' own updates run, where that is not as their ratios say.
        constraints: What the parameters of a part are held to after each of its optimizer steps, by the part's name:
            {"f": ("clip",)}, registered components or their names.
        note: Advice that `jointgen explain` prints.
        stage: The name of its stage where it is the only one.

    Raises:
        ConfigError: There is no update, or a name stands for two things.
    """

    updates: tuple[Update, ...]
    order: Order = "model, critics"
    reports: tuple[tuple[str, Expr], ...] = ()
    paces: tuple[Pace, ...] = ()
    constraints: Constraints = attrs.field(converter=_constraints, default=())
    note: str = ""
    stage: str = ONLY_STAGE

    @classmethod
    def of(cls, maximize: Expr, **options: Any) -> Objective:
        """Return the objective with one expression that trains the whole model. The options are the other fields.

        >>> from jointgen.objectives import elbo, p, q
        >>> print(Objective.of(elbo(q, p)))
        maximise E[q(x,z)](log p(x|z) + log p(z) - log q(z|x))
        """
        return cls((Update("model", maximize),), **options)

    def __attrs_post_init__(self) -> None:
        if not self.updates:
            raise ConfigError("an objective needs at least one update")
        called = [update.name for update in self.updates]
        for name in called:
            if called.count(name) > 1:
                raise ConfigError(f"two updates are called {name!r}")
        for name, report in self.reports:
            check_size(report)
            for inner in report.walk():
                if inner.sees_batch:
                    raise ConfigError(
                        f"report {name!r}: {inner} depends on the whole batch; reports are means over rows"
                    )
        self._check_names()

    def _check_names(self) -> None:
        """Refuse names with two meanings: a ratio's is also that of its critic's part and of its critic's update."""
        weights, parts = self.weights, {factor.part for joint in self.joints.values() for factor in joint.factors}
        for name in self.ratios:
            if name in parts:
                raise ConfigError(f"ratio {name!r} has the name of a part of the model")
            if name in weights:
                raise ConfigError(f"{name!r} names both a ratio and a weight")
            if any(u.name == name and name not in (u.trains or ()) for u in self.updates):
                raise ConfigError(f"update {name!r} has the name of a ratio and does not train its critic")
        written, paced = {update.name for update in self.updates}, [pace.critic for pace in self.paces]
        for name in paced:
            if name in written or paced.count(name) > 1:
                raise ConfigError(f"update {name!r} is written twice")
            if name not in self.ratios:
                known = suggest(name, self.ratios) if self.ratios else ""
                raise ConfigError(f"update {name!r} says nothing to maximise, and no ratio is called so{known}")

    @property
    def expressions(self) -> tuple[Expr, ...]:
        """What the updates maximise, the reports, and what gates and driven weights read."""
        written = [*(update.maximize for update in self.updates), *(report for _, report in self.reports)]
        gates = [gate for gate in (*(u.when for u in self.updates), *(p.when for p in self.paces)) if gate is not None]
        written += [side for gate in gates for comparison in gate.comparisons() for side in comparison.sides]
        driven = {weight: None for expr in written for weight in weights_in(expr) if weight.control is not None}
        return (*written, *(weight.control.of for weight in driven if weight.control is not None))

    def walk(self) -> Iterable[Tree]:
        """Yield every expression and value in the updates, the reports, gates and controls."""
        for expr in self.expressions:
            yield from expr.walk()

    def rewritten(self, rewrite: Callable[[Expr], Expr]) -> Objective:
        """Return the objective with `rewrite` applied to what each update maximises and to each report."""

        def gate(when: Gate | None) -> Gate | None:
            return None if when is None else when.rewritten(rewrite)

        updates = tuple(attrs.evolve(u, maximize=rewrite(u.maximize), when=gate(u.when)) for u in self.updates)
        paces = tuple(attrs.evolve(pace, when=gate(pace.when)) for pace in self.paces)
        reports = tuple((name, rewrite(report)) for name, report in self.reports)
        return attrs.evolve(self, updates=updates, paces=paces, reports=reports)

    @property
    def marginals(self) -> tuple[Marginal, ...]:
        """The marginals that expectations and terms of the batch draw, and that ratios compare."""

        def drawn(expr: Tree) -> tuple[Distribution, ...]:
            if isinstance(expr, Expectation):
                return (expr.over,)
            if isinstance(expr, Ratio):
                return (expr.num, expr.den)
            return expr.over if isinstance(expr, BatchTerm) else ()

        return tuple(marginal for expr in self.walk() for over in drawn(expr) for marginal in over.marginals)

    @property
    def ratios(self) -> dict[str, Ratio]:
        """The ratios in it, by name."""
        return _by_name((e for e in self.walk() if isinstance(e, Ratio)), "ratios")

    @property
    def weights(self) -> dict[str, Weight]:
        """The named weights in it, by name."""
        found = (e.weight for e in self.walk() if isinstance(e, Weighted) and isinstance(e.weight, Weight))
        return _by_name(found, "weights")

    @property
    def joints(self) -> dict[str, Joint]:
        """The joints in it, by name."""
        return _by_name((joint for expr in self.walk() for joint in _joints_in(expr)), "joints")

    @property
    def components(self) -> dict[str, Named]:
        """The components that it gives names to, by name."""
        held = (use.held for expr in self.expressions for use in uses(expr))
        return _by_name((one for one in held if isinstance(one, Named)), "components")

    def complete(self, resolve: Resolve) -> Objective:
        """Return the objective with components for their names, and with the critics' updates written out.

        Args:
            resolve: Finds a component by its kind and name.

        Raises:
            ConfigError: A name is unknown, a critic's loss does not fit its ratio, or a written update would drop
                what its ratio says.
        """
        whole = self.rewritten(lambda expr: resolved(expr, resolve))
        written = whole.updates
        called = {update.name for update in written}
        _check_written(written, whole.ratios)
        by_hand = {name for name, ratio in whole.ratios.items() if any(_is_by_hand(u, ratio) for u in written)}
        paces = {pace.critic: pace for pace in whole.paces}
        critics = tuple(
            _paced(critic_update(r), paces.get(r.name)) for r in whole.ratios.values() if r.name not in called
        )
        updates = critics + written if self.order == "critics, model" else written + critics
        _check_ways(updates)
        held = resolved_constraints(self, resolve)
        completed = attrs.evolve(whole, updates=updates, paces=(), constraints=held)
        return completed.rewritten(lambda expr: rebuilt(expr, lambda node: _as_written(node, by_hand)))

    def __str__(self) -> str:
        lines = [str(u) if len(self.updates) == 1 else f"{u.name}: {u}" for u in self.updates]
        lines += [ratio.definition for ratio in self.ratios.values()]
        lines += [f"{part} is held to {', '.join(map(str, held))}" for part, held in self.constraints]
        lines += [weight.describe() for weight in self.weights.values()]
        lines += [one.describe() for one in self.components.values() if not one.is_plain]
        return "\n".join(lines)

    def latex(self) -> str:
        r"""Write it as LaTeX for math mode: a line for each summand, critic and weight, within `aligned`.

        >>> from jointgen.objectives import E, p, q
        >>> print(Objective.of(E(q.xz, p.log_x_given_z)).latex())
        \begin{aligned}
        \max\quad & \mathbb{E}_{q(x,z)}(\log p(x \mid z))
        \end{aligned}
        """
        lines = []
        for update in self.updates:
            name = words_in_latex(f"{update.name}: ") if len(self.updates) > 1 else ""
            first, *rest = map(as_latex, split_sum(str(update.maximize)))
            lines += [rf"{name}\max\quad & {first}", *(rf"& \quad {summand}" for summand in rest)]
        for ratio in self.ratios.values():
            quotient = rf"\frac{{{as_latex(str(ratio.num))}}}{{{as_latex(str(ratio.den))}}}"
            meant = rf"\log {quotient}" if ratio.kind == "log_ratio" else words_in_latex(ratio.definition)
            lines.append(rf"& {as_latex(ratio.name)} = {meant}" if ratio.kind == "log_ratio" else f"& {meant}")
        lines += [f"& {words_in_latex(weight.describe())}" for weight in self.weights.values()]
        return "\n".join([r"\begin{aligned}", " \\\\\n".join(lines), r"\end{aligned}"])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print it in IPython as `print` does, and not field by field."""
        printer.text(str(self))

    def _repr_latex_(self) -> str:
        return rf"$\displaystyle {self.latex()}$"


@attrs.frozen
class Stage:
    """A period of a run with one objective.

    Args:
        name: The name by which recipes know the stage.
        objective: What is trained.
        share: The share of the run's steps, in [0, 1]; stages without one divide what the others leave.
    """

    name: str
    objective: Objective
    share: float | None = None


def as_stages(objective: Objective | Sequence[Stage]) -> tuple[Stage, ...]:
    """Return stages whose shares sum to 1.

    Raises:
        ConfigError: The shares do not fit, two stages have one name, or this is neither an objective nor stages.
    """
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
    """Refuse a written update of a critic whose ratio says what only its own update does: penalties, times, history."""
    for update in updates:
        ratio = ratios.get(update.name)
        if (
            ratio is not None
            and (ratio.penalties or ratio.times != 1 or ratio.history)
            and update != critic_update(ratio)
        ):
            raise ConfigError(
                f"ratio {ratio.name!r} has penalties, times or a history, which the update written for it would drop"
            )


def _check_ways(updates: Iterable[Update]) -> None:
    """Refuse updates that make way for what is no update, or for one another."""
    unless = {update.name: update.unless for update in updates}
    for name, others in unless.items():
        for other in others:
            if other not in unless:
                raise ConfigError(f"no update is called so{suggest(other, unless)}", "updates", name, "unless")
        ahead, seen = list(others), set[str]()
        while ahead:
            other = ahead.pop()
            if other == name:
                raise ConfigError(f"update {name!r} makes way for itself, by {', '.join(sorted(seen))}")
            if other not in seen:
                seen.add(other)
                ahead += unless[other]


def _check_times(whose: str, times: Times) -> None:
    try:
        check_times(times)
    except ConfigError as error:
        raise ConfigError(f"{whose}: {error}") from None


def _paced(update: Update, pace: Pace | None) -> Update:
    """The own update of a critic at the pace that the objective gives it."""
    if pace is None:
        return update
    times = update.times if pace.times is None else pace.times
    return attrs.evolve(update, every=pace.every, times=times, when=pace.when, unless=pace.unless)


def critic_update(ratio: Ratio) -> Update:
    """Return a critic's update: its loss under the numerator and the denominator, less its penalties."""
    maximize = E(ratio.num, ratio.loss.positive(ratio)) + E(
        ratio.den, ratio.loss.negative(ratio), history=ratio.history
    )
    for penalty, weight in zip(ratio.penalties, _penalty_weights(ratio), strict=True):
        maximize = maximize - weight * PenaltyOf(ratio, penalty)
    return Update(ratio.name, maximize, trains=(ratio.name,), times=ratio.times)


def _is_by_hand(update: Update, ratio: Ratio) -> bool:
    """Whether an update trains the critic of a ratio by another expression than the critic's loss.

    One that trains it for what else it computes, such as its features, does not look at its output.
    """
    looks = any(isinstance(expr, Ratio) and expr.name == ratio.name for expr in update.maximize.walk())
    if ratio.name not in (update.trains or ()) or not looks:
        return False
    return update.name != ratio.name or _written_out(update.maximize) != _written_out(critic_update(ratio).maximize)


def _written_out(maximize: Expr) -> list[str]:
    """Return the terms of a sum of expectations, each with its weight, such that equal sums give equal lists."""
    lines = []
    for outer, whole in summands(maximize):
        for share, source in whole.components if isinstance(whole, Expectation) else ():
            for inner, term in source.terms:
                lines.append(_weighed((*outer, share, *inner)) + f" {source.sign} {term}")
        if not isinstance(whole, Expectation):
            lines.append(_weighed(outer) + f" {whole}")
    return sorted(lines)


def _weighed(weights: Sequence[float | Weight]) -> str:
    """Write a product of weights in one way."""
    number = math.prod(weight for weight in weights if not isinstance(weight, Weight))
    return f"{number:.12g} {sorted(weight.name for weight in weights if isinstance(weight, Weight))}"


def _as_written(node: Tree, by_hand: Collection[str]) -> Tree:
    """A ratio whose critic's update is written by hand is that of a critic of which no more is known."""
    if isinstance(node, Ratio) and node.name in by_hand:
        return attrs.evolve(node, kind="critic", loss=AsWritten())
    return node


def _penalty_weights(ratio: Ratio) -> Iterator[float | Weight]:
    """Yield the weight of each penalty; one with a schedule is named after penalty and ratio: r1_f, then r1_f_2."""
    called: list[str] = []
    for penalty in ratio.penalties:
        called.append(f"{type(penalty).__name__.lower()}_{ratio.name}")
        weight, nth = penalty.weight, called.count(called[-1])
        name = called[-1] if nth == 1 else f"{called[-1]}_{nth}"
        yield float(weight) if isinstance(weight, int | float) else weight.named(name)


def resolved(expr: Expr, resolve: Resolve) -> Expr:
    """Return the expression with a component in place of every name of one."""

    def one(node: Tree) -> Tree:
        if isinstance(node, Ratio):
            return _resolved_ratio(node, resolve)
        return with_components(node, component)

    def component(kind: str, held: Any) -> Any:
        return Named(held, resolve(kind, held)) if isinstance(held, str) else held

    return rebuilt(expr, one)


def resolved_constraints(objective: Objective, resolve: Resolve) -> Constraints:
    """Return the constraints of an objective with a component in place of every name of one."""
    return tuple(
        (part, tuple(_component("constraint", one, resolve) for one in held)) for part, held in objective.constraints
    )


def _component(kind: str, named: Any, resolve: Resolve) -> Any:
    return resolve(kind, named) if isinstance(named, str) else named


def _resolved_ratio(ratio: Ratio, resolve: Resolve) -> Ratio:
    loss = _component("critic_loss", ratio.loss, resolve)
    if loss.is_ratio != (ratio.kind == "log_ratio"):
        sense = "a log-ratio: use log_ratio(...)" if loss.is_ratio else "only a score: use score(...)"
        raise ConfigError(f"{ratio.definition}: a critic trained by {type(loss).__name__} gives {sense}")
    penalties = tuple(_component("penalty", p, resolve) for p in ratio.penalties)
    return attrs.evolve(ratio, loss=loss, penalties=penalties)


def rebuilt(expr: Expr, one: Callable[[Tree], Tree]) -> Any:
    """Return the expression with `one` applied to every expression and value in it, innermost first."""

    def field(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(field(v) for v in value)
        if isinstance(value, Weight) and value.control is not None:
            return attrs.evolve(value, control=attrs.evolve(value.control, of=rebuilt(value.control.of, one)))
        return whole(value) if isinstance(value, Tree) else value

    def whole(tree: Any) -> Tree:  # every expression and value is an attrs class
        held = attrs.asdict(tree, recurse=False).items()
        changes = {name: field(value) for name, value in held if isinstance(value, Tree | tuple | Weight)}
        return one(attrs.evolve(tree, **changes) if changes else tree)

    return whole(expr)


def _joints_in(expr: Tree) -> list[Joint]:
    if isinstance(expr, Expectation):
        return [marginal.joint for marginal in expr.over.marginals]
    if isinstance(expr, Ratio):
        views = [seen.joint for _, seen in expr.view if isinstance(seen, Standardized)]
        return [marginal.joint for side in (expr.num, expr.den) for marginal in side.marginals] + views
    if isinstance(expr, KL):
        return [expr.joint, expr.other_joint]
    if isinstance(expr, LogDensity):
        return [expr.joint]
    if isinstance(expr, Estimate):
        return [law.joint for law in expr.laws]
    if isinstance(expr, AggregateDensity):
        return [expr.joint]
    if isinstance(expr, BatchTerm):
        return [marginal.joint for side in expr.over for marginal in side.marginals]
    if isinstance(expr, Value | Features):
        return [] if expr.joint is None else [expr.joint]
    return []


def _by_name(found: Iterable[Any], noun: str) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for item in found:
        if named.setdefault(item.name, item) != item:
            raise ConfigError(f"two different {noun} are called {item.name!r}")
    return named
