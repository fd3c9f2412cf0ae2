"""Lowering: each term, at the point of its expectation, becomes nodes. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs

from jointgen.compiler.gradient_paths import PartTraits
from jointgen.compiler.nodes import (
    Applied,
    ClosedKL,
    Critic,
    Density,
    Forward,
    Law,
    Mode,
    Moments,
    Node,
    PriorLaw,
    Read,
    Root,
    Sample,
    Standard,
    View,
)
from jointgen.errors import ConfigError
from jointgen.objectives.algebra import Expr
from jointgen.objectives.distributions import KL, Conditional, Joint, LogDensity, Product
from jointgen.objectives.expressions import Apply, Ratio, Standardized, Value


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

    def __init__(self, joints: Mapping[str, Joint], traits: Mapping[str, PartTraits], trains: Iterable[str] = ()):
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
            factors = marginal.joint.ancestors(marginal.variables)
            owners = {f.of or marginal.joint.name for f in factors}  # a joint that took a factor over is no other draw
            again = max(used.get(owner, 0) for owner in owners)
            used |= dict.fromkeys(owners, again + 1)
            fresh = all(f.is_root and self.traits[f.part].kind == "prior" for f in factors)
            for variable in marginal.variables:
                read = self.read(marginal.joint, again if fresh else 0, variable, k)
                stride = max(1, *(len(self._sharing(f)) for f in factors))
                reads[variable] = read if fresh or not again else attrs.evolve(read, shift=again * stride)
        return Point({v: self._repeated(reads[v], k) for v in over.variables}, k)

    def read(self, joint: Joint, index: int, variable: str, k: int) -> Read:
        return Read(self.draw(joint, index, joint.drawn_by(variable), k), variable)

    def draw(self, joint: Joint, index: int, factor: Conditional, k: int) -> Root | Sample:
        owner = factor.of or joint.name
        if factor.is_root:
            trait = self.traits[factor.part]
            is_data = trait.kind == "data"
            shift = self._row_shift(owner, factor, is_data)
            return Root(owner, index, factor.part, factor.out, is_data, shift, through=trait.through)
        given = {v: self.read(joint, index, v, k) for v in factor.given}
        title = f"{owner}{index or ''}({factor})" + (f" k={k}" if k > 1 else "")
        return Sample(self.forward(factor, given, k, "live", title), factor.out, title)

    def _row_shift(self, owner: str, factor: Conditional, is_data: bool) -> int:
        """Two joints rooted in one data source must not share rows: q(x) and p(y) are independent."""
        sharing = self._sharing(factor)
        return sharing.index(owner) if is_data and owner in sharing else 0

    def _sharing(self, root: Conditional) -> list[str]:
        """The joints that are rooted in this data source."""
        if not root.is_root:
            return []
        return [j.name for j in self.joints.values() if any(f.is_root and f.part == root.part for f in j.own)]

    def forward(
        self, factor: Conditional, given: Mapping[str, Read], k: int, mode: Mode, title: str
    ) -> Forward | Moments:
        """The network run for `factor` given these values, giving k rows per row of the batch."""
        noisy = self.traits[factor.part].noise_input > 0
        rows = k if noisy else max(given[v].rows for v in factor.given)
        inputs = tuple(self._repeated(given[v], rows) for v in factor.given)
        if mode == "held" and (factor.moments or factor.part not in self.trains):
            mode = "live"  # the same thing where no gradient reaches the part, and one run fewer
        run = Forward(factor.part, inputs, mode, k // rows, f"{title}/eps" if noisy else "")
        return Moments(run) if factor.moments else run

    def _repeated(self, read: Read, rows: int) -> Read:
        return read if read.rows == rows else attrs.evolve(read, repeat=rows // read.source.rows)

    # --- terms

    def law(
        self, joint: Joint, factor: Conditional, point: Point, mode: Mode, stop: frozenset[str] = frozenset()
    ) -> Law:
        """The distribution `factor` at the point: a network run, or the prior itself."""
        if factor.is_root:
            trait = self.traits[factor.part]
            if trait.kind == "data":
                raise ConfigError(f"log {joint.name}({factor}): the data's density is not known{_remedy(factor)}")
            trained = self.trains & {factor.part, *trait.through}
            return PriorLaw(factor.part, mode if trained else "live", point.k, through=trait.through)
        given = {}
        for variable in factor.given:
            read = point.at(variable, f"{joint.name}({factor})")
            unrepeated = attrs.evolve(read, repeat=1)  # roots are repeated after the network, not before it
            given[variable] = attrs.evolve(unrepeated, stop=variable in stop and not factor.moments)
        return self.forward(factor, given, point.k, mode, f"{joint.name}({factor})")

    def density(self, term: LogDensity, point: Point, held: bool) -> Density:
        mode: Mode = "held" if held or term.hold else "live"
        (out,) = _single(term.factor)
        if term.mass:
            _not_matched(term.factor, term)
        law = self.law(term.joint, term.factor, point, mode, term.stop)
        value = point.at(out, term)
        own = out not in term.stop and _is_draw_of(value, law)
        value = attrs.evolve(value, stop=True) if out in term.stop else value
        if term.mass and isinstance(value.source, Root):
            value = attrs.evolve(value, reading="mean")  # a bin's centre: a dequantised value can round out of its bin
        return Density(law, value, own, term.mass)

    def closed_kl(self, term: KL, point: Point) -> ClosedKL:
        for factor in (term.factor, term.other):
            _not_matched(factor, term)
        law = self.law(term.joint, term.factor, point, "live")
        other = self.law(term.other_joint, term.other, point, "live")
        assert not isinstance(law, Moments) and not isinstance(other, Moments)
        return ClosedKL(law, other)

    def critic(self, ratio: Ratio, point: Point) -> Critic:
        return Critic(ratio.name, tuple(self.seen(ratio, v, point) for v in ratio.variables))

    def seen(self, ratio: Ratio, variable: str, point: Point) -> Read | Standard:
        """What the ratio's critic is shown of a variable."""
        read, how = point.at(variable, ratio), ratio.reading(variable)
        if not isinstance(how, Standardized):
            return self.viewed(read, how)
        law = self.law(how.joint, how.factor, point, "live")
        return Standard(read, law if isinstance(law, Moments) else Moments(law))

    def viewed(self, read: Read, reading: str) -> Read:
        """The same draw in another reading; of observed data, its likelihood family gives what only that has."""
        if isinstance(read.source, Root) and read.source.is_data and reading not in ("sample", "mean"):
            return attrs.evolve(
                read, source=View(self.likelihood_of(read.variable), read.source, read.variable, reading)
            )
        if isinstance(read.source, Root) and not read.source.is_data:
            reading = "sample"  # a prior's draw has one reading
        if isinstance(read.source, Sample) and isinstance(read.source.forward, Moments) and reading != "mean":
            reading = "sample"  # and a matched Gaussian's none that only a family has
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


