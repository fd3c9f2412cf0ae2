"""The compiled step: one list of operations and one loss per update, raw modules, no hidden wrappers.

Follows engineering.md 1.3: noise is a pure function of (seed, step, name), gradients are reduced once per update,
absent gradients are zeros. Values of one update are reused by a later one of the same step where nothing that
the later one trains lies below them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from jointgen.compiling import Compiler, Loss, needed
from jointgen.distributed import Workers
from jointgen.errors import ConfigError
from jointgen.interfaces import Follower
from jointgen.lowering import (
    Lowering,
    Point,
)
from jointgen.nodes import (
    Node,
    ordered,
)
from jointgen.objectives.expressions import Ratio
from jointgen.parts import Parts
from jointgen.plan import (
    Plan,
    Summand,
    UpdatePlan,
    nodes_of,
)
from jointgen.program import Moment, Program, Values
from jointgen.terms import Term, as_tensor, compile_source, compile_term


class Turn:
    """Whose turn it is to learn: of all parameters these alone take a gradient."""

    def __init__(self, parts: Parts, trains: Sequence[str]):
        self.params = parts.parameters(trains)
        trained = {id(p) for p in self.params}
        self._others = [p for p in parts.modules.parameters() if id(p) not in trained]
        self._followers = [pair for module in parts.named(trains) for pair in _followers(module)]

    def begin(self) -> None:
        """Clears the gradients, and holds what others train."""
        for parameter in self._others:
            if parameter.requires_grad:
                parameter.requires_grad_(False)
        for parameter in self.params:
            parameter.grad = None
            if not parameter.requires_grad:
                parameter.requires_grad_(True)

    def end(self) -> None:
        """Gives zeros to what nothing reached: every process sends the same list."""
        for parameter in self.params:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def moved(self) -> None:
        """To be called when the parameters have been updated."""
        for follower, parametrized in self._followers:
            follower.follow(parametrized.original)


def _followers(module: nn.Module) -> Iterator[tuple[Follower, Any]]:
    for inner in module.modules():
        if isinstance(inner, ParametrizationList):
            yield from ((one, inner) for one in inner if isinstance(one, Follower))


class CompiledUpdate:
    """One player: its program, its loss (minimised), its parameters."""

    def __init__(
        self,
        plan: UpdatePlan,
        whole: Plan,
        parts: Parts,
        imported: frozenset[Node] = frozenset(),
        program: Program | None = None,
        nodes: Sequence[Node] | None = None,
    ):
        """program: that of all updates, where they share one; its own otherwise.  nodes: those it needs, of which some
        are `imported`."""
        lowering = Lowering(whole.objective.joints, whole.traits, plan.trains)
        self.plan, self.turn = plan, Turn(parts, plan.trains)
        self.program = program.seen_by(lowering) if program else Program(nodes or plan.nodes, parts, lowering, imported)
        self.terms = [(s, compile_source(s.source, s.term, self.program)) for s in plan.summands]
        self.params = self.turn.params
        self.run_loss: Loss = self.loss
        self.logits = _logits(plan, self.program)

    def loss(
        self, moment: Moment, imports: Mapping[Node, Any] | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Values]:
        """(the loss to minimise, each term's mean, the program's values). All scalars."""
        values = self.program.run(moment, imports)
        return *self.loss_of(values, moment), values

    def loss_of(self, values: Values, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and each term's mean, from the values of a program that has run."""
        total: Any = None
        means: dict[str, Tensor] = {}
        for summand, term in self.terms:
            mean = as_tensor(term(moment, values), moment).mean()
            held, weight = mean.detach(), summand.weight(moment.at)
            means[summand.label] = means[summand.label] + held if summand.label in means else held
            total = -weight * mean if total is None else _less(total, weight, mean)
        return total, means

    def compile(self, compiler: Compiler, exports: frozenset[Node], name: str) -> None:
        """From now on the loss is compiled, and of the program's values those alone are known that others ask for."""
        logits = [leaf for ratio, _, point, _ in self.logits for leaf in self.program.lowering.leaves(ratio, point)]
        self.run_loss = compiler.compiled(self, list(dict.fromkeys([*exports, *logits])), name)

    def gradient(
        self,
        moment: Moment,
        imports: Mapping[Node, Any] | None = None,
        autocast: AbstractContextManager[Any] | None = None,
    ) -> tuple[dict[str, Tensor], Values]:
        """Fills this process's gradients of the trained parameters; a parameter that nothing reached gets zeros."""
        self.turn.begin()
        found = self.add_gradient(moment, imports, autocast)
        self.turn.end()
        return found

    def add_gradient(
        self,
        moment: Moment,
        imports: Mapping[Node, Any] | None = None,
        autocast: AbstractContextManager[Any] | None = None,
        share: float = 1.0,
    ) -> tuple[dict[str, Tensor], Values]:
        """Adds this share of the loss's gradient to those of the trained parameters."""
        with autocast or nullcontext():
            loss, stats, values = self.run_loss(moment, imports)
        (loss if share == 1 else share * loss).backward()
        stats[f"{self.plan.name}/loss"] = loss.detach()
        return stats, values

    @torch.no_grad()
    def critic_stats(self, moment: Moment, values: Values) -> dict[str, Tensor]:
        """Mean logit on each side, and how often its sign is right: the health of a critic in its own update.

        The logit is the whole one, known part included.
        """
        stats = {}
        for ratio, side, _, term in self.logits:
            name, logit = ratio.name, term(moment, values)
            stats[f"{name}/{side}_mean"] = logit.mean()
            right = logit > 0 if side == "positive" else logit < 0
            stats[f"{name}/{side}_accuracy"] = right.float().mean()
        return stats


