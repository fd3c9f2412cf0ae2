"""From an objective to the plan of a step: what each update draws, runs and trains. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from jointgen.compiler.gradient_paths import GradientPaths, PartTraits, gradient_paths, merge_paths
from jointgen.compiler.lowering import Lowering, Point
from jointgen.compiler.nodes import (
    Applied,
    ClosedKL,
    Critic,
    Density,
    Forward,
    Moments,
    Node,
    PriorLaw,
    Read,
    Root,
    Sample,
    furthest_shift,
    ordered,
)
from jointgen.errors import ConfigError, suggest
from jointgen.objectives.algebra import Expr, Stop, Weight, summands
from jointgen.objectives.distributions import KL, LogDensity
from jointgen.objectives.expressions import Apply, Expectation, Ratio
from jointgen.objectives.objective import Objective, PenaltyOf, Update


@attrs.frozen
class Summand:
    """One weighted term of one expectation of an update; the row of the ownership table that it makes."""

    label: str
    weights: tuple[float | Weight, ...]
    source: Expectation | PenaltyOf
    term: Expr
    gradient_paths: GradientPaths

    def weight(self, at: Callable[[Weight], Any]) -> Any:
        """The product of its weights, the named ones as `at` gives them."""
        value: Any = 1.0
        for weight in self.weights:
            value = value * (at(weight) if isinstance(weight, Weight) else weight)
        return value


@attrs.frozen
class UpdatePlan:
    update: Update
    trains: tuple[str, ...]
    summands: tuple[Summand, ...]
    nodes: tuple[Node, ...]

    @property
    def name(self) -> str:
        return self.update.name

    def runs(self) -> dict[str, int]:
        """How often each network runs in this update: part -> number of forward passes."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            for part in parts_run(node):
                counts[part] = counts.get(part, 0) + 1
        return counts


@attrs.frozen
class Plan:
    """The plan of one step of an objective: its updates in order.

    separate: each update builds a graph of its own even where they could have one, as compiled updates must.
    """

    objective: Objective
    updates: tuple[UpdatePlan, ...]
    traits: Mapping[str, PartTraits]
    separate: bool = False

    @property
    def one_graph(self) -> bool:
        """Whether all updates are losses on one graph, run once: at the same point nothing moves between them."""
        return self.objective.order == "same point" and len(self.updates) > 1 and not self.separate

    def reused(self, index: int) -> frozenset[Node]:
        """Nodes of update `index` that an earlier update of the step computes for it."""
        return frozenset(self.updates[index].nodes) & self._before(index) if self.one_graph else self.shared(index)

    def _before(self, index: int) -> set[Node]:
        return {node for earlier in self.updates[:index] for node in earlier.nodes}

    def shared(self, index: int) -> frozenset[Node]:
        """Nodes of update `index` whose value an earlier update of the step hands over, without its graph: nothing
        that it trains lies below them.

        Draws, and densities of parts that have not moved since. A critic is always run again. None in one graph.
        """
        if self.one_graph:
            return frozenset()
        plan, earlier, before = self.updates[index], self.updates[:index], self._before(index)
        moved = set() if self.objective.order == "same point" else {part for other in earlier for part in other.trains}
        trained = set(plan.trains)
        known = {
            node
            for node in plan.nodes
            if node in before
            and not trained & (set(gradient_paths(node, self.traits)) | _measured(node, self.traits))
            and not moved & set(_scored_by(node))
            and not any(isinstance(below, Critic | Applied) for below in ordered([node]))
        }
        known = known - _drawn_again(plan, before, known)
        # a distribution that this update asks for something new is its own: an earlier one carries an older graph, or
        # parameters that have moved
        asked = {law for node in plan.nodes if node not in known for law in node.parents}
        return frozenset(node for node in known if not (isinstance(node, Forward | PriorLaw) and node in asked))

    @property
    def furthest_pairing(self) -> int:
        """By how many rows the furthest re-pairing shifts: a block must have more. 0 where nothing is re-paired."""
        return furthest_shift([node for update in self.updates for node in update.nodes])

    def runs(self) -> dict[str, int]:
        """How often each network runs in one step in which every update is due once."""
        counts: dict[str, int] = {}
        for index, plan in enumerate(self.updates):
            reused = self.reused(index)
            for node in plan.nodes:
                for part in parts_run(node) if node not in reused else ():
                    counts[part] = counts.get(part, 0) + 1
        return counts


def parts_run(node: Node) -> tuple[str, ...]:
    """The parts whose network a node runs: its own, or those that a prior goes through."""
    if isinstance(node, Root | PriorLaw):
        return node.through
    return (node.part,) if isinstance(node, Forward | Critic) else ()


def _measured(node: Node, traits: Mapping[str, PartTraits]) -> set[str]:
    """Parts that have no gradient from a node but whose moments it is made of."""
    laws = [below.law for below in ordered([node]) if isinstance(below, Moments)]
    return {part for law in laws for part in gradient_paths(law, traits)}