def _remedy(root: Conditional) -> str:
    """What the user of a data source in the place of a prior can do."""
    if root.part == "data":
        return ""
    return (
        f"; {', '.join(root.out)} is drawn from the data source 'sources.{root.part}': use a prior that has a density, "
        "or an objective that only draws from it, such as 'ali'"
    )


def _single(factor: Conditional) -> tuple[str]:
    if len(factor.out) != 1:
        raise ConfigError(f"{factor} draws several variables at once; write it as a product of conditionals")
    return (factor.out[0],)


def _not_matched(factor: Conditional, term: Expr) -> None:
    if factor.moments:
        raise ConfigError(f"{term}: {factor} is a matched Gaussian, of which a log-density is known and nothing else")


def _is_draw_of(value: Read, law: Law) -> bool:
    """Whether the value is a draw of this very distribution as it stands: nothing held, stopped or re-paired."""
    if isinstance(law, Moments) or value.shift or value.reading != "sample":  # a matched Gaussian scores any point
        return False
    if isinstance(law, PriorLaw):
        return isinstance(value.source, Root) and value.source.part == law.part and law.mode == "live"
    return isinstance(value.source, Sample) and value.source.forward == law


def unmarked(run: Forward) -> Forward:
    """The same run with nothing held or stopped: the same numbers, so the same dropout."""
    return attrs.evolve(run, mode="live", inputs=tuple(attrs.evolve(i, stop=False) for i in run.inputs))
