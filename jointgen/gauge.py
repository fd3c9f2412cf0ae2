"""Measures what balanced weights need: how strongly two terms pull at the outputs of a network (`jointgen.balance`).

Every `EVERY` steps, before any update, both terms are run on the step's own rows and noise. Of each measurement the
mean norms over the global batch go into running means, whose quotient is used until the next one. The means are kept
apart, so that a critic that loses its slope for a moment does not blow up the weight; and with them in the checkpoint,
a resumed run goes on bit for bit. Measured on its own, a weight needs nothing of the updates, however they are cut into
micro-batches, share graphs or are compiled; for them it is a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from jointgen.balance import Balance, balances_of
from jointgen.compiling import buffers_kept
from jointgen.distributed import Workers
from jointgen.nodes import ordered
from jointgen.parts import Parts
from jointgen.plan import Plan, Summand, nodes_of
from jointgen.program import Moment, Program, Values
from jointgen.terms import Term, as_tensor, compile_source
from jointgen.turn import Turn

EVERY = 16
"""Steps from one measurement to the next."""
KEPT = 0.6
"""The share of the running means that a measurement leaves: they look back over some 40 steps."""


class Scales:
    """What a balanced weight's r is multiplied by, measured so far in a run."""

    def __init__(self) -> None:
        self._norms: dict[str, Tensor] = {}  # weight -> (2,): running means of |its term|', |the other|', from 0

    def __contains__(self, name: str) -> bool:
        return name in self._norms

    def add(self, name: str, norms: Tensor) -> None:
        before = self._norms.get(name, torch.zeros_like(norms))
        self._norms[name] = torch.lerp(norms, before, KEPT)

    def of(self, name: str) -> Tensor:
        """() the quotient; 0 while the weight's own term has had no gradient at all."""
        own, other = self._norms[name]
        return torch.where(own > 0, other / torch.where(own > 0, own, 1), 0)

    def state(self) -> dict[str, Tensor]:
        return dict(self._norms)

    def load(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self._norms = {name: norms.to(device) for name, norms in state.items()}


class Gauge:
    """Measures the balanced weights of one plan, of which there may be none."""

    def __init__(self, plan: Plan, parts: Parts, workers: Workers, scales: Scales):
        self.workers, self.scales = workers, scales
        self._turn = Turn(parts, ())
        balances = balances_of(plan)
        self.weights = [balance.weight for balance in balances]
        self._pairs = [Pair(balance, plan, parts) for balance in balances]

    def __call__(self, moments: Sequence[Moment]) -> dict[str, Tensor]:
        """The scale of every balanced weight in a step, () each by name; `moments` are its micro-batches."""
        self._measure([pair for pair in self._pairs if _is_due(moments[0].step, pair.name, self.scales)], moments)
        return {pair.name: self.scales.of(pair.name) for pair in self._pairs}

    def _measure(self, pairs: Sequence[Pair], moments: Sequence[Moment]) -> None:
        if not pairs:
            return
        self._turn.begin()  # no parameter needs a gradient
        norms = [torch.stack([self._of(pair, moment) for moment in moments]).mean(0) for pair in pairs]
        self.workers.all_reduce_mean_(norms)
        for pair, measured in zip(pairs, norms, strict=True):
            self.scales.add(pair.name, measured)

    def _of(self, pair: Pair, moment: Moment) -> Tensor:
        with buffers_kept(pair.program), self.workers.autocast():
            return pair(moment)


def _is_due(step: int, name: str, scales: Scales) -> bool:
    return step % EVERY == 0 or name not in scales


class Pair:
    """The two terms of a balanced weight, run on their own."""

    def __init__(self, balance: Balance, plan: Plan, parts: Parts):
        self.name = balance.weight.name
        lowering = balance.lowering(plan)
        both: tuple[Summand, Summand] = balance.term, balance.against
        nodes = ordered(node for s in both for node in nodes_of(s.source, s.term, lowering))
        self.program = Program(nodes, parts, lowering)
        self._outputs = self.program.watch(balance.part)
        self._terms: list[Term] = [compile_source(s.source, s.term, self.program) for s in both]

    def __call__(self, moment: Moment) -> Tensor:
        """(2,) means over rows of |d term / d outputs|: of the weight's own term, and of the other."""
        self._outputs.clear()
        values = self.program.run(moment)
        norms = torch.stack([self._norm(term, moment, values) for term in self._terms])
        self._outputs.clear()
        return norms

    def _norm(self, term: Term, moment: Moment, values: Values) -> Tensor:
        """() of all that the network has put out for a row of the batch, in however many runs and draws."""
        total = as_tensor(term(moment, values), moment).sum()
        found: Sequence[Any] = torch.autograd.grad(total, self._outputs, retain_graph=True, allow_unused=True)
        rows = [g.reshape(moment.rows, -1).to(total.dtype) for g in found if g is not None]
        return torch.linalg.vector_norm(torch.cat(rows, 1), dim=1).mean()
