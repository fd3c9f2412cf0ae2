"""From an objective to the plan of a step: which draws, which network runs, which gradients. Torch-free.

Lowering turns each term at the point of its expectation into a small graph of nodes. Equal nodes are one node, so
each network runs once per draw, reading and mode (live or held) in an update, however many terms look at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import attrs

from jointgen.errors import ConfigError, suggest
from jointgen.objectives.algebra import Expr, Stop, Weight, summands
from jointgen.objectives.distributions import KL, Conditional, Joint, LogDensity, Product
from jointgen.objectives.expressions import Apply, Expectation, Ratio, Value
from jointgen.objectives.objective import Objective, PenaltyOf, Update

Mode = Literal["live", "held"]
"""held: the gradient flows through the inputs, the parameters' own is cut."""

Reach = Mapping[str, frozenset[str]]
"""part -> how a gradient reaches its parameters: "explicit", "samples" or both. Absent: not at all."""


@attrs.frozen
class Traits:
    """What lowering must know of a part. paths: reading -> how its gradient reaches the parameters.

    any_path: as if every reading had one, to find what an objective would train if the families could.
    """

    kind: Literal["data", "prior", "conditional", "critic"]
    paths: Mapping[str, str] = attrs.field(factory=dict)
    noise_input: int = 0
    trainable: bool = True
    any_path: bool = False

    def has_path(self, reading: str) -> bool:
        return self.any_path or self.paths.get(reading, "none") != "none"


# --- nodes -----------------------------------------------------------------------------------------------------------
# `rows` is how many rows a node has for each row of the batch; `title` names its noise and stands in `explain`.


@attrs.frozen(cache_hash=True)
class Root:
    """A draw of a data source or a prior. `shift` re-pairs the rows of a source that roots two joints."""

    joint: str
    index: int
    part: str
    out: tuple[str, ...]
    is_data: bool
    shift: int = 0
    rows: int = 1
    parents: tuple[Any, ...] = ()

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
    """A prior as a distribution over `rows` rows."""

    part: str
    mode: Mode
    rows: int
    parents: tuple[Any, ...] = ()

    @property
    def title(self) -> str:
        return self.part


@attrs.frozen(cache_hash=True)
class Sample:
    """A draw of a conditional's distribution."""

    forward: Forward
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
class Density:
    """log-density of `law` at a value, (rows,) nats."""

    law: Forward | PriorLaw
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


Node = Root | Forward | PriorLaw | Sample | View | Read | Density | ClosedKL | Critic | Applied


# --- how gradients travel --------------------------------------------------------------------------------------------


def reach(node: Node, traits: Mapping[str, Traits]) -> Reach:
    """Which parameters a gradient of this node's value reaches, and how."""
    if isinstance(node, View):
        return {}
    if isinstance(node, Root | PriorLaw):
        held = node.is_data if isinstance(node, Root) else node.mode == "held"
        return {} if held or not traits[node.part].trainable else {node.part: frozenset({"explicit"})}
    if isinstance(node, Read):
        return {} if node.stop or not _has_path(node, traits) else _as_samples(reach(node.source, traits))
    below = merge_reach(reach(parent, traits) for parent in node.parents)
    if isinstance(node, Forward | Critic) and getattr(node, "mode", "live") == "live":
        return merge_reach([below, {node.part: frozenset({"explicit"})}])
    return below


def _has_path(read: Read, traits: Mapping[str, Traits]) -> bool:
    if not isinstance(read.source, Sample):
        return True
    return traits[read.source.forward.part].has_path(read.reading)


def _as_samples(found: Reach) -> Reach:
    return {part: frozenset({"samples"}) for part in found}


def merge_reach(found: Iterable[Reach]) -> Reach:
    merged: dict[str, frozenset[str]] = {}
    for one in found:
        for part, ways in one.items():
            merged[part] = merged.get(part, frozenset()) | ways
    return merged


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


# --- lowering --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Point:
    """Where an expectation's term is evaluated: a Read for each variable, all with `k` rows per row of the batch."""

    reads: Mapping[str, Read]
    k: int

    def at(self, variable: str, why: object) -> Read:
        if variable not in self.reads:
            raise ConfigError(
                f"{why} needs {variable!r}, which its expectation over {', '.join(self.reads)} does not draw"
            )
        return self.reads[variable]