def _less(total: Tensor, weight: float | Tensor, mean: Tensor) -> Tensor:
    """total - weight * mean, by one operation where that can be."""
    return total - weight * mean if isinstance(weight, Tensor) else torch.sub(total, mean, alpha=weight)


def _logits(plan: UpdatePlan, program: Program) -> list[tuple[Ratio, str, Point, Term]]:
    """(ratio, side, its point, its logit) of the critics that the update trains, where it looks at that side."""
    found = []
    for ratio in {r.name: r for s in plan.summands for r in s.source.walk() if isinstance(r, Ratio)}.values():
        if ratio.name not in plan.trains:
            continue
        for side, over in (("positive", ratio.num), ("negative", ratio.den)):
            point = program.lowering.point(over, 1)
            if program.lowering.critic(ratio, point) in program.index:
                found.append((ratio, side, point, compile_term(ratio, point, program)))
    return found


class OneGraph:
    """All updates at the same point: nothing moves between them, so each is a loss on the values of one program.

    Of the graph that they share, an update's gradient runs only what leads to the parameters it trains.
    """

    def __init__(self, plan: Plan, parts: Parts):
        trained = [part for update in plan.updates for part in update.trains]
        nodes = ordered(node for update in plan.updates for node in update.nodes)
        self.turn = Turn(parts, trained)
        self.program = Program(nodes, parts, Lowering(plan.objective.joints, plan.traits, trained))
        self.updates = [CompiledUpdate(u, plan, parts, program=self.program) for u in plan.updates]

    def gradient(
        self, moments: Sequence[Moment], autocast: Callable[[], Any] = nullcontext, want_stats: bool = False
    ) -> list[dict[str, Tensor]]:
        """Fills this process's gradients of all updates, means over micro-batches. Returns the figures of each."""
        self.turn.begin()
        found = [self._add_gradients(moment, autocast, 1 / len(moments), want_stats) for moment in moments]
        self.turn.end()
        return [_means(stats) for stats in zip(*found, strict=True)]

    def _add_gradients(
        self, moment: Moment, autocast: Callable[[], Any], share: float, want_stats: bool
    ) -> list[dict[str, Tensor]]:
        stats = []
        with autocast():
            values = self.program.run(moment)
        for update in self.updates:
            with autocast():
                loss, found = update.loss_of(values, moment)
            again = update is not self.updates[-1]
            (loss if share == 1 else share * loss).backward(inputs=update.params, retain_graph=again)
            found[f"{update.plan.name}/loss"] = loss.detach()
            if want_stats:
                found |= update.critic_stats(moment, values)
            stats.append(found)
        return stats


