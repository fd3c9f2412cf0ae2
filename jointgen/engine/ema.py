"""The running average of a run's weights (EMA): what evaluations, pictures and the finished model use."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from jointgen.compiler.parts import Parts


class EMA:
    """`parts` hold the averages of those `trained`; without a decay they are those, and there is nothing to update."""

    def __init__(self, trained: Parts, decay: float | None):
        self.trained, self.decay = trained, decay
        self.parts = copy.deepcopy(trained) if decay else trained
        mine, theirs = self.parts.modules, trained.modules
        self._weights = _paired(mine.parameters(), theirs.parameters())
        self._buffers = _paired(mine.buffers(), theirs.buffers())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights that step `step`, counted from 0, has left. The first steps weigh little."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in self._weights:
            torch._foreach_lerp_(mine, theirs, 1 - decay)
        for mine, theirs in self._buffers:
            torch._foreach_copy_(mine, theirs)


def _paired(mine: Iterable[Tensor], theirs: Iterable[Tensor]) -> list[tuple[list[Tensor], list[Tensor]]]:
    """The two sides as lists for torch's foreach operations, which take no empty ones: then no pair."""
    left, right = list(mine), list(theirs)
    return [(left, right)] if left else []
