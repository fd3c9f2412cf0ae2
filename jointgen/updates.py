"""Updates compiled: the program, the loss and the gradients of each on its own, or of all of them on one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from jointgen.compiling import Compiler, Loss
from jointgen.lowering import Lowering, Point
from jointgen.nodes import Node, ordered
from jointgen.objectives.expressions import Ratio
from jointgen.parts import Parts
from jointgen.plan import Plan, UpdatePlan
from jointgen.program import Moment, Program, Values
from jointgen.terms import Term, as_tensor, compile_source, compile_term
from jointgen.turn import Turn


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
    ) -> tuple[dict[str, Tensor], Values]:
        """Fills this process's gradients of the trained parameters; a parameter that nothing reached gets zeros."""
        self.turn.begin()
        found = self.add_gradient(moment, imports)
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
        return [means_of(stats) for stats in zip(*found, strict=True)]

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


def means_of(stats: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The figures of micro-batches, which all have the same rows, as those of their batch."""
    if len(stats) == 1:
        return stats[0]
    return {name: torch.stack([found[name] for found in stats]).mean() for name in stats[0]}
