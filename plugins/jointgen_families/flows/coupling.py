"""Coupling flows (Dinh et al. 2017): one half of the numbers moves the other, so both directions are closed forms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal, cast, get_args

import attrs
import torch
from torch import Tensor, nn
from zuko.nn import MLP
from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

from jointgen.plugin import DensityKind, valid_layers
from jointgen_families.flows.chain import MIN_SLOPE, Chain, NetworkFlow, start_small

TransformName = Literal["affine", "spline"]

SPLINE_BINS, SPLINE_BOUND = 8, 5.0
"""Splines have so many bins in [-bound, bound] and are the identity outside it (Durkan et al. 2019, section 4.2)."""


def _default_hidden() -> list[int]:
    return [128]


@attrs.frozen
class Coupling(NetworkFlow):
    """Real NVP (Dinh et al. 2017), or with splines a neural spline flow (Durkan et al. 2019).

    Args:
        base: The Gaussian that the flow starts from.
        length: The number of steps, which move the odd and the even dimensions in turn.
        context: How many numbers the trunk outputs for all steps beside the base's parameters; 0 for none.
        hidden: The widths of the hidden layers of each step's network.
        transform: Affine, y = exp(a) x + b with a in (-6.9, 6.9); or spline, monotone and rational-quadratic with
            8 bins between -5 and 5, and the identity outside.
    """

    name: ClassVar[str] = "coupling"
    foreign_density: ClassVar[DensityKind] = "analytic"

    hidden: list[int] = attrs.field(factory=_default_hidden, validator=valid_layers)
    transform: TransformName = attrs.field(default="affine", validator=attrs.validators.in_(get_args(TransformName)))

    def flow(self, size: int) -> nn.Module:
        """Build the flow's module, (B, context) -> Transform."""
        return CouplingModule(self, size)


class CouplingModule(nn.Module):
    """The flow's module: (B, context) -> Chain of CouplingSteps."""

    def __init__(self, config: Coupling, size: int):
        super().__init__()
        self.steps = nn.ModuleList(CouplingNet(config, size, moved_first=k % 2 == 1) for k in range(config.length))

    def forward(self, context: Tensor) -> Chain:
        """Return the transform of each row."""
        return Chain([CouplingStep(net, context) for net in cast(Iterable[CouplingNet], self.steps)])


class CouplingNet(nn.Module):
    """The network of one step, which computes the map of the moved dimensions from the kept ones and the context."""

    order: Tensor
    back: Tensor

    def __init__(self, config: Coupling, size: int, moved_first: bool):
        super().__init__()
        self.transform, index = config.transform, torch.arange(size)
        kept, moved = index[int(moved_first) :: 2], index[1 - int(moved_first) :: 2]
        self.kept, self.moved = len(kept), len(moved)
        self.register_buffer("order", torch.cat([kept, moved]), persistent=False)
        self.register_buffer("back", self.order.argsort(), persistent=False)
        per_number = 2 if config.transform == "affine" else 3 * SPLINE_BINS - 1
        self.net = MLP(self.kept + config.context, self.moved * per_number, config.hidden, activation=nn.Tanh)
        start_small(self.net[-1])

    def forward(self, kept: Tensor, context: Tensor) -> MonotonicAffineTransform | MonotonicRQSTransform:
        """Return the map of the moved numbers, given the kept ones, (B, kept), and the context, (B, C)."""
        raw = self.net(torch.cat([kept, context], 1)).unflatten(1, (self.moved, -1))
        if self.transform == "affine":
            return MonotonicAffineTransform(*raw.unbind(2), slope=MIN_SLOPE)
        return MonotonicRQSTransform(
            *raw.split([SPLINE_BINS, SPLINE_BINS, SPLINE_BINS - 1], 2), bound=SPLINE_BOUND, slope=MIN_SLOPE
        )

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Split (B, D) into the kept and the moved numbers, (B, kept) and (B, moved)."""
        kept, moved = z[:, self.order].split([self.kept, self.moved], 1)
        return kept, moved

    def merge(self, kept: Tensor, moved: Tensor) -> Tensor:
        """Invert `split`."""
        return torch.cat([kept, moved], 1)[:, self.back]


class CouplingStep:
    """The transform y_a = x_a, y_b = t(x_b; x_a) (Dinh et al. 2017, eq 4 to 8)."""

    def __init__(self, net: CouplingNet, context: Tensor):
        self.net, self.context = net, context

    def forward(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(z0), (B, D), and log|det df/dz0|, (B,) nats."""
        kept, moved = self.net.split(z0)
        z, log_slope = self.net(kept, self.context).call_and_ladj(moved)
        return self.net.merge(kept, z), log_slope.sum(1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return z0 with f(z0) = z, (B, D), and log|det df/dz0| there, (B,) nats."""
        kept, moved = self.net.split(z)
        transform = self.net(kept, self.context)
        z0 = transform.inv(moved)
        return self.net.merge(kept, z0), transform.log_abs_det_jacobian(z0, moved).sum(1)
