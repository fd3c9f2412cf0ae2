"""Standard noise by inverse distribution functions, and the straight-through gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from jointgen.plugin import NoiseSource


def inner_uniform(noise: NoiseSource, *shape: int) -> Tensor:
    """Return U(0, 1) numbers at least half a rounding unit from 0 and 1, where inverse functions are infinite."""
    half_unit = torch.finfo(noise.dtype).eps / 2
    return noise.uniform(*shape).clamp(half_unit, 1 - half_unit)


def standard_logistic(noise: NoiseSource, *shape: int) -> Tensor:
    """Return logistic numbers, whose distribution function is F(l) = sigmoid(l), (B, *shape)."""
    return torch.logit(inner_uniform(noise, *shape))


def standard_laplace(noise: NoiseSource, *shape: int) -> Tensor:
    """Return Laplace numbers, whose density is 1/2 exp(-|l|), (B, *shape)."""
    side = 2 * inner_uniform(noise, *shape) - 1
    return -side.sign() * torch.log1p(-side.abs())


def straight_through(value: Tensor, stand_in: Tensor) -> Tensor:
    """Return `value`, exactly, with the gradient of `stand_in`."""
    return value.detach() + (stand_in - stand_in.detach())  # the bracket is zero, exactly
