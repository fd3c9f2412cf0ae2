"""The objective "expression": an equation as text in a recipe, and the way from any objective back to such text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from jointgen.config.fields import (
    ConstraintField,
    CriticLossField,
    DivergenceField,
    EstimatorField,
    PenaltyField,
    ReductionField,
    TermField,
    between,
    valid_count,
)
from jointgen.errors import ConfigError, Problems, placing, suggest
from jointgen.objectives.algebra import MAX_DRAWS, Expr, Weight
from jointgen.objectives.components import TABLES, Named, is_default, name_of, uses, with_components
from jointgen.objectives.distributions import Conditional, Joint, joint_from_text, p, q
from jointgen.objectives.expressions import CriticView, Ratio
from jointgen.objectives.gates import Gate
from jointgen.objectives.objective import (
    ONLY_STAGE,
    Objective,
    Order,
    Stage,
    Update,
    as_stages,
    rebuilt,
    resolved,
    resolved_constraints,
)
from jointgen.objectives.parse import Vocabulary, parse, parse_ratio_sides, parse_view
from jointgen.objectives.parse_gate import parse_gate
from jointgen.objectives.schedules import MOST_TIMES, Pace, Times, TimesRule, as_times, check_times
from jointgen.objectives.tables import BalanceTable, ControlTable, WeightTable, table_of, weight_of
from jointgen.registry.components import Registrar, Registry
from jointgen.registry.hooks import hookimpl


@attrs.frozen
class RatioTable:
    """The table of a ratio.

    Args:
        of: Its two sides, numerator first: "q(x,z) : p(x)p(z)".
        loss: The critic's loss.
        known: An expression that is added to the critic's output: the part of the log-ratio that can be written down.
        view: How the critic sees a variable, such as { x = "relaxed" }; without one it sees the sample.
        penalties: Penalties on the critic.
        times: How often the critic's update runs in a step: a number, or rules of which the first that holds says it.
        history: How many draws of the denominator are kept, for the critic to see again; None: only new ones.
    """

    of: str
    loss: CriticLossField | None = None
    known: str | None = None
    view: dict[str, str] = attrs.field(factory=dict)
    penalties: list[PenaltyField] = attrs.field(factory=list)
    times: int | list[TimesRule] = attrs.field(default=1, validator=between(1, MOST_TIMES))
    history: int | None = attrs.field(default=None, validator=between(1, MAX_DRAWS))


@attrs.frozen
class UpdateTable:
    """The table of an update; the keys are the fields of `Update`.

    Without `maximize` it says how often an update runs whose equation stands elsewhere: the own update of a critic, or
    `model` beside the objective's `maximize`.

    Args:
        maximize: The expression that it maximises.
        trains: The parts that take the gradient; None for every conditional and prior that it reaches, and no critic.
        every: It runs at every step whose number this divides.
        times: How often it runs in such a step: a number, or rules of which the first that holds says it.
        when: A condition on figures of the last step, under which it runs.
        unless: The names of updates; it does not run in steps in which one of them does.
    """

    maximize: str | None = None
    trains: list[str] | None = None
    every: int = attrs.field(default=1, validator=valid_count)
    times: int | list[TimesRule] = attrs.field(default=1, validator=between(1, MOST_TIMES))
    when: str | None = None
    unless: str | list[str] | None = None


@attrs.frozen
class StageTable:
    """The table of a stage.

    Args:
        name: The stage's name.
        maximize, updates: one of the two, as in `Expression`.
        share: The share of the run's steps; None for what the others leave.
        order: The order of updates; None for that of the objective.
    """

    name: str
    maximize: str | None = None
    share: float | None = None
    updates: dict[str, UpdateTable] = attrs.field(factory=dict)
    order: Order | None = None


@attrs.frozen
class Expression:
    """An objective that is written in the recipe as an equation.

    Args:
        maximize: The expression that trains the whole model; this, or `updates`, or `stages`.
        updates: Several updates by name.
        stages: The periods of the run, each with `maximize` or `updates` of its own.
        order: The order of updates, as in `Objective`.
        ratios: Log-ratios by name, as "q(x,z) : p(x)p(z)" or as a table.
        scores: Other critics by name, as tables.
        weights: Named weights: numbers, or tables.
        joints: Joints by name, as "q(x) q(z|x)". The two joints q and p are there unless others take their names. A
            joint may take over factors of those before it: "q(x) r(z|x)".
        constraints: What the parameters of a part are held to after each of its optimizer steps, by the part's name.
        parts: The part that computes a conditional: {"q(z|x)" = "encoder"}, or {"r(z|x)" = "moments of encoder"} for
            the Gaussian of its moments.
        reports: Further expressions that evaluation reports, by name.
        terms: Terms of the equation that have settings, by name; a registered term needs no table where its default
            settings will do.
        reductions: Reductions of the equation that have settings, likewise.
        estimators: Estimators of the equation that have settings, likewise.
        divergences: Divergences and statistics of the batch that have settings, by name, likewise.
    """

    maximize: str | None = None
    updates: dict[str, UpdateTable] = attrs.field(factory=dict)
    stages: list[StageTable] = attrs.field(factory=list)
    order: Order = "model, critics"
    ratios: dict[str, str | RatioTable] = attrs.field(factory=dict)
    scores: dict[str, RatioTable] = attrs.field(factory=dict)
    weights: dict[str, float | WeightTable | BalanceTable | ControlTable] = attrs.field(factory=dict)
    constraints: dict[str, list[ConstraintField]] = attrs.field(factory=dict)
    joints: dict[str, str] = attrs.field(factory=dict)
    parts: dict[str, str] = attrs.field(factory=dict)
    reports: dict[str, str] = attrs.field(factory=dict)
    terms: dict[str, TermField] = attrs.field(factory=dict)
    reductions: dict[str, ReductionField] = attrs.field(factory=dict)
    divergences: dict[str, DivergenceField] = attrs.field(factory=dict)
    estimators: dict[str, EstimatorField] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        written = any(table.maximize is not None for table in self.updates.values())
        if sum(map(bool, (self.maximize, written, self.stages))) != 1 or (self.stages and self.updates):
            raise ConfigError("write the objective as maximize, as updates or as stages, one of the three")

    def objective(self) -> Objective | tuple[Stage, ...]:
        """Read the objective from its text.

        Raises:
            ConfigError: A text is wrong, or something named is used nowhere.
        """
        words = self.vocabulary()
        reports: list[tuple[str, Expr]] = []
        for name, text in self.reports.items():
            with placing("reports", name):
                reports.append((name, parse(text, words)))
        more: dict[str, Any] = {"reports": tuple(reports), "constraints": self.constraints}
        if not self.stages:
            updates, paces = _updates(self.maximize, self.updates, words)
            whole = Objective(updates, self.order, paces=paces, **more)
            self._check_used([whole])
            return whole
        stages = []
        for i, stage in enumerate(self.stages):
            with placing("stages", i):
                updates, paces = _updates(stage.maximize, stage.updates, words)
            objective = Objective(updates, stage.order or self.order, paces=paces, **more)
            stages.append(Stage(stage.name, objective, stage.share))
        self._check_used([stage.objective for stage in stages])
        return tuple(stages)

    def _check_used(self, objectives: Sequence[Objective]) -> None:
        """Refuse names that nothing uses: most likely another name is misspelt."""
        ratios = {name for objective in objectives for name in objective.ratios}
        weights = {name for objective in objectives for name in objective.weights}
        tables = (("ratios", self.ratios, ratios), ("scores", self.scores, ratios), ("weights", self.weights, weights))
        problems = Problems()
        for kind, table, used in tables:
            for name in table:
                if name not in used:
                    problems.add("no update and no report uses it", kind, name)
        held = {(use.kind, name_of(use.held)) for o in objectives for expr in o.expressions for use in uses(expr)}
        for kind, key in TABLES.items():
            for name in getattr(self, key):
                if (kind, name) not in held:
                    problems.add("no update and no report uses it", key, name)
        problems.raise_any()

    def vocabulary(self) -> Vocabulary:
        """Return the joints, ratios and weights that the texts may name."""
        joints = self.all_joints()
        weights = {n: weight_of(n, value) for n, value in self.weights.items() if not isinstance(value, ControlTable)}
        with placing("weights"):
            Vocabulary({}, {}, weights)
        with placing("joints"):
            words = Vocabulary(joints, {}, weights)
        ratios = self._all_ratios(words)
        components = {kind: getattr(self, key) for kind, key in TABLES.items()}
        for kind, key in TABLES.items():
            with placing(key):
                Vocabulary({}, components={kind: components[kind]})
        with placing("ratios"):
            words = Vocabulary(joints, ratios, weights, components=components)
        driven = {name: _driven(name, t, words) for name, t in self.weights.items() if isinstance(t, ControlTable)}
        with placing("weights"):
            return Vocabulary(joints, ratios, {**weights, **driven}, components=components)

    def _all_ratios(self, words: Vocabulary) -> dict[str, Ratio]:
        """Return the ratios in the order of their tables, of which one may see features of the critics of others."""
        tables: dict[str, tuple[Any, str | RatioTable]] = {
            **{name: ("log_ratio", table) for name, table in self.ratios.items()},
            **{name: ("score", table) for name, table in self.scores.items()},
        }
        made: dict[str, Ratio] = {}

        def make(name: str, above: tuple[str, ...]) -> None:
            kind, table = tables[name]
            if name in above:
                path = (f"{kind.removeprefix('log_')}s", name, "view")
                raise ConfigError(f"critics see each other's features: {' -> '.join((*above, name))}", *path)
            for text in () if isinstance(table, str) else table.view.values():
                for seen in _FEATURES_OF.findall(text):
                    if seen in tables and seen not in made:
                        make(seen, (*above, name))
            made[name] = _ratio(name, kind, table, words, made)

        for name in tables:
            if name not in made:
                make(name, ())
        return {name: made[name] for name in tables}

    def all_joints(self) -> dict[str, Joint]:
        """Return q and p, as the recipe has them, and the joints that it adds."""
        texts = {"q": q.product, "p": p.product, **self.joints}
        for written in self.parts:
            name = written.split("(")[0]
            if name not in texts:
                raise ConfigError(f"{written!r}: unknown joint {name!r}{suggest(name, texts)}", "parts")
        made: dict[str, Joint] = {}
        for name, text in texts.items():  # one may take over factors of those before it
            with placing(*(("joints", name) if name in self.joints else ("parts",))):
                made[name] = joint_from_text(name, text, self.parts, made)
        return made

    @classmethod
    def of(cls, objective: Objective | Sequence[Stage], registry: Registry) -> Expression:
        """Return the text of an objective that was composed in Python.

        Raises:
            ConfigError: Text cannot say it.
        """
        stages, tables = _with_names(as_stages(objective), registry)
        text = _write(stages, tables, registry)
        again = as_stages(text.objective())
        if [_complete(s, registry) for s in again] != [_complete(s, registry) for s in stages]:
            raise ConfigError(
                f"text cannot say {objective}; register what it uses, or write it as a plugin", "objective"
            )
        return text


def _updates(
    maximize: str | None, tables: Mapping[str, UpdateTable], words: Vocabulary
) -> tuple[tuple[Update, ...], tuple[Pace, ...]]:
    """Read the updates that have an equation, and how often the critics' own run."""
    written = {name: table for name, table in tables.items() if table.maximize is not None}
    if (maximize is None) == (not written):
        raise ConfigError("write it, or updates, one of the two", "maximize")
    if maximize is not None:
        written = {"model": attrs.evolve(tables.get("model", UpdateTable()), maximize=maximize)}
    updates = []
    for name, table in written.items():
        with placing("updates", name):
            gate, unless = _gate(table.when, words), table.unless or ()
        with placing(*(("maximize",) if maximize is not None else ("updates", name))):
            expr = parse(str(table.maximize), words)
            updates.append(Update(name, expr, table.trains, table.every, table.times, gate, unless))
    paces = [
        _pace(name, table, words) for name, table in tables.items() if table.maximize is None and name not in written
    ]
    return tuple(updates), tuple(paces)


