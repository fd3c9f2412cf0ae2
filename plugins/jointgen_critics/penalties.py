"""Penalties on the slope of a critic, before the engine multiplies them by their weights.

Gradients come from torch.func and not from autograd.grad, because only the former works on a compiled critic
(docs/inside/engineering.md).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor

from jointgen.objectives import WeightTable, non_negative_weight
from jointgen.plugin import CriticCall, NoiseSource, sum_event, valid_count

CriticInputs = tuple[Tensor, ...]
"""One (B, *shape) tensor for each variable that a critic sees."""


def slopes_squared(critic: CriticCall, inputs: CriticInputs) -> Tensor:
    """Return the squared norm of the critic's gradient with respect to all its inputs, (B,).

    Rows must not depend on one another.
    """
    gradients = torch.func.grad(lambda *values: critic(*values).sum(), argnums=tuple(range(len(inputs))))(*inputs)
    return _total([sum_event(g.square()) for g in gradients])


@attrs.frozen
class R1:
    """1/2 |grad f|^2 at real data, over all inputs of the critic (Mescheder et al. 2018, eq 9).

    Args:
        weight: The factor by which the engine multiplies the penalty.
        every: The penalty is computed in one of so many of the steps at which the critic's update runs.
        at: The side of the ratio on which the data stands; a ratio p : q has it in its denominator, the default.
    """

    weight: float | WeightTable = attrs.field(default=0.1, validator=non_negative_weight)
    every: int = attrs.field(default=4, validator=valid_count)
    at: Literal["numerator", "denominator", "both"] = "denominator"

    def __call__(
        self, critic: CriticCall, positive: CriticInputs, negative: CriticInputs, noise: NoiseSource
    ) -> Tensor:
        """Return the penalty of each row, (B,); see `jointgen.plugin.Penalty`."""
        sides = {"numerator": [positive], "denominator": [negative], "both": [positive, negative]}[self.at]
        return 0.5 * _total([slopes_squared(critic, side) for side in sides])


@attrs.frozen
class GradientPenalty:
    """(|grad f| - 1)^2 at points drawn evenly between the two sides (Gulrajani et al. 2017, eq 3).

    Args:
        weight: The factor by which the engine multiplies the penalty.
        every: The penalty is computed in one of so many of the steps at which the critic's update runs.
    """

    weight: float | WeightTable = attrs.field(default=10.0, validator=non_negative_weight)
    every: int = attrs.field(default=1, validator=valid_count)

    def __call__(
        self, critic: CriticCall, positive: CriticInputs, negative: CriticInputs, noise: NoiseSource
    ) -> Tensor:
        """Return the penalty of each row, (B,); see `jointgen.plugin.Penalty`."""
        share = noise.uniform()  # (B,)
        between = tuple(torch.lerp(b, a, _like(share, a)) for a, b in zip(positive, negative, strict=True))
        # the small number keeps the square root's own slope finite where the critic is flat
        return ((slopes_squared(critic, between) + 1e-12).sqrt() - 1).square()


def _total(values: Sequence[Tensor]) -> Tensor:
    """The sum; a single one is returned as it is."""
    return functools.reduce(torch.add, values)


def _like(share: Tensor, value: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1), to multiply (B, *shape)."""
    return share.to(value.dtype).reshape(-1, *[1] * (value.ndim - 1))
