"""Lowering of expectations whose reduction makes the gradient in the draws itself. Torch-free but for the contract.

The term stands at the draws as leaves: nothing of its gradient reaches what made them. Beside it stand what the
reduction makes the gradient of: the same draws with their path, and their densities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from jointgen.compiler.lowered import OverDraws, ReducedDraws, leaves_of
from jointgen.compiler.nodes import ReadNode, ordered
from jointgen.contracts.reductions import ChecksDraws, GradientReduction, as_gradient_reduction
from jointgen.errors import ConfigError
from jointgen.objectives.algebra import Expr, summands
from jointgen.objectives.components import component_of, name_of
from jointgen.objectives.distributions import Conditional, Joint, LogDensity, Product
from jointgen.objectives.expressions import Expectation

if TYPE_CHECKING:
    from jointgen.compiler.lowering import Lowering, Source


def lower_summand(lowering: Lowering, source: Source, term: Expr) -> Expr:
    """The tree of one term of an expectation, by the reduction of the expectation.

    Raises:
        ConfigError: See `Lowering.lower`; or the reduction does not take these draws.
    """
    if not isinstance(source, Expectation):
        return lowering.lower(source, term)
    _check_draws(source)
    reduction = as_gradient_reduction(component_of(source.reduce))
    if reduction is not None and source.sums:
        raise ConfigError(f"{source.sign}: {name_of(source.reduce)} looks at draws, so it goes with no sum")
    if reduction is not None:
        return lower_gradient_reduction(lowering, source, term, reduction)
    if source.wrt:
        raise ConfigError(f"{source.sign}: this reduction looks at the term's values only; leave its variables out")
    return lowering.lower(source, term)


def lower_gradient_reduction(
    lowering: Lowering, source: Expectation, term: Expr, reduction: GradientReduction
) -> OverDraws:
    """The tree of an expectation whose reduction makes the gradient in the draws itself.

    Raises:
        ConfigError: The reduction looks at a variable that the expectation does not draw k times, or the term reads
            such a variable in another form than the sample.
    """
    assert isinstance(source.over, Product), "the plan lowers mixtures component by component"
    asker = f"{source.sign}: {name_of(source.reduce)}"
    makers = {v: (m.joint, m.joint.drawn_by(m.original(v))) for m in source.over.marginals for v in m.variables}
    data = {v for v, (_, f) in makers.items() if f.is_root and lowering.traits[f.part].kind == "data"}
    variables = source.wrt or tuple(v for v, (_, factor) in makers.items() if not factor.is_root)
    if not variables:
        raise ConfigError(f"{asker} looks at draws, and no conditional draws {', '.join(makers)}; name a variable")
    for variable in variables:
        if variable in data:
            raise ConfigError(f"{asker} looks at draws of the model, and {variable!r} is drawn from data")
    if reduction.holds_draws:
        _check_log_weight(asker, term, variables, makers)
    live = lowering.point(source.over, source.k, frozenset(variables))
    leaves = {v: attrs.evolve(live.reads[v], leaf=True) for v in variables}
    at_leaves = attrs.evolve(live, reads={**live.reads, **leaves})
    owners = frozenset((makers[v][1].of or makers[v][0].name, makers[v][1]) for v in variables)
    tree = lowering.lower_at(term, attrs.evolve(at_leaves, held=owners if reduction.holds_draws else frozenset()))
    draws = ReducedDraws(
        variables,
        tuple(leaves.values()),
        tuple(live.reads[v] for v in variables) if reduction.needs_path else (),
        tuple(lowering.density(LogDensity(*makers[v]), at_leaves) for v in variables)
        if reduction.needs_density
        else (),
    )
    for node in ordered(leaves_of(tree)):
        if isinstance(node, ReadNode) and node.is_leaf and node not in leaves.values():
            raise ConfigError(
                f"{asker} takes the gradient in the sample of {node.variable!r}; the term reads {node.title}"
            )
    return OverDraws(tree, source.k, reduction, draws)


def _check_log_weight(
    asker: str, term: Expr, variables: tuple[str, ...], makers: Mapping[str, tuple[Joint, Conditional]]
) -> None:
    """Raise ConfigError unless the term is a log weight of these draws, which are all that conditionals make."""
    drawn = [variable for variable, (_, factor) in makers.items() if not factor.is_root]
    if missing := [variable for variable in drawn if variable not in variables]:
        raise ConfigError(f"{asker} is of all draws of conditionals at once; name {', '.join(missing)} too, or none")
    for variable in variables:
        joint, factor = makers[variable]
        found = [
            math.prod(weight if isinstance(weight, float) else math.nan for weight in weights)
            for weights, inner in summands(term)
            if isinstance(inner, LogDensity) and (inner.joint, inner.factor) == (joint, factor) and not inner.at
        ]
        if found != [-1.0]:
            raise ConfigError(
                f"{asker} is of log weights: the term must have log {joint.written(factor)} once, with the weight -1; "
                "for any other term take logmeanexp"
            )


def _check_draws(source: Expectation) -> None:
    """Raise ConfigError where the reduction of an expectation does not take its number of draws."""
    reduction = component_of(source.reduce)
    if isinstance(reduction, ChecksDraws):
        try:
            reduction.check_draws(source.k)
        except ConfigError as error:
            raise ConfigError(f"{source.sign}: {error}") from None