def _pace(name: str, table: UpdateTable, words: Vocabulary) -> Pace:
    with placing("updates", name):
        if name not in words.ratios:
            known = suggest(name, words.ratios) if words.ratios else ""
            raise ConfigError(f"says nothing to maximise, and no ratio is called so{known}")
        if table.trains is not None:
            raise ConfigError(
                "a critic's own update trains the critic; write maximize to train something else", "trains"
            )
        check_times(as_times(table.times))
        times = None if table.times == 1 else table.times
        return Pace(name, table.every, times, _gate(table.when, words), table.unless or ())


def _gate(text: str | None, words: Vocabulary) -> Gate | None:
    if text is None:
        return None
    with placing("when"):
        return parse_gate(text, words)


def _driven(name: str, table: ControlTable, words: Vocabulary) -> Weight:
    """Read a weight that figures drive; its expression may name other weights and all critics."""
    with placing("weights", name):
        with placing("control"):
            control = parse(table.control, words)
        return table.named(name, control)


_FEATURES_OF = re.compile(r"features\s*(?:\[[^]]*\])?\s*(\w+)")


def _ratio(name: str, kind: Any, table: str | RatioTable, words: Vocabulary, others: Mapping[str, Ratio]) -> Ratio:
    key = f"{kind.removeprefix('log_')}s"
    path: tuple[str, ...] = (key, name) if isinstance(table, str) else (key, name, "of")
    table = RatioTable(table) if isinstance(table, str) else table
    with placing(*path):
        num, den = parse_ratio_sides(table.of, words)
    known = None
    if table.known is not None:
        with placing(key, name, "known"):
            known = parse(table.known, words)
    view: dict[str, CriticView] = {}
    for variable, text in table.view.items():
        with placing(key, name, "view", variable):
            view[variable] = parse_view(text, attrs.evolve(words, ratios=dict(others)))
    loss = "logistic" if table.loss is None else table.loss
    with placing(key, name):
        check_times(as_times(table.times))
        return Ratio(name, num, den, kind, loss, known, view, tuple(table.penalties), table.times, table.history or 0)


