"""Mixtures of Gaussians in the plane, whose log q(x) is known, so that estimates can be checked."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from jointgen.plugin import LOADING, Noise, Space, between, positive, valid_count, valid_seed
from jointgen_data.common import TensorRows, is_train, label_space


class PlanarMixture:
    """The base of data sources of equal Gaussians in the plane, which differ in their centres and classes.

    Subclasses have the keys `sd`, the standard deviation of each Gaussian, `rows`, `seed` and `labels`.
    """

    sd: float
    rows: int
    seed: int
    labels: bool

    def centres(self) -> Tensor:
        """Return the centres of the Gaussians, (M, 2)."""
        raise NotImplementedError

    def classes(self) -> Tensor:
        """Return the class of each Gaussian, (M,) int64; by default each has its own."""
        return torch.arange(len(self.centres()))

    def spaces(self) -> dict[str, Space]:
        """Return the Space of each variable."""
        spaces = {"x": Space((2,))}
        return spaces | {"y": label_space(int(self.classes().max()) + 1)} if self.labels else spaces

    def count_rows(self, split: str) -> int:
        """Return the number of rows of the split."""
        is_train(split)
        return self.rows

    def open(self, split: str) -> TensorRows:
        """Draw the rows of the split "train" or "test", always the same ones."""
        noise = Noise(self.seed, "train" if is_train(split) else "test").named("mixture", self.rows)
        centres = self.centres()
        mode = (noise.uniform() * len(centres)).long()  # (N,)
        values = {"x": centres[mode].float() + self.sd * noise.normal(2)}
        return TensorRows(values | {"y": self.classes()[mode]} if self.labels else values)

    def log_density(self, x: Tensor) -> Tensor:
        """Return log q(x) = log (1/M) sum_m N(x; c_m, sd^2 I), (B, 2) -> (B,) nats."""
        centres = self.centres()
        apart = (x[:, None] - centres.to(x)) / self.sd  # (B, M, 2)
        log_normal = -0.5 * apart.square().sum(-1) - math.log(2 * math.pi * self.sd**2)
        return torch.logsumexp(log_normal, 1) - math.log(len(centres))


@attrs.frozen
class Ring(PlanarMixture):
    """Points x (2,) of equal Gaussians that lie evenly on a circle, the first one at (radius, 0).

    Args:
        modes: The number of Gaussians.
        radius: The radius of the circle.
        sd: The standard deviation of each Gaussian.
        rows: The number of rows of each split.
        seed: The seed from which the rows are drawn.
        labels: Whether the mode that a row was drawn from is a further variable, y.
    """

    modes: int = attrs.field(default=8, validator=between(1, 10_000))
    radius: float = attrs.field(default=2.0, validator=positive)
    sd: float = attrs.field(default=0.1, validator=positive)
    rows: int = attrs.field(default=4096, validator=valid_count)
    seed: int = attrs.field(default=0, validator=valid_seed)
    labels: bool = attrs.field(default=False, metadata=LOADING)

    def centres(self) -> Tensor:
        """Return the centres of the Gaussians, (M, 2)."""
        angle = torch.arange(self.modes, dtype=torch.float64) * (2 * math.pi / self.modes)
        return self.radius * torch.stack([angle.cos(), angle.sin()], 1)


@attrs.frozen
class Grid(PlanarMixture):
    """Points x (2,) of equal Gaussians on a square grid that is centred on the origin.

    Args:
        side: The number of Gaussians along a side.
        spacing: The distance between neighbours.
        sd: The standard deviation of each Gaussian.
        rows: The number of rows of each split.
        seed: The seed from which the rows are drawn.
        labels: Whether the mode that a row was drawn from is a further variable, y.
    """

    side: int = attrs.field(default=5, validator=between(1, 100))
    spacing: float = attrs.field(default=2.0, validator=positive)
    sd: float = attrs.field(default=0.05, validator=positive)
    rows: int = attrs.field(default=4096, validator=valid_count)
    seed: int = attrs.field(default=0, validator=valid_seed)
    labels: bool = attrs.field(default=False, metadata=LOADING)

    def centres(self) -> Tensor:
        """Return the centres of the Gaussians, (M, 2)."""
        line = (torch.arange(self.side, dtype=torch.float64) - (self.side - 1) / 2) * self.spacing
        return torch.cartesian_prod(line, line)


@attrs.frozen
class Moons(PlanarMixture):
    """Points x (2,) of two interleaved half circles of radius 1, each made of equal Gaussians.

    A Gaussian blurred along an arc has no closed form, but evenly spaced centres have. With the defaults they are one
    sd apart, too near to be distinguished from the arc.

    Args:
        points: The number of Gaussians of each half circle.
        sd: The standard deviation of each Gaussian.
        rows: The number of rows of each split.
        seed: The seed from which the rows are drawn.
        labels: Whether the half circle, 0 above and 1 below, is a further variable, y.
    """

    points: int = attrs.field(default=32, validator=between(2, 10_000))
    sd: float = attrs.field(default=0.1, validator=positive)
    rows: int = attrs.field(default=4096, validator=valid_count)
    seed: int = attrs.field(default=0, validator=valid_seed)
    labels: bool = attrs.field(default=False, metadata=LOADING)

    def centres(self) -> Tensor:
        """Return the centres of the Gaussians, (M, 2), first those of the upper half circle."""
        angle = torch.linspace(0.0, math.pi, self.points, dtype=torch.float64)
        upper = torch.stack([angle.cos(), angle.sin()], 1)
        lower = torch.stack([1.0 - angle.cos(), 0.5 - angle.sin()], 1)
        return torch.cat([upper, lower])

    def classes(self) -> Tensor:
        """Return the half circle of each Gaussian, (M,) int64: 0 for the upper one and 1 for the lower one."""
        return torch.arange(2).repeat_interleave(self.points)
