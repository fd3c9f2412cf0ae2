"""The training step: all updates of an objective in its order, on raw modules without hidden wrappers.

Noise is a pure function of (seed, step, name), gradients are reduced once per update, and absent gradients are zeros
(docs/concepts/noise-and-resume.md).
A later update of a step reuses the values of an earlier one where nothing that the later one trains lies below them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import attrs
import torch
from torch import nn

from jointgen.compiler.nodes import Node, PastNode
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Plan
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.balance_meter import BalanceMeter
from jointgen.engine.balance_scales import BalanceScales
from jointgen.engine.drivers import DrivenState, Drivers
from jointgen.engine.histories import Histories
from jointgen.engine.program import Values
from jointgen.engine.torch_compile import TorchCompiler, nodes_when_compiled
from jointgen.engine.update import BatchFigures, JointGraph, StepFigures, UpdateRunner
from jointgen.runtime.workers import Workers


class PendingUpdate(NamedTuple):
    """An update whose gradient has been taken, and whose parameters are to be moved.

    Args:
        figures: The means of its terms and its loss; more may be added.
        gradients: Of each of its parameters, in their order.
        wants_norm: Whether the norm of the gradient is to be among the figures.
    """

    update: UpdateRunner
    figures: StepFigures
    gradients: Sequence[torch.Tensor]
    wants_norm: bool = False


def _pending(update: UpdateRunner, figures: StepFigures, wants_norm: bool = False) -> PendingUpdate:
    return PendingUpdate(update, figures, [p.grad for p in update.params if p.grad is not None], wants_norm)


class Step:
    """Runs all updates of a plan.

    Args:
        optimizers: By the name of an update, those that step the parts it trains.
        clip: The largest global norm of the gradient of an update; None leaves it as it is.
        micro_batches: How many parts the gradient of a batch is summed from.
        compiler: Compiles the losses. The plan must be `separate` then.
        scales: What the run has measured for balanced weights.
        driven: What the run has of gates and of weights that figures drive.
        histories: The draws of the past that critics see.
    """

    def __init__(
        self,
        plan: Plan,
        parts: Parts,
        workers: Workers,
        optimizers: Mapping[str, Sequence[torch.optim.Optimizer]],
        clip: float | None = None,
        micro_batches: int = 1,
        compiler: TorchCompiler | None = None,
        scales: BalanceScales | None = None,
        driven: DrivenState | None = None,
        histories: Histories | None = None,
    ):
        assert compiler is None or not plan.one_graph, "compiled updates have graphs of their own: Plan.separate"
        self.plan, self.workers, self.optimizers, self.clip = plan, workers, optimizers, clip
        self.micro_batches = micro_batches
        self.same_point = plan.objective.order == "same point"
        # (what each update computes or imports, what of it an earlier update hands over)
        runs = [
            nodes_when_compiled(plan, i) if compiler else (u.nodes, plan.handed_over(i))
            for i, u in enumerate(plan.updates)
        ]
        self.graph = JointGraph(plan, parts) if plan.one_graph else None
        self.updates = (
            self.graph.updates
            if self.graph
            else [
                UpdateRunner(update, parts, handed_over, nodes=nodes)
                for update, (nodes, handed_over) in zip(plan.updates, runs, strict=True)
            ]
        )
        # a repetition draws anew, so nothing is handed over to it
        self.repeats = [UpdateRunner(u, parts) if u.update.most_times > 1 else None for u in plan.updates]
        later = [frozenset().union(*(handed_over for _, handed_over in runs[i + 1 :])) for i in range(len(runs))]
        self.exports = [later[i].intersection(nodes) for i, (nodes, _) in enumerate(runs)]
        self.balance_meter = BalanceMeter(plan, parts, workers, BalanceScales() if scales is None else scales)
        self.drivers = Drivers(plan, DrivenState() if driven is None else driven)
        self.histories = Histories() if histories is None else histories
        self._looks_back = {u.name for u in plan.updates if any(isinstance(node, PastNode) for node in u.nodes)}
        self.compiler = compiler
        if compiler:
            for runner, exports in zip(self.updates, self.exports, strict=True):
                if runner.plan.name in self._looks_back:
                    compiler.note(f"train.compile: {runner.plan.name} has a history of draws, so it runs eagerly")
                else:
                    runner.compile(compiler, exports, runner.plan.name)
            for repeated in (one for one in self.repeats if one and one.plan.name not in self._looks_back):
                repeated.compile(compiler, frozenset(), f"{repeated.plan.name}, repeated,")

    def __call__(self, inputs_of: Callable[[int], StepInputs], until_log: int | None = None) -> StepFigures:
        """Take one step.

        Args:
            inputs_of, until_log: See `pending_updates`.

        Returns:
            Detached scalars by name: the mean of each term, the loss of each update, measured weights, and of updates
            that run only where a condition holds whether they ran, NAME/ran.
        """
        figures: StepFigures = {}
        for one in self.pending_updates(inputs_of, until_log, figures):
            self._apply(one)
        return figures

    def pending_updates(
        self,
        inputs_of: Callable[[int], StepInputs],
        until_log: int | None = None,
        figures: StepFigures | None = None,
    ) -> Iterator[PendingUpdate]:
        """Yield the updates of one step, in their order and as often as they are due.

        The caller moves the parameters of an update before it asks for the next one.

        Args:
            inputs_of: r -> the data and noise of the r-th repetition.
            until_log: How many steps away the next log event is. An update that is not due again before it also
                returns what costs more: the figures of its critics and the norm of its gradient.
            figures: Where the figures of the step are collected.
        """
        if self.compiler:
            self.compiler.begin_step()
        figures = {} if figures is None else figures

        # --- balanced weights, measured before anything moves
        first = inputs_of(0)
        scales: Mapping[str, torch.Tensor] = {}
        if self.balance_meter.weights:
            scales = self.balance_meter(first.split(self.micro_batches))
            first = attrs.evolve(first, scales=scales)
            figures |= {f"weight/{weight.name}": first.at(weight) for weight in self.balance_meter.weights}
        if driven := self.drivers.scales(first):
            scales = {**scales, **driven}
            first = attrs.evolve(first, scales=scales)
            figures |= {f"weight/{name}": value.clone() for name, value in driven.items()}
        if self._looks_back:
            first = attrs.evolve(first, past=self.histories.past)
        micro_batches = first.split(self.micro_batches)

        # --- all updates on one graph
        if self.graph is not None:
            wants_critics = until_log == 0 or bool(self.drivers.read_critics)
            found = self.graph.gradient(micro_batches, self.workers.autocast, self._gather(wants_critics))
            pending = [_pending(*pair, until_log == 0) for pair in zip(self.updates, found, strict=True)]
            yield from self._one_by_one(pending, figures)
            self.drivers.take(figures, first)
            return

        # --- each update on a graph of its own, with the values of earlier ones handed over
        known: list[dict[Node, Any]] = [{} for _ in micro_batches]
        due = self.drivers.due(first)
        pending = []
        for i, update in enumerate(self.updates):
            name, every = update.plan.name, update.plan.update.every
            if name in self.drivers.gated:
                figures[f"{name}/ran"] = torch.full((), float(due[name]), device=self.workers.device)
            reads_critics = self.drivers.reads_critics_of(update.plan)
            if not due[name]:
                is_read = first.step % every == 0 and name in self.drivers.read_updates
                figures |= self._without_step(i, micro_batches, known, is_read, reads_critics)
                continue
            wants_more = until_log is not None and until_log < every
            of_update = self._gradient(update, micro_batches, known, self.exports[i], wants_more or reads_critics)
            if self.same_point:
                pending.append(_pending(update, of_update, until_log == 0))
                continue
            yield from self._one_by_one([_pending(update, of_update, wants_more)], figures)
            yield from self._repeat(i, first.step, lambda r: attrs.evolve(inputs_of(r), scales=scales, past=first.past))
        yield from self._one_by_one(pending, figures)
        self.drivers.take(figures, first)

    def _one_by_one(self, pending: Sequence[PendingUpdate], figures: StepFigures) -> Iterator[PendingUpdate]:
        """Yield updates to be moved, hold what was moved to its constraints, and collect the figures."""
        for one in pending:
            yield one
            one.update.trained.after_step()
            figures |= one.figures

    def _gather(self, is_wanted: bool) -> Callable[[torch.Tensor], torch.Tensor] | None:
        return self.workers.gather if is_wanted else None

    def _gradient(
        self,
        update: UpdateRunner,
        micro_batches: Sequence[StepInputs],
        known: Sequence[dict[Node, Any]],
        exports: frozenset[Node] = frozenset(),
        wants_critics: bool = False,
    ) -> StepFigures:
        """Fill the gradients of one update, means over micro-batches, and add the values of `exports` to `known`."""
        batches: list[BatchFigures] = []
        drawn: list[tuple[StepInputs, Values]] = []
        update.trained.activate()
        for inputs, imports in zip(micro_batches, known, strict=True):
            found, values = update.add_gradient(inputs, imports, self.workers.autocast(), 1 / len(micro_batches))
            imports.update({node: values[update.program.index[node]] for node in exports})
            batches.append((found, update.critic_outputs(inputs, values) if wants_critics else []))
            if update.plan.name in self._looks_back:
                drawn.append((inputs, values))
        update.trained.fill_missing_gradients()
        if drawn:
            self.histories.add(update.plan, update.program, drawn, self.workers)
        return update.figures_of(batches, self._gather(wants_critics))

    def _without_step(
        self,
        i: int,
        micro_batches: Sequence[StepInputs],
        known: Sequence[dict[Node, Any]],
        is_read: bool,
        reads_critics: bool,
    ) -> StepFigures:
        """Draw what a later update expects of an update that does not run in this step, and make figures that are read.

        A gate that closes by the figures of its own update could not open again if these stood still.
        """
        if not self.exports[i] and not is_read:
            return {}
        update, batches = self.updates[i], list[BatchFigures]()
        for inputs, imports in zip(micro_batches, known, strict=True):
            with torch.no_grad(), self.workers.autocast():
                values = update.program.run(inputs, imports)
                if is_read:
                    found = update.figures_from(update.rows(inputs, values), inputs)
                    batches.append((found, update.critic_outputs(inputs, values) if reads_critics else []))
            imports.update({node: values[update.program.index[node]] for node in self.exports[i]})
        if not is_read:
            return {}
        figures = update.figures_of(batches, self._gather(reads_critics))
        self.workers.all_reduce_mean_(list(figures.values()))
        return figures

    def _repeat(self, i: int, step: int, inputs_of: Callable[[int], StepInputs]) -> Iterator[PendingUpdate]:
        """Yield an update as often again as its `times` asks at this step, each time on draws of its own."""
        repeated = self.repeats[i]
        for r in range(1, self.updates[i].plan.update.times_at(step)):
            assert repeated is not None
            micro_batches = inputs_of(r).split(self.micro_batches)
            figures = self._gradient(repeated, micro_batches, [{} for _ in micro_batches])
            yield from self._one_by_one([_pending(repeated, figures)], {})

    def _apply(self, one: PendingUpdate) -> None:
        """Reduce gradients and figures over the processes, clip by the global norm, and step.

        The norm, before clipping, becomes a figure where it is known. Computing it for its own sake costs a hundredth
        of a step of small networks.
        """
        update, figures = one.update, one.figures
        self.workers.all_reduce_mean_([*one.gradients, *figures.values()])
        norm = move(update.params, self.optimizers[update.plan.name], self.clip, wants_norm=one.wants_norm)
        if norm is not None:
            figures[f"{update.plan.name}/grad_norm"] = norm


def move(
    params: Sequence[nn.Parameter],
    optimizers: Sequence[torch.optim.Optimizer],
    clip: float | None,
    *,
    wants_norm: bool = False,
) -> torch.Tensor | None:
    """Move parameters by their gradients, clipped to a global norm of `clip`.

    Returns:
        The norm before clipping, (), where it is wanted or needed.
    """
    norm = None
    if clip is not None or wants_norm:
        norm = torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
    if clip is not None and norm is not None:
        torch.nn.utils.clip_grads_with_norm_(params, clip, norm)
    for optimizer in optimizers:
        optimizer.step()
    return norm