# --- back to text ----------------------------------------------------------------------------------------------------


Tables = dict[str, dict[str, Any]]
"""Kind -> name -> component, for those that need a table in text."""


def _with_names(stages: Sequence[Stage], registry: Registry) -> tuple[tuple[Stage, ...], Tables]:
    """Name every component of the equations, and return those that need a table: their names do not say it all.

    A class that no plugin registers is adopted by the registry, so that this process can write and read it.
    """
    taken: dict[tuple[str, str], Any] = {}
    held = [use for stage in stages for expr in stage.objective.expressions for use in uses(expr)]
    for kind, one in held:
        if isinstance(one, str):
            taken[kind, one] = registry.default(kind, one)
    for kind, one in held:
        if isinstance(one, Named) and taken.setdefault((kind, one.name), one.component) != one.component:
            raise ConfigError(f"two different {TABLES[kind]} are called {one.name!r}", "objective")

    def registered(kind: str, component: Any) -> str:
        cls = type(component)
        return (registry.find(kind, cls) or registry.adopt(kind, cls)).name

    def with_name(kind: str, one: Any) -> Named:
        if isinstance(one, str | Named):
            return Named(name_of(one), taken[kind, name_of(one)])
        name = registered(kind, one)
        name = name if name.isidentifier() else name_of(one)
        free = next(n for n in _numbered(name) if taken.get((kind, n), one) == one)
        taken[kind, free] = one
        return Named(free, one)

    def whole(expr: Expr) -> Expr:
        return rebuilt(expr, lambda node: with_components(node, with_name))

    renamed = tuple(attrs.evolve(stage, objective=stage.objective.rewritten(whole)) for stage in stages)
    tables: Tables = {kind: {} for kind in TABLES}
    for (kind, name), component in taken.items():
        if not (registered(kind, component) == name and is_default(component)):
            tables[kind][name] = component
    return renamed, tables


