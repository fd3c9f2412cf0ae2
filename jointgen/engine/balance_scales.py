"""The measurements of a run for its balanced weights so far. `jointgen.engine.balance_meter` measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jointgen.config.documents import as_document

DECAY = 0.6
"""The share of the running means that a measurement leaves: they look back over some 40 steps."""


class BalanceScales:
    """The measurements so far: running means of both norms, for each pair of terms.

    A balanced weight is its relative strength r times the quotient of these means. The means are kept apart, so that a
    critic that loses its slope for a moment does not blow up the weight.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device
        self._norms: dict[str, Tensor] = {}  # (2,): running means of |the weight's own term|', |the other|', from 0
        self._begun: dict[str, int] = {}  # the step of the first measurement

    def steps_since_first(self, pair: str, step: int) -> int:
        """The number of steps since the first measurement; 0 before it."""
        return step - self._begun.get(pair, step)

    def add(self, pair: str, norms: Tensor, step: int) -> None:
        """Take in the norms of a measurement, (2,): of the weight's own term, and of the other."""
        self._begun.setdefault(pair, step)
        before = self._norms.get(pair, torch.zeros_like(norms))
        self._norms[pair] = torch.lerp(norms, before, DECAY)

    def of(self, pair: str) -> Tensor:
        """() the quotient; 0 while the weight's own term has had no gradient at all."""
        own, other = self._norms[pair]
        return torch.where(own > 0, other / torch.where(own > 0, own, 1), 0)

    def state_dict(self) -> dict[str, Any]:
        """The running means, and when they began, by the pair of terms."""
        return {pair: {"norms": norms, "begun": self._begun[pair]} for pair, norms in self._norms.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned. Raises ValueError where it is something else."""
        as_document({pair: entry["begun"] for pair, entry in state.items()}, dict[str, int])
        if wrong := [pair for pair, entry in state.items() if entry["norms"].shape != (2,)]:
            raise ValueError(f"{wrong[0]}: expected two norms")
        self._norms = {pair: entry["norms"].to(self._device) for pair, entry in state.items()}
        self._begun = {pair: entry["begun"] for pair, entry in state.items()}
