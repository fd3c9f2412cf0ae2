"""The nodes of a plan: draws, network runs and densities as a graph. Torch-free.

Equal nodes are one node, so each network runs once per draw, reading and mode (live or held) in an update.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import attrs

Mode = Literal["live", "held"]
"""held: the gradient flows through the inputs, the parameters' own is cut."""

# `rows` is how many rows a node has for each row of the batch; `title` names its noise and stands in `explain`.


@attrs.frozen(cache_hash=True)
class Root:
    """A draw of a data source or a prior. `shift` re-pairs the rows of a source that roots two joints; a prior runs
    the parts that it goes `through`."""

    joint: str
    index: int
    part: str
    out: tuple[str, ...]
    is_data: bool
    shift: int = 0
    rows: int = 1
    parents: tuple[Any, ...] = ()
    through: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.joint}{self.index or ''}({','.join(self.out)})"


@attrs.frozen(cache_hash=True)
class Forward:
    """One run of a conditional's network: a distribution with `rows` rows, each trunk output repeated k times."""

    part: str
    inputs: tuple[Any, ...]
    mode: Mode
    k: int
    noise: str = ""

    @property
    def rows(self) -> int:
        return self.k * max(node.rows for node in self.inputs)

    @property
    def parents(self) -> tuple[Any, ...]:
        return self.inputs

    @property
    def title(self) -> str:
        held = " held" if self.mode == "held" else ""
        return f"{self.part}({', '.join(node.title for node in self.inputs)}){held}"


@attrs.frozen(cache_hash=True)
class PriorLaw:
    """A prior as a distribution over `rows` rows, made by running the parts that it goes `through`."""

    part: str
    mode: Mode
    rows: int
    parents: tuple[Any, ...] = ()
    through: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.part


@attrs.frozen(cache_hash=True)
class Moments:
    """The Gaussian of a distribution's mean and (co)variance, as numbers: no gradient goes through it."""

    law: Forward | PriorLaw

    @property
    def part(self) -> str:
        return self.law.part

    @property
    def rows(self) -> int:
        return self.law.rows

    @property
    def parents(self) -> tuple[Any, ...]:
        return (self.law,)

    @property
    def title(self) -> str:
        return f"moments of {self.law.title}"


@attrs.frozen(cache_hash=True)
class Sample:
    """A draw of a conditional's distribution."""

    forward: Forward | Moments
    out: tuple[str, ...]
    title: str

    @property
    def rows(self) -> int:
        return self.forward.rows

    @property
    def parents(self) -> tuple[Any, ...]:
        return (self.forward,)


@attrs.frozen(cache_hash=True)
class View:
    """A reading of observed data that only the variable's likelihood family can give."""

    part: str
    source: Root
    variable: str
    reading: str

    @property
    def rows(self) -> int:
        return self.source.rows

    @property
    def parents(self) -> tuple[Any, ...]:
        return (self.source,)

    @property
    def title(self) -> str:
        return f"{self.source.title}.{self.variable} {self.reading}"


@attrs.frozen(cache_hash=True)
class Read:
    """The tensor of one variable of a draw, in one reading."""

    source: Root | Sample | View
    variable: str
    reading: str = "sample"
    stop: bool = False
    shift: int = 0
    repeat: int = 1

    @property
    def rows(self) -> int:
        return self.source.rows * self.repeat

    @property
    def parents(self) -> tuple[Any, ...]:
        return (self.source,)

    @property
    def title(self) -> str:
        base = self.source.title.split("(")[0] if isinstance(self.source, Root) else self.source.title
        name = f"{base}.{self.variable}" if not isinstance(self.source, View) else base
        reading = "" if self.reading == "sample" or isinstance(self.source, View) else f" {self.reading}"
        marks = (" re-paired" if self.shift else "") + (f" x{self.repeat}" if self.repeat > 1 else "")
        return f"stop({name}{reading}{marks})" if self.stop else f"{name}{reading}{marks}"


@attrs.frozen(cache_hash=True)
class Standard:
    """A value in the units of the moments, (value - mean) / scale: what a critic may see in its place."""

    value: Read
    moments: Moments

    @property
    def rows(self) -> int:
        return self.value.rows

    @property
    def parents(self) -> tuple[Any, ...]:
        return (self.value, self.moments)

    @property
    def title(self) -> str:
        return f"{self.value.title} standardized"


@attrs.frozen(cache_hash=True)
class Density:
    """log-density of `law` at a value, (rows,) nats. own: the value is a draw of this very node's law."""

    law: Forward | PriorLaw | Moments
    value: Read
    own: bool
    mass: bool = False

    @property
    def rows(self) -> int:
        return self.value.rows

    @property
    def parents(self) -> tuple[Any, ...]:
        return (self.law, self.value)

    @property
    def title(self) -> str:
        return f"log {self.law.title} at {self.value.title}"


@attrs.frozen(cache_hash=True)
class ClosedKL:
    law: Forward | PriorLaw
    other: Forward | PriorLaw

    @property
    def rows(self) -> int:
        return self.law.rows

    @property
    def parents(self) -> tuple[Any, ...]:
        return (self.law, self.other)

    @property
    def title(self) -> str:
        return f"KL({self.law.title} : {self.other.title})"


@attrs.frozen(cache_hash=True)
class Critic:
    """One run of a critic's network, (rows,) logits or scores."""

    part: str
    inputs: tuple[Any, ...]

    @property
    def rows(self) -> int:
        return max(node.rows for node in self.inputs)

    @property
    def parents(self) -> tuple[Any, ...]:
        return self.inputs

    @property
    def title(self) -> str:
        return f"{self.part}({', '.join(node.title for node in self.inputs)})"


@attrs.frozen(cache_hash=True)
class Applied:
    """A registered term on values."""

    term: Any
    inputs: tuple[Read, ...]

    @property
    def rows(self) -> int:
        return max(node.rows for node in self.inputs)

    @property
    def parents(self) -> tuple[Any, ...]:
        return self.inputs

    @property
    def title(self) -> str:
        return f"{type(self.term).__name__}({', '.join(node.title for node in self.inputs)})"


Law = Forward | PriorLaw | Moments
"""A distribution over values."""

Node = Root | Law | Sample | View | Read | Standard | Density | ClosedKL | Critic | Applied


def is_scored_by_draw(node: Density, imported: frozenset[Node]) -> bool:
    """Whether a draw can score itself: it is this law's, and was drawn in this update.

    A draw that an earlier update made has that update's parameters and graph; to this one's law it is a point
    like any other.
    """
    return node.own and imported.isdisjoint((node.value, node.value.source))


def furthest_shift(nodes: Sequence[Node]) -> int:
    """By how many rows values are shifted at the most; a block must have more."""
    roots = max((node.shift for node in nodes if isinstance(node, Root)), default=0)
    return roots + max((node.shift for node in nodes if isinstance(node, Read)), default=0)


def ordered(nodes: Iterable[Node]) -> list[Node]:
    """All nodes below these, each once, parents first."""
    seen: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in seen:
            for parent in node.parents:
                visit(parent)
            seen[node] = None

    for node in nodes:
        visit(node)
    return list(seen)
