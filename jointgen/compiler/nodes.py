"""The nodes of a plan: draws, network runs, densities and critics as a graph. Torch-free.

A node knows what it is computed from, how its gradient travels and what it requires of the families. A new kind of
node is a class here and its operation in `jointgen.engine.program`. Equal nodes are one node, so each network runs
once per draw, reading and mode (live or held) in an update.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import attrs

from jointgen.compiler.axes import Axes, draws_axis
from jointgen.compiler.gradient_paths import GradientPaths, Traits, merge_paths

Mode = Literal["live", "held"]
"""How a network runs. held: the gradient flows through its inputs and not to its parameters."""

Ability = Literal[
    "own density",
    "foreign density",
    "bin mass",
    "reading",
    "path",
    "KL",
    "moments",
    "values",
    "density of each dimension",
]


class Need(NamedTuple):
    """An ability that a part must have. `detail` names a reading, or for "KL" the part on the other side."""

    part: str
    ability: Ability
    detail: str = ""


EXPLICIT, SAMPLES = frozenset({"explicit"}), frozenset({"samples"})


class Node:
    """A step in the computation of an update.

    Attributes:
        parents: The nodes that it is computed from.
        rows: How many rows its value has for each row of the batch.
        batch: How many rows the batch has; 0 for `train.batch`.
        axes: Over what: the values of summed variables, and draws (`jointgen.compiler.axes`).
        title: Its text in `jointgen explain`. The title of a draw or of a run also names its noise, so another title
            means other random numbers.
    """

    __slots__ = ()

    is_tensor: ClassVar[bool] = True
    """Whether its value is a tensor, and not a draw or a distribution."""
    is_never_handed_over: ClassVar[bool] = False
    """Whether each update computes it anew, even where an earlier one of the step has its value."""

    @property
    def is_leaf(self) -> bool:
        """Whether the gradient of what is computed from it is taken in its value."""
        return False

    @property
    def parents(self) -> tuple[Node, ...]:
        return ()

    @property
    def rows(self) -> int:
        return max(parent.rows for parent in self.parents)

    @property
    def batch(self) -> int:
        return max((parent.batch for parent in self.parents), default=0)

    @property
    def axes(self) -> Axes:
        return max((parent.axes for parent in self.parents), key=len, default=())

    @property
    def title(self) -> str:
        raise NotImplementedError

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that compute it from its parents."""
        return ()

    @property
    def networks(self) -> tuple[str, ...]:
        """The parts whose network runs once for it."""
        return ()

    @property
    def scored_parts(self) -> tuple[str, ...]:
        """The parts whose parameters its value depends on: once one has moved, an earlier value is stale."""
        return ()

    def gradient_paths(self, traits: Traits) -> GradientPaths:
        """Return how a gradient of the value reaches the parameters of each part."""
        return merge_paths(parent.gradient_paths(traits) for parent in self.parents)

    def needs(self, differentiable: Collection[Node], handed_over: Collection[Node]) -> Iterator[Need]:
        """The needs of the node: what families must be able to do for it.

        Args:
            differentiable: The nodes whose gradient reaches a part that the update trains.
            handed_over: The nodes whose value an earlier update of the step hands over.
        """
        return iter(())


# --- draws -----------------------------------------------------------------------------------------------------------


class DrawNode(Node):
    """A draw of variables, which a `ReadNode` reads as a tensor."""

    __slots__ = ()
    is_tensor = False

    @property
    def drawn_by(self) -> str:
        """The part that a reading is asked of."""
        raise NotImplementedError

    @property
    def is_of_model(self) -> bool:
        """Whether the model makes the draw: a conditional or a prior."""
        return False

    def title_of(self, variable: str, reading: str) -> str:
        """The title of one variable in a reading; "sample" is not mentioned."""
        return f"{self.title}.{variable}" + ("" if reading == "sample" else f" {reading}")

    def reading_needs(self, reading: str, with_gradient: bool) -> Iterator[Need]:
        """The needs of a reading: that the family can make it, and that a gradient flows through it."""
        return iter(())


