"""Lowering: each term, at the point of its expectation, becomes a tree with nodes as its leaves. Torch-free.

The flow is expression -> lowered tree (`jointgen.compiler.lowered`) -> nodes -> program -> values -> loss. Only
`jointgen.compiler.plan` lowers, and it keeps what it lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import attrs

from jointgen.compiler.gradient_paths import Traits
from jointgen.compiler.lowered import CriticPenalty, NodeValue, OverDraws
from jointgen.compiler.nodes import (
    ClosedKLNode,
    CriticNode,
    DensityNode,
    ForwardNode,
    Mode,
    MomentsNode,
    Node,
    PriorNode,
    ReadNode,
    RootNode,
    SampleNode,
    StandardizedNode,
    TermNode,
    ViewNode,
    differentiable_nodes,
)
from jointgen.errors import ConfigError
from jointgen.objectives.algebra import Clip, Constant, Expr, Pointwise, Stop, Sum, Weighted
from jointgen.objectives.components import component_of
from jointgen.objectives.distributions import KL, Conditional, Distribution, Joint, LogDensity, Product
from jointgen.objectives.expressions import Apply, Expectation, PenaltyOf, Ratio, Standardized
from jointgen.objectives.values import Argument, Arguments, StoppedValue, Value, unstopped


@attrs.frozen
class Point:
    """The point at which a term is evaluated: a `ReadNode` for each variable, with k rows per row of the batch.

    Args:
        held: The conditionals, each with the joint that owns it, whose densities are held at this point.
    """

    reads: Mapping[str, ReadNode]
    k: int
    held: frozenset[tuple[str, Conditional]] = frozenset()

    def at(self, variable: str, asker: object) -> ReadNode:
        """The value of a variable, for `asker`. Raises ConfigError where the expectation does not draw it."""
        if variable not in self.reads:
            raise ConfigError(
                f"{asker} needs {variable!r}, which its expectation over {', '.join(self.reads)} does not draw"
            )
        return self.reads[variable]


class Lowering:
    """Lowers the terms of one update.

    Args:
        joints: The joints of the objective, by name.
        traits: The traits of every part.
        trains: The parts that the update trains. Only their runs can be held.
    """

    def __init__(self, joints: Mapping[str, Joint], traits: Traits, trains: Iterable[str] = ()):
        self.joints, self.traits, self.trains = joints, traits, frozenset(trains)

    def lower(self, source: Expectation | PenaltyOf, term: Expr) -> Expr:
        """The tree of one term of an expectation, or of a penalty, which is its own term.

        Raises:
            ConfigError: The term asks for what its expectation does not draw, or for a density that is not known.
        """
        if isinstance(source, PenaltyOf):
            return self._penalty(source)
        tree = self.lower_at(term, self.point(_one(source.over), source.k))
        return tree if source.k == 1 else OverDraws(tree, source.k, component_of(source.reduce))

    def lower_at(self, term: Expr, point: Point) -> Expr:
        """The tree of a term at a point."""
        return lower_tree(term, lambda leaf, held: self._leaf(leaf, point, held))

    def _penalty(self, source: PenaltyOf) -> CriticPenalty:
        positives, negatives = (
            self.critic(source.ratio, self.point(_one(side), 1)).inputs for side in (source.ratio.num, source.ratio.den)
        )
        seen = {*positives, *negatives}
        detached = frozenset(seen - differentiable_nodes(seen, self.trains, self.traits))
        return CriticPenalty(source.ratio.name, source.penalty, positives, negatives, detached, str(source))

    # --- draws

    def point(self, over: Product, k: int, drawn: frozenset[str] = frozenset()) -> Point:
        """Draw each marginal independently.

        Args:
            over: What is drawn.
            k: The number of draws for each row.
            drawn: The variables of priors that are drawn k times too, and not once for each row.

        The first marginal of a joint is the joint's shared draw. A further one is drawn afresh where that takes
        priors only. Otherwise it is re-paired: its rows are shifted within blocks, past the rows that other joints
        with the same data source have.
        """
        reads: dict[str, ReadNode] = {}
        times_drawn: dict[str, int] = {}
        largest_first = sorted(over.marginals, key=lambda m: -len(m.joint.ancestors(m.variables)))
        for marginal in largest_first:
            factors = marginal.joint.ancestors(marginal.variables)
            owners = {f.of or marginal.joint.name for f in factors}  # a joint that took a factor over is no other draw
            nth = max(times_drawn.get(owner, 0) for owner in owners)
            times_drawn |= dict.fromkeys(owners, nth + 1)
            fresh = all(f.is_root and self.traits[f.part].kind == "prior" for f in factors)
            for variable in marginal.variables:
                read = self._read(marginal.joint, nth if fresh else 0, variable, k, drawn)
                stride = max(1, *(len(self._joints_rooted_in(f)) for f in factors))
                reads[variable] = read if fresh or not nth else attrs.evolve(read, shift=nth * stride)
        return Point({v: _repeated(reads[v], k) for v in over.variables}, k)

    def _read(self, joint: Joint, index: int, variable: str, k: int, drawn: frozenset[str]) -> ReadNode:
        return ReadNode(self._draw(joint, index, joint.drawn_by(variable), k, drawn), variable)

    def _draw(
        self, joint: Joint, index: int, factor: Conditional, k: int, drawn: frozenset[str]
    ) -> RootNode | SampleNode:
        owner = factor.of or joint.name
        if factor.is_root:
            trait = self.traits[factor.part]
            is_data = trait.kind == "data"
            # two joints rooted in one data source must not share rows: q(x) and p(y) are independent
            rooted = self._joints_rooted_in(factor)
            shift = rooted.index(owner) if is_data and owner in rooted else 0
            times = 1 if is_data or drawn.isdisjoint(factor.out) else k
            return RootNode(owner, index, factor.part, factor.out, is_data, shift, trait.through, times)
        given = {v: self._read(joint, index, v, k, drawn) for v in factor.given}
        title = f"{owner}{index or ''}({factor})" + (f" k={k}" if k > 1 else "")
        return SampleNode(self._forward(factor, given, k, "live", title), factor.out, title)

    def _joints_rooted_in(self, root: Conditional) -> list[str]:
        if not root.is_root:
            return []
        return [j.name for j in self.joints.values() if any(f.is_root and f.part == root.part for f in j.own)]

    def _forward(
        self, factor: Conditional, given: Mapping[str, ReadNode], k: int, mode: Mode, title: str
    ) -> ForwardNode | MomentsNode:
        """The run of the network of `factor` given these values, with k rows per row of the batch."""
        noise_size = self.traits[factor.part].noise_input
        rows = k if noise_size else max(given[v].rows for v in factor.given)
        inputs = tuple(_repeated(given[v], rows) for v in factor.given)
        if mode == "held" and (factor.moments or factor.part not in self.trains):
            mode = "live"  # the same thing where no gradient reaches the part, and one run fewer
        run = ForwardNode(factor.part, inputs, mode, k // rows, f"{title}/eps" if noise_size else "", noise_size)
        return MomentsNode(run) if factor.moments else run

    # --- terms

    def _leaf(self, term: Expr, point: Point, held: bool) -> Node:
        """The node of a term that is no combination of others."""
        match term:
            case LogDensity():
                return self.density(term, point, held)
            case KL():
                return self._closed_kl(term, point, held)
            case Ratio():
                return self.critic(term, point)
            case Apply():
                return TermNode(component_of(term.term), tuple(self._value(v, point, held) for v in term.values))
        raise TypeError(f"{term!r} cannot be evaluated at a point")

    def density(self, term: LogDensity, point: Point, held: bool = False) -> DensityNode:
        """The node of a log-density at a point, with the parameters held or not."""
        is_held = held or term.hold or (term.factor.of or term.joint.name, term.factor) in point.held
        mode: Mode = "held" if is_held else "live"
        if len(term.factor.out) != 1:
            raise ConfigError(f"{term.factor} draws several variables at once; write it as a product of conditionals")
        (out,) = term.factor.out
        if term.mass:
            _refuse_matched(term.factor, term)
        law = self._law(term.joint, term.factor, point, mode, term.at, held)
        value = self._value(dict(term.at).get(out, Value(out)), point, held, term)
        own = _is_draw_of(value, law)
        if term.mass and isinstance(value.source, RootNode):
            value = attrs.evolve(value, reading="mean")  # a bin's centre: a dequantised value can round out of its bin
        return DensityNode(law, value, own, term.mass)

    def _closed_kl(self, term: KL, point: Point, held: bool) -> ClosedKLNode:
        mode: Mode = "held" if held else "live"
        for factor in (term.factor, term.other):
            _refuse_matched(factor, term)
        law = self._law(term.joint, term.factor, point, mode, term.at, held)
        other = self._law(term.other_joint, term.other, point, mode, term.other_at, held)
        assert not isinstance(law, MomentsNode) and not isinstance(other, MomentsNode)
        return ClosedKLNode(law, other)

    def _law(
        self, joint: Joint, factor: Conditional, point: Point, mode: Mode, at: Arguments = (), held: bool = False
    ) -> ForwardNode | PriorNode | MomentsNode:
        """The distribution `factor` at the point: a run of its network, or the prior itself.

        Args:
            at: Values in the place of the variables that it is given.
            held: Whether no parameter takes a gradient that these values are computed with.
        """
        if factor.is_root:
            trait = self.traits[factor.part]
            if trait.kind == "data":
                remedy = "" if factor.part == "data" else _remedy_for_source(factor)
                raise ConfigError(f"log {joint.name}({factor}): the data's density is not known{remedy}")
            trained = self.trains & {factor.part, *trait.through}
            return PriorNode(factor.part, mode if trained else "live", point.k, through=trait.through)
        given = self._given(joint, factor, point, at, held)
        return self._forward(factor, given, point.k, mode, f"{joint.name}({factor.show(unstopped(at))})")

    def _given(self, joint: Joint, factor: Conditional, point: Point, at: Arguments, held: bool) -> dict[str, ReadNode]:
        """The value of each variable that `factor` is given, once for each row of what it is read from."""
        instead, given = dict(at), {}
        for variable in factor.given:
            value = instead.get(variable, Value(variable))
            if factor.moments and isinstance(value, StoppedValue):  # moments have no gradient that could be stopped
                value = value.value
            read = self._value(value, point, held, f"{joint.name}({factor})")
            given[variable] = attrs.evolve(read, repeat=1)  # roots are repeated after the network, not before it
        return given

    def critic(self, ratio: Ratio, point: Point) -> CriticNode:
        """The run of a ratio's critic at the point."""
        return CriticNode(ratio.name, tuple(self._seen(ratio, v, point) for v in ratio.variables))

    def _seen(self, ratio: Ratio, variable: str, point: Point) -> ReadNode | StandardizedNode:
        """Return the value of a variable that the critic of a ratio sees."""
        read, view = point.at(variable, ratio), ratio.reading(variable)
        if not isinstance(view, Standardized):
            return self._viewed(read, view)
        law = self._law(view.joint, view.factor, point, "live")
        return StandardizedNode(read, law if isinstance(law, MomentsNode) else MomentsNode(law))

    def _viewed(self, read: ReadNode, reading: str) -> ReadNode:
        """The same draw in another reading, where it has it.

        Observed data has the readings "sample" and "mean"; the family of its likelihood makes all others.
        """
        source = read.source
        if isinstance(source, RootNode) and source.is_data and reading not in ("sample", "mean"):
            view = ViewNode(self._likelihood_of(read.variable), source, read.variable, reading)
            return attrs.evolve(read, source=view)
        if isinstance(source, RootNode) and not source.is_data:
            reading = "sample"  # a prior's draw has one reading
        if isinstance(source, SampleNode) and isinstance(source.law, MomentsNode) and reading != "mean":
            reading = "sample"  # a matched Gaussian's draw has two
        return attrs.evolve(read, reading=reading)

    def _likelihood_of(self, variable: str) -> str:
        """The part that models an observed variable."""
        for joint in self.joints.values():
            for factor in joint.factors:
                if factor.out == (variable,) and not factor.is_root:
                    return factor.part
        raise ConfigError(f"no conditional draws {variable!r}, so no family can give a view of it")

    def _value(self, value: Argument, point: Point, held: bool = False, asker: object = None) -> ReadNode:
        """The node of a value at the point, with k rows for each row of the batch.

        Args:
            held: Whether no parameter takes a gradient that it is computed with.
            asker: What asks for it, for messages; by default the value itself.
        """
        if isinstance(value, StoppedValue):
            return attrs.evolve(self._value(value.value, point, held, asker), stop=True)
        assert isinstance(value, Value), value
        if value.factor is None or value.joint is None:
            return self._viewed(point.at(value.variable, asker or value), value.reading)
        given = self._given(value.joint, value.factor, point, value.at, held)
        title = f"{value.joint.name}'({value.factor.show(unstopped(value.at))})"
        law = self._forward(value.factor, given, point.k, "held" if held else "live", title)
        return ReadNode(SampleNode(law, value.factor.out, title), value.variable, value.reading)


