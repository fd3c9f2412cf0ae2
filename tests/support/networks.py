"""Networks of one number in double precision, small enough to differentiate by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

DOUBLE = torch.float64


class GaussianDraw:
    """N(mean, exp(log_scale)^2), (B, 1)."""

    def __init__(self, mean: Tensor, log_scale: Tensor):
        self.mean, self.log_scale = mean, log_scale

    def draw(self, noise: Any) -> Readings:
        eps = noise.normal(*self.mean.shape[1:])
        return Readings({"sample": self.mean + self.log_scale.exp() * eps, "mean": self.mean})

    def log_prob(self, value: Tensor) -> Tensor:
        standard = (value - self.mean) / self.log_scale.exp()
        return -(standard.square() / 2 + self.log_scale + math.log(2 * math.pi) / 2).sum(1)


class Readings:
    def __init__(self, readings: Mapping[str, Tensor]):
        self.readings = readings

    def read(self, reading: str) -> Tensor:
        return self.readings[reading]


class Line(nn.Module):
    """out | given = N(slope * given + offset, exp(log_scale)^2): an encoder or decoder of three parameters."""

    def __init__(self, slope: float, offset: float, log_scale: float):
        super().__init__()
        self.slope, self.offset, self.log_scale = map(number, (slope, offset, log_scale))

    def forward(self, given: Tensor, k: int = 1) -> GaussianDraw:
        mean = self.slope * given + self.offset
        return GaussianDraw(mean if k == 1 else mean.repeat_interleave(k, 0), self.log_scale)


class StandardNormal(nn.Module):
    def __init__(self, size: int = 1):
        super().__init__()
        self.size = size

    def forward(self, rows: int) -> GaussianDraw:
        return GaussianDraw(torch.zeros(rows, self.size, dtype=DOUBLE), torch.zeros((), dtype=DOUBLE))


class Polynomial(nn.Module):
    """w . (1, x, z, xz, x^2, z^2): a critic of two numbers, or of one (which it is given twice)."""

    def __init__(self, *weights: float):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=DOUBLE))

    def forward(self, *inputs: Tensor) -> Tensor:
        x, z = (inputs * 2)[:2]
        return (self.weights * torch.cat([torch.ones_like(x), x, z, x * z, x * x, z * z], 1)).sum(1)


class WrittenCritic(nn.Module):
    """A critic that is a known function, (B, 1) each -> (B,), without parameters."""

    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs).squeeze(1)


class WatchedCritic(nn.Module):
    """A critic weight * sum(inputs) that keeps what it is shown."""

    def __init__(self, weight: float = 0.0):
        super().__init__()
        self.weight = number(weight)
        self.calls: list[tuple[Tensor, ...]] = []

    def forward(self, *inputs: Tensor) -> Tensor:
        self.calls.append(tuple(value.detach().clone() for value in inputs))
        return self.weight.to(inputs[0].dtype) * torch.stack([value.flatten(1).sum(1) for value in inputs]).sum(0)


def number(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value, dtype=DOUBLE))
