"""Updates at work: the program, the loss and the gradient of each on its own, or of all of them on one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from jointgen.compiler.nodes import Node, differentiable_nodes, ordered
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Plan, UpdatePlan
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.critic_statistics import critic_figures
from jointgen.engine.program import Program, Values
from jointgen.engine.terms import as_tensor, summand_function, term_function
from jointgen.engine.torch_compile import Loss, TorchCompiler
from jointgen.engine.trainable import TrainedParameters
from jointgen.objectives.expressions import Ratio, Side

StepFigures = dict[str, Tensor]
"""Scalars by name, detached."""

BatchFigures = tuple[StepFigures, list[Tensor]]
"""The figures of one micro-batch, means over its rows, and the outputs of its critics where they are wanted."""

Gather = Callable[[Tensor], Tensor]
"""The rows of this process -> those of all processes."""


class UpdateRunner:
    """Computes the loss of one update (minimised) and its gradient.

    Args:
        plan: The update.
        parts: The modules.
        imported: The nodes that an earlier update of the step hands over.
        program: The program of all updates, where they share one; otherwise the update makes its own.
        nodes: What the program computes or imports; by default everything that the update needs.
    """

    def __init__(
        self,
        plan: UpdatePlan,
        parts: Parts,
        imported: frozenset[Node] = frozenset(),
        program: Program | None = None,
        nodes: Iterable[Node] | None = None,
    ):
        self.plan, self.trained = plan, TrainedParameters(parts, plan.trains, plan.constraints)
        self.program = program or Program(nodes or plan.nodes, parts, plan.differentiable, imported)
        self.terms = [(summand, summand_function(summand.lowered, self.program)) for summand in plan.summands]
        self.params = self.trained.params
        self._compiled_loss: Loss | None = None
        self._seeds: dict[int, tuple[Any, Tensor]] = {}
        self._critics = [term_function(critic.lowered, self.program.index) for critic in plan.critics]

    def loss(self, inputs: StepInputs, imports: Mapping[Node, Any] | None = None) -> tuple[Tensor, StepFigures, Values]:
        """Return the loss to minimise, the mean of each term, and the values of the program."""
        values = self.program.run(inputs, imports)
        weights = [summand.weight(inputs.at) for summand, _ in self.terms]
        return *self._loss_of(self.rows(inputs, values), weights), values

    def rows(self, inputs: StepInputs, values: Values) -> list[Tensor]:
        """The values of each term, (B,), from the values of a program that has run."""
        return [as_tensor(term(inputs, values), inputs) for _, term in self.terms]

    def _loss_of(self, rows: Sequence[Tensor], weights: Sequence[float | Tensor]) -> tuple[Tensor, StepFigures]:
        total: Any = None
        means: StepFigures = {}
        for (summand, _), values, weight in zip(self.terms, rows, weights, strict=True):
            mean = values.mean()
            detached = mean.detach() if mean.requires_grad else mean
            means[summand.label] = detached  # a term that stands twice has one value
            if total is None:
                total = -weight * mean
            elif isinstance(weight, Tensor):
                total = total - weight * mean
            else:
                total = torch.sub(total, mean, alpha=weight)  # one operation in place of two
        return total, means

    def compile(self, compiler: TorchCompiler, exports: frozenset[Node], name: str) -> None:
        """Compile the loss. Of the values of the program, only `exports` and the critics' outputs are known then."""
        needed = [node for critic in self.plan.critics for node in critic.leaves]
        self._compiled_loss = compiler.compiled(self, list(dict.fromkeys([*exports, *needed])), name)

    def gradient(self, inputs: StepInputs, imports: Mapping[Node, Any] | None = None) -> tuple[StepFigures, Values]:
        """Fill the gradients of the trained parameters; a parameter that nothing reached gets zeros."""
        self.trained.activate()
        found = self.add_gradient(inputs, imports)
        self.trained.fill_missing_gradients()
        return found

    def add_gradient(
        self,
        inputs: StepInputs,
        imports: Mapping[Node, Any] | None = None,
        autocast: AbstractContextManager[Any] | None = None,
        share: float = 1.0,
    ) -> tuple[StepFigures, Values]:
        """Add `share` times the gradient of the loss to those of the trained parameters."""
        if self._compiled_loss is not None:
            with autocast or nullcontext():
                loss, figures, values = self._compiled_loss(inputs, imports)
            (loss if share == 1 else share * loss).backward()
            return figures | {f"{self.plan.name}/loss": loss.detach()}, values
        with autocast or nullcontext():
            values = self.program.run(inputs, imports)
            rows = self.rows(inputs, values)
        return self.add_gradient_of(rows, inputs, share), values

    def add_gradient_of(
        self, rows: Sequence[Tensor], inputs: StepInputs, share: float, shares_graph: bool = False, is_last: bool = True
    ) -> StepFigures:
        """Add `share` times the gradient of the loss, from the values of its terms.

        The loss is a weighted sum of means over rows, so its gradient by a term's values is known: -weight / rows.
        The backward pass starts there, and the loss itself needs no graph.

        Args:
            shares_graph: Other updates have losses on the same graph, so only these parameters take a gradient.
            is_last: The graph is not needed any more.
        """
        with torch.no_grad():
            weights = [summand.weight(inputs.at) for summand, _ in self.terms]
            loss, figures = self._loss_of(rows, weights)
            roots = [i for i, term in enumerate(rows) if term.requires_grad]
            seeds = [self._seed(i, rows[i], weights[i], share) for i in roots]
        params = self.params if shares_graph else None
        torch.autograd.backward([rows[i] for i in roots], seeds, retain_graph=not is_last, inputs=params)
        figures[f"{self.plan.name}/loss"] = loss
        return figures

    def figures_from(self, rows: Sequence[Tensor], inputs: StepInputs) -> StepFigures:
        """The mean of each term and the loss, from the values of the terms, without a gradient."""
        loss, figures = self._loss_of(rows, [summand.weight(inputs.at) for summand, _ in self.terms])
        return figures | {f"{self.plan.name}/loss": loss}

    def _seed(self, i: int, rows: Tensor, weight: float | Tensor, share: float) -> Tensor:
        """-share * weight / rows in the shape of the rows; that of a constant weight is kept from step to step."""
        key = (share, weight, rows.shape, rows.dtype, rows.device)
        if not isinstance(weight, Tensor) and i in self._seeds and self._seeds[i][0] == key:
            return self._seeds[i][1]
        seed = (rows.new_full((), share) * -weight / rows.numel()).expand_as(rows)
        if not isinstance(weight, Tensor):
            self._seeds[i] = key, seed
        return seed

    @torch.no_grad()
    def critic_outputs(self, inputs: StepInputs, values: Values) -> list[Tensor]:
        """The outputs of the critics that it trains, on each of their sides, known parts included, (rows,) each."""
        return [as_tensor(output(inputs, values), inputs) for output in self._critics]

    def critic_figures(self, outputs: Sequence[Tensor]) -> StepFigures:
        """StepFigures of the critics, from their outputs on all rows of the batch."""
        sides: dict[Ratio, dict[Side, list[tuple[float, Tensor]]]] = {}
        for critic, rows in zip(self.plan.critics, outputs, strict=True):
            sides.setdefault(critic.ratio, {}).setdefault(critic.side, []).append((critic.share, rows))
        found: StepFigures = {}
        for ratio, by_side in sides.items():
            found |= critic_figures(ratio, by_side)
        return found

    def figures_of(self, batches: Sequence[BatchFigures], gather: Gather | None) -> StepFigures:
        """Unite the figures of micro-batches of equal size: means over this process's rows.

        Args:
            gather: With it the figures of the critics are added, from the rows of all processes.
        """
        means = [figures for figures, _ in batches]
        found = means[0]
        if len(means) > 1:
            found = {name: torch.stack([figures[name] for figures in means]).mean() for name in found}
        if gather is not None and self.plan.critics:
            sides = zip(*(outputs for _, outputs in batches), strict=True)
            found |= self.critic_figures([gather(torch.cat(side)) for side in sides])
        return found