class Lowering:
    """Turns terms into nodes, for one objective and the parts that it names."""

    def __init__(self, joints: Mapping[str, Joint], traits: Mapping[str, Traits], trains: Iterable[str] = ()):
        self.joints, self.traits, self.trains = joints, traits, frozenset(trains)

    # --- draws

    def point(self, over: Product, k: int) -> Point:
        """Independent draws of each marginal. The first of a joint is its shared draw; a further one is drawn
        afresh where that takes a prior only, and otherwise re-paired: shifted within blocks of rows, past those
        rows that other joints with the same data source have."""
        reads: dict[str, Read] = {}
        used: dict[str, int] = {}
        largest_first = sorted(over.marginals, key=lambda m: -len(m.joint.ancestors(m.variables)))
        for marginal in largest_first:
            again = used.get(marginal.joint.name, 0)
            used[marginal.joint.name] = again + 1
            factors = marginal.joint.ancestors(marginal.variables)
            fresh = all(f.is_root and self.traits[f.part].kind == "prior" for f in factors)
            for variable in marginal.variables:
                read = self.read(marginal.joint, again if fresh else 0, variable, k)
                stride = max(1, *(len(self._sharing(f)) for f in factors))
                reads[variable] = read if fresh or not again else attrs.evolve(read, shift=again * stride)
        return Point({v: self._repeated(reads[v], k) for v in over.variables}, k)

    def read(self, joint: Joint, index: int, variable: str, k: int) -> Read:
        return Read(self.draw(joint, index, joint.drawn_by(variable), k), variable)

    def draw(self, joint: Joint, index: int, factor: Conditional, k: int) -> Root | Sample:
        if factor.is_root:
            is_data = self.traits[factor.part].kind == "data"
            return Root(joint.name, index, factor.part, factor.out, is_data, self._row_shift(joint, factor, is_data))
        given = {v: self.read(joint, index, v, k) for v in factor.given}
        title = f"{joint.name}{index or ''}({factor})" + (f" k={k}" if k > 1 else "")
        return Sample(self.forward(factor, given, k, "live", title), factor.out, title)

    def _row_shift(self, joint: Joint, factor: Conditional, is_data: bool) -> int:
        """Two joints rooted in one data source must not share rows: q(x) and p(y) are independent."""
        sharing = self._sharing(factor)
        return sharing.index(joint.name) if is_data and joint.name in sharing else 0

    def _sharing(self, root: Conditional) -> list[str]:
        """The joints that are rooted in this data source."""
        if not root.is_root:
            return []
        return [j.name for j in self.joints.values() if any(f.is_root and f.part == root.part for f in j.factors)]

    def forward(self, factor: Conditional, given: Mapping[str, Read], k: int, mode: Mode, title: str) -> Forward:
        """The network run for `factor` given these values, giving k rows per row of the batch."""
        noisy = self.traits[factor.part].noise_input > 0
        rows = k if noisy else max(given[v].rows for v in factor.given)
        inputs = tuple(self._repeated(given[v], rows) for v in factor.given)
        if mode == "held" and factor.part not in self.trains:
            mode = "live"  # the same thing where the part is not trained, and one run fewer
        return Forward(factor.part, inputs, mode, k // rows, f"{title}/eps" if noisy else "")

    def _repeated(self, read: Read, rows: int) -> Read:
        return read if read.rows == rows else attrs.evolve(read, repeat=rows // read.source.rows)

    # --- terms

    def law(
        self, joint: Joint, factor: Conditional, point: Point, mode: Mode, stop: frozenset[str] = frozenset()
    ) -> Forward | PriorLaw:
        """The distribution `factor` at the point: a network run, or the prior itself."""
        if factor.is_root:
            if self.traits[factor.part].kind == "data":
                raise ConfigError(f"log {joint.name}({factor}): the data's density is not known")
            return PriorLaw(factor.part, mode if factor.part in self.trains else "live", point.k)
        given = {}
        for variable in factor.given:
            read = point.at(variable, f"{joint.name}({factor})")
            unrepeated = attrs.evolve(read, repeat=1)  # roots are repeated after the network, not before it
            given[variable] = attrs.evolve(unrepeated, stop=variable in stop)
        return self.forward(factor, given, point.k, mode, f"{joint.name}({factor})")

    def density(self, term: LogDensity, point: Point, held: bool) -> Density:
        mode: Mode = "held" if held or term.hold else "live"
        (out,) = _single(term.factor)
        law = self.law(term.joint, term.factor, point, mode, term.stop)
        value = point.at(out, term)
        own = isinstance(value.source, Sample) and not value.shift and _same_run(value.source.forward, law)
        value = attrs.evolve(value, stop=True) if out in term.stop else value
        if term.mass and isinstance(value.source, Root):
            value = attrs.evolve(value, reading="mean")  # a bin's centre: a dequantised value can round out of its bin
        return Density(law, value, own, term.mass)

    def closed_kl(self, term: KL, point: Point) -> ClosedKL:
        law = self.law(term.joint, term.factor, point, "live")
        return ClosedKL(law, self.law(term.other_joint, term.other, point, "live"))

    def critic(self, ratio: Ratio, point: Point) -> Critic:
        return Critic(ratio.name, tuple(self.viewed(point.at(v, ratio), ratio.reading(v)) for v in ratio.variables))

    def viewed(self, read: Read, reading: str) -> Read:
        """The same draw in another reading; of observed data, its likelihood family gives what only that has."""
        if isinstance(read.source, Root) and read.source.is_data and reading not in ("sample", "mean"):
            return attrs.evolve(
                read, source=View(self.likelihood_of(read.variable), read.source, read.variable, reading)
            )
        if isinstance(read.source, Root) and not read.source.is_data:
            reading = "sample"  # a prior's draw has one reading
        return attrs.evolve(read, reading=reading)

    def likelihood_of(self, variable: str) -> str:
        """The part that models an observed variable."""
        for joint in self.joints.values():
            for factor in joint.factors:
                if factor.out == (variable,) and not factor.is_root:
                    return factor.part
        raise ConfigError(f"no conditional draws {variable!r}, so no family can give a view of it")

    def value(self, value: Value, point: Point) -> Read:
        if value.factor is None or value.joint is None:
            return self.viewed(point.at(value.variable, value), value.reading)
        given = {v: attrs.evolve(point.at(v, value), repeat=1) for v in value.factor.given}
        title = f"{value.joint.name}'({value.factor})"
        forward = self.forward(value.factor, given, point.k, "live", title)
        return Read(Sample(forward, value.factor.out, title), value.variable, value.reading)

    def leaf(self, term: Expr, point: Point, held: bool = False) -> Node:
        """The node of a term that is no combination of others."""
        if isinstance(term, LogDensity):
            return self.density(term, point, held)
        if isinstance(term, KL):
            return self.closed_kl(term, point)
        if isinstance(term, Ratio):
            return self.critic(term, point)
        assert isinstance(term, Apply), f"{term!r} cannot be evaluated at a point"
        return Applied(term.term, tuple(self.value(v, point) for v in term.values))

    def leaves(self, term: Expr, point: Point, held: bool = False) -> Iterator[Node]:
        """Every node that evaluating `term` needs directly. A ratio's known part is held."""
        if isinstance(term, LogDensity | KL | Ratio | Apply):
            yield self.leaf(term, point, held)
        for child in term.children:
            yield from self.leaves(child, point, held or isinstance(term, Ratio))


def _single(factor: Conditional) -> tuple[str]:
    if len(factor.out) != 1:
        raise ConfigError(f"{factor} draws several variables at once; write it as a product of conditionals")
    return (factor.out[0],)


def _same_run(drawn: Forward, law: Forward | PriorLaw) -> bool:
    """Whether a value was drawn from this very distribution (whatever is held or stopped in it)."""
    return isinstance(law, Forward) and law.part == drawn.part and unmarked(law).inputs == unmarked(drawn).inputs


def unmarked(run: Forward) -> Forward:
    """The same run with nothing held or stopped: the same numbers, so the same dropout."""
    return attrs.evolve(run, mode="live", inputs=tuple(attrs.evolve(i, stop=False) for i in run.inputs))


# --- the plan --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Summand:
    """One weighted term of one expectation of an update; the row of the ownership table that it makes."""

    label: str
    weights: tuple[float | Weight, ...]
    source: Expectation | PenaltyOf
    term: Expr
    reach: Reach

    def weight(self, progress: float) -> float:
        value = 1.0
        for weight in self.weights:
            value *= weight.at(progress) if isinstance(weight, Weight) else weight
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
            if isinstance(node, Forward | Critic):
                counts[node.part] = counts.get(node.part, 0) + 1
        return counts


@attrs.frozen
class Plan:
    """The plan of one step of an objective: its updates in order."""

    objective: Objective
    updates: tuple[UpdatePlan, ...]
    traits: Mapping[str, Traits]

    def shared(self, index: int) -> frozenset[Node]:
        """Nodes of update `index` whose value an earlier update of the step has: nothing it trains lies below them.

        Draws and densities only: a critic is always run again, since its own update may have moved it.
        """
        plan = self.updates[index]
        before = {node for earlier in self.updates[:index] for node in earlier.nodes}
        trained = set(plan.trains)
        live = {node for node in plan.nodes if trained & set(reach(node, self.traits))}
        # a distribution that a live node looks at must be this update's own: its tensors carry an older graph
        looked_at = {law for node in live for law in node.parents if isinstance(law, Forward | PriorLaw)}
        return frozenset(
            node
            for node in plan.nodes
            if node in before
            and node not in live | looked_at
            and not any(isinstance(below, Critic | Applied) for below in ordered([node]))
        )

    @property
    def furthest_pairing(self) -> int:
        """By how many rows the furthest re-pairing shifts: a block must have more. 0 where nothing is re-paired."""
        nodes = [node for update in self.updates for node in update.nodes]
        roots = max((node.shift for node in nodes if isinstance(node, Root)), default=0)
        return roots + max((node.shift for node in nodes if isinstance(node, Read)), default=0)

    def runs(self) -> dict[str, int]:
        """How often each network runs in one step in which every update is due once."""
        counts: dict[str, int] = {}
        for index, plan in enumerate(self.updates):
            reused = self.shared(index)
            for node in plan.nodes:
                if isinstance(node, Forward | Critic) and node not in reused:
                    counts[node.part] = counts.get(node.part, 0) + 1
        return counts


def make_plan(objective: Objective, traits: Mapping[str, Traits]) -> Plan:
    """Lowers a completed objective. Raises ConfigError where a term asks for what its expectation does not draw."""
    return Plan(objective, tuple(plan_update(u, objective, traits) for u in objective.updates), traits)


def plan_update(update: Update, objective: Objective, traits: Mapping[str, Traits]) -> UpdatePlan:
    _check_trains(update, traits)
    trains = update.trains
    if trains is None:
        everything = [name for name, t in traits.items() if t.kind in ("conditional", "prior")]
        # a path that is wanted and that the family lacks is a requirement, not a reason to train less
        able = {name: attrs.evolve(trait, any_path=True) for name, trait in traits.items()}
        found = make_summands(update, Lowering(objective.joints, able, everything))
        reached = merge_reach(summand.reach for summand, _ in found)
        trains = tuple(name for name in everything if name in reached)
    lowering = Lowering(objective.joints, traits, trains)
    pairs = make_summands(update, lowering)
    nodes = ordered(node for _, leaves in pairs for node in leaves)
    return UpdatePlan(update, trains, tuple(summand for summand, _ in pairs), tuple(nodes))


def _check_trains(update: Update, traits: Mapping[str, Traits]) -> None:
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


def _reach_of(source: Expectation | PenaltyOf, term: Expr, lowering: Lowering) -> Reach:
    if isinstance(source, PenaltyOf):
        below = merge_reach(reach(node, lowering.traits) for node in nodes_of(source, term, lowering))
        return merge_reach([below, {source.ratio.name: frozenset({"explicit"})}])
    return reach_of_term(term, lowering.point(source.over, source.k), lowering)


def reach_of_term(term: Expr, point: Point, lowering: Lowering, held: bool = False) -> Reach:
    if isinstance(term, Stop):
        return {}
    own = (
        [reach(lowering.leaf(term, point, held), lowering.traits)]
        if isinstance(term, LogDensity | KL | Ratio | Apply)
        else []
    )
    inner_held = held or isinstance(term, Ratio)
    return merge_reach([*own, *(reach_of_term(child, point, lowering, inner_held) for child in term.children)])


def _label(update: Update, source: Expectation | PenaltyOf, term: Expr) -> str:
    return f"{update.name}/{source}" if isinstance(source, PenaltyOf) else f"{update.name}/E[{source.over}] {term}"