def _drawn_again(plan: UpdatePlan, before: set[Node], known: set[Node]) -> set[Node]:
    """Draws that this update reads in a way no earlier one did, and what hangs on them.

    A reading is made when it is read, so it must come from the parameters that the sample beside it comes from: the
    same noise, drawn again.
    """
    read = {(node.source, node.reading) for node in before if isinstance(node, Read)}
    asked = (node for node in plan.nodes if isinstance(node, Read) and _is_of_model(node.source))
    again = {node.source for node in asked if (node.source, node.reading) not in read}
    return {node for node in known if again & set(ordered([node]))}


def _is_of_model(source: Node) -> bool:
    return isinstance(source, Sample) or (isinstance(source, Root) and not source.is_data)


def _scored_by(node: Node) -> list[str]:
    """The parts whose density a node is."""
    laws = [law for law in node.parents if isinstance(node, Density | ClosedKL) and not isinstance(law, Read)]
    return [part for law in laws for part in (law.part, *getattr(law, "through", ()))]


def make_plan(objective: Objective, traits: Mapping[str, PartTraits], separate: bool = False) -> Plan:
    """Lowers a completed objective. Raises ConfigError where a term asks for what its expectation does not draw."""
    return Plan(objective, tuple(plan_update(u, objective, traits) for u in objective.updates), traits, separate)


def plan_update(update: Update, objective: Objective, traits: Mapping[str, PartTraits]) -> UpdatePlan:
    _check_trains(update, traits)
    trains = update.trains
    if trains is None:
        everything = [name for name, t in traits.items() if t.kind in ("conditional", "prior")]
        # a path that is wanted and that the family lacks is a requirement, not a reason to train less
        able = {name: attrs.evolve(trait, any_path=True) for name, trait in traits.items()}
        found = make_summands(update, Lowering(objective.joints, able, everything))
        reached = merge_paths(summand.gradient_paths for summand, _ in found)
        trains = tuple(name for name in everything if name in reached)
    lowering = Lowering(objective.joints, traits, trains)
    pairs = make_summands(update, lowering)
    nodes = ordered(node for _, leaves in pairs for node in leaves)
    return UpdatePlan(update, trains, tuple(summand for summand, _ in pairs), tuple(nodes))


def _check_trains(update: Update, traits: Mapping[str, PartTraits]) -> None:
    parts = [name for name, trait in traits.items() if trait.kind != "data"]
    for name in update.trains or ():
        if name not in parts:
            raise ConfigError(f"update {update.name!r} trains {name!r}, which is no part{suggest(name, parts)}")


def make_summands(update: Update, lowering: Lowering) -> list[tuple[Summand, list[Node]]]:
    """Each weighted term of the update, with the nodes that it needs."""
    found = []
    for outer, source in summands(update.maximize):
        assert isinstance(source, Expectation | PenaltyOf)
        for inner, term in _terms_of(source):
            leaves = nodes_of(source, term, lowering)
            reached = _reach_of(source, term, lowering)
            found.append((Summand(_label(update, source, term), (*outer, *inner), source, term, reached), leaves))
    return found


def _terms_of(source: Expectation | PenaltyOf) -> Iterable[tuple[tuple[float | Weight, ...], Expr]]:
    """A mean is taken term by term; a log-mean-exp is one term."""
    if isinstance(source, PenaltyOf) or source.reduce != "mean":
        return [((), source if isinstance(source, PenaltyOf) else source.term)]
    return summands(source.term)


def nodes_of(source: Expectation | PenaltyOf, term: Expr, lowering: Lowering) -> list[Node]:
    if isinstance(source, PenaltyOf):
        sides = (source.ratio.num, source.ratio.den)
        return [read for side in sides for read in lowering.critic(source.ratio, lowering.point(side, 1)).inputs]
    return list(lowering.leaves(term, lowering.point(source.over, source.k)))


def _reach_of(source: Expectation | PenaltyOf, term: Expr, lowering: Lowering) -> GradientPaths:
    if isinstance(source, PenaltyOf):
        below = merge_paths(gradient_paths(node, lowering.traits) for node in nodes_of(source, term, lowering))
        return merge_paths([below, {source.ratio.name: frozenset({"explicit"})}])
    return reach_of_term(term, lowering.point(source.over, source.k), lowering)


def reach_of_term(term: Expr, point: Point, lowering: Lowering, held: bool = False) -> GradientPaths:
    if isinstance(term, Stop):
        return {}
    own = (
        [gradient_paths(lowering.leaf(term, point, held), lowering.traits)]
        if isinstance(term, LogDensity | KL | Ratio | Apply)
        else []
    )
    inner_held = held or isinstance(term, Ratio)
    return merge_paths([*own, *(reach_of_term(child, point, lowering, inner_held) for child in term.children)])


def _label(update: Update, source: Expectation | PenaltyOf, term: Expr) -> str:
    if isinstance(source, PenaltyOf):
        return f"{update.name}/{source}"
    return f"{update.name}/{source.sign} {term}"
