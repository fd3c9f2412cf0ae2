"""The plan of a step: what each update draws, runs and trains, derived from the objective. Torch-free.

A plan keeps what it lowered: each `Summand` has its tree of nodes, and nothing lowers it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from jointgen.compiler.aggregates import AggregateNode
from jointgen.compiler.gradient_paths import GradientPaths, PartTraits, merge_paths
from jointgen.compiler.lowered import CriticPenalty, OverBatch, leaves_of, paths_of
from jointgen.compiler.lowered_reductions import lower_summand
from jointgen.compiler.lowering import Lowering, Source
from jointgen.compiler.nodes import (
    DrawNode,
    ForwardNode,
    MomentsNode,
    Node,
    PastNode,
    PriorNode,
    ReadNode,
    RootNode,
    differentiable_nodes,
    furthest_shift,
    ordered,
)
from jointgen.errors import ConfigError, suggest
from jointgen.objectives.algebra import Expr, Weight, summands
from jointgen.objectives.distributions import Joint
from jointgen.objectives.expressions import SIDES, Expectation, Ratio, Side
from jointgen.objectives.objective import Objective, Update

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen
class Summand:
    """One weighted term of one expectation of an update, which is one row of the table of gradients.

    Args:
        label: Its name in logs and tables, "model/E[q(x,z)] log p(x|z)".
        weights: What it is multiplied by.
        term: The term as the objective writes it; of a penalty the penalty itself.
        lowered: The term with nodes as leaves, one number per row of the batch.
        gradient_paths: How its gradient reaches each part.
    """

    label: str
    weights: tuple[float | Weight, ...]
    term: Expr
    lowered: Expr
    gradient_paths: GradientPaths

    @property
    def penalty(self) -> CriticPenalty | None:
        """The penalty, where the summand is one."""
        return self.lowered if isinstance(self.lowered, CriticPenalty) else None

    @property
    def is_of_batch(self) -> bool:
        """Whether it is one number for the whole batch, and not a mean over its rows."""
        return isinstance(self.lowered, OverBatch)

    @property
    def sees_batch(self) -> bool:
        """Whether it depends on the whole batch: it is a number of it, or has a density that its rows make."""
        return self.is_of_batch or any(isinstance(node, AggregateNode) for node in self.nodes)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes that it is computed from, parents first."""
        return ordered(leaves_of(self.lowered))

    def weight(self, at: Callable[[Weight], float | Tensor]) -> float | Tensor:
        """The product of its weights, the named ones as `at` gives them."""
        value: float | Tensor = 1.0
        for weight in self.weights:
            value = value * (at(weight) if isinstance(weight, Weight) else weight)
        return value


@attrs.frozen
class CriticOutput:
    """The whole output of a critic that an update trains, on one of its sides, for its figures.

    Args:
        share: The share of the side's draws that it is on: less than 1 for a component of a mixture.
        node: The run of the critic's network, without the known part of the ratio.
        lowered: The output with the known part, (B,).
    """

    ratio: Ratio
    side: Side
    share: float
    node: Node
    lowered: Expr

    @property
    def leaves(self) -> list[Node]:
        """The nodes that the output is computed from directly."""
        return leaves_of(self.lowered)


@attrs.frozen
class UpdatePlan:
    """The plan of one update: what it computes and trains.

    Args:
        nodes: Everything that it needs, parents first.
        differentiable: The nodes whose gradient reaches a part that it trains.
        critics: The outputs of the critics that it trains, on the sides that it looks at.
        constraints: What the parts that it trains are held to after each of its optimizer steps, by the part's name.
    """

    update: Update
    trains: tuple[str, ...]
    summands: tuple[Summand, ...]
    nodes: tuple[Node, ...]
    differentiable: frozenset[Node]
    critics: tuple[CriticOutput, ...]
    constraints: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    @property
    def name(self) -> str:
        """The name of the update."""
        return self.update.name

    def runs(self) -> dict[str, int]:
        """Count the forward passes of each network in this update, by part."""
        return _count_runs(self.nodes)


