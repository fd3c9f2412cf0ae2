"""Checks of families that know the exact probability of a quantisation bin."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from jointgen.testing.check import Promises, expect, expect_close, expect_finite, expect_shape, promise
from jointgen.testing.densities import MANY, ROWS, density, expect_slopes
from jointgen.testing.laws import Law, has_bins, is_line, scores_any
from jointgen.testing.quadrature import integrals
from jointgen.testing.randomness import noise

BINS: Promises = []


def quantised(law: Law) -> tuple[Tensor, float]:
    """Return the edges of all bins and their width."""
    low, width, bins = law.space.low, law.space.bin_width, law.space.bins
    if low is None or width is None or bins is None:
        raise AssertionError(f"bin_mass is declared on {law.space}, which has no bins")
    return low + width * torch.arange(bins + 1, dtype=torch.float64), width


def masses(law: Law, module: nn.Module, row: Tensor) -> Tensor:
    """Return the masses of all bins under the distribution of one row of params, (bins,), for one dimension."""
    edges, width = quantised(law)
    centres = (edges[:-1] + 0.5 * width).reshape(-1, *law.space.shape)
    with torch.no_grad():
        log_mass = law.at(module, row.expand(len(centres), *row.shape)).log_prob_bins(centres)
    expect_shape("log_prob_bins", log_mass, (len(centres),))
    return log_mass.exp()


@promise(BINS, lambda law: has_bins(law) and is_line(law))
def bins_have_the_mass_of_the_density(law: Law) -> None:
    """Their sum is 1, or the density's mass within the range if the mass beyond the edges is lost."""
    module = law.built()
    for row in law.params(ROWS):
        mass = masses(law, module, row)
        total, inside = mass.sum().item(), torch.ones(())
        if scores_any(law):
            inside = integrals(quantised(law)[0], functools.partial(_density_on_line, law, module, row))
            expect_close("mass of an inner bin and the density's integral over it", mass[1:-1], inside[1:-1], 1e-5)
        expect(
            abs(total - 1) < 1e-5 or abs(total - inside.sum().item()) < 1e-5,
            f"the bins' masses sum to {total:.6g}; expected 1, or the density's {inside.sum().item():.6g} in the range",
        )


def _density_on_line(law: Law, module: nn.Module, row: Tensor, line: Tensor) -> Tensor:
    return density(law, module, row, line.reshape(-1, *law.space.shape))


@promise(BINS, lambda law: has_bins(law) and is_line(law))
def draws_fall_into_bins_by_their_mass(law: Law) -> None:
    module = law.built()
    for row in law.params(ROWS):
        edges, width = quantised(law)
        bins = len(edges) - 1
        level = ((law.draws(module, row, MANY, "bins").flatten() - edges[0]) / width).floor().clamp(-1, bins)
        shares = torch.bincount(level.long() + 1, minlength=bins + 2) / MANY
        limit = 5 / math.sqrt(4 * MANY)
        inner = masses(law, module, row)[1:-1]  # those at the edges may take what lies beyond
        expect_close(f"share of {MANY} draws in an inner bin and its mass", shares[2:-2], inner, limit)


@promise(BINS, has_bins)
def a_bin_has_one_mass_wherever_in_it_a_value_lies(law: Law) -> None:
    module, params = law.built(), law.params(4)
    edges, width = quantised(law)
    level = (noise(4).uniform(*law.space.shape) * (len(edges) - 1)).floor()
    left, right = (law.at(module, params).log_prob_bins(edges[0] + (level + u) * width) for u in (0.1, 0.9))
    expect_shape("log_prob_bins", left, (4,))
    expect_finite("log_prob_bins", left)
    expect_close("log_prob_bins at two values of one bin", left, right, 1e-9)


@promise(BINS, has_bins)
def gradients_of_log_prob_bins_are_its_slopes(law: Law) -> None:
    expect_slopes(law, "log_prob_bins")
