"""The compiled step: one list of operations and one loss per update, raw modules, no hidden wrappers.

Follows engineering.md 1.3: noise is a pure function of (seed, step, name), gradients are reduced once per update,
absent gradients are zeros. Values of one update are reused by a later one of the same step where nothing that
the later one trains lies below them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from jointgen.distributed import Workers
from jointgen.errors import ConfigError
from jointgen.lowering import (
    Lowering,
    Point,
)
from jointgen.nats import log_mean_exp
from jointgen.nodes import (
    Node,
    ordered,
)
from jointgen.noise import NoiseSource
from jointgen.objectives.algebra import Constant, Expr, Pointwise, Stop, Sum, Weight, Weighted
from jointgen.objectives.expressions import Expectation, Ratio
from jointgen.objectives.objective import PenaltyOf
from jointgen.parts import Parts
from jointgen.plan import (
    Plan,
    Summand,
    UpdatePlan,
    nodes_of,
)
from jointgen.program import Moment, Program, Values

# --- terms -----------------------------------------------------------------------------------------------------------

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "log_sigmoid": F.logsigmoid,
    "exp": torch.exp,
    "abs": torch.abs,
    "square": torch.square,
    "softplus": F.softplus,
    "relu": F.relu,
}

Term = Callable[[Moment, Values], Any]


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
            return lambda moment, values: weight.at(moment.progress) * inner(moment, values)
        return lambda moment, values: weight * inner(moment, values)
    if isinstance(term, Pointwise):
        inner, function = compile_term(term.term, point, program, held), _FUNCTIONS[term.function]
        return lambda moment, values: function(torch.as_tensor(inner(moment, values)))
    if isinstance(term, Stop):
        inner = compile_term(term.term, point, program, held)
        return lambda moment, values: torch.as_tensor(inner(moment, values)).detach()
    return _compile_leaf(term, point, program, held)


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
        critic = program.lowering.critic(source.ratio, program.lowering.point(side, 1))
        sides.append([program.index[read] for read in critic.inputs])

    def penalise(moment: Moment, values: Values) -> Any:
        if moment.step % penalty.every:
            return 0.0
        positive, negative = (tuple(values[i] for i in side) for side in sides)
        noise: NoiseSource = moment.noise.named(f"{source}", moment.rows)
        return penalty.every * penalty(program.critic_for_penalty(name, moment), positive, negative, noise)

    return penalise


# --- one update and one step -----------------------------------------------------------------------------------------


class CompiledUpdate:
    """One player: its program, its loss (minimised), its parameters."""

    def __init__(self, plan: UpdatePlan, whole: Plan, parts: Parts, imported: frozenset[Node] = frozenset()):
        lowering = Lowering(whole.objective.joints, whole.traits, plan.trains)
        self.plan, self.parts = plan, parts
        self.program = Program(plan.nodes, parts, lowering, imported)
        self.terms = [(s, compile_source(s.source, s.term, self.program)) for s in plan.summands]
        self.params = parts.parameters(plan.trains)
        trained = {id(p) for p in self.params}
        self.frozen = [p for p in parts.modules.parameters() if id(p) not in trained]
        self.logits = _logits(plan, self.program)

    def loss(
        self, moment: Moment, imports: Mapping[Node, Any] | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Values]:
        """(the loss to minimise, each term's mean, the program's values). All scalars."""
        values = self.program.run(moment, imports)
        total: Any = 0.0
        means: dict[str, Tensor] = {}
        for summand, term in self.terms:
            mean = torch.as_tensor(term(moment, values), device=moment.noise.device).mean()
            means[summand.label] = means.get(summand.label, 0.0) + mean.detach()
            total = total - summand.weight(moment.progress) * mean
        return total, means, values

    def hold_others(self) -> None:
        for parameter in self.frozen:
            parameter.requires_grad_(False)
        for parameter in self.params:
            parameter.requires_grad_(True)

    def gradient(
        self,
        moment: Moment,
        imports: Mapping[Node, Any] | None = None,
        autocast: AbstractContextManager[Any] | None = None,
    ) -> tuple[dict[str, Tensor], Values]:
        """Fills this process's gradients of the trained parameters; a parameter that nothing reached gets zeros."""
        self.hold_others()
        for parameter in self.params:
            parameter.grad = None
        with autocast or nullcontext():
            loss, stats, values = self.loss(moment, imports)
        loss.backward()
        for parameter in self.params:  # every process sends the same list, used or not
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        stats[f"{self.plan.name}/loss"] = loss.detach()
        return stats, values

    @torch.no_grad()
    def critic_stats(self, moment: Moment, values: Values) -> dict[str, Tensor]:
        """Mean logit on each side, and how often its sign is right: the health of a critic in its own update.

        The logit is the whole one, known part included.
        """
        stats = {}
        for name, side, term in self.logits:
            logit = term(moment, values)
            stats[f"{name}/{side}_mean"] = logit.mean()
            right = logit > 0 if side == "positive" else logit < 0
            stats[f"{name}/{side}_accuracy"] = right.float().mean()
        return stats