def _numbered(name: str) -> Iterator[str]:
    """Yield near, near_2, near_3, ..."""
    yield name
    yield from (f"{name}_{nth}" for nth in itertools.count(2))


def _write(stages: Sequence[Stage], tables: Tables, registry: Registry) -> Expression:
    objectives = [stage.objective for stage in stages]
    joints = _with_owners({name: j for o in objectives for name, j in o.joints.items()})
    ratios = {name: r for o in objectives for name, r in o.ratios.items()}
    weights = {name: w for o in objectives for name, w in o.weights.items()}
    critics = {name: _ratio_table(ratio, registry) for name, ratio in ratios.items()}
    common: dict[str, Any] = {
        "ratios": {name: table for name, table in critics.items() if ratios[name].kind == "log_ratio"},
        "scores": {name: table for name, table in critics.items() if ratios[name].kind == "score"},
        "weights": {name: table_of(weight) for name, weight in weights.items()},
        "joints": {name: joint.product for name, joint in joints.items()},
        "parts": {joint.written(f): f.computed_by for joint in joints.values() for f in joint.own},
        "reports": {name: str(expr) for name, expr in objectives[-1].reports},
        **{TABLES[kind]: named for kind, named in tables.items()},
        "constraints": {part: [*held] for part, held in resolved_constraints(objectives[-1], registry.default)},
    }
    if len(stages) == 1 and stages[0].name == ONLY_STAGE:
        return Expression(updates=_update_tables(objectives[0]), order=objectives[0].order, **common)
    written = [StageTable(s.name, None, s.share, _update_tables(s.objective), s.objective.order) for s in stages]
    return Expression(stages=written, **common)