def _means(stats: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The figures of micro-batches, which all have the same rows, as those of their batch."""
    if len(stats) == 1:
        return stats[0]
    return {name: torch.stack([found[name] for found in stats]).mean() for name in stats[0]}


class Step:
    """All updates of an objective, in its order.

    optimizers: by update name, those that step the parts it trains.  micro_batches: how many parts a batch's gradient
    is summed from.  compiler: compiles the losses.
    """

    def __init__(
        self,
        plan: Plan,
        parts: Parts,
        workers: Workers,
        optimizers: Mapping[str, Sequence[torch.optim.Optimizer]],
        clip: float | None = None,
        micro_batches: int = 1,
        compiler: Compiler | None = None,
    ):
        assert compiler is None or not plan.one_graph, "compiled updates have graphs of their own: Plan.separate"
        self.plan, self.workers, self.optimizers, self.clip = plan, workers, optimizers, clip
        self.micro_batches = micro_batches
        self.same_point = plan.objective.order == "same point"
        if self.same_point:
            _check_same_point(plan)
        self.graph = OneGraph(plan, parts) if plan.one_graph else None
        runs = [needed(plan, i) if compiler else (u.nodes, plan.shared(i)) for i, u in enumerate(plan.updates)]
        self.updates = (
            self.graph.updates
            if self.graph
            else [
                CompiledUpdate(u, plan, parts, shared, nodes=nodes)
                for u, (nodes, shared) in zip(plan.updates, runs, strict=True)
            ]
        )
        # a repetition draws anew, so it shares nothing with the first
        self.repeats = [CompiledUpdate(u, plan, parts) if u.update.times > 1 else None for u in plan.updates]
        later = [frozenset().union(*(shared for _, shared in runs[i + 1 :])) for i in range(len(runs))]
        self.exports = [later[i].intersection(nodes) for i, (nodes, _) in enumerate(runs)]
        self.compiler = compiler
        if compiler:
            for update, exports in zip(self.updates, self.exports, strict=True):
                update.compile(compiler, exports, update.plan.name)
            for repeated in filter(None, self.repeats):
                repeated.compile(compiler, frozenset(), f"{repeated.plan.name}, repeated,")

    def __call__(self, moment: Callable[[int], Moment], want_stats: bool = False) -> dict[str, Tensor]:
        """One step. `moment(r)` gives the data and noise of the r-th repetition. Returns detached scalars: terms and
        losses; with want_stats also what costs more, the critics' health and the gradients' norms."""
        if self.compiler:
            self.compiler.begin_step()
        first = moment(0).split(self.micro_batches)
        if self.graph is not None:
            stats = self.graph.gradient(first, self.workers.autocast, want_stats)
        else:
            stats = self._in_turn(first, moment, want_stats)
        if self.same_point:
            for update, found in zip(self.updates, stats, strict=True):
                self._apply(update, found, want_stats)
        return {name: value for found in stats for name, value in found.items()}

    def _in_turn(
        self, moments: Sequence[Moment], moment: Callable[[int], Moment], want_stats: bool
    ) -> list[dict[str, Tensor]]:
        """Each update on a graph of its own, with the values of earlier ones handed over. The figures of each."""
        stats = []
        shared: list[dict[Node, Any]] = [{} for _ in moments]
        for i, update in enumerate(self.updates):
            if moments[0].step % update.plan.update.every:
                # it may have been the one to draw what a later update shares, so those are drawn without it
                self._draw_only(i, moments, shared)
                continue
            stats.append(self._gradient(update, moments, shared, self.exports[i], want_stats))
            if not self.same_point:
                self._apply(update, stats[-1], want_stats)
                self._repeat(i, moment)
        return stats

    def _gradient(
        self,
        update: CompiledUpdate,
        moments: Sequence[Moment],
        shared: Sequence[dict[Node, Any]],
        exports: frozenset[Node] = frozenset(),
        want_stats: bool = False,
    ) -> dict[str, Tensor]:
        """Fills this process's gradients of one update, the mean over micro-batches, and `shared` with `exports`."""
        stats = []
        update.turn.begin()
        for moment, known in zip(moments, shared, strict=True):
            found, values = update.add_gradient(moment, known, self.workers.autocast(), 1 / len(moments))
            known.update({node: values[update.program.index[node]] for node in exports})
            if want_stats:
                found |= update.critic_stats(moment, values)
            stats.append(found)
        update.turn.end()
        return _means(stats)

    def _draw_only(self, i: int, moments: Sequence[Moment], shared: Sequence[dict[Node, Any]]) -> None:
        if not self.exports[i]:
            return
        update = self.updates[i]
        for moment, known in zip(moments, shared, strict=True):
            with torch.no_grad():
                values = update.program.run(moment, known)
            known.update({node: values[update.program.index[node]] for node in self.exports[i]})

    def _repeat(self, i: int, moment: Callable[[int], Moment]) -> None:
        repeated = self.repeats[i]
        for r in range(1, self.updates[i].plan.update.times):
            assert repeated is not None
            moments = moment(r).split(self.micro_batches)
            self._gradient(repeated, moments, [{} for _ in moments])
            self._apply(repeated, {})

    def _apply(self, update: CompiledUpdate, stats: dict[str, Tensor], want_stats: bool = False) -> None:
        """Reduces gradients and figures over the processes, clips by the global norm and steps. The norm, before
        clipping, is a figure where it is known: alone it costs a hundredth of a step of small networks."""
        gradients = [p.grad for p in update.params if p.grad is not None]
        self.workers.all_reduce_mean_([*gradients, *stats.values()])
        if self.clip is not None or want_stats:
            norm = torch.nn.utils.get_total_norm(gradients)
            stats[f"{update.plan.name}/grad_norm"] = norm
            if self.clip is not None:
                torch.nn.utils.clip_grads_with_norm_(update.params, self.clip, norm)
        for optimizer in self.optimizers[update.plan.name]:
            optimizer.step()
        update.turn.moved()


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
            total = total + summand.weight(moment.at) * term(moment, values)
        return total
