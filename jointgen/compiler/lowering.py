"""Lowering: each term, at the point of its expectation, becomes a tree with nodes as its leaves. Torch-free.

The flow is expression -> lowered tree (`jointgen.compiler.lowered`) -> nodes -> program -> values -> loss. Only
`jointgen.compiler.plan` lowers, and it keeps what it lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from jointgen.compiler.aggregates import AggregateNode, TrunkNode
from jointgen.compiler.axes import Axes, draws_axis, merge_axes, size_of, summed_in
from jointgen.compiler.estimators import EstimatorNode, handed_laws
from jointgen.compiler.feature_nodes import FeaturesNode, LayersNode
from jointgen.compiler.gradient_paths import Traits
from jointgen.compiler.lowered import (
    CriticPenalty,
    DivergenceOfRows,
    LogMeanExpOfRows,
    NodeValue,
    OverDraws,
    OverValues,
    leaves_of,
)
from jointgen.compiler.nodes import (
    ClosedKLNode,
    CriticNode,
    DensityNode,
    ForwardNode,
    Mode,
    MomentsNode,
    Node,
    PastNode,
    PriorNode,
    ReadNode,
    RootNode,
    SampleNode,
    StandardizedNode,
    TermNode,
    ViewNode,
    differentiable_nodes,
    of_batch,
    ordered,
)
from jointgen.compiler.sums import ValuesNode, spread
from jointgen.contracts.reductions import WeightedReduction
from jointgen.errors import ConfigError
from jointgen.objectives.aggregates import AggregateDensity
from jointgen.objectives.algebra import Clip, Constant, Expr, Pointwise, Stop, Sum, Weighted
from jointgen.objectives.batch_terms import Divergence, LogMeanExp
from jointgen.objectives.components import component_of, name_of
from jointgen.objectives.distributions import KL, Conditional, Distribution, Joint, LogDensity, Product
from jointgen.objectives.estimators import Estimate
from jointgen.objectives.expressions import Apply, Expectation, PenaltyOf, Ratio, Standardized
from jointgen.objectives.values import Argument, Arguments, Features, StoppedValue, Value, unstopped

Source = Expectation | PenaltyOf | Divergence | LogMeanExp
"""What a term of an update stands in, or is."""


@attrs.frozen
class Point:
    """The point at which a term is evaluated: a `ReadNode` for each variable, with k rows per row of the batch.

    Where variables are summed over, a value has the axes that it depends on, and is spread where it meets others.

    Args:
        held: The conditionals, each with the joint that owns it, whose densities are held at this point.
        sums: The summed variables in order.
        log_probs: The log-probability of each value of these.
        batch: How many rows the batch has; 0 for `train.batch`.
        history: What the draws of the past are of, and how many are kept.
    """

    reads: Mapping[str, ReadNode]
    k: int
    held: frozenset[tuple[str, Conditional]] = frozenset()
    sums: tuple[str, ...] = ()
    log_probs: Mapping[str, DensityNode] = attrs.field(factory=dict)
    batch: int = 0
    history: tuple[str, int] | None = None

    def axes_of(self, *found: Axes) -> Axes:
        """The axes of what is computed from values with these: theirs, and without sums the k draws in any case."""
        return merge_axes(found, self.sums) if self.sums else draws_axis(self.k)

    def at(self, variable: str, asker: object) -> ReadNode:
        """The value of a variable, for `asker`. Raises ConfigError where the expectation does not draw it."""
        if variable not in self.reads:
            raise ConfigError(
                f"{asker} needs {variable!r}, which its expectation over {', '.join(self.reads)} does not draw"
            )
        return self.reads[variable]


@attrs.frozen
class Draws:
    """The draw of a joint that a marginal is read from: the `index`-th, k times.

    Args:
        again: The variables of priors that are drawn k times too.
        sums: The variables that take every value in place of a draw.
        batch: How many rows the batch has; 0 for `train.batch`.
    """

    joint: Joint
    index: int
    k: int
    again: frozenset[str]
    sums: tuple[str, ...]
    batch: int = 0


class Lowering:
    """Lowers the terms of one update.

    Args:
        joints: The joints of the objective, by name.
        traits: The traits of every part.
        trains: The parts that the update trains. Only their runs can be held.
        pace: The update runs at every step that this number divides.
    """

    def __init__(self, joints: Mapping[str, Joint], traits: Traits, trains: Iterable[str] = (), pace: int = 1):
        self.joints, self.traits, self.trains, self.pace = joints, traits, frozenset(trains), pace

    def lower(self, source: Source, term: Expr) -> Expr:
        """The tree of one term of an expectation, or of a penalty or a term of the batch, which is its own term.

        Raises:
            ConfigError: The term asks for what its expectation does not draw, or for a density that is not known.
        """
        if isinstance(source, PenaltyOf):
            return self._penalty(source)
        if isinstance(source, Divergence):
            return self._divergence(source)
        if isinstance(source, LogMeanExp):
            terms = [(share, self.lower_at(source.term, self.point(of, 1))) for share, of in source.drawn.components]
            return LogMeanExpOfRows(tuple(terms))
        sums = source.sums
        point = self.point(_one(source.over), source.k, sums=sums)
        if source.history:
            point = attrs.evolve(point, history=(str(source.over), source.history))
        tree = self.lower_at(term, point)
        reduction = component_of(source.reduce)
        if not sums:
            return tree if source.k == 1 else OverDraws(tree, source.k, reduction)
        if reduction is not None and not isinstance(reduction, WeightedReduction):
            raise ConfigError(f"{source.sign}: {name_of(source.reduce)} takes no weights, so it goes with no sum")
        axes, log_probs = _summed_axes(tree, point)
        tree = lower_tree(term, lambda leaf, held: spread(self._leaf(leaf, point, held), axes))
        return OverValues(tree, axes, log_probs, reduction) if axes else tree

    def lower_at(self, term: Expr, point: Point) -> Expr:
        """The tree of a term at a point."""
        return lower_tree(term, lambda leaf, held: self._leaf(leaf, point, held))

    def _penalty(self, source: PenaltyOf) -> CriticPenalty:
        positives, negatives = (
            self.critic(source.ratio, self.point(_one(side), 1)).inputs for side in (source.ratio.num, source.ratio.den)
        )
        seen = {*positives, *negatives}
        detached = frozenset(seen - differentiable_nodes(seen, self.trains, self.traits))
        return CriticPenalty(source.ratio.name, source.penalty, positives, negatives, detached, str(source), self.pace)

    def _divergence(self, source: Divergence) -> DivergenceOfRows:
        points = [self.point(_one(side), 1) for side in source.sides]
        sides = tuple(tuple(self._value(v, point, asker=source) for v in source.compared) for point in points)
        return DivergenceOfRows(component_of(source.measure), sides, str(source))

    # --- draws

    def point(self, over: Product, k: int, drawn: frozenset[str] = frozenset(), sums: tuple[str, ...] = ()) -> Point:
        """Draw each marginal independently.

        Args:
            over: What is drawn.
            k: The number of draws for each row.
            drawn: The variables of priors that are drawn k times too, and not once for each row.
            sums: The variables that take every value in place of a draw.

        The first marginal of a joint is the joint's shared draw. A further one is drawn afresh where that takes
        priors only. Otherwise it is re-paired: its rows are shifted within blocks, past the rows that other joints
        with the same data source have.
        """
        reads: dict[str, ReadNode] = {}
        log_probs: dict[str, DensityNode] = {}
        times_drawn: dict[str, int] = {}
        roots = [f for m in over.marginals for f in m.joint.ancestors(m.drawn) if f.is_root]
        batch = max((self.traits[root.part].batch for root in roots), default=0)
        largest_first = sorted(over.marginals, key=lambda m: -len(m.joint.ancestors(m.drawn)))
        for marginal in largest_first:
            factors = marginal.joint.ancestors(marginal.drawn)
            owners = {f.of or marginal.joint.name for f in factors}  # a joint that took a factor over is no other draw
            nth = max(times_drawn.get(owner, 0) for owner in owners)
            times_drawn |= dict.fromkeys(owners, nth + 1)
            fresh = all(f.is_root and self.traits[f.part].kind == "prior" for f in factors)
            draws = Draws(marginal.joint, nth if fresh else 0, k, drawn, sums, batch)
            for factor in factors:
                if summed := set(factor.out) & set(sums):
                    (variable,) = summed
                    if variable in log_probs or (nth and not fresh):
                        raise ConfigError(f"sum {variable}: {over} draws it twice, so it has no one sum")
                    log_probs[variable] = self._log_prob(draws, factor)
            for variable in marginal.variables:
                read = self._read(draws, marginal.original(variable))
                stride = max(1, *(len(self._joints_rooted_in(f)) for f in factors))
                moved = read if fresh or not nth else attrs.evolve(read, shift=nth * stride)
                reads[variable] = attrs.evolve(moved, each=True) if marginal.each else moved
        found = {v: reads[v] if sums else spread(reads[v], draws_axis(k)) for v in over.variables}
        return Point(found, k, sums=sums, log_probs=log_probs, batch=batch)

    def _read(self, draws: Draws, variable: str) -> ReadNode:
        return ReadNode(self._draw(draws, draws.joint.drawn_by(variable)), variable)

    def _draw(self, draws: Draws, factor: Conditional) -> RootNode | SampleNode | ValuesNode:
        joint, index = draws.joint, draws.index
        owner = factor.of or joint.name
        if set(factor.out) & set(draws.sums):
            return self._values(draws, factor)
        if factor.is_root:
            trait = self.traits[factor.part]
            is_data = trait.kind == "data"
            # two joints rooted in one data source must not share rows: q(x) and p(y) are independent
            rooted = self._joints_rooted_in(factor)
            shift = rooted.index(owner) if is_data and owner in rooted else 0
            times = 1 if is_data or draws.again.isdisjoint(factor.out) else draws.k
            batch = trait.batch if is_data else draws.batch
            return RootNode(owner, index, factor.part, factor.out, is_data, shift, trait.through, times, batch)
        given = {v: self._read(draws, v) for v in factor.given}
        axes = merge_axes([*(read.axes for read in given.values()), draws_axis(draws.k)], draws.sums)
        title = f"{owner}{index or ''}({factor}){_over(axes)}" + (f" k={draws.k}" if draws.k > 1 else "")
        title += of_batch(draws.batch)
        return SampleNode(self._forward(factor, given, axes, "live", title), factor.out, title)

    def _values(self, draws: Draws, factor: Conditional) -> ValuesNode:
        """Every value of a variable that is summed over."""
        (variable,) = factor.out
        trait, written = self.traits[factor.part], f"{factor.of or draws.joint.name}({factor})"
        if trait.kind == "data":
            raise ConfigError(
                f"sum {variable}: {written} is drawn from a data source, whose probabilities are not known; "
                "sum over what a family or a prior draws"
            )
        if factor.moments:
            raise ConfigError(f"sum {variable}: {written} is a matched Gaussian, which has no list of values")
        count = max(trait.values, 1)  # a law that has none is a requirement that is not met
        own = ((variable, count),)
        if factor.is_root:
            law_of_prior = PriorNode(factor.part, "live", count, trait.through, draws.batch)
            return ValuesNode(law_of_prior, variable, count, written)
        given = {v: self._read(draws, v) for v in factor.given}
        axes = merge_axes([*(read.axes for read in given.values()), own], draws.sums)
        law = self._forward(factor, given, axes, "live", written)
        assert isinstance(law, ForwardNode)
        return ValuesNode(law, variable, count, written)

    def _log_prob(self, draws: Draws, factor: Conditional) -> DensityNode:
        """The log-probability of every value of a variable that is summed over."""
        values = self._values(draws, factor)
        axes = values.axes if isinstance(values.law, PriorNode) else values.law.axes
        return DensityNode(values.law, spread(ReadNode(values, values.variable), axes), own=False)

    def _joints_rooted_in(self, root: Conditional) -> list[str]:
        if not root.is_root:
            return []
        joints = self.joints.values()
        own = [j.name for j in joints if any(f.is_root and f.part == root.part for f in j.own)]
        rows_of = [f.of for j in joints for f in j.owned(self.joints) if f.is_root and f.part == root.part and f.of]
        return list(dict.fromkeys([*own, *rows_of]))

    def _forward(
        self, factor: Conditional, given: Mapping[str, ReadNode], axes: Axes, mode: Mode, title: str
    ) -> ForwardNode | MomentsNode:
        """The run of the network of `factor` given these values, with these axes."""
        trait = self.traits[factor.part]
        noise_size, seen = trait.noise_input, [given[v] for v in trait.seen(factor.given)]
        if trait.input:
            at = Point(given, size_of(axes), sums=summed_in(axes))
            seen = [self._value(value, at, mode == "held") for value in trait.input]
        below = axes if noise_size else merge_axes((node.axes for node in seen), summed_in(axes))
        inputs = tuple(spread(node, below) for node in seen)
        laws = (self._forward(other, given, axes, mode, f"{title} by {other.part}") for other in trait.merged)
        merged = tuple(law for law in laws if isinstance(law, ForwardNode))
        if mode == "held" and (factor.moments or factor.part not in self.trains):
            mode = "live"  # the same thing where no gradient reaches the part, and one run fewer
        k, layout = size_of(axes) // size_of(below), axes if summed_in(axes) else ()
        noise = f"{title}/eps" if noise_size else ""
        run = ForwardNode(factor.part, inputs, mode, k, noise, noise_size, layout, merged)
        return MomentsNode(run) if factor.moments else run

    # --- terms

    def _leaf(self, term: Expr, point: Point, held: bool) -> Node:
        """The node of a term that is no combination of others."""
        if point.history is not None and not isinstance(term, Ratio):
            raise ConfigError(f"{term} stands under a history of draws, of which only a critic sees those of the past")
        match term:
            case LogDensity():
                return self.density(term, point, held)
            case KL():
                return self._closed_kl(term, point, held)
            case Ratio():
                return self.critic(term, point)
            case AggregateDensity():
                return self._aggregate(term, point, held)
            case Apply():
                values = [self._value(v, point, held) for v in term.values]
                return TermNode(component_of(term.term), _met(point, values))
            case Estimate():
                seen = _met(point, [self._value(v, point, held) for v in term.values])
                title = f"{term}{_over(seen[0].axes)}" + (f" k={point.k}" if point.k > 1 else "")
                laws = handed_laws(term, self.traits, held)
                return EstimatorNode(component_of(term.estimator), seen, laws, title + of_batch(point.batch))
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
        value = self._value(dict(term.at).get(out, Value(out)), point, held, term)
        law = self._law(term.joint, term.factor, point, mode, term.at, held, value.axes)
        own = _is_draw_of(value, law)
        if term.mass and isinstance(value.source, RootNode):
            value = attrs.evolve(value, reading="mean")  # a bin's centre: a dequantised value can round out of its bin
        if point.sums:
            value = spread(value, value.axes if isinstance(law, PriorNode) else law.axes)
        return DensityNode(law, value, own, term.mass)

    def _closed_kl(self, term: KL, point: Point, held: bool) -> ClosedKLNode:
        mode: Mode = "held" if held else "live"
        for factor in (term.factor, term.other):
            _refuse_matched(factor, term)
        sides = ((term.joint, term.factor, term.at), (term.other_joint, term.other, term.other_at))
        given = [self._given(joint, factor, point, at, held) for joint, factor, at in sides]
        axes = point.axes_of(*(read.axes for reads in given for read in reads.values()))
        law, other = (self._law(*side[:2], point, mode, side[2], held, axes) for side in sides)
        assert not isinstance(law, MomentsNode) and not isinstance(other, MomentsNode)
        _refuse_integrated_draws(term, law, other)
        return ClosedKLNode(law, other)

    def _aggregate(self, term: AggregateDensity, point: Point, held: bool) -> AggregateNode:
        """The density of a marginal at the point: the conditional given the data of every row of the batch."""
        factor, value = term.factor, point.at(term.variable, term)
        sources = {self.traits[term.joint.drawn_by(v).part].kind for v in factor.given}
        if sources != {"data"} or len({term.joint.drawn_by(v).part for v in factor.given}) > 1:
            raise ConfigError(
                f"{term}: {factor} must be given variables of one data source, over whose rows it is a mean"
            )
        if summed_in(value.axes):
            raise ConfigError(f"{term}: an aggregate density goes with no sum over a variable")
        draws = Draws(term.joint, 0, 1, frozenset(), ())
        given = tuple(self._read(draws, v) for v in factor.given)
        mode: Mode = "held" if held and factor.part in self.trains else "live"
        run = f"{term.joint.name}({factor})"
        outputs = TrunkNode(factor.part, given, mode, run)
        law = value.source.law if isinstance(value.source, SampleNode) else None
        own = (
            isinstance(law, ForwardNode)
            and (law.part, law.inputs) == (factor.part, given)
            and not (value.shift or value.each)
        )
        return AggregateNode(outputs, value, term.joint.drawn_by(factor.given[0]).part, own, term.each)

    def _law(
        self,
        joint: Joint,
        factor: Conditional,
        point: Point,
        mode: Mode,
        at: Arguments = (),
        held: bool = False,
        beside: Axes = (),
    ) -> ForwardNode | PriorNode | MomentsNode:
        """The distribution `factor` at the point: a run of its network, or the prior itself.

        Args:
            at: Values in the place of the variables that it is given.
            held: Whether no parameter takes a gradient that these values are computed with.
            beside: The axes of what it is used with.
        """
        if factor.is_root:
            trait = self.traits[factor.part]
            if trait.kind == "data":
                remedy = "" if factor.part == "data" else _remedy_for_source(factor)
                raise ConfigError(f"log {joint.name}({factor}): the data's density is not known{remedy}")
            trained = self.trains & {factor.part, *trait.through}
            rows = size_of(point.axes_of(beside))
            return PriorNode(factor.part, mode if trained else "live", rows, trait.through, point.batch)
        given = self._given(joint, factor, point, at, held)
        axes = point.axes_of(beside, *(read.axes for read in given.values()))
        return self._forward(factor, given, axes, mode, f"{joint.name}({factor.show(unstopped(at))})")

    def _given(self, joint: Joint, factor: Conditional, point: Point, at: Arguments, held: bool) -> dict[str, ReadNode]:
        """The value of each variable that `factor` is given, once for each row of what it is read from."""
        instead, given = dict(at), {}
        for variable in factor.given:
            value = instead.get(variable, Value(variable))
            if factor.moments and isinstance(value, StoppedValue):  # moments have no gradient that could be stopped
                value = value.value
            given[variable] = _once(self._value(value, point, held, f"{joint.name}({factor})"))
        return given

    def critic(self, ratio: Ratio, point: Point) -> CriticNode:
        """The run of a ratio's critic at the point."""
        seen = _met(point, [self._seen(ratio, v, point) for v in ratio.variables])
        if point.history is None:
            return CriticNode(ratio.name, seen)
        over, size = point.history
        name = f"{ratio.name}/history {size} of {over}"
        past = (PastNode(one, v, name, size) for one, v in zip(seen, ratio.variables, strict=True))
        return CriticNode(ratio.name, tuple(past))

    def critic_output(self, ratio: Ratio, over: Product, history: int) -> tuple[CriticNode, Expr]:
        """The run of a critic at draws of a product, and its whole output with the known part of the ratio."""
        point = self.point(over, 1)
        if history:
            point = attrs.evolve(point, history=(str(over), history))
        return self.critic(ratio, point), self.lower_at(ratio, point)

    def _seen(self, ratio: Ratio, variable: str, point: Point) -> Any:
        """Return the value of a variable that the critic of a ratio sees."""
        view = ratio.reading(variable)
        if isinstance(view, Argument):
            return self._value(view, point)
        read = point.at(variable, ratio)
        if not isinstance(view, Standardized):
            return self._viewed(read, view)
        law = self._law(view.joint, view.factor, point, "live", beside=read.axes)
        (read,) = _met(point, [read], law.axes)
        return StandardizedNode(read, law if isinstance(law, MomentsNode) else MomentsNode(law))

    def _viewed(self, read: ReadNode, reading: str) -> ReadNode:
        """The same draw in another reading, where it has it.

        Observed data has the readings "sample" and "mean"; the family of its likelihood makes all others.
        """
        source = read.source
        if isinstance(source, RootNode) and source.is_data and reading not in ("sample", "mean"):
            view = ViewNode(self._likelihood_of(read.variable), source, read.variable, reading)
            return attrs.evolve(read, source=view)
        if isinstance(source, ValuesNode) or (isinstance(source, RootNode) and not source.is_data):
            reading = "sample"  # a prior's draw has one reading, and so has a value that is summed over
        if isinstance(source, SampleNode) and isinstance(source.law, MomentsNode) and reading != "mean":
            reading = "sample"  # a matched Gaussian's draw has two
        return attrs.evolve(read, reading=reading)

    def _likelihood_of(self, variable: str) -> str:
        """The part that models an observed variable."""
        for joint in self.joints.values():
            for factor in joint.factors:
                if factor.out == (variable,) and not factor.is_root and joint.has_root:
                    return factor.part
        raise ConfigError(f"no conditional draws {variable!r}, so no family can give a view of it")

    def _value(self, value: Argument, point: Point, held: bool = False, asker: object = None) -> Any:
        """The node of a value at the point, with k rows for each row of the batch.

        Args:
            held: Whether no parameter takes a gradient that it is computed with.
            asker: What asks for it, for messages; by default the value itself.
        """
        if isinstance(value, StoppedValue):
            return attrs.evolve(self._value(value.value, point, held, asker), stop=True)
        if isinstance(value, Features):
            return FeaturesNode(self._layers(value, point, held), value.layer)
        assert isinstance(value, Value), value
        if value.factor is None or value.joint is None:
            return self._viewed(point.at(value.variable, asker or value), value.reading)
        given = self._given(value.joint, value.factor, point, value.at, held)
        axes = point.axes_of(*(read.axes for read in given.values()))
        title = f"{value.joint.name}'({value.factor.show(unstopped(value.at))}){_over(axes)}{of_batch(point.batch)}"
        law = self._forward(value.factor, given, axes, "held" if held else "live", title)
        return ReadNode(SampleNode(law, value.factor.out, title), value.variable, value.reading)

    def _layers(self, value: Features, point: Point, held: bool) -> LayersNode:
        """The run of the layers of a network, on the rows that its inputs have."""
        instead = dict(value.at)
        if value.ratio is not None:
            seen = [self._given_to_critic(value.ratio, v, instead, point, held) for v in value.ratio.variables]
        else:
            assert value.joint is not None and value.factor is not None
            trait, given = self.traits[value.part], self._given(value.joint, value.factor, point, value.at, held)
            if trait.noise_input:
                raise ConfigError(f"{value}: this network takes noise, so it has no features of its input alone")
            at = Point(given, point.k, sums=point.sums)
            seen = [self._value(v, at, held) for v in trait.input] or [given[v] for v in trait.seen(value.factor.given)]
        axes = merge_axes((node.axes for node in seen), point.sums)
        mode: Mode = "held" if held and value.part in self.trains else "live"
        return LayersNode(value.part, tuple(spread(node, axes) for node in seen), mode)

    def _given_to_critic(
        self, ratio: Ratio, variable: str, instead: Mapping[str, Argument], point: Point, held: bool
    ) -> Any:
        """What a critic sees of a value in the place of a variable, or of the variable itself."""
        if variable not in instead:
            return _once(self._seen(ratio, variable, point))
        value = _once(self._value(instead[variable], point, held))
        if isinstance(ratio.reading(variable), str):
            return value  # it has its own reading
        return self._seen(ratio, variable, attrs.evolve(point, reads={**point.reads, variable: value}))


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


