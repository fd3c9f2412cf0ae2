"""Lowered terms: the algebra of the objective language with nodes as its leaves. Torch-free.

Sums, weights, pointwise functions, stops and constants stand as the objective wrote them; each density, ratio, KL and
registered term has become a `NodeValue`. `jointgen.compiler.lowering` makes these trees, a plan keeps them, and
`jointgen.engine.terms` evaluates them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import attrs

from jointgen.compiler.gradient_paths import GradientPaths, Traits, merge_paths
from jointgen.compiler.nodes import EXPLICIT, Node, ReadNode, StandardizedNode
from jointgen.objectives.algebra import Constant, Expr, Pointwise, Stop, Sum, Weighted
from jointgen.objectives.expressions import Ratio


@attrs.frozen(cache_hash=True)
class NodeValue(Expr):
    """The value of a node, (rows,)."""

    node: Node

    def __str__(self) -> str:
        return self.node.title


@attrs.frozen(cache_hash=True)
class OverDraws(Expr):
    """The mean, or the log of the mean of exp, over the k draws of each row of the batch: (B k,) -> (B,)."""

    term: Expr
    k: int
    reduce: Literal["mean", "logmeanexp"]

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.term,)


@attrs.frozen(cache_hash=True)
class CriticPenalty(Expr):
    """A penalty on a critic, which runs it again on what it sees of its positives and negatives, (B,).

    Args:
        detached: the inputs whose gradient reaches nothing that the update trains.
    """

    critic: str
    penalty: Any
    positives: tuple[ReadNode | StandardizedNode, ...]
    negatives: tuple[ReadNode | StandardizedNode, ...]
    detached: frozenset[Node]
    title: str

    @property
    def every(self) -> int:
        """It is due at every such step."""
        return int(self.penalty.every)


def lower_tree(term: Expr, leaf: Callable[[Expr, bool], Node], held: bool = False) -> Expr:
    """Replace every term that is no combination of others by the value of its node.

    Args:
        leaf: (term, whether its parameters are held) -> its node.
        held: hold the parameters. The known part of a ratio always is.
    """
    match term:
        case Constant():
            return term
        case Sum():
            return Sum(tuple(lower_tree(inner, leaf, held) for inner in term.terms))
        case Weighted():
            return Weighted(term.weight, lower_tree(term.term, leaf, held))
        case Pointwise():
            return Pointwise(term.function, lower_tree(term.term, leaf, held))
        case Stop():
            return Stop(lower_tree(term.term, leaf, held))
    value = NodeValue(leaf(term, held))
    if isinstance(term, Ratio) and term.known is not None:
        return Sum((value, lower_tree(term.known, leaf, held=True)))
    return value


def leaves_of(lowered: Expr) -> list[Node]:
    """The nodes that evaluating a lowered term needs directly."""
    if isinstance(lowered, NodeValue):
        return [lowered.node]
    if isinstance(lowered, CriticPenalty):
        return [*lowered.positives, *lowered.negatives]
    return [node for child in lowered.children for node in leaves_of(child)]


def paths_of(lowered: Expr, traits: Traits) -> GradientPaths:
    """How a gradient of a lowered term reaches the parameters of each part."""
    if isinstance(lowered, Stop):
        return {}
    below = merge_paths(node.gradient_paths(traits) for node in leaves_of(lowered) if not lowered.children)
    critic = {lowered.critic: EXPLICIT} if isinstance(lowered, CriticPenalty) else {}
    return merge_paths([below, critic, *(paths_of(child, traits) for child in lowered.children)])
