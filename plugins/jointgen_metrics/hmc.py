"""Hamiltonian Monte Carlo for many chains side by side, along a path between two densities.

References: Neal, MCMC using Hamiltonian dynamics, Handbook of Markov Chain Monte Carlo, 2011, sections 2.3 and 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from jointgen.plugin import NoiseSource
from jointgen_metrics.latents import with_slope

JITTER = 0.2  # step sizes vary by this share either way, so that no trajectory keeps coming back to where it began
TARGET = 0.65  # acceptance rate at which HMC moves furthest for its cost (Neal 2011, section 4.4)
GAIN = 0.2  # change of log step size for each unit that the acceptance rate is off


@attrs.frozen(eq=False)
class Place:
    """Where N chains stand, z (N, Z), with the log densities of both ends of the path there (N,), and their slopes."""

    z: Tensor
    start: Tensor
    end: Tensor
    start_slope: Tensor
    end_slope: Tensor

    def log_density(self, beta: float) -> Tensor:
        """(N,) of the density on the path: start^(1 - beta) end^beta."""
        return (1 - beta) * self.start + beta * self.end

    def slope(self, beta: float) -> Tensor:
        """(N, Z)"""
        return (1 - beta) * self.start_slope + beta * self.end_slope

    def moved(self, moves: Tensor, there: Place) -> Place:
        """There where `moves` (N,) says so."""
        old, new = (attrs.astuple(place, recurse=False) for place in (self, there))
        chosen = (torch.where(moves.view(-1, *[1] * (a.ndim - 1)), b, a) for a, b in zip(old, new, strict=True))
        return Place(*chosen)


@attrs.frozen
class Path:
    """The geometric path from one log density to another, (N, Z) -> (N,) nats each, up to constants."""

    start: Callable[[Tensor], Tensor]
    end: Callable[[Tensor], Tensor]

    def at(self, z: Tensor) -> Place:
        start, start_slope = with_slope(self.start, z)
        end, end_slope = with_slope(self.end, z)
        return Place(z, start, end, start_slope, end_slope)


def leapfrog(path: Path, place: Place, momentum: Tensor, beta: float, step: Tensor, count: int) -> tuple[Place, Tensor]:
    """`count` leapfrog steps of sizes `step` (N, 1) under the density at beta: (place, momentum (N, Z)) at the end."""
    for _ in range(count):
        half = momentum + 0.5 * step * place.slope(beta)
        place = path.at(place.z + step * half)
        momentum = half + 0.5 * step * place.slope(beta)
    return place, momentum


def transition(
    path: Path, place: Place, beta: float, step: Tensor, count: int, noise: NoiseSource
) -> tuple[Place, Tensor]:
    """One step of HMC, which leaves the density at beta as it is: (place, probability of acceptance (N,)).

    step: (N,) sizes, which may depend on anything but where these chains are and have been.
    """
    momentum = noise.normal(place.z.shape[1])
    sizes = step * (1 + JITTER * (2 * noise.uniform() - 1))
    there, after = leapfrog(path, place, momentum, beta, sizes[:, None], count)
    kinetic = 0.5 * (momentum.square().sum(1) - after.square().sum(1))
    gain = there.log_density(beta) - place.log_density(beta) + kinetic
    rate = gain.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf).clamp(max=0).exp()  # one that blew up: 0
    return place.moved(noise.uniform() < rate, there), rate


def adapted(step: Tensor, rate: Tensor) -> Tensor:
    """Step sizes (B,) for the next density of the path, from the mean acceptance rate (B,) of chains at this one."""
    return step * torch.exp(GAIN * (rate - TARGET))
