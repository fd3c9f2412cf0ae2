"""Terms of an objective as functions of a program's values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from jointgen.compiler.lowering import Lowering, Point
from jointgen.compiler.nodes import furthest_shift, ordered
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Summand, nodes_of
from jointgen.contracts.noise import NoiseSource
from jointgen.contracts.numerics import log_mean_exp
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.program import Program, Values
from jointgen.objectives.algebra import Constant, Expr, Pointwise, Stop, Sum, Weight, Weighted
from jointgen.objectives.expressions import Expectation, Ratio
from jointgen.objectives.objective import PenaltyOf

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "log_sigmoid": F.logsigmoid,
    "exp": torch.exp,
    "abs": torch.abs,
    "square": torch.square,
    "softplus": F.softplus,
    "relu": F.relu,
}

Term = Callable[[StepInputs, Values], Any]


def compile_term(term: Expr, point: Point, program: Program, held: bool = False) -> Term:
    """(rows,) values of a term from a program's values."""
    if isinstance(term, Constant):
        return lambda moment, values: term.value
    if isinstance(term, Sum):
        summed = [compile_term(inner, point, program, held) for inner in term.terms]
        return lambda moment, values: sum(inner(moment, values) for inner in summed)
    if isinstance(term, Weighted):
        inner = compile_term(term.term, point, program, held)
        weight = term.weight
        if isinstance(weight, Weight):
            return lambda moment, values: moment.at(weight) * inner(moment, values)
        return lambda moment, values: weight * inner(moment, values)
    if isinstance(term, Pointwise):
        inner, function = compile_term(term.term, point, program, held), _FUNCTIONS[term.function]
        return lambda moment, values: function(as_tensor(inner(moment, values), moment))
    if isinstance(term, Stop):
        inner = compile_term(term.term, point, program, held)
        return lambda moment, values: as_tensor(inner(moment, values), moment).detach()
    return _compile_leaf(term, point, program, held)


def as_tensor(value: Any, moment: StepInputs) -> Tensor:
    """A term's value; one that is only a number is filled in where it is needed, not sent there."""
    if isinstance(value, Tensor):
        return value
    return torch.full((), value, device=moment.noise.device, dtype=moment.noise.dtype)


def _compile_leaf(term: Expr, point: Point, program: Program, held: bool) -> Term:
    at = program.index[program.lowering.leaf(term, point, held)]
    if not isinstance(term, Ratio) or term.known is None:
        return lambda moment, values: values[at]
    known = compile_term(term.known, point, program, held=True)
    return lambda moment, values: values[at] + known(moment, values)


def compile_source(source: Expectation | PenaltyOf, term: Expr, program: Program) -> Term:
    """(B,) values of one term of an expectation (or of a penalty): one number per row of the batch."""
    if isinstance(source, PenaltyOf):
        return _compile_penalty(source, program)
    point = program.lowering.point(source.over, source.k)
    rows = compile_term(term, point, program)
    if source.k == 1:
        return rows
    reduce = log_mean_exp if source.reduce == "logmeanexp" else torch.mean
    return lambda moment, values: reduce(rows(moment, values).unflatten(0, (-1, source.k)), 1)


def _compile_penalty(source: PenaltyOf, program: Program) -> Term:
    penalty, name = source.penalty, source.ratio.name
    sides = []
    for side in (source.ratio.num, source.ratio.den):
        reads = program.lowering.critic(source.ratio, program.lowering.point(side, 1)).inputs
        sides.append([(program.index[read], program.trained_below(read)) for read in reads])

    def penalise(moment: StepInputs, values: Values) -> Any:
        if moment.step % penalty.every:
            return 0.0
        # where updates share a graph, another one's parts may lie below
        positive, negative = (tuple(values[i] if own else values[i].detach() for i, own in side) for side in sides)
        noise: NoiseSource = moment.noise.named(f"{source}", moment.rows)
        return penalty.every * penalty(program.critic_for_penalty(name, moment), positive, negative, noise)

    return penalise


# --- expressions outside training ------------------------------------------------------------------------------------


class PerRow:
    """An expression of expectations as (B,) numbers, one per row, without gradients: for evaluation.

    Of a batch with too few rows to be re-paired, where the expression re-pairs, there are none.
    """

    def __init__(self, summands: Sequence[Summand], parts: Parts, lowering: Lowering, as_observed: bool = False):
        nodes = ordered(node for s in summands for node in nodes_of(s.source, s.term, lowering))
        self.program = Program(nodes, parts, lowering, as_observed=as_observed)
        self.shift = furthest_shift(nodes)
        self.terms = [(s, compile_source(s.source, s.term, self.program)) for s in summands]

    @torch.no_grad()
    def __call__(self, moment: StepInputs) -> Tensor:
        """(B,)"""
        total = torch.zeros(moment.rows, device=moment.noise.device, dtype=moment.noise.dtype)
        if 0 < moment.rows <= self.shift:
            return total[:0]
        values = self.program.run(moment)
        for summand, term in self.terms:
            total = total + summand.weight(moment.at) * term(moment, values)
        return total