@attrs.frozen(cache_hash=True)
class RootNode(DrawNode):
    """A draw of a data source or a prior.

    Args:
        joint: The joint that draws, the `index`-th time.
        part: The data source or the prior.
        out: The variables that are drawn.
        shift: By how many rows the rows of a source are shifted, where it is the root of two joints.
        through: The conditionals that a prior is computed with.
        k: How often a prior is drawn for each row of the batch.
        batch: See `Node`.
    """

    joint: str
    index: int
    part: str
    out: tuple[str, ...]
    is_data: bool
    shift: int = 0
    through: tuple[str, ...] = ()
    k: int = 1
    batch: int = 0

    @property
    def rows(self) -> int:
        return self.k

    @property
    def axes(self) -> Axes:
        return draws_axis(self.k)

    @property
    def title(self) -> str:
        marks = (f" k={self.k}" if self.k > 1 else "") + of_batch(self.batch)
        return f"{self.joint}{self.index or ''}({','.join(self.out)}){marks}"

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.part, *self.through)

    @property
    def networks(self) -> tuple[str, ...]:
        return self.through

    @property
    def drawn_by(self) -> str:
        return self.part

    @property
    def is_of_model(self) -> bool:
        return not self.is_data

    def gradient_paths(self, traits: Traits) -> GradientPaths:
        return {} if self.is_data else {part: EXPLICIT for part in self.parts if traits[part].trainable}

    def title_of(self, variable: str, reading: str) -> str:
        return f"{self.joint}{self.index or ''}.{variable}" + ("" if reading == "sample" else f" {reading}")

    def reading_needs(self, reading: str, with_gradient: bool) -> Iterator[Need]:
        if self.is_data:
            return
        if reading != "sample":
            yield Need(self.part, "reading", reading)
        if with_gradient:
            yield from (Need(part, "path", reading) for part in self.through or (self.part,))


@attrs.frozen(cache_hash=True)
class SampleNode(DrawNode):
    """A draw of the distribution of a conditional."""

    law: ForwardNode | MomentsNode
    out: tuple[str, ...]
    title: str

    @property
    def parents(self) -> tuple[Node, ...]:
        return (self.law,)

    @property
    def drawn_by(self) -> str:
        return self.law.part

    @property
    def is_of_model(self) -> bool:
        return True

    def reading_needs(self, reading: str, with_gradient: bool) -> Iterator[Need]:
        if isinstance(self.law, MomentsNode):
            return
        yield Need(self.drawn_by, "reading", reading)
        if with_gradient:
            yield Need(self.drawn_by, "path", reading)


@attrs.frozen(cache_hash=True)
class ViewNode(DrawNode):
    """A reading of observed data that only the family of the variable's likelihood can make."""

    part: str
    source: RootNode
    variable: str
    reading: str
    is_tensor = True

    @property
    def parents(self) -> tuple[Node, ...]:
        return (self.source,)

    @property
    def title(self) -> str:
        return f"{self.source.title}.{self.variable} {self.reading}"

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.part,)

    @property
    def drawn_by(self) -> str:
        return self.part

    def gradient_paths(self, traits: Traits) -> GradientPaths:
        return {}

    def title_of(self, variable: str, reading: str) -> str:
        return self.title

    def needs(self, differentiable: Collection[Node], handed_over: Collection[Node]) -> Iterator[Need]:
        yield Need(self.part, "reading", self.reading)


@attrs.frozen(cache_hash=True)
class ReadNode(Node):
    """The tensor of one variable of a draw, (rows, *shape).

    Args:
        reading: Which form of the draw, such as "sample" or "mean".
        stop: Cut the gradient.
        shift: Re-pair the rows, by shifting them so far within blocks.
        repeat: Repeat each row so often.
        each: Re-pair every number of the variable by a shift of its own, from `shift` upwards.
        leaf: Cut the gradient as `stop` does, but so that a reduction can take the gradient of its term in the value.
    """

    source: DrawNode
    variable: str
    reading: str = "sample"
    stop: bool = False
    shift: int = 0
    repeat: int = 1
    leaf: bool = False
    each: bool = False

    @property
    def is_leaf(self) -> bool:
        return self.leaf and not self.stop

    @property
    def parents(self) -> tuple[Node, ...]:
        return (self.source,)

    @property
    def rows(self) -> int:
        return self.source.rows * self.repeat

    @property
    def axes(self) -> Axes:
        return (*self.source.axes, *draws_axis(self.repeat))

    def unstopped(self) -> ReadNode:
        """The same value with its gradient."""
        return attrs.evolve(self, stop=False, leaf=False)

    @property
    def title(self) -> str:
        marks = " each number re-paired" if self.each else " re-paired" if self.shift else ""
        marks += f" x{self.repeat}" if self.repeat > 1 else ""
        text = self.source.title_of(self.variable, self.reading) + marks
        return f"stop({text})" if self.stop or self.leaf else text

    def gradient_paths(self, traits: Traits) -> GradientPaths:
        paths = self.source.gradient_paths(traits)
        if self.stop or self.leaf or not paths or not traits[self.source.drawn_by].has_path(self.reading):
            return {}
        return dict.fromkeys(paths, SAMPLES)

    def needs(self, differentiable: Collection[Node], handed_over: Collection[Node]) -> Iterator[Need]:
        is_cut = self.stop or self.leaf
        return self.source.reading_needs(self.reading, not is_cut and self.source in differentiable)


# --- distributions ---------------------------------------------------------------------------------------------------


