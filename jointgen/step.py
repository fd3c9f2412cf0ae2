"""The compiled step: one list of operations and one loss per update, raw modules, no hidden wrappers.

Follows engineering.md 1.3: noise is a pure function of (seed, step, name), gradients are reduced once per update,
absent gradients are zeros. Values of one update are reused by a later one of the same step where nothing that
the later one trains lies below them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from jointgen.distributed import Workers
from jointgen.errors import ConfigError
from jointgen.interfaces import Dropout
from jointgen.nats import log_mean_exp
from jointgen.noise import Noise, NoiseSource
from jointgen.objectives.algebra import Constant, Expr, Pointwise, Stop, Sum, Weight, Weighted
from jointgen.objectives.expressions import Expectation, Ratio
from jointgen.objectives.objective import PenaltyOf
from jointgen.observe import Observation, observe
from jointgen.parts import Parts
from jointgen.plan import (
    Applied,
    ClosedKL,
    Critic,
    Density,
    Forward,
    Lowering,
    Node,
    Plan,
    Point,
    PriorLaw,
    Read,
    Root,
    Sample,
    Summand,
    UpdatePlan,
    View,
    nodes_of,
    ordered,
    reach,
    unmarked,
)

Raw = Mapping[str, Mapping[str, Tensor]]
"""source part -> variable -> raw rows (B, ...), as a data source yields them."""

Values = list[Any]


@attrs.frozen
class Moment:
    """What a program needs besides the parts: raw data, named noise, and where in the run it stands."""

    data: Raw
    noise: Noise
    rows: int
    step: int = 0
    progress: float = 1.0
    pair_block: int = 0


# --- programs: nodes as operations on a list of values ---------------------------------------------------------------


class Program:
    """Nodes in order as operations; `imported` values are handed in instead of computed.

    A tensor with nothing trained below it is detached, so that no update builds a graph it does not need.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        parts: Parts,
        lowering: Lowering,
        imported: frozenset[Node] = frozenset(),
        detach_reads: bool = False,
        as_observed: bool = False,
    ):
        """detach_reads cuts every path through samples; as_observed takes data as it is, already in model space."""
        self.nodes, self.parts, self.lowering = list(nodes), parts, lowering
        self.detach_reads, self.as_observed = detach_reads, as_observed
        self.index = {node: i for i, node in enumerate(self.nodes)}
        self._dropouts = {name: _dropouts(module) for name, module in parts.modules.items()}
        self._imported = [(i, node) for i, node in enumerate(self.nodes) if node in imported]
        self._computed = [(i, self._operation(node)) for i, node in enumerate(self.nodes) if node not in imported]

    def run(self, moment: Moment, imports: Mapping[Node, Any] | None = None) -> Values:
        values: Values = [None] * len(self.nodes)
        for i, node in self._imported:
            assert imports is not None
            value = imports[node]
            values[i] = value.detach() if isinstance(value, Tensor) else value
        for i, operation in self._computed:
            values[i] = operation(moment, values)
        return values

    def _operation(self, node: Node) -> Callable[[Moment, Values], Any]:
        operation = _OPERATIONS[type(node)](self, node)
        is_tensor = isinstance(node, Read | Density | ClosedKL | Applied)
        trained_below = bool(reach(node, self.lowering.traits).keys() & self.lowering.trains)
        if not is_tensor or (trained_below and not (self.detach_reads and isinstance(node, Read))):
            return operation
        return lambda moment, values: operation(moment, values).detach()

    # --- one operation per kind of node; `at` are positions in the list of values

    def _root(self, node: Root) -> Callable[[Moment, Values], Any]:
        if node.is_data:
            return lambda moment, values: self._observe(node, moment)
        module = self.parts.modules[node.part]

        def draw(moment: Moment, values: Values) -> dict[str, Any]:
            return {node.out[0]: module(moment.rows).draw(moment.noise.named(node.title, moment.rows))}

        return draw

    def _observe(self, node: Root, moment: Moment) -> dict[str, Any]:
        raw = moment.data[node.part]
        seen = {}
        for variable in node.out:
            rows = re_pair(raw[variable], node.shift, moment.pair_block)
            if self.as_observed:
                seen[variable] = Observation(rows, rows)
                continue
            noise = moment.noise.named(f"{node.title}/{variable}", moment.rows)
            seen[variable] = observe(self.parts.spaces[variable], rows, noise)
        return seen

    def _forward(self, node: Forward) -> Callable[[Moment, Values], Any]:
        module, at = self.parts.modules[node.part], [self.index[i] for i in node.inputs]
        rows, title = max(i.rows for i in node.inputs), unmarked(node).title
        parameters = {name: p.detach() for name, p in module.named_parameters()} if node.mode == "held" else None

        def run(moment: Moment, values: Values) -> Any:
            inputs = [values[i] for i in at]
            if node.noise:
                size = self.lowering.traits[node.part].noise_input
                inputs.append(moment.noise.named(node.noise, moment.rows * rows).normal(size))
            self._name_dropout(node.part, title, moment, rows)
            if parameters is None:
                return module(*inputs, k=node.k)
            return functional_call(module, parameters, tuple(inputs), {"k": node.k})

        return run

    def _name_dropout(self, part: str, title: str, moment: Moment, rows: int) -> None:
        for number, dropout in enumerate(self._dropouts[part]):
            dropout.noise = moment.noise.named(f"{title}/dropout{number}", moment.rows * rows)

    def _prior(self, node: PriorLaw) -> Callable[[Moment, Values], Any]:
        module = self.parts.modules[node.part]
        parameters = {name: p.detach() for name, p in module.named_parameters()} if node.mode == "held" else None
        if not parameters:
            return lambda moment, values: module(moment.rows * node.rows)
        return lambda moment, values: functional_call(module, parameters, (moment.rows * node.rows,))

    def _sample(self, node: Sample) -> Callable[[Moment, Values], Any]:
        at = self.index[node.forward]

        def draw(moment: Moment, values: Values) -> dict[str, Any]:
            return {node.out[0]: values[at].draw(moment.noise.named(node.title, moment.rows * node.rows))}

        return draw

    def _view(self, node: View) -> Callable[[Moment, Values], Any]:
        part: Any = self.parts.modules[node.part]
        at, family = self.index[node.source], part.family

        def view(moment: Moment, values: Values) -> Tensor:
            noise = moment.noise.named(node.title, moment.rows)
            return family.view(node.reading, values[at][node.variable], noise)

        return view

    def _read(self, node: Read) -> Callable[[Moment, Values], Any]:
        at, is_view = self.index[node.source], isinstance(node.source, View)

        def read(moment: Moment, values: Values) -> Tensor:
            value = values[at] if is_view else values[at][node.variable].read(node.reading)
            if node.shift:
                value = re_pair(value, node.shift, moment.pair_block)
            return value if node.repeat == 1 else value.repeat_interleave(node.repeat, 0)

        return read

    def _density(self, node: Density) -> Callable[[Moment, Values], Any]:
        law, value = self.index[node.law], self.index[node.value]
        if node.mass:
            return lambda moment, values: values[law].log_prob_bins(values[value])
        return lambda moment, values: values[law].log_prob(values[value])

    def _kl(self, node: ClosedKL) -> Callable[[Moment, Values], Any]:
        law, other = self.index[node.law], self.index[node.other]
        return lambda moment, values: values[law].kl_to(values[other])

    def _critic(self, node: Critic) -> Callable[[Moment, Values], Any]:
        module, at = self.parts.modules[node.part], [self.index[i] for i in node.inputs]

        def run(moment: Moment, values: Values) -> Tensor:
            self._name_dropout(node.part, node.title, moment, node.rows)
            return module(*(values[i] for i in at))

        return run

    def _applied(self, node: Applied) -> Callable[[Moment, Values], Any]:
        at = [self.index[i] for i in node.inputs]
        return lambda moment, values: node.term(*(values[i] for i in at))

    def critic_for_penalty(self, part: str, moment: Moment) -> Callable[..., Tensor]:
        """The critic as a function of its inputs, its dropout masks named."""
        module = self.parts.modules[part]

        def critic(*inputs: Tensor) -> Tensor:
            self._name_dropout(part, f"{part}/penalty", moment, inputs[0].shape[0] // moment.rows)
            return module(*inputs)

        return critic


_OPERATIONS: dict[type, Callable[[Program, Any], Callable[[Moment, Values], Any]]] = {
    Root: Program._root,
    Forward: Program._forward,
    PriorLaw: Program._prior,
    Sample: Program._sample,
    View: Program._view,
    Read: Program._read,
    Density: Program._density,
    ClosedKL: Program._kl,
    Critic: Program._critic,
    Applied: Program._applied,
}


def _dropouts(module: nn.Module) -> list[Dropout]:
    return [inner for inner in module.modules() if isinstance(inner, Dropout)]


def re_pair(x: Tensor, shift: int, block: int) -> Tensor:
    """Rows shifted within blocks, so that none stays where it was. A batch that no block divides is one block."""
    if shift == 0:
        return x
    block = block if block and x.shape[0] % block == 0 else x.shape[0]
    assert shift % block, f"a shift of {shift} in a block of {block} rows would leave rows where they were"
    return x.unflatten(0, (-1, block)).roll(shift, 1).flatten(0, 1)


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
        self.logits = _logit_nodes(plan, self.program)

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

    def critic_stats(self, values: Values) -> dict[str, Tensor]:
        """Mean logit on each side, and how often its sign is right: the health of a critic in its own update."""
        stats = {}
        for name, side, at in self.logits:
            logit = values[at].detach()
            stats[f"{name}/{side}_mean"] = logit.mean()
            right = logit > 0 if side == "positive" else logit < 0
            stats[f"{name}/{side}_accuracy"] = right.float().mean()
        return stats


def _logit_nodes(plan: UpdatePlan, program: Program) -> list[tuple[str, str, int]]:
    """(ratio, side, position) of a critic's values in its own update."""
    found = []
    for ratio in {r.name: r for s in plan.summands for r in s.source.walk() if isinstance(r, Ratio)}.values():
        if ratio.name not in plan.trains:
            continue
        for side, over in (("positive", ratio.num), ("negative", ratio.den)):
            node = program.lowering.critic(ratio, program.lowering.point(over, 1))
            if node in program.index:
                found.append((ratio.name, side, program.index[node]))
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
        stats: dict[str, Tensor] = {}
        shared: dict[Node, Any] = {}
        first = moment(0)
        for i, update in enumerate(self.updates):
            if first.step % update.plan.update.every:
                # it may have been the one to draw what a later update shares, so those are drawn without it
                shared.update(self._draw_only(i, first, shared))
                continue
            found, values = update.gradient(first, shared, self.workers.autocast())
            shared.update({node: values[update.program.index[node]] for node in self.exports[i]})
            stats.update(found)
            if want_stats:
                stats.update(update.critic_stats(values))
            if not self.same_point:
                stats[f"{update.plan.name}/grad_norm"] = self._apply(update)
                self._repeat(i, moment)
        if self.same_point:
            for update in self.updates:
                stats[f"{update.plan.name}/grad_norm"] = self._apply(update)
        return stats

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
            self._apply(repeated)

    def _apply(self, update: CompiledUpdate) -> Tensor:
        """Reduces over the processes, clips by the global norm and steps. Returns the norm before clipping."""
        gradients = [p.grad for p in update.params if p.grad is not None]
        self.workers.all_reduce_mean_(gradients)
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
