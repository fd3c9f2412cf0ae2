"""The nodes of an exact sum over a variable with finitely many values, and what is spread over it. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import attrs

from jointgen.compiler.axes import Axes, size_of, summed_in
from jointgen.compiler.gradient_paths import GradientPaths, Traits
from jointgen.compiler.nodes import DrawNode, ForwardNode, Need, Node, PriorNode, ReadNode


@attrs.frozen(cache_hash=True)
class ValuesNode(DrawNode):
    """Every value of a variable in the place of a draw: C rows for each row of the batch, the same in each.

    Terms are weighed by the probabilities of the values, which carry the gradient to the law. The values carry none.

    Args:
        law: The distribution, spread over the values.
        variable: The variable.
        count: The number C of its values.
        title: How the distribution is written.
    """

    law: ForwardNode | PriorNode
    variable: str
    count: int
    title: str

    @property
    def parents(self) -> tuple[Node, ...]:
        return (self.law,)

    @property
    def rows(self) -> int:
        return self.count

    @property
    def axes(self) -> Axes:
        return ((self.variable, self.count),)

    @property
    def drawn_by(self) -> str:
        return self.law.part

    @property
    def is_of_model(self) -> bool:
        return True

    def gradient_paths(self, traits: Traits) -> GradientPaths:
        return {}

    def title_of(self, variable: str, reading: str) -> str:
        return f"every {variable} of {self.title}"

    def needs(self, differentiable: Collection[Node], handed_over: Collection[Node]) -> Iterator[Need]:
        yield Need(self.law.part, "values", self.variable)


@attrs.frozen(cache_hash=True)
class SpreadNode(Node):
    """A value with its rows repeated over further axes.

    Args:
        node: The value.
        over: The axes that it has afterwards, its own among them.
    """

    node: Node
    over: Axes

    @property
    def parents(self) -> tuple[Node, ...]:
        return (self.node,)

    @property
    def rows(self) -> int:
        return size_of(self.over)

    @property
    def axes(self) -> Axes:
        return self.over

    @property
    def title(self) -> str:
        return f"{self.node.title} for every {', '.join(summed_in(self.over))}"

    def unstopped(self) -> SpreadNode:
        """The same value with its gradient."""
        node: Any = self.node
        return attrs.evolve(self, node=node.unstopped())


def spread(node: Any, axes: Axes) -> Any:
    """Return a value with these axes, of which it has some."""
    if node.axes == axes:
        return node
    if isinstance(node, ReadNode) and not summed_in(axes):
        return attrs.evolve(node, repeat=size_of(axes) // node.source.rows)
    return SpreadNode(node, axes)
