"""Flows made of steps, and how their networks start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jointgen.errors import ConfigError
from jointgen.space import Space
from jointgen_families.flows.distribution import Transform

MIN_SLOPE = 1e-3  # no step contracts any direction more than this, so that its inverse stays finite; as zuko's steps


class Chain:
    """The transforms one after another."""

    def __init__(self, steps: Sequence[Transform]):
        self.steps = steps

    def forward(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        z, total = z0, z0.new_zeros(len(z0))
        for step in self.steps:
            z, log_det = step.forward(z)
            total = total + log_det
        return z, total

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(len(z))
        for step in reversed(self.steps):
            z, log_det = step.inverse(z)
            total = total + log_det
        return z, total


def check_two_dimensions(name: str, space: Space) -> None:
    """Raises ConfigError for one number, which has no others that could move it."""
    if space.size < 2:
        raise ConfigError(f'type: "{name}" moves numbers by one another and needs two or more, this one is {space}')


@torch.no_grad()
def start_small(layer: nn.Module) -> None:
    """A last layer whose outputs start near zero, and differ, so that the layers below get gradients."""
    assert isinstance(layer.weight, Tensor) and isinstance(layer.bias, Tensor)
    layer.weight.mul_(0.01)
    layer.bias.zero_()
