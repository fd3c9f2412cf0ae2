"""Penalties on a critic's slope, as they are before the engine weighs them.

Gradients by torch.func, which a compiled critic survives (docs/engineering.md).
"""

from __future__ import annotations

from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from jointgen.objectives import WeightTable, non_negative_weight
from jointgen.plugin import NoiseSource, positive, sum_event

Inputs = tuple[Tensor, ...]


def slopes_squared(critic: Any, inputs: Inputs) -> Tensor:
    """(B,) squared norm of d critic(inputs) / d inputs, over all inputs. Rows do not depend on one another."""
    gradients = torch.func.grad(lambda *values: critic(*values).sum(), argnums=tuple(range(len(inputs))))(*inputs)
    return torch.stack([sum_event(g.square()) for g in gradients]).sum(0)


@attrs.frozen
class R1:
    """1/2 |grad f|^2 at real data (Mescheder et al. 2018, eq 9), over all inputs that the critic sees.

    at: which side of the ratio is the data; a ratio p : q has it in its denominator, the default.
    """

    weight: float | WeightTable = attrs.field(default=0.1, validator=non_negative_weight)
    every: int = attrs.field(default=4, validator=positive)
    at: Literal["numerator", "denominator", "both"] = "denominator"

    def __call__(self, critic: Any, positive: Inputs, negative: Inputs, noise: NoiseSource) -> Tensor:
        sides = {"numerator": [positive], "denominator": [negative], "both": [positive, negative]}[self.at]
        return 0.5 * torch.stack([slopes_squared(critic, side) for side in sides]).sum(0)


@attrs.frozen
class GradientPenalty:
    """(|grad f| - 1)^2 at points drawn evenly between the two sides (Gulrajani et al. 2017, eq 3)."""

    weight: float | WeightTable = attrs.field(default=10.0, validator=non_negative_weight)
    every: int = attrs.field(default=1, validator=positive)

    def __call__(self, critic: Any, positive: Inputs, negative: Inputs, noise: NoiseSource) -> Tensor:
        share = noise.uniform()  # (B,)
        between = tuple(torch.lerp(b, a, _like(share, a)) for a, b in zip(positive, negative, strict=True))
        # the small number keeps the square root's own slope finite where the critic is flat
        return ((slopes_squared(critic, between) + 1e-12).sqrt() - 1).square()


def _like(share: Tensor, value: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1)"""
    return share.to(value.dtype).reshape(-1, *[1] * (value.ndim - 1))
