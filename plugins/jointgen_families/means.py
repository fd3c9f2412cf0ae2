"""Means from a trunk's output, with an offset that can start at the mean of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from jointgen.plugin import ConfigError, Space

MeanName = Literal["linear", "sigmoid"]


def check_mean(mean: MeanName, space: Space) -> None:
    """Raise ConfigError for a sigmoid mean of a variable whose range is not known."""
    if mean == "sigmoid" and space.range is None:
        raise ConfigError(f'"sigmoid" needs a variable of known range, this one is {space}; use "linear"', "mean")


def where_reached(increasing: Callable[[Tensor], Tensor], target: Tensor, bound: float) -> Tensor:
    """Return where an elementwise increasing function has the values `target`, in [-bound, bound], by bisection."""
    low, high = torch.full_like(target, -bound), torch.full_like(target, bound)
    for _ in range(60):
        middle = (low + high) / 2
        is_below = increasing(middle) < target
        low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
    return (low + high) / 2


class MeanModule(nn.Module):
    """The base of family modules whose mean is the trunk's output + `offset`, as it is or squashed into the range.

    - linear: mean = out + offset.
    - sigmoid: mean = low + (high - low) sigmoid(out + offset).
    """

    def __init__(self, space: Space, mean: MeanName):
        super().__init__()
        check_mean(mean, space)
        self.range = space.range if mean == "sigmoid" else None
        self.offset = nn.Parameter(torch.zeros(space.shape))

    def mean_of(self, out: Tensor) -> Tensor:
        """Return the mean for an output of the trunk, (B, *shape)."""
        shifted = out + self.offset
        if self.range is None:
            return shifted
        low, high = self.range
        inside = torch.sigmoid(shifted)
        return inside if (low, high) == (0, 1) else low + (high - low) * inside  # the usual range costs nothing

    @torch.no_grad()
    def start_at(self, mean: Tensor) -> None:
        """Set the offset so that a zero output gives `mean` (*shape), up to 0.1 % of the range from its ends."""
        if self.range is not None:
            low, high = self.range
            mean = torch.logit((mean - low) / (high - low), eps=1e-3)
        self.offset.copy_(mean)
