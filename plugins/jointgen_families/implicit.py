"""Implicit distributions, which can be drawn from but have no density."""

from __future__ import annotations

from typing import get_args

import attrs
from torch import Tensor, nn

from jointgen.plugin import Capabilities, NoiseSource, Space, valid_size_or_none
from jointgen_families.means import MeanModule, MeanName, check_mean


class ImplicitDistribution:
    """B draws that are already made, because the noise is an input of the trunk; it is its own draw.

    Args:
        mean: The draws, (B, *shape).
    """

    def __init__(self, mean: Tensor):
        self.mean = mean

    def draw(self, noise: NoiseSource) -> ImplicitDistribution:
        """Return itself."""
        return self

    def read(self, reading: str) -> Tensor:
        """Return the draws, (B, *shape). The "mean" is the sample, not an expectation over the trunk's noise."""
        assert reading in ("sample", "mean"), f"an implicit draw has no reading {reading!r}"
        return self.mean


@attrs.frozen
class Implicit:
    """An implicit distribution: the trunk's output is the draw, and there is no density.

    Args:
        noise: The size of eps ~ N(0, I), one more input of the trunk (AVB's encoder). 0 makes a deterministic function
            of the other inputs (ALI's decoder, BiGAN's encoder and decoder).
        mean: Linear, or sigmoid for a variable of known range.
    """

    noise: int = attrs.field(default=32, validator=valid_size_or_none)
    mean: MeanName = attrs.field(default="linear", validator=attrs.validators.in_(get_args(MeanName)))

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        check_mean(self.mean, space)
        return Capabilities(
            {"sample": "exact", "mean": "exact"}, own_density="none", foreign_density="none", noise_input=self.noise
        )

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Return the shape of the parameters that the trunk must output, without the batch axis."""
        return space.shape

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        return ImplicitModule(space, self.mean)


class ImplicitModule(MeanModule):
    """The family's module: (B, *shape) -> ImplicitDistribution."""

    def forward(self, params: Tensor) -> ImplicitDistribution:
        """Return the distribution of each row."""
        return ImplicitDistribution(self.mean_of(params))