def lower_tree(term: Expr, leaf: Callable[[Expr, bool], Node], held: bool = False) -> Expr:
    """Replace every term that is no combination of others by the value of its node.

    Args:
        term: The term as the objective writes it.
        leaf: (term, whether its parameters are held) -> its node.
        held: Hold the parameters. The known part of a ratio always is.
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
        case Clip():
            return attrs.evolve(term, term=lower_tree(term.term, leaf, held))
        case Stop():
            return Stop(lower_tree(term.term, leaf, held))
    value = NodeValue(leaf(term, held))
    if isinstance(term, Ratio) and term.known is not None:
        return Sum((value, lower_tree(term.known, leaf, held=True)))
    return value


def _one(over: Distribution) -> Product:
    """The distribution, which is no mixture: the plan lowers mixtures component by component."""
    assert isinstance(over, Product), f"{over} is a mixture"
    return over


def _repeated(read: ReadNode, rows: int) -> ReadNode:
    return read if read.rows == rows else attrs.evolve(read, repeat=rows // read.source.rows)


def _remedy_for_source(root: Conditional) -> str:
    return (
        f"; {', '.join(root.out)} is drawn from the data source 'sources.{root.part}': use a prior that has a density, "
        "or an objective that only draws from it"
    )


def _refuse_matched(factor: Conditional, term: Expr) -> None:
    if factor.moments:
        raise ConfigError(f"{term}: {factor} is a matched Gaussian, of which only the log-density is known")


def _is_draw_of(value: ReadNode, law: ForwardNode | PriorNode | MomentsNode) -> bool:
    """Whether the value is a draw of this very distribution as it stands: nothing held, stopped or re-paired."""
    if isinstance(law, MomentsNode) or value.leaf or value.stop or value.shift or value.reading != "sample":
        return False  # a matched Gaussian scores any point
    if isinstance(law, PriorNode):
        return isinstance(value.source, RootNode) and value.source.part == law.part and law.mode == "live"
    return isinstance(value.source, SampleNode) and value.source.law == law
