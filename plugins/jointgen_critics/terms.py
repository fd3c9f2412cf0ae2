"""Pointwise terms on values: distances for cycles (ALICE, Li et al. 2017)."""

from __future__ import annotations

import attrs
from torch import Tensor

from jointgen.plugin import sum_event


@attrs.frozen
class L1:
    """sum |a - b| over event dimensions: (B, *shape) twice -> (B,)."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return sum_event((a - b).abs())


@attrs.frozen
class L2:
    """sum (a - b)^2 over event dimensions: (B, *shape) twice -> (B,)."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return sum_event((a - b).square())
