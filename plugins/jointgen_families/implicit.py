"""Distributions that can be drawn from and nothing else."""

from __future__ import annotations

from typing import get_args

import attrs
from torch import Tensor, nn

from jointgen.plugin import Capabilities, NoiseSource, Space
from jointgen_families.means import MeanModule, MeanName, check_mean


class ImplicitDistribution:
    """B draws, made already: the noise went in before the trunk. Its own draw; no log_prob."""

    def __init__(self, mean: Tensor):
        self.mean = mean

    def draw(self, noise: NoiseSource) -> ImplicitDistribution:
        return self

    def read(self, reading: str) -> Tensor:
        """(B, *shape): "sample" and "mean" are one tensor (not an expectation over the trunk's noise)."""
        assert reading in ("sample", "mean"), f"an implicit draw has no reading {reading!r}"
        return self.mean


@attrs.frozen
class Implicit:
    """The trunk's output is the draw; there is no density.

    noise: size of eps ~ N(0, I), one more input of the trunk (AVB's encoder). 0: a deterministic function of the
        other inputs (ALI's decoder, BiGAN's encoder and decoder).
    mean: linear, or sigmoid for a variable of known range.
    """

    noise: int = attrs.field(default=32, validator=attrs.validators.ge(0))
    mean: MeanName = attrs.field(default="linear", validator=attrs.validators.in_(get_args(MeanName)))

    def capabilities(self, space: Space) -> Capabilities:
        check_mean(self.mean, space)
        return Capabilities(
            {"sample": "exact", "mean": "exact"}, own_density="none", foreign_density="none", noise_input=self.noise
        )

    def outputs(self, space: Space) -> tuple[int, ...]:
        return space.shape

    def build(self, space: Space) -> nn.Module:
        return ImplicitModule(space, self.mean)


class ImplicitModule(MeanModule):
    """(B, *shape) -> ImplicitDistribution."""

    def forward(self, params: Tensor) -> ImplicitDistribution:
        return ImplicitDistribution(self.mean_of(params))
