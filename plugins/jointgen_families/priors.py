"""Priors p(z): roots with a density, here without parameters."""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import Capabilities, NoiseSource, ReadyDraw, Space
from jointgen_families.gaussian import DiagonalGaussian


def valid_size(instance: object, attribute: Any, value: int | list[int]) -> None:
    sizes = [value] if isinstance(value, int) else value
    if not sizes or any(size < 1 for size in sizes):
        raise ValueError(f"{attribute.name!r} must be a size >= 1 or a list of such: {value}")


def shape_of(size: int | list[int]) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)


class PriorModule(nn.Module):
    """Base: a buffer of zeros carries the shape, the dtype and the device."""

    zeros: Tensor

    def __init__(self, space: Space):
        super().__init__()
        self.space = space
        self.register_buffer("zeros", torch.zeros(space.shape), persistent=False)

    def rows(self, rows: int) -> Tensor:
        """(rows, *shape) of zeros, the prior's mean, without memory of its own."""
        return self.zeros.expand(rows, *self.zeros.shape)


# --- normal ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Normal:
    """Standard normal, N(0, I).

    size: of the code, a number or a shape such as [8, 4, 4].
    """

    size: int | list[int] = attrs.field(default=16, validator=valid_size)

    @property
    def space(self) -> Space:
        return Space(shape_of(self.size))

    def capabilities(self, space: Space) -> Capabilities:
        return Capabilities({"sample": "exact", "mean": "exact"}, kl_to=("normal", "gaussian"), moments=True)

    def build(self) -> nn.Module:
        return NormalModule(self.space)


class StandardNormal(DiagonalGaussian):
    """B rows of N(0, I)."""

    def standardize(self, value: Tensor) -> Tensor:
        """(B, *shape): as it is."""
        return value


class NormalModule(PriorModule):
    def forward(self, rows: int) -> StandardNormal:
        return StandardNormal(self.rows(rows), self.zeros.new_zeros(()), self.space)


# --- uniform ---------------------------------------------------------------------------------------------------------


class UniformDistribution:
    """B rows of independent U(-1, 1) numbers; mean (B, *shape) of zeros."""

    def __init__(self, mean: Tensor):
        self.mean = mean

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        return ReadyDraw(sample=2 * noise.uniform(*self.mean.shape[1:]) - 1, mean=self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """(B, *shape) -> (B,) nats: -D log 2 inside the cube, -inf outside."""
        outside = (value.abs() > 1).flatten(1).any(1)
        inside = value.new_full((len(value),), -math.prod(value.shape[1:]) * math.log(2))
        return inside.masked_fill(outside, -math.inf)


@attrs.frozen
class Uniform:
    """Uniform on (-1, 1)^D, for objectives that never score a code of the encoder under the prior (ALI, BiGAN, GANs).

    size: of the code, a number or a shape such as [8, 4, 4].
    """

    size: int | list[int] = attrs.field(default=16, validator=valid_size)

    @property
    def space(self) -> Space:
        return Space(shape_of(self.size), low=-1.0, high=1.0)

    def capabilities(self, space: Space) -> Capabilities:
        # log p(z) under q is -inf for any encoder with tails, and without slope: better refused before a run than in it
        return Capabilities({"sample": "exact", "mean": "exact"}, foreign_density="none")

    def build(self) -> nn.Module:
        return UniformModule(self.space)


class UniformModule(PriorModule):
    def forward(self, rows: int) -> UniformDistribution:
        return UniformDistribution(self.rows(rows))