def _with_owners(joints: Mapping[str, Joint]) -> dict[str, Joint]:
    """Return the joints after those that they take factors over from and that nothing is expected under."""
    owners: dict[str, dict[Conditional, None]] = {}
    for joint in joints.values():
        for factor in joint.owned(joints):
            if factor.of:
                owners.setdefault(factor.of, {})[attrs.evolve(factor, of="")] = None
    return {**{name: Joint(name, tuple(factors)) for name, factors in owners.items()}, **joints}


def _update_tables(objective: Objective) -> dict[str, UpdateTable]:
    tables = {
        u.name: UpdateTable(
            str(u.maximize),
            None if u.trains is None else list(u.trains),
            u.every,
            _written_times(u.times),
            *_written_gate(u),
        )
        for u in objective.updates
    }
    for pace in objective.paces:
        times = 1 if pace.times is None else _written_times(pace.times)
        tables[pace.critic] = UpdateTable(None, None, pace.every, times, *_written_gate(pace))
    return tables


def _written_gate(one: Update | Pace) -> tuple[str | None, list[str] | None]:
    return None if one.when is None else str(one.when), [*one.unless] or None


def _written_times(times: Times) -> int | list[TimesRule]:
    return times if isinstance(times, int) else list(times)


def _with_settings(kind: str, named: Any, registry: Registry) -> Any:
    """Return a component, which may be given by its name; its table holds its settings."""
    return registry.default(kind, named) if isinstance(named, str) else named


def _ratio_table(ratio: Ratio, registry: Registry) -> RatioTable:
    known: Expr | None = ratio.known
    return RatioTable(
        f"{ratio.num} : {ratio.den}",
        _with_settings("critic_loss", ratio.loss, registry),
        None if known is None else str(known),
        {variable: str(seen) for variable, seen in ratio.view},
        [_with_settings("penalty", penalty, registry) for penalty in ratio.penalties],
        _written_times(ratio.times),
        ratio.history or None,
    )


def _complete(stage: Stage, registry: Registry) -> tuple[str, float | None, Any, Any, Any]:
    """Return all that must be equal once the text has been read again."""
    updates = [
        (u.name, resolved(u.maximize, registry.default), u.trains, u.every, u.times, str(u.when), u.unless)
        for u in stage.objective.updates
    ]
    reports = [(name, resolved(expr, registry.default)) for name, expr in stage.objective.reports]
    held = resolved_constraints(stage.objective, registry.default)
    paces = [(pace.critic, pace.every, pace.times, str(pace.when), pace.unless) for pace in stage.objective.paces]
    return stage.name, stage.share, updates, reports, (stage.objective.order, paces, held)


# --- the registration ------------------------------------------------------------------------------------------------


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Register the text form of an objective, by the entry point `expression`."""
    registry.objective("expression", Expression, summary="an equation of your own, written as text")
