"""Lowered terms: the algebra of the objective language with nodes as its leaves. Torch-free.

Sums, weights, pointwise functions, stops and constants stand as the objective wrote them; each density, ratio, KL and
registered term has become a `NodeValue`. `jointgen.compiler.lowering` makes these trees, a plan keeps them, and
`jointgen.engine.terms` evaluates them.
"""

from __future__ import annotations

from typing import Any

import attrs

from jointgen.compiler.axes import Axes
from jointgen.compiler.gradient_paths import GradientPaths, Traits, merge_paths
from jointgen.compiler.nodes import EXPLICIT, Node, PastNode, ReadNode, StandardizedNode
from jointgen.objectives.algebra import Expr, Stop, Tree


@attrs.frozen(cache_hash=True)
class NodeValue(Expr):
    """The value of a node, (rows,)."""

    node: Node

    def __str__(self) -> str:
        return self.node.title


@attrs.frozen(cache_hash=True)
class OverDraws(Expr):
    """A term reduced over the k draws of each row of the batch: (B k,) -> (B,).

    Args:
        reduction: The reduction; None for the mean.
        draws: What a reduction with a gradient of its own looks at; None for any other.
    """

    term: Expr
    k: int
    reduction: Any = attrs.field(default=None, hash=False)
    draws: ReducedDraws | None = None

    @property
    def children(self) -> tuple[Expr, ...]:
        """The term, and the values of the draws."""
        return (self.term, *(map(NodeValue, self.draws.nodes) if self.draws else ()))


@attrs.frozen(cache_hash=True)
class ReducedDraws:
    """The draws whose gradient a reduction makes itself, by variable in one order.

    Args:
        variables: The variables.
        leaves: The draws as leaves: the term stands at them.
        paths: The same draws with their path; none where the reduction does not use it.
        densities: The log-density of each draw, as a leaf, under the conditional that made it; none where the
            reduction does not use it.
    """

    variables: tuple[str, ...]
    leaves: tuple[ReadNode, ...]
    paths: tuple[ReadNode, ...] = ()
    densities: tuple[Node, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes that the reduction needs beside its term."""
        return (*self.leaves, *self.paths, *self.densities)


@attrs.frozen(cache_hash=True)
class OverValues(Expr):
    """The weighted mean of a term over summed variables and draws, or another weighted reduction: (B * rows,) -> (B,).

    Args:
        term: The term, every leaf of which has all axes.
        axes: What it is averaged over.
        log_probs: The log-probabilities of the values of the summed variables, by which it is weighed.
        reduction: The reduction; None for the mean.
    """

    term: Expr
    axes: Axes
    log_probs: tuple[NodeValue, ...]
    reduction: Any = attrs.field(default=None, hash=False)

    @property
    def children(self) -> tuple[Expr, ...]:
        """The term, and the log-probabilities."""
        return (self.term, *self.log_probs)


@attrs.frozen(cache_hash=True)
class CriticPenalty(Expr):
    """A penalty on a critic, which runs it again on what it sees of its positives and negatives, (B,).

    Args:
        detached: The inputs whose gradient reaches nothing that the update trains.
        pace: The update runs at every step that this number divides.
    """

    critic: str
    penalty: Any
    positives: tuple[ReadNode | StandardizedNode | PastNode, ...]
    negatives: tuple[ReadNode | StandardizedNode | PastNode, ...]
    detached: frozenset[Node]
    title: str
    pace: int = 1

    @property
    def every(self) -> int:
        """The penalty is computed in one of so many of the steps at which the update runs."""
        return int(self.penalty.every)

    def is_due(self, step: int) -> bool:
        """Whether the penalty is computed at this step, at which the update runs."""
        return step // self.pace % self.every == 0


class OverBatch(Expr):
    """One number for the whole batch, (), from the rows of all processes."""

    __slots__ = ()


@attrs.frozen(cache_hash=True)
class DivergenceOfRows(OverBatch):
    """A divergence of the rows of its sides, or a statistic of one side's.

    Args:
        measure: The component.
        sides: For each side what is compared, (n, *shape) each.
        title: Its text, which names its noise.
    """

    measure: Any = attrs.field(hash=False)
    sides: tuple[tuple[Node, ...], ...]
    title: str


@attrs.frozen(cache_hash=True)
class LogMeanExpOfRows(OverBatch):
    """The log of the mean of exp over all rows, ().

    Args:
        terms: For each component of the distribution its share, and the term at its draws, (B,).
    """

    terms: tuple[tuple[float, Expr], ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        """The terms that are averaged."""
        return tuple(term for _, term in self.terms)


def leaves_of(lowered: Tree) -> list[Node]:
    """The nodes that evaluating a lowered term needs directly."""
    if isinstance(lowered, NodeValue):
        return [lowered.node]
    if isinstance(lowered, CriticPenalty):
        return [*lowered.positives, *lowered.negatives]
    if isinstance(lowered, DivergenceOfRows):
        return [node for side in lowered.sides for node in side]
    return [node for child in lowered.children for node in leaves_of(child)]


def batch_of(lowered: Expr) -> int:
    """The size of the batch that a lowered term is computed from, where a data source has its own; otherwise 0."""
    return max((node.batch for node in leaves_of(lowered)), default=0)


def paths_of(lowered: Tree, traits: Traits) -> GradientPaths:
    """Return how a gradient of a lowered term reaches the parameters of each part."""
    if isinstance(lowered, Stop):
        return {}
    below = merge_paths(node.gradient_paths(traits) for node in leaves_of(lowered) if not lowered.children)
    critic = {lowered.critic: EXPLICIT} if isinstance(lowered, CriticPenalty) else {}
    return merge_paths([below, critic, *(paths_of(child, traits) for child in lowered.children)])
