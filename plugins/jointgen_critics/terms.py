"""Pointwise terms: distances between values, for cycles (ALICE, Li et al. 2017)."""

from __future__ import annotations

import attrs
from torch import Tensor

from jointgen.plugin import sum_event


@attrs.frozen
class L1:
    """The sum of |a - b| over a variable's dimensions."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance of each row, (B, *shape) twice -> (B,)."""
        return sum_event((a - b).abs())


@attrs.frozen
class L2:
    """The sum of (a - b)^2 over a variable's dimensions."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance of each row, (B, *shape) twice -> (B,)."""
        return sum_event((a - b).square())