def _once(node: Any) -> Any:
    """The value once for each row of what it is read from: roots are repeated after a network, not before it."""
    return attrs.evolve(node, repeat=1) if isinstance(node, ReadNode) else node


def _one(over: Distribution) -> Product:
    """The distribution, which is no mixture: the plan lowers mixtures component by component."""
    assert isinstance(over, Product), f"{over} is a mixture"
    return over


def _over(axes: Axes) -> str:
    """The mark of a draw that is made for every value of summed variables: noise for more rows has another name."""
    return f" sum {', '.join(summed_in(axes))}" if summed_in(axes) else ""


def _met(point: Point, nodes: Sequence[Any], beside: Axes = ()) -> tuple[Any, ...]:
    """The nodes that are used together, with the same axes."""
    axes = point.axes_of(beside, *(node.axes for node in nodes))
    return tuple(spread(node, axes) for node in nodes)


def _summed_axes(tree: Expr, point: Point) -> tuple[Axes, tuple[NodeValue, ...]]:
    """The axes over which a term is summed, with the log-probabilities that it is weighed by.

    These are the axes that it depends on, and those that the probabilities of these depend on. Over others it is a
    constant, and their probabilities have the sum 1.
    """
    axes = point.axes_of(*(node.axes for node in leaves_of(tree)))
    while (more := point.axes_of(axes, *(point.log_probs[v].axes for v in summed_in(axes)))) != axes:
        axes = more
    return axes, tuple(NodeValue(spread(point.log_probs[v], axes)) for v in summed_in(axes))


