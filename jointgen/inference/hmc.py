"""Hamiltonian Monte Carlo for many chains side by side, along a path between two densities.

References: Neal, MCMC using Hamiltonian dynamics, Handbook of Markov Chain Monte Carlo, 2011, sections 2.3 and 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from jointgen.contracts.noise import NoiseSource

JITTER = 0.2
"""Step sizes vary by this share either way, so that no trajectory keeps coming back to where it began."""
HMC_TARGET = 0.65
"""The acceptance rate at which HMC moves furthest for its cost (Neal 2011, section 4.4)."""
GAIN = 0.2
"""The change of the log step size for each unit that the acceptance rate is off."""


@attrs.frozen(eq=False)
class HMCState:
    """The positions of N chains, with the log densities of both ends of the path at these positions.

    Args:
        z: (N, Z) positions.
        start, end: (N,) nats.
        start_slope, end_slope: (N, Z) gradients of these.
    """

    z: Tensor
    start: Tensor
    end: Tensor
    start_slope: Tensor
    end_slope: Tensor

    def log_density(self, beta: float) -> Tensor:
        """The log of the density start^(1 - beta) end^beta on the path, (N,)."""
        return (1 - beta) * self.start + beta * self.end

    def slope(self, beta: float) -> Tensor:
        """The gradient of `log_density`, (N, Z)."""
        return (1 - beta) * self.start_slope + beta * self.end_slope

    def moved(self, accepted: Tensor, proposal: HMCState) -> HMCState:
        """The chains at the proposal where it is accepted, (N,) bool, and where they were otherwise."""
        old, new = (attrs.astuple(state, recurse=False) for state in (self, proposal))
        chosen = (torch.where(accepted.view(-1, *[1] * (a.ndim - 1)), b, a) for a, b in zip(old, new, strict=True))
        return HMCState(*chosen)


@attrs.frozen
class HMCPath:
    """The geometric path from one log density to another, (N, Z) -> (N,) nats each, up to constants."""

    start: Callable[[Tensor], Tensor]
    end: Callable[[Tensor], Tensor]

    def at(self, z: Tensor) -> HMCState:
        """Evaluate both densities and their gradients at z (N, Z)."""
        start, start_slope = with_slope(self.start, z)
        end, end_slope = with_slope(self.end, z)
        return HMCState(z, start, end, start_slope, end_slope)


def leapfrog(
    path: HMCPath, state: HMCState, momentum: Tensor, beta: float, step: Tensor, count: int
) -> tuple[HMCState, Tensor]:
    """Run `count` leapfrog steps of sizes `step` (N, 1) under the density at beta.

    Returns:
        (state, momentum (N, Z)) at the end.
    """
    for _ in range(count):
        half = momentum + 0.5 * step * state.slope(beta)
        state = path.at(state.z + step * half)
        momentum = half + 0.5 * step * state.slope(beta)
    return state, momentum


def hmc_move(
    path: HMCPath, state: HMCState, beta: float, step: Tensor, count: int, noise: NoiseSource
) -> tuple[HMCState, Tensor]:
    """Make one HMC move, which leaves the density at beta unchanged.

    Args:
        path: The path between two densities.
        state: Where the chains are.
        beta: The place of the density on the path, 0 to 1.
        step: (N,) step sizes, which may depend on anything but where these chains are and have been.
        count: The number of leapfrog steps.
        noise: N rows of noise.

    Returns:
        (state, probability of acceptance (N,)).
    """
    momentum = noise.normal(state.z.shape[1])
    sizes = step * (1 + JITTER * (2 * noise.uniform() - 1))
    proposal, after = leapfrog(path, state, momentum, beta, sizes[:, None], count)
    kinetic = 0.5 * (momentum.square().sum(1) - after.square().sum(1))
    gain = proposal.log_density(beta) - state.log_density(beta) + kinetic
    rate = gain.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf).clamp(max=0).exp()  # 0 for a diverged one
    return state.moved(noise.uniform() < rate, proposal), rate


def next_step_sizes(step: Tensor, rate: Tensor) -> Tensor:
    """Adapts step sizes (B,) for the next density of the path to the mean acceptance rate (B,) at this one."""
    return step * torch.exp(GAIN * (rate - HMC_TARGET))


def with_slope(f: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate f, (B, Z) to (B,), whose rows do not depend on each other: its values and its slope (B, Z)."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = f(z)
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope
