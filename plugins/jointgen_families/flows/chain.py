"""Flows made of steps, and how their networks start."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import ConfigError, Space, valid_depth, valid_size_or_none
from jointgen_families.flows.distribution import Flow, Transform

MIN_SLOPE = 1e-3
"""No step contracts any direction by more than this, so that its inverse stays finite (as in zuko)."""


class Chain:
    """A transform that applies several one after another."""

    def __init__(self, steps: Sequence[Transform]):
        self.steps = steps

    def forward(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(z0), (B, D), and log|det df/dz0|, (B,) nats."""
        z, total = z0, z0.new_zeros(z0.shape[0])
        for step in self.steps:
            z, log_det = step.forward(z)
            total = total + log_det
        return z, total

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return z0 with f(z0) = z, (B, D), and log|det df/dz0| there, (B,) nats."""
        total = z.new_zeros(z.shape[0])
        for step in reversed(self.steps):
            z, log_det = step.inverse(z)
            total = total + log_det
        return z, total


@attrs.frozen
class NetworkFlow(Flow):
    """The base of flows in which each step moves a number by a network of the other numbers and of the trunk's context.

    Args:
        base: The Gaussian that the flow starts from.
        length: The number of steps.
        context: How many numbers the trunk outputs for all steps beside the base's parameters; 0 for none.
    """

    length: int = attrs.field(default=4, validator=valid_depth)
    context: int = attrs.field(default=64, validator=valid_size_or_none)

    def context_size(self, size: int) -> int:
        """Return how many numbers the trunk outputs for the flow."""
        return self.context

    def check(self, space: Space) -> None:
        """Raise ConfigError for a variable that the family does not serve."""
        super().check(space)
        if space.size < 2:  # one number has no others that could move it
            raise ConfigError(
                f'"{self.name}" moves numbers by one another and needs two or more, this one is {space}', "type"
            )


@torch.no_grad()
def start_small(layer: nn.Module) -> None:
    """Scale a last layer so that its outputs start near zero but differ, and the layers below get gradients."""
    assert isinstance(layer.weight, Tensor) and isinstance(layer.bias, Tensor)
    layer.weight.mul_(0.01)
    layer.bias.zero_()
