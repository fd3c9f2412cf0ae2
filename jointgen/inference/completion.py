"""Missing values of rows, drawn given those that are there: the code by Hamiltonian Monte Carlo, then the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from jointgen.contracts.noise import Noise
from jointgen.data.split import Split
from jointgen.errors import ConfigError
from jointgen.inference.hmc import HMCPath, hmc_move, next_step_sizes
from jointgen.inference.row_batches import Progress, given_values, in_batches, reconstructed_variable

if TYPE_CHECKING:
    from jointgen.inference.model import Model
    from jointgen.inference.view import PartsView

LEAPFROG = 10
"""Leapfrog steps of a move."""
FIRST_STEP = 0.1
"""The step size at the prior, from which sizes adapt."""
SLOWNESS = 3
"""The path from the prior spends its moves where the likelihood is still faint: beta = (share of the moves)^3."""
CHAINS = 2048
"""At most so many chains move at once."""


@attrs.frozen
class Completed:
    """Rows whose missing values were drawn.

    Args:
        truth: (N, *X) the rows as they were given, on the CPU; what is missing in them has not been looked at.
        filled: (N, draws, *X) the rows, with the decoder's mean where values are missing.
        codes: (N, draws, Z) the codes that were drawn, side by side.
        acceptance: The mean acceptance rate of the moves at p(z|x_observed).
    """

    truth: Tensor
    filled: Tensor
    codes: Tensor
    acceptance: float


def completed_variable(model: Model) -> str:
    """The variable whose missing values can be drawn. Raises ConfigError where the model has no densities for that."""
    variable = reconstructed_variable(model)
    joint, view = model.binding.joint("p", "completing"), model.view
    decoder = joint.drawn_by(variable)
    if not (not view.is_data(decoder) and view.capabilities(decoder).each_density):
        raise ConfigError(
            f"p({decoder}) has no density of each dimension, so nothing says how likely the observed part of "
            f"{variable} is; models whose decoder has one can complete"
        )
    for factor in joint.factors:
        if factor is decoder or view.is_data(factor):
            continue
        if view.capabilities(factor).foreign_density == "none":
            raise ConfigError(f"p({factor}) has no density, so its code cannot be moved")
        if any(model.spaces[name].kind != "real" for name in factor.out):
            raise ConfigError(f"{', '.join(factor.out)} is not real: it cannot be moved; fix it by --given")
    return variable


def complete(
    model: Model,
    split: Split,
    missing: Tensor,
    given: Sequence[str] = (),
    *,
    draws: int = 4,
    moves: int = 100,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Completed:
    """Draw the missing values of every row of a split, given those that are there.

    Codes start at the prior, are annealed to p(z|x_observed) during the first half of the moves, and stay there for
    the second.

    Args:
        model: The model, of which `completed_variable` holds.
        split: The rows; their missing values are not looked at.
        missing: (*X) bool, which values are missing, of every row.
        given: Values of what else p is given; see `given_values`.
        draws: How often each row is completed.
        moves: The moves of Hamiltonian Monte Carlo.
        seed: The seed of all noise.
        progress: Called after each batch.
    """
    variable = completed_variable(model)
    truths, filled, codes, rates = [], [], [], []
    size = max(1, CHAINS // draws)
    for batch in in_batches(model, split, seed, progress, size):
        means, samples = model.view.observe(batch)
        known = {**samples, **given_values(given, model, batch.rows)}
        chains = _Chains(model.view, variable, missing, known, batch.rows, draws)
        noise = batch.noise.renamed("complete").repeated(batch.rows, range(draws))
        z, rate = chains.run(moves, noise)
        with torch.no_grad():
            drawn = model.view.draw("p", {**chains.known, **chains.split(z)}, len(z), noise.renamed("decode"), "mean")
        truth = means[variable].repeat_interleave(draws, 0)
        whole = torch.where(missing.to(truth.device), drawn[variable].to(truth), truth)
        truths.append(means[variable].cpu())
        filled.append(whole.unflatten(0, (-1, draws)).cpu())
        codes.append(z.unflatten(0, (-1, draws)).cpu())
        rates.append(rate.cpu())
    return Completed(torch.cat(truths), torch.cat(filled), torch.cat(codes), float(torch.cat(rates).mean()))


class _Chains:
    """Chains of codes for a batch of rows, `draws` for each.

    Args:
        view: The model.
        variable: The variable that is partly missing.
        missing: (*X) bool.
        known: (B, *shape) of every variable that p is given, and of the variable itself.
        rows: B.
        draws: The chains of a row.
    """

    def __init__(
        self, view: PartsView, variable: str, missing: Tensor, known: dict[str, Tensor], rows: int, draws: int
    ):
        joint = view.joints["p"]
        self.view, self.variable, self.rows = view, variable, rows * draws
        self.spaces = {
            v: view.spaces[v]
            for factor in joint.factors
            if not view.is_data(factor) and variable not in factor.out
            for v in factor.out
            if v not in known
        }
        given = {v: known[v] for v in joint.variables if v in known and v != variable}
        self.known = {v: value.repeat_interleave(draws, 0) for v, value in given.items()}
        self.observed = known[variable].repeat_interleave(draws, 0)
        self.weight = (~missing).to(self.observed)

    def split(self, z: Tensor) -> dict[str, Tensor]:
        """(N, Z) -> (N, *shape) for each code."""
        parts = z.split([space.size for space in self.spaces.values()], 1)
        return {v: part.unflatten(1, space.shape) for (v, space), part in zip(self.spaces.items(), parts, strict=True)}

    def run(self, moves: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return the codes (N, Z) after all moves, and the mean acceptance rate of each chain at the end, (N,)."""
        view = self.view

        def prior(z: Tensor) -> Tensor:
            return view.log_prob("p", tuple(self.spaces), {**self.known, **self.split(z)}, noise)

        def posterior(z: Tensor) -> Tensor:
            values = {**self.known, **self.split(z), self.variable: self.observed}
            each = view.log_prob_each("p", self.variable, values, noise)
            return prior(z) + (each * self.weight).flatten(1).sum(1)

        start = view.draw("p", self.known, self.rows, noise)
        path = HMCPath(prior, posterior)
        place = path.at(torch.cat([start[v].flatten(1) for v in self.spaces], 1))
        step = place.start.new_full((self.rows,), FIRST_STEP)
        source, rates = noise.named("moves", self.rows), []
        for move in range(1, moves + 1):
            beta = min(1.0, 2 * move / moves) ** SLOWNESS
            place, rate = hmc_move(path, place, beta, step, LEAPFROG, source)
            if beta < 1.0:  # sizes that follow the chain would not leave its density as it is
                step = next_step_sizes(step, rate)
            else:
                rates.append(rate)
        return place.z, torch.stack(rates).mean(0)
