"""Priors p(z) without parameters: the standard normal and the uniform."""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import LOG_2PI, Capabilities, NoiseSource, ReadyDraw, Space, sum_event, valid_shape
from jointgen_families.gaussian import DiagonalGaussian


def shape_of(size: int | list[int]) -> tuple[int, ...]:
    """Return the shape of a code from the recipe's key `size`.

    >>> shape_of(16), shape_of([8, 4, 4])
    ((16,), (8, 4, 4))
    """
    return (size,) if isinstance(size, int) else tuple(size)


class PriorModule(nn.Module):
    """The base of priors' modules: a buffer of zeros carries the shape, the dtype and the device."""

    zeros: Tensor

    def __init__(self, space: Space):
        super().__init__()
        self.space = space
        self.register_buffer("zeros", torch.zeros(space.shape), persistent=False)

    def rows(self, rows: int) -> Tensor:
        """Return zeros, the prior's mean, (rows, *shape), as a view of the buffer."""
        return self.zeros.expand(rows, *self.zeros.shape)


# --- normal ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Normal:
    """The standard normal N(0, I).

    Args:
        size: The size of the code, a number or a shape such as [8, 4, 4].
    """

    size: int | list[int] = attrs.field(default=16, validator=valid_shape)

    @property
    def space(self) -> Space:
        """The Space of the code."""
        return Space(shape_of(self.size))

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the prior can do."""
        return Capabilities({"sample": "exact", "mean": "exact"}, kl_to=("normal", "gaussian"), moments=True)

    def build(self) -> nn.Module:
        """Build the module that maps a number of rows to a distribution."""
        return NormalModule(self.space)


LOG_PEAK = -0.5 * LOG_2PI
"""The log-density of N(0, 1) at 0, nats."""


class StandardNormal(DiagonalGaussian):
    """B rows of N(0, I), from what its module keeps."""

    def __init__(self, module: NormalModule, rows: int):
        self.module, self.rows = module, rows
        self.log_scale, self.space = module.log_scale, module.space

    @property
    def mean(self) -> Tensor:  # type: ignore[override]  # its density does without
        """Zeros, (B, *shape)."""
        return self.module.rows(self.rows)

    def standardize(self, value: Tensor) -> Tensor:
        """Return the value as it is, (B, *shape)."""
        return value

    def standard_log_prob(self, eps: Tensor) -> Tensor:
        """(B, *shape) -> (B,) nats: -sum 1/2 eps^2 + 1/2 log 2 pi."""
        return sum_event(torch.add(self.module.log_peak, eps**2, alpha=-0.5))


class NormalModule(PriorModule):
    """The prior's module: a number of rows -> StandardNormal."""

    log_scale: Tensor
    log_peak: Tensor

    def __init__(self, space: Space):
        super().__init__(space)
        self.register_buffer("log_scale", torch.zeros(()), persistent=False)
        self.register_buffer("log_peak", torch.full((), LOG_PEAK), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> NormalModule:
        """Move and convert the buffers; a number that went through float32 would keep its rounding in float64."""
        super()._apply(fn, recurse)
        self.log_peak = self.zeros.new_full((), LOG_PEAK)
        return self

    def forward(self, rows: int) -> StandardNormal:
        """Return the distribution of each row."""
        return StandardNormal(self, rows)


# --- uniform ---------------------------------------------------------------------------------------------------------


class UniformDistribution:
    """B rows of independent U(-1, 1) numbers; `mean` is zeros, (B, *shape)."""

    def __init__(self, mean: Tensor):
        self.mean = mean

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """Draw one uniform number per element."""
        return ReadyDraw(sample=2 * noise.uniform(*self.mean.shape[1:]) - 1, mean=self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return -D log 2 inside the cube and -inf outside, (B, *shape) -> (B,) nats."""
        outside = (value.abs() > 1).flatten(1).any(1)
        inside = value.new_full((len(value),), -math.prod(value.shape[1:]) * math.log(2))
        return inside.masked_fill(outside, -math.inf)


@attrs.frozen
class Uniform:
    """The uniform on (-1, 1)^D, for objectives that never score an encoder's code under the prior (ALI, BiGAN, GANs).

    Args:
        size: The size of the code, a number or a shape such as [8, 4, 4].
    """

    size: int | list[int] = attrs.field(default=16, validator=valid_shape)

    @property
    def space(self) -> Space:
        """The Space of the code."""
        return Space(shape_of(self.size), low=-1.0, high=1.0)

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the prior can do."""
        # log p(z) under q is -inf for any encoder with tails, and has no slope: such a recipe is refused before a run
        return Capabilities({"sample": "exact", "mean": "exact"}, foreign_density="none")

    def build(self) -> nn.Module:
        """Build the module that maps a number of rows to a distribution."""
        return UniformModule(self.space)


class UniformModule(PriorModule):
    """The prior's module: a number of rows -> UniformDistribution."""

    def forward(self, rows: int) -> UniformDistribution:
        """Return the distribution of each row."""
        return UniformDistribution(self.rows(rows))