class DistributionNode(Node):
    """A distribution over the values of a variable."""

    __slots__ = ()
    is_tensor = False
    part: str

    def density_needs(self, ability: Ability) -> Iterator[Need]:
        """The needs of evaluating the density, of the kind that the point asks for."""
        yield Need(self.part, ability)


class NetworkRun(Node):
    """One run of the network of a part, live or held."""

    __slots__ = ()
    part: str
    inputs: tuple[Any, ...]
    mode: Mode = "live"

    @property
    def parents(self) -> tuple[Node, ...]:
        return self.inputs

    @property
    def title(self) -> str:
        held = " held" if self.mode == "held" else ""
        return f"{self.part}({', '.join(node.title for node in self.parents)}){held}"

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.part,)

    @property
    def networks(self) -> tuple[str, ...]:
        return (self.part,)

    def gradient_paths(self, traits: Traits) -> GradientPaths:
        below = super().gradient_paths(traits)
        return below if self.mode == "held" else merge_paths([below, {self.part: EXPLICIT}])


@attrs.frozen(cache_hash=True)
class ForwardNode(NetworkRun, DistributionNode):
    """One run of the network of a conditional, giving a distribution.

    Args:
        mode: See `Mode`.
        k: How often the output of the network is repeated for each of its rows.
        noise: The name of the noise that the network takes as a further input, `noise_size` numbers a row; "" for none.
        layout: The axes of the output, where variables are summed over; () for those of the inputs, and k draws.
        merged: The distributions of other parts at the same point that the family makes its own with.
    """

    part: str
    inputs: tuple[Any, ...]
    mode: Mode
    k: int
    noise: str = ""
    noise_size: int = 0
    layout: Axes = ()
    merged: tuple[ForwardNode, ...] = ()

    @property
    def parents(self) -> tuple[Node, ...]:
        return (*self.inputs, *self.merged)

    @property
    def rows(self) -> int:
        return self.k * max(node.rows for node in self.inputs)

    @property
    def axes(self) -> Axes:
        return self.layout or (*super().axes, *draws_axis(self.k))

    def unmarked(self) -> ForwardNode:
        """The same run with nothing held or stopped. It gives the same numbers, so it has the same dropout masks."""
        inputs, merged = tuple(node.unstopped() for node in self.inputs), tuple(law.unmarked() for law in self.merged)
        return attrs.evolve(self, mode="live", inputs=inputs, merged=merged)


@attrs.frozen(cache_hash=True)
class PriorNode(DistributionNode):
    """A prior as a distribution over `rows` rows, computed with the conditionals that it goes `through`."""

    part: str
    mode: Mode
    rows: int
    through: tuple[str, ...] = ()
    batch: int = 0

    @property
    def axes(self) -> Axes:
        return draws_axis(self.rows)

    @property
    def title(self) -> str:
        return self.part

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.part, *self.through)

    @property
    def networks(self) -> tuple[str, ...]:
        return self.through

    def gradient_paths(self, traits: Traits) -> GradientPaths:
        return {} if self.mode == "held" else {part: EXPLICIT for part in self.parts if traits[part].trainable}

    def density_needs(self, ability: Ability) -> Iterator[Need]:
        if self.through:  # a single run of these conditionals did not draw the points that the prior scores
            yield from (Need(part, "foreign density") for part in self.through)
        else:
            yield Need(self.part, ability)


@attrs.frozen(cache_hash=True)
class MomentsNode(DistributionNode):
    """The Gaussian of the mean and (co)variance of a distribution. No gradient goes through it."""

    law: ForwardNode | PriorNode

    @property
    def part(self) -> str:  # type: ignore[override]
        return self.law.part

    @property
    def parents(self) -> tuple[Node, ...]:
        return (self.law,)

    @property
    def title(self) -> str:
        return f"moments of {self.law.title}"

    def gradient_paths(self, traits: Traits) -> GradientPaths:
        return {}

    def needs(self, differentiable: Collection[Node], handed_over: Collection[Node]) -> Iterator[Need]:
        yield Need(self.part, "moments")

    def density_needs(self, ability: Ability) -> Iterator[Need]:
        return iter(())  # a Gaussian scores any point


# --- numbers: what terms are made of ---------------------------------------------------------------------------------


@attrs.frozen(cache_hash=True)
class StandardizedNode(Node):
    """A value in units of the moments, (value - mean) / scale. A critic may see it in place of the value."""

    value: ReadNode
    moments: MomentsNode

    @property
    def parents(self) -> tuple[Node, ...]:
        return (self.value, self.moments)

    @property
    def rows(self) -> int:
        return self.value.rows

    @property
    def title(self) -> str:
        return f"{self.value.title} standardized"