def _remedy_for_source(root: Conditional) -> str:
    return (
        f"; {', '.join(root.out)} is drawn from the data source 'sources.{root.part}': use a prior that has a density, "
        "or an objective that only draws from it"
    )


def _refuse_matched(factor: Conditional, term: Expr) -> None:
    if factor.moments:
        raise ConfigError(f"{term}: {factor} is a matched Gaussian, of which only the log-density is known")


def _refuse_integrated_draws(term: KL, law: ForwardNode | PriorNode, other: ForwardNode | PriorNode) -> None:
    """Refuse a closed KL that is given what depends on a draw of its first law.

    It integrates over the law anew, and so forgets that the point is of one draw: with z2 drawn from q(z2|z1),
    KL(q(z1|x) : p(z1|z2)) is not the mean of log q(z1|x) - log p(z1|z2).
    """
    for node in ordered((*law.parents, *other.parents)):
        if isinstance(node, SampleNode | ValuesNode) and isinstance(law, ForwardNode):
            drawn = node.law
            is_of_law = isinstance(drawn, ForwardNode) and drawn.part == law.part
            is_of_law = is_of_law and drawn.unmarked().inputs == law.unmarked().inputs  # type: ignore[union-attr]
        else:
            is_of_law = isinstance(node, RootNode) and isinstance(law, PriorNode) and node.part == law.part
        if is_of_law:
            written = f"{term.joint.name}({term.factor}) - log {term.other_joint.name}({term.other})"
            raise ConfigError(
                f"{term}: {' and '.join(term.other.given or term.factor.given)} depends on a draw of "
                f"{term.joint.name}({term.factor}), over which a closed KL integrates anew; write log {written}"
            )


def _is_draw_of(value: ReadNode, law: ForwardNode | PriorNode | MomentsNode) -> bool:
    """Whether the value is a draw of this very distribution as it stands: nothing held, stopped or re-paired."""
    if (
        isinstance(law, MomentsNode)
        or value.leaf
        or value.stop
        or value.shift
        or value.each
        or value.reading != "sample"
    ):
        return False  # a matched Gaussian scores any point
    if isinstance(law, PriorNode):  # which scores the draw of each row once, however often the point repeats it
        is_root = isinstance(value.source, RootNode) and value.source.part == law.part
        return is_root and value.repeat == 1 and law.mode == "live"
    return isinstance(value.source, SampleNode) and value.source.law == law
