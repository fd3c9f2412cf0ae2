"""Draws that several families make, and standard noise by inverse distribution functions."""

from __future__ import annotations

import torch
from torch import Tensor

from jointgen.plugin import NoiseSource


def inner_uniform(noise: NoiseSource, *shape: int) -> Tensor:
    """(B, *shape) of U(0, 1), half a rounding unit away from 0 and 1, where inverse distribution functions end."""
    half_unit = torch.finfo(noise.dtype).eps / 2
    return noise.uniform(*shape).clamp(half_unit, 1 - half_unit)


def standard_logistic(noise: NoiseSource, *shape: int) -> Tensor:
    """(B, *shape): F(l) = sigmoid(l)."""
    return torch.logit(inner_uniform(noise, *shape))


def standard_laplace(noise: NoiseSource, *shape: int) -> Tensor:
    """(B, *shape): density 1/2 exp(-|l|)."""
    side = 2 * inner_uniform(noise, *shape) - 1
    return -side.sign() * torch.log1p(-side.abs())


def straight_through(value: Tensor, stand_in: Tensor) -> Tensor:
    """`value`, exactly, with the gradient of `stand_in`."""
    return value.detach() + (stand_in - stand_in.detach())  # the bracket is zero, exactly