def _logits(plan: UpdatePlan, program: Program) -> list[tuple[str, str, Term]]:
    """(ratio, side, its logit) of the critics that the update trains, where it looks at that side."""
    found = []
    for ratio in {r.name: r for s in plan.summands for r in s.source.walk() if isinstance(r, Ratio)}.values():
        if ratio.name not in plan.trains:
            continue
        for side, over in (("positive", ratio.num), ("negative", ratio.den)):
            point = program.lowering.point(over, 1)
            if program.lowering.critic(ratio, point) in program.index:
                found.append((ratio.name, side, compile_term(ratio, point, program)))
    return found


class Step:
    """All updates of an objective, in its order.

    optimizers: by update name, those that step the parts it trains.
    """

    def __init__(
        self,
        plan: Plan,
        parts: Parts,
        workers: Workers,
        optimizers: Mapping[str, Sequence[torch.optim.Optimizer]],
        clip: float | None = None,
    ):
        self.plan, self.workers, self.optimizers, self.clip = plan, workers, optimizers, clip
        shared = [plan.shared(i) for i in range(len(plan.updates))]
        self.updates = [CompiledUpdate(u, plan, parts, s) for u, s in zip(plan.updates, shared, strict=True)]
        # a repetition draws anew, so it shares nothing with the first
        self.repeats = [CompiledUpdate(u, plan, parts) if u.update.times > 1 else None for u in plan.updates]
        self.exports = [frozenset(u.nodes) & frozenset().union(*shared[i + 1 :]) for i, u in enumerate(plan.updates)]
        self.same_point = plan.objective.order == "same point"
        if self.same_point:
            _check_same_point(plan)

    def __call__(self, moment: Callable[[int], Moment], want_stats: bool = False) -> dict[str, Tensor]:
        """One step. `moment(r)` gives the data and noise of the r-th repetition. Returns detached scalars."""
        stats: list[dict[str, Tensor]] = []
        shared: dict[Node, Any] = {}
        first = moment(0)
        for i, update in enumerate(self.updates):
            if first.step % update.plan.update.every:
                # it may have been the one to draw what a later update shares, so those are drawn without it
                shared.update(self._draw_only(i, first, shared))
                continue
            found, values = update.gradient(first, shared, self.workers.autocast())
            shared.update({node: values[update.program.index[node]] for node in self.exports[i]})
            if want_stats:
                found.update(update.critic_stats(first, values))
            if not self.same_point:
                found[f"{update.plan.name}/grad_norm"] = self._apply(update, found)
                self._repeat(i, moment)
            stats.append(found)
        if self.same_point:
            for update, found in zip(self.updates, stats, strict=True):
                found[f"{update.plan.name}/grad_norm"] = self._apply(update, found)
        return {name: value for found in stats for name, value in found.items()}

    def _draw_only(self, i: int, moment: Moment, shared: Mapping[Node, Any]) -> dict[Node, Any]:
        if not self.exports[i]:
            return {}
        update = self.updates[i]
        with torch.no_grad():
            values = update.program.run(moment, shared)
        return {node: values[update.program.index[node]] for node in self.exports[i]}

    def _repeat(self, i: int, moment: Callable[[int], Moment]) -> None:
        repeated = self.repeats[i]
        for r in range(1, self.updates[i].plan.update.times):
            assert repeated is not None
            repeated.gradient(moment(r), None, self.workers.autocast())
            self._apply(repeated, {})

    def _apply(self, update: CompiledUpdate, stats: Mapping[str, Tensor]) -> Tensor:
        """Reduces gradients and figures over the processes, clips by the global norm and steps. Returns the norm
        before clipping."""
        gradients = [p.grad for p in update.params if p.grad is not None]
        self.workers.all_reduce_mean_([*gradients, *stats.values()])
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(update.params, self.clip, norm)
        for optimizer in self.optimizers[update.plan.name]:
            optimizer.step()
        return norm


def _check_same_point(plan: Plan) -> None:
    trained: dict[str, str] = {}
    for update in plan.updates:
        if update.update.times > 1 or update.update.every > 1:
            raise ConfigError(
                f"objective.order: 'same point' runs each update once a step, {update.name} asks otherwise"
            )
        for part in update.trains:
            if part in trained:
                raise ConfigError(
                    f"objective.order: at the 'same point', {trained[part]} and {update.name} both train {part}"
                )
            trained[part] = update.name


# --- expressions outside training ------------------------------------------------------------------------------------


class Rows:
    """An expression of expectations as (B,) numbers, one per row, without gradients: for evaluation."""

    def __init__(self, summands: Sequence[Summand], parts: Parts, lowering: Lowering, as_observed: bool = False):
        nodes = ordered(node for s in summands for node in nodes_of(s.source, s.term, lowering))
        self.program = Program(nodes, parts, lowering, as_observed=as_observed)
        self.terms = [(s, compile_source(s.source, s.term, self.program)) for s in summands]

    @torch.no_grad()
    def __call__(self, moment: Moment) -> Tensor:
        """(B,)"""
        values = self.program.run(moment)
        total = torch.zeros(moment.rows, device=moment.noise.device, dtype=moment.noise.dtype)
        for summand, term in self.terms:
            total = total + summand.weight(moment.progress) * term(moment, values)
        return total
