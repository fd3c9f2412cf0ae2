"""Updates compiled: the program, the loss and the gradients of each on its own, or of all of them on one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from jointgen.compiler.lowering import Lowering, Point
from jointgen.compiler.nodes import Node, ordered
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Plan, UpdatePlan
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.critic_statistics import SIDES, Side, critic_figures
from jointgen.engine.program import Program, Values
from jointgen.engine.terms import Term, as_tensor, compile_source, compile_term
from jointgen.engine.torch_compile import Compiler, Loss
from jointgen.engine.trainable import TrainedParameters
from jointgen.objectives.expressions import Ratio


class UpdateRunner:
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
        self.plan, self.turn = plan, TrainedParameters(parts, plan.trains)
        self.program = program.seen_by(lowering) if program else Program(nodes or plan.nodes, parts, lowering, imported)
        self.terms = [(s, compile_source(s.source, s.term, self.program)) for s in plan.summands]
        self.params = self.turn.params
        self.run_loss: Loss = self.loss
        self.logits = _logits(plan, self.program)

    def loss(
        self, moment: StepInputs, imports: Mapping[Node, Any] | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Values]:
        """(the loss to minimise, each term's mean, the program's values). All scalars."""
        values = self.program.run(moment, imports)
        return *self.loss_of(values, moment), values

    def loss_of(self, values: Values, moment: StepInputs) -> tuple[Tensor, dict[str, Tensor]]:
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
        moment: StepInputs,
        imports: Mapping[Node, Any] | None = None,
    ) -> tuple[dict[str, Tensor], Values]:
        """Fills this process's gradients of the trained parameters; a parameter that nothing reached gets zeros."""
        self.turn.begin()
        found = self.add_gradient(moment, imports)
        self.turn.end()
        return found

    def add_gradient(
        self,
        moment: StepInputs,
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
    def critic_outputs(self, moment: StepInputs, values: Values) -> Tensor | None:
        """(rows, sides) outputs of the critics in their own update, known parts included."""
        outputs = [term(moment, values) for _, _, _, term in self.logits]
        return torch.stack(outputs, 1) if outputs else None

    def critic_figures(self, outputs: Tensor) -> dict[str, Tensor]:
        """The health of the critics, from all rows of the batch."""
        by_ratio: dict[Ratio, dict[Side, Tensor]] = {}
        for (ratio, side, _, _), rows in zip(self.logits, outputs.unbind(1), strict=True):
            by_ratio.setdefault(ratio, {})[side] = rows
        figures = (critic_figures(ratio, sides) for ratio, sides in by_ratio.items())
        return {name: value for found in figures for name, value in found.items()}


def _less(total: Tensor, weight: float | Tensor, mean: Tensor) -> Tensor:
    """total - weight * mean, by one operation where that can be."""
    return total - weight * mean if isinstance(weight, Tensor) else torch.sub(total, mean, alpha=weight)


def _logits(plan: UpdatePlan, program: Program) -> list[tuple[Ratio, Side, Point, Term]]:
    """(ratio, side, its point, its logit) of the critics that the update trains, where it looks at that side."""
    found = []
    for ratio in {r.name: r for s in plan.summands for r in s.source.walk() if isinstance(r, Ratio)}.values():
        if ratio.name not in plan.trains:
            continue
        for side, over in zip(SIDES, (ratio.num, ratio.den), strict=True):
            point = program.lowering.point(over, 1)
            if program.lowering.critic(ratio, point) in program.index:
                found.append((ratio, side, point, compile_term(ratio, point, program)))
    return found


class JointGraph:
    """All updates at the same point: nothing moves between them, so each is a loss on the values of one program.

    Of the graph that they share, an update's gradient runs only what leads to the parameters it trains.
    """

    def __init__(self, plan: Plan, parts: Parts):
        trained = [part for update in plan.updates for part in update.trains]
        nodes = ordered(node for update in plan.updates for node in update.nodes)
        self.turn = TrainedParameters(parts, trained)
        self.program = Program(nodes, parts, Lowering(plan.objective.joints, plan.traits, trained))
        self.updates = [UpdateRunner(u, plan, parts, program=self.program) for u in plan.updates]

    def gradient(
        self,
        moments: Sequence[StepInputs],
        autocast: Callable[[], Any] = nullcontext,
        gather: Gather | None = None,
    ) -> list[dict[str, Tensor]]:
        """Fills this process's gradients of all updates, means over micro-batches. Returns the figures of each."""
        self.turn.begin()
        found = [self._add_gradients(moment, autocast, 1 / len(moments), gather is not None) for moment in moments]
        self.turn.end()
        by_update = zip(self.updates, zip(*found, strict=True), strict=True)
        return [figures_of(update, parts, gather) for update, parts in by_update]

    def _add_gradients(
        self, moment: StepInputs, autocast: Callable[[], Any], share: float, health: bool
    ) -> list[Found]:
        found: list[Found] = []
        with autocast():
            values = self.program.run(moment)
        for update in self.updates:
            with autocast():
                loss, means = update.loss_of(values, moment)
            again = update is not self.updates[-1]
            (loss if share == 1 else share * loss).backward(inputs=update.params, retain_graph=again)
            means[f"{update.plan.name}/loss"] = loss.detach()
            found.append((means, update.critic_outputs(moment, values) if health else None))
        return found


Found = tuple[dict[str, Tensor], Tensor | None]
"""What an update finds on a micro-batch: figures that are means over its rows, and its critics' outputs if wanted."""

Gather = Callable[[Tensor], Tensor]
"""This process's rows -> everyone's."""


def figures_of(update: UpdateRunner, parts: Sequence[Found], gather: Gather | None) -> dict[str, Tensor]:
    """The figures of micro-batches, which all have the same rows, as those of their batch: means of this process's
    share, and with `gather` the critics' health on everyone's rows."""
    found = _means_of([means for means, _ in parts])
    outputs = [rows for _, rows in parts if rows is not None]
    if gather is not None and outputs:
        found |= update.critic_figures(gather(torch.cat(outputs)))
    return found


def _means_of(stats: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    if len(stats) == 1:
        return stats[0]
    return {name: torch.stack([found[name] for found in stats]).mean() for name in stats[0]}
