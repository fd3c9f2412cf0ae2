"""Lowered terms as functions of the values of a program."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from jointgen.compiler.axes import DRAWS, size_of
from jointgen.compiler.lowered import (
    CriticPenalty,
    DivergenceOfRows,
    LogMeanExpOfRows,
    NodeValue,
    OverDraws,
    OverValues,
    batch_of,
)
from jointgen.compiler.nodes import Node, furthest_shift, ordered
from jointgen.contracts.noise import NoiseSource
from jointgen.contracts.reductions import TermDraws
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.batch_terms import divergence_function, log_mean_exp_function
from jointgen.engine.program import Program, Values
from jointgen.objectives.algebra import Clip, Constant, Expr, Pointwise, Stop, Sum, Weight, Weighted

if TYPE_CHECKING:
    from jointgen.compiler.parts import Parts
    from jointgen.compiler.plan import Summand

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "log_sigmoid": F.logsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "log": torch.log,
    "abs": torch.abs,
    "square": torch.square,
    "softplus": F.softplus,
    "relu": F.relu,
}

Term = Callable[[StepInputs, Values], Tensor | float]
"""(the inputs of a step, the values of a program) -> one number per row, or one for all rows."""


def term_function(lowered: Expr, index: Mapping[Node, int]) -> Term:
    """Make the function that evaluates a lowered term, (rows,).

    Args:
        lowered: The term.
        index: Where the value of each node stands in the list of values.
    """
    match lowered:
        case NodeValue():
            at = index[lowered.node]
            return lambda inputs, values: values[at]
        case Constant():
            value = lowered.value
            return lambda inputs, values: value
        case Sum():
            summed = [term_function(inner, index) for inner in lowered.terms]
            return lambda inputs, values: functools.reduce(operator.add, (term(inputs, values) for term in summed))
        case Weighted():
            inner, weight = term_function(lowered.term, index), lowered.weight
            if isinstance(weight, Weight):
                return lambda inputs, values: inputs.at(weight) * inner(inputs, values)
            return lambda inputs, values: weight * inner(inputs, values)
        case Pointwise():
            inner, function = term_function(lowered.term, index), _FUNCTIONS[lowered.function]
            return lambda inputs, values: function(as_tensor(inner(inputs, values), inputs))
        case Clip():
            inner, low, high = term_function(lowered.term, index), lowered.low, lowered.high
            return lambda inputs, values: as_tensor(inner(inputs, values), inputs).clamp(low, high)
        case Stop():
            inner = term_function(lowered.term, index)
            return lambda inputs, values: as_tensor(inner(inputs, values), inputs).detach()
    raise TypeError(f"{lowered!r} is no lowered term")


def as_tensor(value: Tensor | float, inputs: StepInputs) -> Tensor:
    """The value of a term as a tensor; a number is filled in on the device, and not copied to it."""
    if isinstance(value, Tensor):
        return value
    return torch.full((), value, device=inputs.noise.device, dtype=inputs.noise.dtype)


def summand_function(lowered: Expr, program: Program) -> Term:
    """Make the function that evaluates a summand: one number for each row of the batch, (B,), or for all of it, ()."""
    function, batch = _function_of(lowered, program), batch_of(lowered)
    return (lambda inputs, values: function(inputs.of_batch(batch), values)) if batch else function


def _function_of(lowered: Expr, program: Program) -> Term:
    if isinstance(lowered, CriticPenalty):
        return _penalty_function(lowered, program)
    if isinstance(lowered, OverValues):
        return _sum_function(lowered, program)
    if isinstance(lowered, DivergenceOfRows):
        return divergence_function(lowered, program)
    if isinstance(lowered, LogMeanExpOfRows):
        return log_mean_exp_function([(share, _rows(term, program)) for share, term in lowered.terms])
    if not isinstance(lowered, OverDraws):
        return term_function(lowered, program.index)
    return _reduction_function(lowered, program)


def _reduction_function(lowered: OverDraws, program: Program) -> Term:
    """(B k,) values of the term -> (B,), with the gradient that the reduction says."""
    rows, k, index = term_function(lowered.term, program.index), lowered.k, program.index
    reduce: Any = functools.partial(torch.mean, dim=1) if lowered.reduction is None else lowered.reduction

    def by_row(value: Tensor | float, inputs: StepInputs) -> Tensor:
        return as_tensor(value, inputs).expand(inputs.rows * k).unflatten(0, (-1, k))

    if (drawn := lowered.draws) is None:
        return lambda inputs, values: reduce(by_row(rows(inputs, values), inputs))
    leaves, paths, densities = (
        [index[node] for node in nodes] for nodes in (drawn.leaves, drawn.paths, drawn.densities)
    )

    def run(inputs: StepInputs, values: Values) -> Tensor:
        terms = by_row(rows(inputs, values), inputs)
        figure: Tensor = reduce(terms.detach())
        if not (torch.is_grad_enabled() and terms.requires_grad):
            return figure
        points = {variable: values[i] for variable, i in zip(drawn.variables, leaves, strict=True)}
        moved = dict(zip(drawn.variables, [values[i] for i in paths], strict=False))
        log_density = by_row(sum(values[i] for i in densities), inputs) if densities else None
        surrogate: Tensor = reduce.surrogate(TermDraws(terms, points, moved, log_density))
        return figure + (surrogate - surrogate.detach())

    return run


def _sum_function(lowered: OverValues, program: Program) -> Term:
    """Make the function of a weighted mean over summed variables and draws, (B,)."""
    term, size, k = term_function(lowered.term, program.index), size_of(lowered.axes), dict(lowered.axes).get(DRAWS, 1)
    log_probs = [term_function(inner, program.index) for inner in lowered.log_probs]

    def mean(inputs: StepInputs, values: Values) -> Tensor:
        rows = as_tensor(term(inputs, values), inputs).expand(inputs.rows * size).unflatten(0, (-1, size))
        weights = rows.new_full((), -math.log(k))
        for log_prob in log_probs:
            weights = weights + as_tensor(log_prob(inputs, values), inputs).unflatten(0, (-1, size))
        if lowered.reduction is None:
            return (weights.exp() * rows).sum(1)
        reduced: Tensor = lowered.reduction.weighted(rows, weights.expand_as(rows))
        return reduced

    return mean


def _rows(lowered: Expr, program: Program) -> Callable[[StepInputs, Values], Tensor]:
    """The function that evaluates a term at each row as a tensor, (B,)."""
    each = term_function(lowered, program.index)
    return lambda inputs, values: as_tensor(each(inputs, values), inputs).expand(inputs.rows)


def _penalty_function(lowered: CriticPenalty, program: Program) -> Term:
    every, penalty = lowered.every, lowered.penalty
    # where updates share a graph, another one's parts may lie below
    sides = [
        [(program.index[node], node in lowered.detached) for node in side]
        for side in (lowered.positives, lowered.negatives)
    ]

    def penalise(inputs: StepInputs, values: Values) -> Tensor | float:
        if not lowered.is_due(inputs.step):
            return 0.0
        positive, negative = (tuple(values[i].detach() if cut else values[i] for i, cut in side) for side in sides)
        noise: NoiseSource = inputs.noise.named(lowered.title, inputs.rows)
        value: Tensor = every * penalty(program.critic_for_penalty(lowered.critic, inputs), positive, negative, noise)
        return value

    return penalise


# --- expressions outside training ------------------------------------------------------------------------------------


class PerRow:
    """Evaluates a sum of expectations as one number per row, without gradients; `values` keeps them.

    Args:
        summands: What to add up, see `jointgen.compiler.plan.lower_expression`.
        as_observed: The data of a batch are Observations already.
    """

    def __init__(self, summands: Sequence[Summand], parts: Parts, as_observed: bool = False):
        nodes = ordered(node for summand in summands for node in summand.nodes)
        self.program = Program(nodes, parts, frozenset(nodes), as_observed=as_observed)
        self.shift = furthest_shift(nodes)
        self.terms = [(summand, summand_function(summand.lowered, self.program)) for summand in summands]

    @torch.no_grad()
    def __call__(self, inputs: StepInputs) -> Tensor:
        """Return `values`, without a gradient."""
        return self.values(inputs)

    def values(self, inputs: StepInputs) -> Tensor:
        """(B,) numbers; (0,) for a batch with too few rows to be re-paired, where the expression re-pairs."""
        total = torch.zeros(inputs.rows, device=inputs.noise.device, dtype=inputs.noise.dtype)
        if 0 < inputs.rows <= self.shift:
            return total[:0]
        values = self.program.run(inputs)
        for summand, term in self.terms:
            total = total + summand.weight(inputs.at) * term(inputs, values)
        return total