class JointGraph:
    """All updates at the same point: nothing moves between them, so each is a loss on the values of one program.

    Of the graph that they share, the gradient of an update runs only what leads to the parameters it trains.
    """

    def __init__(self, plan: Plan, parts: Parts):
        trains = [part for update in plan.updates for part in update.trains]
        nodes = ordered(node for update in plan.updates for node in update.nodes)
        self.trained = TrainedParameters(parts, trains)
        self.program = Program(nodes, parts, differentiable_nodes(nodes, trains, plan.traits))
        self.updates = [UpdateRunner(update, parts, program=self.program) for update in plan.updates]

    def gradient(
        self,
        micro_batches: Sequence[StepInputs],
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        gather: Gather | None = None,
    ) -> list[StepFigures]:
        """Fill the gradients of all updates, means over micro-batches, and return the figures of each update."""
        self.trained.activate()
        found = [self._add_gradients(inputs, autocast, 1 / len(micro_batches), gather) for inputs in micro_batches]
        self.trained.fill_missing_gradients()
        return [
            update.figures_of(batches, gather)
            for update, batches in zip(self.updates, zip(*found, strict=True), strict=True)
        ]

    def _add_gradients(
        self,
        inputs: StepInputs,
        autocast: Callable[[], AbstractContextManager[Any]],
        share: float,
        gather: Gather | None,
    ) -> list[BatchFigures]:
        found: list[BatchFigures] = []
        with autocast():
            values = self.program.run(inputs)
        for update in self.updates:
            with autocast():
                rows = update.rows(inputs, values)
            is_last = update is self.updates[-1]
            figures = update.add_gradient_of(rows, inputs, share, shares_graph=True, is_last=is_last)
            found.append((figures, update.critic_outputs(inputs, values) if gather else []))
        return found
