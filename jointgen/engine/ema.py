"""The exponential moving average (EMA) of a run's weights, which evaluations, pictures and the model use."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from jointgen.compiler.parts import Parts


class EMA:
    """A copy of the trained parts with averaged weights.

    Args:
        trained: The parts that are trained.
        decay: The share of the average that a step leaves; None averages nothing.

    Attributes:
        parts: The averages. Without a decay this is `trained` itself.
    """

    def __init__(self, trained: Parts, decay: float | None):
        self.trained, self.decay = trained, decay
        self.parts = copy.deepcopy(trained) if decay else trained
        self._weights = _paired(self.parts.modules.parameters(), trained.modules.parameters())
        self._buffers = _paired(_kept_buffers(self.parts.modules), _kept_buffers(trained.modules))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step`, counted from 0, and copy the buffers.

        The decay starts at 0.1 and rises, min(decay, (1 + step) / (10 + step)), so that the first steps weigh little.
        """
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for averages, trained in self._weights:
            torch._foreach_lerp_(averages, trained, 1 - decay)
        for copies, trained in self._buffers:
            torch._foreach_copy_(copies, trained)


def _kept_buffers(modules: nn.Module) -> list[Tensor]:
    """The buffers that a checkpoint keeps. Any other is a constant: a run that resumes makes it anew."""
    kept = modules.state_dict()
    return [buffer for name, buffer in modules.named_buffers() if name in kept]


def _paired(averages: Iterable[Tensor], trained: Iterable[Tensor]) -> list[tuple[list[Tensor], list[Tensor]]]:
    """The two sides as one pair of lists; no pair where they are empty, which torch's foreach operations refuse."""
    left, right = list(averages), list(trained)
    return [(left, right)] if left else []
