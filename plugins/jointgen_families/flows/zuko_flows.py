"""Flows of the library zuko, by their names there: neural, polynomial, Gaussianizing and continuous ones."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import attrs
import zuko
from torch import Tensor, nn
from zuko.lazy import LazyTransform
from zuko.transforms import Transform as ZukoTransform

from jointgen.plugin import (
    Capabilities,
    ConfigError,
    DensityKind,
    Problem,
    Space,
    valid_depth,
    valid_layers,
    valid_size,
)
from jointgen_families.flows.distribution import Flow

FlowName = Literal["MAF", "NSF", "NAF", "UNAF", "SOSPF", "BPF", "CNF"]
Fast = Literal["draws", "density"]

SLOW: dict[str, DensityKind] = {"MAF": "D passes", "NSF": "D passes", "CNF": "numeric"}
"""How flows whose draws are quick find the density of a point; the others search for it between -10 and 10 only."""


def _has_gradients(flow: Zuko, attribute: attrs.Attribute[Fast], fast: Fast) -> None:
    """Refuse the draws of NAF that are found by bisection: their gradients are off by a tenth (measured)."""
    if fast == "density" and flow.flow_ == "NAF":
        raise ConfigError([Problem("NAF has wrong gradients of draws that it must solve for; use 'draws'", "fast")])


def _default_hidden() -> list[int]:
    return [64, 64]


@attrs.frozen
class Zuko(Flow):
    """A flow of the library zuko: its map is quick in one direction, and the other solves it for each point.

    Where draws are quick, MAF, NSF and CNF know the density of any point, the others of their own draws alone. Where
    the density is quick, the draws of the others are found by bisection between -10 and 10, so variables should be of
    the size of 1. zuko's GF is not among them: its density does not integrate to 1.

    Args:
        base: The Gaussian that the flow starts from.
        flow_: Its name in zuko. MAF: affine autoregressive (Papamakarios et al. 2017); NSF: splines (Durkan et al.
            2019); NAF: monotonic networks (Huang et al. 2018); UNAF: the same by integrals (Wehenkel & Louppe 2019);
            SOSPF: sums of squares (Jaini et al. 2019); BPF: Bernstein polynomials (Sick et al. 2020); CNF: an ordinary
            differential equation (Chen et al. 2018; Grathwohl et al. 2018).
        fast: Which direction is quick: draws and their density, as posteriors need; or the density of any point, as a
            likelihood of data needs.
        length: The number of transforms; CNF has one.
        context: How many numbers the trunk outputs for all steps beside the base's parameters.
        hidden: The widths of the hidden layers of the networks.
    """

    name: ClassVar[str] = "zuko"

    flow_: FlowName = attrs.field(default="NSF", validator=attrs.validators.in_(get_args(FlowName)))
    fast: Fast = attrs.field(default="draws", validator=[attrs.validators.in_(get_args(Fast)), _has_gradients])
    length: int = attrs.field(default=3, validator=valid_depth)
    context: int = attrs.field(default=64, validator=valid_size)
    hidden: list[int] = attrs.field(factory=_default_hidden, validator=valid_layers)

    def context_size(self, size: int) -> int:
        """Return how many numbers the trunk outputs for the flow."""
        return self.context

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self.check(space)
        quick: DensityKind = "numeric" if self.flow_ == "CNF" else "analytic"
        slow: DensityKind = SLOW.get(self.flow_, "none")
        in_turn = self.fast == "density" and self.flow_ != "CNF"
        return Capabilities(
            {"sample": "exact", "mean": "exact"},
            own_density=quick,
            foreign_density=slow if self.fast == "draws" else quick,
            draws="D passes" if in_turn else "one pass",
        )

    def flow(self, size: int) -> nn.Module:
        """Build the flow's module, (B, context) -> Transform."""
        return ZukoModule(self, size)


class ZukoModule(nn.Module):
    """The flow's module: (B, context) -> Quick or Solved."""

    def __init__(self, config: Zuko, size: int):
        super().__init__()
        settings: dict[str, Any] = {"hidden_features": config.hidden}
        if config.flow_ != "CNF":
            settings["transforms"] = config.length
        self.map: LazyTransform = getattr(zuko.flows, config.flow_)(size, config.context, **settings).transform
        self.draws_are_quick = config.fast == "draws"

    def forward(self, context: Tensor) -> Quick | Solved:
        """Return the transform of each row."""
        return (Quick if self.draws_are_quick else Solved)(self.map(context))


class Quick:
    """The map of zuko as it is: z = T(z0)."""

    def __init__(self, transform: ZukoTransform):
        self.transform = transform

    def forward(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(z0), (B, D), and log|det df/dz0|, (B,) nats."""
        z, log_det = self.transform.call_and_ladj(z0)
        return z, log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return z0 with f(z0) = z, (B, D), and log|det df/dz0| there, (B,) nats."""
        z0 = self.transform.inv(z)
        return z0, self.transform.call_and_ladj(z0)[1]


class Solved(Quick):
    """Its inverse: z0 = T(z), so that the density of any z takes one call."""

    def forward(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(z0), (B, D), and log|det df/dz0|, (B,) nats."""
        z, log_det = super().inverse(z0)
        return z, -log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return z0 with f(z0) = z, (B, D), and log|det df/dz0| there, (B,) nats."""
        z0, log_det = super().forward(z)
        return z0, -log_det
