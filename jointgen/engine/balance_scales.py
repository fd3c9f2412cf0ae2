"""Measures what balanced weights need: how strongly two terms pull at the outputs of a network.

Every `EVERY` steps, before any update, both terms are run on the step's own rows and noise; at first, while a new
critic finds its slope, after 1, 2, 4, ... steps. Of each measurement the mean norms over the global batch go into
running means, whose quotient is used until the next one. The means are kept apart, so that a critic that loses its
slope for a moment does not blow up the weight; and with them in the checkpoint, a resumed run goes on bit for bit.
Measured on its own, a weight needs nothing of the updates, however they are cut into micro-batches, share graphs or are
compiled; for them it is a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from jointgen.compiler.balanced_weights import Balance, balances_of
from jointgen.compiler.nodes import ordered
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Plan, Summand, nodes_of
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.program import Program, Values
from jointgen.engine.terms import Term, as_tensor, compile_source
from jointgen.engine.torch_compile import buffers_kept
from jointgen.engine.trainable import TrainedParameters
from jointgen.runtime.workers import Workers

EVERY = 16
"""Steps from one measurement to the next, once so many are done."""
KEPT = 0.6
"""The share of the running means that a measurement leaves: they look back over some 40 steps."""


class BalanceScales:
    """What the r of a balanced weight is multiplied by, measured so far in a run, by the pair of terms."""

    def __init__(self) -> None:
        self._norms: dict[str, Tensor] = {}  # (2,): running means of |the weight's own term|', |the other|', from 0
        self._begun: dict[str, int] = {}  # the step of the first measurement

    def is_due(self, pair: str, step: int) -> bool:
        past = step - self._begun.get(pair, step)
        return past % EVERY == 0 or (past < EVERY and past.bit_count() == 1)

    def add(self, pair: str, norms: Tensor, step: int) -> None:
        self._begun.setdefault(pair, step)
        before = self._norms.get(pair, torch.zeros_like(norms))
        self._norms[pair] = torch.lerp(norms, before, KEPT)

    def of(self, pair: str) -> Tensor:
        """() the quotient; 0 while the weight's own term has had no gradient at all."""
        own, other = self._norms[pair]
        return torch.where(own > 0, other / torch.where(own > 0, own, 1), 0)

    def state(self) -> dict[str, Any]:
        return {pair: {"norms": norms, "begun": self._begun[pair]} for pair, norms in self._norms.items()}

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        self._norms = {pair: held["norms"].to(device) for pair, held in state.items()}
        self._begun = {pair: held["begun"] for pair, held in state.items()}


class BalanceMeter:
    """Measures the balanced weights of one plan, of which there may be none."""

    def __init__(self, plan: Plan, parts: Parts, workers: Workers, scales: BalanceScales):
        self.workers, self.scales = workers, scales
        self._turn = TrainedParameters(parts, ())
        balances = balances_of(plan)
        self.weights = [balance.weight for balance in balances]
        self._pairs = [Pair(balance, plan, parts) for balance in balances]

    def __call__(self, moments: Sequence[StepInputs]) -> dict[str, Tensor]:
        """The scale of every balanced weight in a step, () each by name; `moments` are its micro-batches."""
        self._measure([pair for pair in self._pairs if self.scales.is_due(pair.key, moments[0].step)], moments)
        return {pair.weight: self.scales.of(pair.key) for pair in self._pairs}

    def _measure(self, pairs: Sequence[Pair], moments: Sequence[StepInputs]) -> None:
        if not pairs:
            return
        self._turn.begin()  # no parameter needs a gradient
        norms = [torch.stack([self._of(pair, moment) for moment in moments]).mean(0) for pair in pairs]
        self.workers.all_reduce_mean_(norms)
        for pair, measured in zip(pairs, norms, strict=True):
            self.scales.add(pair.key, measured, moments[0].step)

    def _of(self, pair: Pair, moment: StepInputs) -> Tensor:
        with buffers_kept(pair.program), self.workers.autocast():
            return pair(moment)


class Pair:
    """The two terms of a balanced weight, run on their own. key: of both, as other stages may weigh others by it."""

    def __init__(self, balance: Balance, plan: Plan, parts: Parts):
        self.weight = balance.weight.name
        self.key = f"{self.weight}: {balance.term.label}, {balance.against.label}"
        lowering = balance.lowering(plan)
        both: tuple[Summand, Summand] = balance.term, balance.against
        nodes = ordered(node for s in both for node in nodes_of(s.source, s.term, lowering))
        self.program = Program(nodes, parts, lowering)
        self._outputs = self.program.watch(balance.part)
        self._terms: list[Term] = [compile_source(s.source, s.term, self.program) for s in both]

    def __call__(self, moment: StepInputs) -> Tensor:
        """(2,) means over rows of |d term / d outputs|: of the weight's own term, and of the other."""
        self._outputs.clear()
        values = self.program.run(moment)
        norms = torch.stack([self._norm(term, moment, values) for term in self._terms])
        self._outputs.clear()
        return norms

    def _norm(self, term: Term, moment: StepInputs, values: Values) -> Tensor:
        """() of all that the network has put out for a row of the batch, in however many runs and draws."""
        total = as_tensor(term(moment, values), moment).sum()
        found: Sequence[Any] = torch.autograd.grad(total, self._outputs, retain_graph=True, allow_unused=True)
        rows = [g.reshape(moment.rows, -1).to(total.dtype) for g in found if g is not None]
        return torch.linalg.vector_norm(torch.cat(rows, 1), dim=1).mean()
