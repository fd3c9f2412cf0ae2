"""Measures what balanced weights need: how strongly two terms pull at the outputs of a network.

Every `STEPS_BETWEEN` steps, before any update, both terms are run on the step's own rows and noise. At first, while a
new critic finds its slope, this happens after 1, 2, 4, ... steps. The mean norms over the global batch go into running
means (`jointgen.engine.balance_scales`), whose quotient is used until the next measurement. They are part of a
checkpoint, so a resumed run goes on bit for bit.

The measurement is independent of the updates: it does not matter how these are cut into micro-batches, share graphs or
are compiled. To them a balanced weight is a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jointgen.compiler.balanced_weights import STEPS_BETWEEN, Balance, balances_of
from jointgen.compiler.lowered import batch_of
from jointgen.compiler.nodes import ordered
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.balance_scales import BalanceScales
from jointgen.engine.program import Program, Values
from jointgen.engine.terms import Term, as_tensor, summand_function
from jointgen.engine.torch_compile import buffers_kept
from jointgen.engine.trainable import TrainedParameters
from jointgen.runtime.workers import Workers

if TYPE_CHECKING:
    from jointgen.compiler.parts import Parts
    from jointgen.compiler.plan import Plan


def is_due(steps: int) -> bool:
    """Whether to measure so many steps after the first measurement.

    >>> [steps for steps in range(50) if is_due(steps)]
    [0, 1, 2, 4, 8, 16, 32, 48]
    """
    return steps % STEPS_BETWEEN == 0 or (steps < STEPS_BETWEEN and steps.bit_count() == 1)


class BalanceMeter:
    """Measures the balanced weights of one plan, which may have none.

    Args:
        scales: What the run has measured so far; the meter adds to it.
    """

    def __init__(self, plan: Plan, parts: Parts, workers: Workers, scales: BalanceScales):
        self.workers, self.scales = workers, scales
        balances = balances_of(plan)
        self.weights = [balance.weight for balance in balances]
        self._no_parameters = TrainedParameters(parts, ())
        self._pairs = [GradientPair(balance, parts) for balance in balances]

    def __call__(self, micro_batches: Sequence[StepInputs]) -> dict[str, Tensor]:
        """Return the scale of every balanced weight in a step, () each by name; measure those that are due."""
        step = micro_batches[0].step
        if due := [pair for pair in self._pairs if is_due(self.scales.steps_since_first(pair.key, step))]:
            self._no_parameters.activate()  # no parameter needs a gradient
            norms = [torch.stack([self._measure(pair, inputs) for inputs in micro_batches]).mean(0) for pair in due]
            self.workers.all_reduce_mean_(norms)
            for pair, measured in zip(due, norms, strict=True):
                self.scales.add(pair.key, measured, step)
        return {pair.weight: self.scales.of(pair.key) for pair in self._pairs}

    def _measure(self, pair: GradientPair, inputs: StepInputs) -> Tensor:
        with buffers_kept(pair.program), self.workers.autocast():
            return pair(inputs)


class GradientPair:
    """The two terms of a balanced weight, run on their own.

    Attributes:
        key: Names both terms, because another stage may balance other terms by the same weight.
    """

    def __init__(self, balance: Balance, parts: Parts):
        self.weight = balance.weight.name
        self.key = f"{self.weight}: {balance.term.label}, {balance.against.label}"
        nodes = ordered([*balance.term.nodes, *balance.against.nodes])
        self.program = Program(nodes, parts, balance.update.differentiable)
        self._outputs = self.program.watch_outputs(balance.part)
        both = [term.lowered for term in (balance.term, balance.against)]
        self._terms = [(summand_function(lowered, self.program), batch_of(lowered)) for lowered in both]

    def __call__(self, inputs: StepInputs) -> Tensor:
        """(2,) means over rows of |d term / d outputs|: of the weight's own term, and of the other."""
        self._outputs.clear()
        values = self.program.run(inputs)
        norms = torch.stack([self._norm(term, inputs.of_batch(batch), values) for term, batch in self._terms])
        self._outputs.clear()
        return norms

    def _norm(self, term: Term, inputs: StepInputs, values: Values) -> Tensor:
        """() the mean over rows of the batch. A row has all that the network puts out for it, in all runs and draws."""
        total = as_tensor(term(inputs, values), inputs).sum()
        found = torch.autograd.grad(total, self._outputs, retain_graph=True, allow_unused=True)
        rows = [g.reshape(inputs.rows, -1).to(total.dtype) for g in found if g is not None]
        return torch.linalg.vector_norm(torch.cat(rows, 1), dim=1).mean()
