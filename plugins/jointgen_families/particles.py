"""Free particles as a root, and a target of some modes to move them to."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import (
    LOG_2PI,
    Capabilities,
    ConfigError,
    NoiseSource,
    ReadyDraw,
    Space,
    between,
    positive,
    sum_event,
    valid_shape,
    valid_size,
)
from jointgen_families.priors import PriorModule, shape_of

# --- particles -------------------------------------------------------------------------------------------------------


@attrs.frozen
class Particles:
    """The empirical distribution of particles that are learned, without a density.

    They are drawn in turn, so K = `rows` draws of a row are all of them; while it trains, K must be a multiple of
    `rows`. With the reduction "stein" they are SVGD (Liu & Wang 2016): E[c(z); k=100 stein(z)](log t(z)).

    Args:
        size: The size of a particle, a number or a shape.
        rows: The number of particles.
        init_scale: The standard deviation of the normal distribution that they start from.
    """

    size: int | list[int] = attrs.field(default=2, validator=valid_shape)
    rows: int = attrs.field(default=100, validator=valid_size)
    init_scale: float = attrs.field(default=1.0, validator=positive)

    @property
    def space(self) -> Space:
        """The Space of a particle."""
        return Space(shape_of(self.size))

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the prior can do."""
        paths: dict[str, str] = {"sample": "exact"}
        return Capabilities(paths, own_density="none", foreign_density="none", trainable=True)  # type: ignore[arg-type]

    def build(self) -> nn.Module:
        """Build the module that maps a number of rows to a distribution."""
        return ParticlesModule(self)


class ParticlesModule(nn.Module):
    """The prior's module: a number of rows -> ParticleRows; it holds the particles."""

    def __init__(self, config: Particles):
        super().__init__()
        self.particles = nn.Parameter(config.init_scale * torch.randn(config.rows, *config.space.shape))

    def forward(self, rows: int) -> ParticleRows:
        """Return the distribution of each row."""
        count = len(self.particles)
        if self.training and rows % count:
            raise ConfigError(f"{rows} draws are no multiple of the rows = {count} particles, which are drawn in turn")
        return ParticleRows(self.particles, rows)


class ParticleRows:
    """So many rows of particles, which begin again after the last.

    Args:
        particles: (N, *shape).
        rows: The number of rows.
    """

    def __init__(self, particles: Tensor, rows: int):
        self.particles, self.rows = particles, rows

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """Return particle i mod N in row i."""
        turn = torch.arange(self.rows, device=self.particles.device) % len(self.particles)
        return ReadyDraw(sample=self.particles[turn])


# --- a target --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Modes:
    """Equal Gaussians of one scale on a circle in the plane, as a distribution to sample from.

    Its mean is 0 and its covariance (radius^2 / 2 + scale^2) I for two modes or more on different axes.

    Args:
        modes: The number of Gaussians; one lies at (radius, 0).
        radius: The radius of the circle.
        scale: Their standard deviation.
    """

    modes: int = attrs.field(default=8, validator=between(1, 1000))
    radius: float = attrs.field(default=3.0, validator=positive)
    scale: float = attrs.field(default=0.7, validator=positive)

    @property
    def space(self) -> Space:
        """The Space of a point."""
        return Space((2,))

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the distribution can do."""
        return Capabilities({"sample": "exact"})

    def build(self) -> nn.Module:
        """Build the module that maps a number of rows to a distribution."""
        return ModesModule(self)


class ModesModule(PriorModule):
    """The module: a number of rows -> ModesDistribution."""

    def __init__(self, config: Modes):
        super().__init__(config.space)
        self.config = config

    def forward(self, rows: int) -> ModesDistribution:
        """Return the distribution of each row."""
        angle = 2 * math.pi * torch.arange(self.config.modes, device=self.zeros.device) / self.config.modes
        centres = self.config.radius * torch.stack([angle.cos(), angle.sin()], 1).to(self.zeros.dtype)
        return ModesDistribution(centres, self.config.scale, rows)


class ModesDistribution:
    """So many rows of a mixture of equal Gaussians.

    Args:
        centres: Their means, (M, D).
        scale: Their standard deviation.
        rows: The number of rows.
    """

    def __init__(self, centres: Tensor, scale: float, rows: int):
        self.centres, self.scale, self.rows = centres, scale, rows

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """Draw a mode and a point around it, (B, D)."""
        mode = (noise.uniform(1)[:, 0] * len(self.centres)).long().clamp(max=len(self.centres) - 1)
        return ReadyDraw(sample=self.centres[mode] + self.scale * noise.normal(self.centres.shape[1]))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density, (B, D) -> (B,) nats."""
        standard = (value[:, None] - self.centres).flatten(0, 1) / self.scale
        each = -sum_event(0.5 * standard.square() + (math.log(self.scale) + 0.5 * LOG_2PI))
        return each.unflatten(0, (-1, len(self.centres))).logsumexp(1) - math.log(len(self.centres))
