"""Flows made of steps, and how their networks start."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import ConfigError, Space, non_negative, positive
from jointgen_families.flows.distribution import Flow, Transform

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


@attrs.frozen
class NetworkFlow(Flow):
    """Base of flows whose steps are networks of the other dimensions, which their trunk tells about the row.

    length: number of steps.
    context: how many numbers the trunk gives every step beside the base's parameters; 0: none.
    """

    length: int = attrs.field(default=4, validator=positive)
    context: int = attrs.field(default=64, validator=non_negative)

    def context_size(self, size: int) -> int:
        return self.context

    def check(self, space: Space) -> None:
        super().check(space)
        if space.size < 2:  # one number has no others that could move it
            raise ConfigError(
                f'"{self.name}" moves numbers by one another and needs two or more, this one is {space}', "type"
            )


@torch.no_grad()
def start_small(layer: nn.Module) -> None:
    """A last layer whose outputs start near zero, and differ, so that the layers below get gradients."""
    assert isinstance(layer.weight, Tensor) and isinstance(layer.bias, Tensor)
    layer.weight.mul_(0.01)
    layer.bias.zero_()
