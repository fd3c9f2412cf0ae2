"""The prior of fair coins, for codes of bits."""

from __future__ import annotations

import attrs
from torch import nn

from jointgen.plugin import Capabilities, Space, valid_shape
from jointgen_families.bernoulli import BernoulliDistribution
from jointgen_families.priors import PriorModule, shape_of


@attrs.frozen
class Bits:
    """Independent bits that are 0 or 1 with equal probability, for encoders of the family "bernoulli".

    Args:
        size: The size of the code, a number or a shape such as [8, 4, 4].
    """

    size: int | list[int] = attrs.field(default=50, validator=valid_shape)

    @property
    def space(self) -> Space:
        """The Space of the code."""
        return Space(shape_of(self.size), "binary")

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the prior can do."""
        return Capabilities({"sample": "none", "mean": "exact"})

    def build(self) -> nn.Module:
        """Build the module that maps a number of rows to a distribution."""
        return BitsModule(self.space)


class BitsModule(PriorModule):
    """The prior's module: a number of rows -> BernoulliDistribution with logits 0."""

    def forward(self, rows: int) -> BernoulliDistribution:
        """Return the distribution of each row."""
        return BernoulliDistribution(self.rows(rows), 0.5, "none")
