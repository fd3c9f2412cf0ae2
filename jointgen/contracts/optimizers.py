"""Optimizers and schedules of their rates: attrs tables that build torch's objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn


class Optimizer(Protocol):
    """The table of an optimizer: a subclass of `jointgen.plugin.Rate`, which has the keys of the learning rate."""

    @property
    def lr(self) -> float:
        """The rate that the optimizer is built with; the engine sets that of each step as `lr` of its groups."""

    @property
    def moments(self) -> int:
        """The numbers that it keeps for each parameter, at the most. It stands in the name of its saved state."""

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer | Sequence[torch.optim.Optimizer]:
        """Return torch's optimizer of these parameters, or several that share them.

        A step is `step()` without a closure. All that it keeps is in its `state_dict()`, from which it goes on bit for
        bit.
        """


class Schedule(Protocol):
    """How a learning rate falls, as a function of the step alone. `falls = False` says that it never does."""

    def fallen(self, done: float, steps: float) -> float:
        """Return how far the rate has fallen, in [0, 1]: 0 is the full rate, 1 the table's `final` share of it.

        Args:
            done: How much of the fall is done, in (0, 1]: it begins after the warm-up, or at `decay_from`.
            steps: How many steps the whole fall takes.
        """


def built_optimizers(settings: Optimizer, parameters: list[nn.Parameter]) -> list[torch.optim.Optimizer]:
    """Return what a table builds as a list."""
    built = settings.build(parameters)
    return [built] if isinstance(built, torch.optim.Optimizer) else [*built]