@attrs.frozen
class Plan:
    """The plan of one step of an objective: its updates in order.

    Args:
        separate: Each update builds a graph of its own even where they could share one, as compiled updates must.
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
        """The nodes of update `index` that an earlier update of the step computes for it."""
        if self.one_graph:
            return frozenset(self.updates[index].nodes) & self._computed_before(index)
        return self.handed_over(index)

    def _computed_before(self, index: int) -> set[Node]:
        return {node for earlier in self.updates[:index] for node in earlier.nodes}

    def handed_over(self, index: int) -> frozenset[Node]:
        """The nodes of update `index` whose value an earlier update of the step hands over, without its graph.

        These are draws, and densities of parts that have not moved since, below which the update trains nothing. In
        one graph nothing is handed over.
        """
        if self.one_graph:
            return frozenset()
        plan, earlier, before = self.updates[index], self.updates[:index], self._computed_before(index)
        moved = set() if self.objective.order == "same point" else {part for other in earlier for part in other.trains}
        trained = set(plan.trains)
        known = {
            node
            for node in plan.nodes
            if node in before
            and node not in plan.differentiable
            and trained.isdisjoint(self._measured(node))
            and moved.isdisjoint(node.scored_parts)
            and not any(below.is_never_handed_over or below.is_leaf for below in ordered([node]))
        }
        known -= _drawn_again(plan, before, known)
        # a distribution that this update asks for something new is its own: an earlier one carries an older graph, or
        # parameters that have moved
        asked = {parent for node in plan.nodes if node not in known for parent in node.parents}
        return frozenset(node for node in known if not (isinstance(node, ForwardNode | PriorNode) and node in asked))

    def _measured(self, node: Node) -> set[str]:
        """The parts that a node has no gradient to, but from whose distributions its moments are made."""
        laws = [below.law for below in ordered([node]) if isinstance(below, MomentsNode)]
        return {part for law in laws for part in law.gradient_paths(self.traits)}

    def furthest_pairing(self, batch: int | None = None) -> int:
        """By how many rows the furthest re-pairing shifts: a block must have more. 0 where nothing is re-paired.

        Args:
            batch: Only of the rows of a batch of this size, see `Node.batch`; None: of all.
        """
        nodes = [node for update in self.updates for node in update.nodes]
        return furthest_shift([node for node in nodes if batch in (None, node.batch)])

    def runs(self) -> dict[str, int]:
        """Count the forward passes of each network in a step in which every update is due once, by part."""
        reused = [self.reused(index) for index in range(len(self.updates))]
        return _count_runs(
            node for plan, known in zip(self.updates, reused, strict=True) for node in plan.nodes if node not in known
        )


def _count_runs(nodes: Iterable[Node]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in nodes:
        for part in node.networks:
            counts[part] = counts.get(part, 0) + 1
    return counts


def _drawn_again(plan: UpdatePlan, before: set[Node], known: set[Node]) -> set[Node]:
    """Find draws that this update reads in a way no earlier one did, and what hangs on them.

    A reading is made when it is read, so it must come from the parameters that the sample beside it comes from: the
    same noise, drawn again.
    """
    read = {(node.source, node.reading) for node in before if isinstance(node, ReadNode)}
    asked = (node for node in plan.nodes if isinstance(node, ReadNode) and node.source.is_of_model)
    again: set[DrawNode] = {node.source for node in asked if (node.source, node.reading) not in read}
    return {node for node in known if not again.isdisjoint(ordered([node]))}


# --- from an objective to its plan -----------------------------------------------------------------------------------


def make_plan(objective: Objective, traits: Mapping[str, PartTraits], separate: bool = False) -> Plan:
    """Lower a completed objective.

    Raises:
        ConfigError: A term asks for what its expectation does not draw, or an update trains no such part.
    """
    return Plan(objective, tuple(_plan_update(u, objective, traits) for u in objective.updates), traits, separate)


def _plan_update(update: Update, objective: Objective, traits: Mapping[str, PartTraits]) -> UpdatePlan:
    parts = [name for name, trait in traits.items() if trait.kind != "data"]
    for name in update.trains or ():
        if name not in parts:
            raise ConfigError(f"update {update.name!r} trains {name!r}, which is no part{suggest(name, parts)}")
    trains = update.trains
    if trains is None:
        everything = [name for name, trait in traits.items() if trait.kind in ("conditional", "prior")]
        # a path that is wanted and that the family lacks is a requirement, not a reason to train less
        able = {name: attrs.evolve(trait, any_path=True) for name, trait in traits.items()}
        found = _lower_update(update, Lowering(objective.joints, able, everything))
        reached = merge_paths(summand.gradient_paths for summand in found)
        trains = tuple(name for name in everything if name in reached)
    lowering = Lowering(objective.joints, traits, trains, update.every)
    lowered = _lower_update(update, lowering)
    nodes = ordered(node for summand in lowered for node in leaves_of(summand.lowered))
    differentiable = differentiable_nodes(nodes, trains, traits)
    critics = tuple(_critic_outputs(update, trains, lowering, frozenset(nodes)))
    constraints = tuple((part, held) for part, held in objective.constraints if part in trains)
    return UpdatePlan(update, trains, lowered, nodes, differentiable, critics, constraints)


def lower_expression(expr: Expr, joints: Mapping[str, Joint], traits: Mapping[str, PartTraits]) -> tuple[Summand, ...]:
    """Lower a sum of expectations that is evaluated and trains nothing.

    Raises:
        ConfigError: A term asks for what its expectation does not draw, or stands outside an expectation.
    """
    return _lower_update(Update("evaluation", expr), Lowering(joints, traits))


def _lower_update(update: Update, lowering: Lowering) -> tuple[Summand, ...]:
    found = []
    for outer, source in _without_mixtures(update):
        for inner, term in source.terms if isinstance(source, Expectation) else [((), source)]:
            lowered = lower_summand(lowering, source, term)
            title = f"{source.sign} {term}" if isinstance(source, Expectation) else str(source)
            _check_batches(title, lowered)
            found.append(
                Summand(f"{update.name}/{title}", (*outer, *inner), term, lowered, paths_of(lowered, lowering.traits))
            )
    return tuple(found)


def _check_batches(title: str, lowered: Expr) -> None:
    """Refuse a term that would pair rows of batches of different sizes."""
    roots = [node for node in ordered(leaves_of(lowered)) if isinstance(node, RootNode) and node.is_data]
    sizes = {node.batch: node.part for node in roots}
    if len(sizes) > 1:
        listed = " and ".join(f"{size or 'train.batch'} of {part!r}" for size, part in sorted(sizes.items()))
        raise ConfigError(
            f"{title}: it pairs rows of sources of which a step takes different numbers, {listed}; give them one batch"
        )


def _without_mixtures(update: Update) -> Iterable[tuple[tuple[float | Weight, ...], Source]]:
    """The summands of an update with their weights; an expectation over a mixture as those of its components."""
    for weights, whole in summands(update.maximize):
        assert isinstance(whole, Source)
        for share, source in whole.components:
            yield (weights if share == 1.0 else (*weights, share)), source


def _critic_outputs(
    update: Update, trains: tuple[str, ...], lowering: Lowering, nodes: frozenset[Node]
) -> Iterable[CriticOutput]:
    ratios = {expr.name: expr for expr in update.maximize.walk() if isinstance(expr, Ratio)}
    histories = dict.fromkeys([0, *(expr.history for expr in update.maximize.walk() if isinstance(expr, Expectation))])
    for ratio in ratios.values():
        for side, over in zip(SIDES, (ratio.num, ratio.den), strict=True):
            if ratio.name in trains:
                for history in histories:
                    outputs = [
                        CriticOutput(ratio, side, share, *lowering.critic_output(ratio, product, history))
                        for share, product in over.components
                    ]
                    if all(output.node in nodes for output in outputs):
                        yield from outputs
                        break


def check_same_point(plan: Plan) -> None:
    """Raise ConfigError where updates of one point could not all be made there, on one graph, once a step."""
    if plan.objective.order != "same point":
        return
    trained: dict[str, str] = {}
    for update in plan.updates:
        gated = update.update.when is not None or update.update.unless
        if update.update.most_times > 1 or update.update.every > 1 or gated:
            raise ConfigError(f"'same point' runs each update once a step, {update.name} asks otherwise", "order")
        if any(isinstance(node, PastNode) for node in update.nodes):
            raise ConfigError(f"{update.name} has a history of draws, which goes in turns only", "order")
        for part in update.trains:
            if part in trained:
                raise ConfigError(f"at the 'same point', {trained[part]} and {update.name} both train {part}", "order")
            trained[part] = update.name
