"""The exact mass of a Gaussian on quantisation bins, against distribution functions and numbers derived by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jointgen_families.bins import log_bin_mass
from jointgen_families.gaussian import Gaussian
from torch import Tensor

from jointgen.contracts.noise import Noise
from jointgen.contracts.observation import observe
from jointgen.contracts.space import Space

torch.set_num_threads(1)

IMAGE = Space((3, 4, 4), low=0.0, high=1.0, bins=256)


def fixed(scale: float, space: Space) -> Any:
    return Gaussian(scale="fixed", init_scale=scale, min_log_scale=-20.0).build(space).double()


def levels(mean: float, scale: float, space: Space) -> Tensor:
    """(bins,) log masses of all levels of a one-dimensional quantised variable."""
    assert space.low is not None and space.bin_width is not None and space.bins is not None
    centres = space.low + (torch.arange(space.bins, dtype=torch.float64) + 0.5) * space.bin_width
    return fixed(scale, space)(torch.full((space.bins, 1), mean, dtype=torch.float64)).log_prob_bins(centres[:, None])


@pytest.mark.parametrize("scale", [0.002, 0.02, 0.1])
def test_bin_masses_of_a_central_narrow_gaussian_sum_to_one(scale: float) -> None:
    # all but both tails outside [0, 1], which are not handed to the edges: 2 Q(5) = 5.7e-7 for 0.1, else nothing
    total = levels(0.5, scale, Space((1,), low=0.0, high=1.0, bins=256)).exp().sum().item()
    assert total == pytest.approx(1.0 - math.erfc(0.5 / scale / math.sqrt(2)), abs=1e-7)


def test_the_edge_bins_are_not_extended() -> None:
    # half of a Gaussian whose mean is at the edge lies outside
    total = levels(1.0, 0.05, Space((1,), low=0.0, high=1.0, bins=256)).exp().sum().item()
    assert total == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(("scale", "bits"), [(1.0, 2.10), (0.5, 1.24), (0.25, 0.31)])
def test_bits_of_a_homoscedastic_gaussian(scale: float, bits: float) -> None:
    """docs/concepts/densities.md: sigma in levels against bits per dimension, for a mean at the centre of a bin.

    For 0.25 by hand: P(centre) = 2 Phi(2) - 1 = 0.9545, P(beside) = 0.02275 each, and
    0.9545 log2(1 / 0.9545) + 2 x 0.02275 log2(1 / 0.02275) = 0.064 + 0.248 = 0.312.
    """
    log_mass = levels(31.5, scale, Space((1,), low=0.0, high=64.0, bins=64))
    entropy = -(log_mass.exp() * log_mass).sum() / math.log(2)
    assert entropy.item() == pytest.approx(bits, abs=0.006)


def test_a_uniform_width_bin_is_the_interval_between_its_levels() -> None:
    # 17 levels on [-1, 1): width 2/17; level 8 is [-1/17, 1/17], mass 2 Phi(1/17) - 1 for N(0, 1) = erf(1/17/sqrt 2)
    space = Space((1,), low=-1.0, high=1.0, bins=17)
    module = fixed(1.0, space)
    inside = torch.tensor([[-0.058], [0.0], [0.058]], dtype=torch.float64)  # 1/17 = 0.0588
    log_mass = module(torch.zeros(3, 1, dtype=torch.float64)).log_prob_bins(inside)
    assert log_mass.tolist() == pytest.approx([math.log(math.erf(1 / 17 / math.sqrt(2)))] * 3, abs=1e-7)


def test_bin_mass_against_differences_of_the_distribution_function() -> None:
    """Where Phi(B) - Phi(A) does not cancel, it is a reference; |m| <= 4 leaves it 10 digits."""
    m = torch.linspace(-4, 4, 81, dtype=torch.float64)
    for delta, tolerance in [(1e-3, 1e-9), (0.04, 1e-6), (0.06, 1e-9), (0.5, 1e-12), (3.0, 1e-12), (20.0, 1e-12)]:
        exact = torch.log(torch.special.ndtr(-m.abs() + delta / 2) - torch.special.ndtr(-m.abs() - delta / 2))
        torch.testing.assert_close(log_bin_mass(m, torch.full_like(m, delta)), exact, rtol=0, atol=tolerance)


def test_bin_mass_far_out_by_hand() -> None:
    """Q(39.5) - Q(40.5) with Q(t) = phi(t) / t (1 - 1/t^2 + ...): the second is e^-40 of the first.

    log = -39.5^2/2 - 0.918939 - log 39.5 + log(1 - 1/1560.25) = -780.125 - 0.918939 - 3.676301 - 0.000640.
    """
    log_mass = log_bin_mass(torch.tensor([40.0, -40.0]), torch.ones(2))
    assert log_mass.tolist() == pytest.approx([-784.72088] * 2, abs=2e-4)


def test_bin_mass_is_finite_with_finite_gradients_at_extreme_inputs() -> None:
    m, delta = torch.cartesian_prod(
        torch.tensor([0.0, 1e-6, 0.3, 1.0, 10.0, 1e3, 1e6, 1e9, 1e15]),
        torch.tensor([1e-12, 1e-4, 0.05, 1.0, 10.0, 1e3, 1e6, 1e12]),
    ).T
    m.requires_grad_()
    delta.requires_grad_()
    log_mass = log_bin_mass(m, delta)
    gradients = torch.autograd.grad(log_mass.sum(), (m, delta))
    assert log_mass.isfinite().all() and (log_mass <= 0).all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_bin_mass_in_float32_agrees_with_float64() -> None:
    m, delta = torch.cartesian_prod(torch.logspace(-3, 3, 60), torch.logspace(-4, 3, 70)).T
    single, double = log_bin_mass(m, delta), log_bin_mass(m.double(), delta.double())
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=1e-5)


def test_bin_mass_has_the_gradient_of_its_differences() -> None:
    m = torch.tensor([-3.0, -0.4, 0.1, 2.0, 8.0, 29.0], dtype=torch.float64, requires_grad=True)
    for width in (0.01, 0.2, 1.0, 7.0):
        delta = torch.full_like(m, width).detach().requires_grad_()
        assert torch.autograd.gradcheck(log_bin_mass, (m, delta), eps=1e-6, atol=1e-5)


def test_dequantised_density_and_bin_mass_agree_when_the_scale_is_wide() -> None:
    # sigma = 25.6 levels: by Jensen the gap is about (1/2) Var over the bin, tiny: (1/12) / (2 x 25.6^2) per dimension
    distribution = fixed(0.1, IMAGE)(torch.full((200, 3, 4, 4), 0.5, dtype=torch.float64))
    raw = torch.randint(0, 256, (200, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    x = observe(IMAGE, raw, Noise(0, dtype=torch.float64).named("u", 200)).read("sample")
    exact = distribution.log_prob_bins(x).mean()
    dequantised = distribution.log_prob(x).mean() - IMAGE.log_det_to_data
    assert dequantised.item() == pytest.approx(exact.item(), rel=2e-3)
