"""Nodes of aggregate densities: what a conditional's network puts out, and the density that the batch makes of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import attrs

from jointgen.compiler.axes import Axes
from jointgen.compiler.gradient_paths import GradientPaths, Traits, merge_paths
from jointgen.compiler.nodes import EXPLICIT, Mode, Need, NetworkRun, Node, ReadNode


@attrs.frozen(cache_hash=True)
class TrunkNode(NetworkRun):
    """One run of the network of a conditional, giving what its family makes a distribution of, (rows, *outputs)."""

    part: str
    inputs: tuple[ReadNode, ...]
    mode: Mode
    runs: str
    """The title of the run that has the same dropout masks."""
    is_never_handed_over = True

    @property
    def title(self) -> str:
        return f"outputs of {super().title}"


@attrs.frozen(cache_hash=True)
class AggregateNode(Node):
    """The log-density of values under the mean of a conditional over the data, (rows,) nats.

    Args:
        outputs: What the conditional's network puts out for the rows of the batch.
        value: The values.
        source: The data source whose rows the conditional is given.
        own: Whether each value is a draw of the conditional given its own row.
        each: Score each dimension by itself, and sum.
    """

    outputs: TrunkNode
    value: ReadNode
    source: str
    own: bool
    each: bool
    is_never_handed_over = True

    @property
    def part(self) -> str:
        """The part whose distributions make the density."""
        return self.outputs.part

    @property
    def parents(self) -> tuple[Node, ...]:
        return (self.outputs, self.value)

    @property
    def rows(self) -> int:
        return self.value.rows

    @property
    def axes(self) -> Axes:
        return self.value.axes

    @property
    def title(self) -> str:
        return f"log {'prod ' if self.each else ''}mean of {self.outputs.title} at {self.value.title}"

    def gradient_paths(self, traits: Traits) -> GradientPaths:
        family = {} if self.outputs.mode == "held" else {self.outputs.part: EXPLICIT}
        return merge_paths([super().gradient_paths(traits), family])

    def needs(self, differentiable: Collection[Node], handed_over: Collection[Node]) -> Iterator[Need]:
        yield Need(self.outputs.part, "density of each dimension" if self.each else "foreign density")
