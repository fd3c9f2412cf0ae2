"""Mixtures of Gaussians in the plane: toys whose log q(x) is known, so that every estimate has an answer."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from jointgen.plugin import LOADING, Noise, Space
from jointgen_data.common import TensorRows, is_train, label_space

positive = attrs.validators.gt(0)
positive_real = attrs.validators.gt(0.0)


@attrs.frozen
class Ring:
    """x (2,): `modes` equal Gaussians of standard deviation `sd`, evenly on a circle of `radius`.

    The first is at (radius, 0). `rows` rows in each split, drawn from `seed`. With ``labels = true``, y is the
    mode that a row was drawn from.
    """

    modes: int = attrs.field(default=8, validator=positive)
    radius: float = attrs.field(default=2.0, validator=positive_real)
    sd: float = attrs.field(default=0.1, validator=positive_real)
    rows: int = attrs.field(default=4096, validator=positive)
    seed: int = 0
    labels: bool = attrs.field(default=False, metadata=LOADING)

    def centres(self) -> Tensor:
        """(M, 2)"""
        angle = torch.arange(self.modes, dtype=torch.float64) * (2 * math.pi / self.modes)
        return self.radius * torch.stack([angle.cos(), angle.sin()], 1)

    def spaces(self) -> dict[str, Space]:
        return _spaces(self.modes if self.labels else 0)

    def open(self, split: str) -> TensorRows:
        classes = torch.arange(self.modes) if self.labels else None
        return _draw(self.centres(), self.sd, classes, self.rows, self.seed, split)

    def log_density(self, x: Tensor) -> Tensor:
        """log q(x): (B, 2) -> (B,) nats."""
        return _log_mixture(x, self.centres(), self.sd)


@attrs.frozen
class Grid:
    """x (2,): side * side equal Gaussians of standard deviation `sd`, `spacing` apart, centred on the origin.

    `rows` rows in each split, drawn from `seed`. With ``labels = true``, y is the mode that a row was drawn from.
    """

    side: int = attrs.field(default=5, validator=positive)
    spacing: float = attrs.field(default=2.0, validator=positive_real)
    sd: float = attrs.field(default=0.05, validator=positive_real)
    rows: int = attrs.field(default=4096, validator=positive)
    seed: int = 0
    labels: bool = attrs.field(default=False, metadata=LOADING)

    def centres(self) -> Tensor:
        """(M, 2)"""
        line = (torch.arange(self.side, dtype=torch.float64) - (self.side - 1) / 2) * self.spacing
        return torch.cartesian_prod(line, line)

    def spaces(self) -> dict[str, Space]:
        return _spaces(self.side**2 if self.labels else 0)

    def open(self, split: str) -> TensorRows:
        classes = torch.arange(self.side**2) if self.labels else None
        return _draw(self.centres(), self.sd, classes, self.rows, self.seed, split)

    def log_density(self, x: Tensor) -> Tensor:
        """log q(x): (B, 2) -> (B,) nats."""
        return _log_mixture(x, self.centres(), self.sd)


@attrs.frozen
class Moons:
    """x (2,): two interleaved half circles of radius 1, each of `points` equal Gaussians of standard deviation `sd`.

    A Gaussian smeared along an arc has no closed form, evenly spaced centres have: with the defaults they are
    one sd apart, too near to be told from the arc. With ``labels = true``, y is the moon, 0 above and 1 below.
    """

    points: int = attrs.field(default=32, validator=attrs.validators.ge(2))
    sd: float = attrs.field(default=0.1, validator=positive_real)
    rows: int = attrs.field(default=4096, validator=positive)
    seed: int = 0
    labels: bool = attrs.field(default=False, metadata=LOADING)

    def centres(self) -> Tensor:
        """(M, 2): the upper moon's points, then the lower moon's."""
        angle = torch.linspace(0.0, math.pi, self.points, dtype=torch.float64)
        upper = torch.stack([angle.cos(), angle.sin()], 1)
        lower = torch.stack([1.0 - angle.cos(), 0.5 - angle.sin()], 1)
        return torch.cat([upper, lower])

    def spaces(self) -> dict[str, Space]:
        return _spaces(2 if self.labels else 0)

    def open(self, split: str) -> TensorRows:
        classes = torch.arange(2).repeat_interleave(self.points) if self.labels else None
        return _draw(self.centres(), self.sd, classes, self.rows, self.seed, split)

    def log_density(self, x: Tensor) -> Tensor:
        """log q(x): (B, 2) -> (B,) nats."""
        return _log_mixture(x, self.centres(), self.sd)


def _spaces(classes: int) -> dict[str, Space]:
    spaces = {"x": Space((2,))}
    return spaces | {"y": label_space(classes)} if classes else spaces


def _draw(centres: Tensor, sd: float, classes: Tensor | None, rows: int, seed: int, split: str) -> TensorRows:
    """`rows` draws of the mixture; `classes` (M,) int64 gives the label of each centre."""
    noise = Noise(seed, "train" if is_train(split) else "test").named("mixture", rows)
    mode = (noise.uniform() * len(centres)).long()  # (N,)
    values = {"x": centres[mode].float() + sd * noise.normal(2)}
    return TensorRows(values if classes is None else values | {"y": classes[mode]})


def _log_mixture(x: Tensor, centres: Tensor, sd: float) -> Tensor:
    """log (1/M) sum_m N(x; c_m, sd^2 I): (B, 2) -> (B,) nats."""
    apart = (x[:, None] - centres.to(x)) / sd  # (B, M, 2)
    log_normal = -0.5 * apart.square().sum(-1) - math.log(2 * math.pi * sd**2)
    return torch.logsumexp(log_normal, 1) - math.log(len(centres))