@attrs.frozen(cache_hash=True)
class PastNode(Node):
    """A value that a critic sees, or with probability 1/2 in its place one of the past, without a gradient.

    Args:
        value: The new draw.
        variable: Its name among the variables of the history, whose rows are taken together.
        history: The name of the history, which also names the noise that chooses.
        size: How many draws of the past it holds.
    """

    value: ReadNode | StandardizedNode
    variable: str
    history: str
    size: int
    is_never_handed_over = True

    @property
    def parents(self) -> tuple[Node, ...]:
        return (self.value,)

    @property
    def title(self) -> str:
        return f"{self.value.title} or one of the last {self.size}"

    def gradient_paths(self, traits: Traits) -> GradientPaths:
        return {}


@attrs.frozen(cache_hash=True)
class DensityNode(Node):
    """The log-density of a distribution at a value, (rows,) nats.

    Args:
        own: Whether the value is a draw of this very distribution, as it stands.
        mass: Take the log-probability of the quantisation bin that the value lies in.
    """

    law: ForwardNode | PriorNode | MomentsNode
    value: ReadNode
    own: bool
    mass: bool = False

    @property
    def parents(self) -> tuple[Node, ...]:
        return (self.law, self.value)

    @property
    def rows(self) -> int:
        return self.value.rows

    @property
    def axes(self) -> Axes:
        return self.value.axes

    @property
    def title(self) -> str:
        return f"log {self.law.title} at {self.value.title}"

    @property
    def scored_parts(self) -> tuple[str, ...]:
        return (self.law.part, *self.law.parts)

    def is_scored_by_draw(self, handed_over: Collection[Node]) -> bool:
        """Whether the draw can score itself: it is of this distribution, and was made in this update.

        A draw that an earlier update made has that update's parameters and graph. To the distribution of this update
        it is a point like any other.
        """
        return self.own and self.value not in handed_over and self.value.source not in handed_over

    def needs(self, differentiable: Collection[Node], handed_over: Collection[Node]) -> Iterator[Need]:
        point: Ability = "own density" if self.is_scored_by_draw(handed_over) else "foreign density"
        return self.law.density_needs("bin mass" if self.mass else point)


@attrs.frozen(cache_hash=True)
class ClosedKLNode(Node):
    """KL(law : other) in closed form, (rows,) nats."""

    law: ForwardNode | PriorNode
    other: ForwardNode | PriorNode

    @property
    def parents(self) -> tuple[Node, ...]:
        return (self.law, self.other)

    @property
    def rows(self) -> int:
        return self.law.rows

    @property
    def axes(self) -> Axes:
        return (self.other if isinstance(self.law, PriorNode) else self.law).axes

    @property
    def title(self) -> str:
        return f"KL({self.law.title} : {self.other.title})"

    @property
    def scored_parts(self) -> tuple[str, ...]:
        return (*self.law.parts, *self.other.parts)

    def needs(self, differentiable: Collection[Node], handed_over: Collection[Node]) -> Iterator[Need]:
        yield Need(self.law.part, "KL", self.other.part)


@attrs.frozen(cache_hash=True)
class CriticNode(NetworkRun):
    """One run of the network of a critic, (rows,) logits or scores."""

    part: str
    inputs: tuple[ReadNode | StandardizedNode | PastNode, ...]
    is_never_handed_over = True


@attrs.frozen(cache_hash=True)
class TermNode(Node):
    """A registered term of values, (rows,)."""

    term: Any = attrs.field(hash=False)
    inputs: tuple[ReadNode, ...]
    is_never_handed_over = True

    @property
    def parents(self) -> tuple[Node, ...]:
        return self.inputs

    @property
    def title(self) -> str:
        return f"{type(self.term).__name__}({', '.join(node.title for node in self.inputs)})"


def of_batch(batch: int) -> str:
    """What the title of a draw says of a batch of its own, so that its noise is its own, too."""
    return f" in {batch} rows" if batch else ""


# --- many nodes ------------------------------------------------------------------------------------------------------


def ordered(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """These nodes and all that they are computed from, each once, parents first."""
    seen: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in seen:
            for parent in node.parents:
                visit(parent)
            seen[node] = None

    for node in nodes:
        visit(node)
    return tuple(seen)


def differentiable_nodes(nodes: Iterable[Node], trains: Iterable[str], traits: Traits) -> frozenset[Node]:
    """The nodes whose gradient reaches the parameters of one of these parts."""
    trained = set(trains)
    return frozenset(node for node in nodes if not trained.isdisjoint(node.gradient_paths(traits)))


def furthest_shift(nodes: Sequence[Node]) -> int:
    """By how many rows values are shifted at the most. A block of rows must be longer."""
    roots = max((node.shift for node in nodes if isinstance(node, RootNode)), default=0)
    return roots + max((node.shift + node.each for node in nodes if isinstance(node, ReadNode)), default=0)
