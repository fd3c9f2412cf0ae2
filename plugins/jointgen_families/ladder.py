"""The conditional of a ladder: a Gaussian that is merged with another part's at the same point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import Capabilities, ConfigError, Family, Space
from jointgen_families.gaussian import DiagonalGaussian, Gaussian
from jointgen_families.location_scale import LocationScale, LocationScaleModule


@attrs.frozen(kw_only=True)
class Ladder(LocationScale):
    """A Gaussian that is merged with the Gaussian of another part, by precisions (Soenderby et al. 2016).

    The trunk's Gaussian N(m, v) and the other part's N(m', v') make the one of precision 1/v + 1/v' and mean
    (m/v + m'/v') / (1/v + 1/v') (eqs. 13 to 15). In q(z1|x,z2) through p(z1|z2) the trunk sees x alone, and the
    gradient reaches the parameters of both.

    Args:
        through: The other part, such as "down": it draws the same variable and is given less.
    """

    name: ClassVar[str] = "ladder"

    through: str

    @property
    def merged_parts(self) -> tuple[str, ...]:
        """The one part."""
        return (self.through,)

    def check_merged(self, families: Sequence[Family]) -> None:
        """Refuse a part of another family than "gaussian"."""
        for family in families:
            if not isinstance(family, Gaussian):
                wrong = f"has the family {type(family).__name__.lower()!r}; precisions are merged of gaussian ones"
                raise ConfigError(f"{self.through!r} {wrong}", "through")

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self.check(space)
        return Capabilities({"sample": "exact", "mean": "exact"}, kl_to=("normal", "gaussian"), moments=True)

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output, and the other part's Gaussian, into a distribution."""
        self.check(space)
        return LadderModule(self, space, DiagonalGaussian)


class LadderModule(LocationScaleModule):
    """The family's module: (B, *outputs) and the other part's Gaussian -> DiagonalGaussian."""

    def forward(self, params: Tensor, *merged: DiagonalGaussian) -> DiagonalGaussian:
        """Return the distribution of each row; without another part's the trunk's own."""
        own = super().forward(params)
        mean, log_precision = own.mean, (-2 * own.log_scale).expand_as(own.mean)
        for other in merged:
            log_other = -2 * other.log_scale
            mean = torch.lerp(other.mean, mean, torch.sigmoid(log_precision - log_other))
            log_precision = torch.logaddexp(log_precision, log_other)
        return DiagonalGaussian(mean, -0.5 * log_precision, self.space)
