"""Distances between draws of q(z) and of p(z) against closed forms and sums by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jointgen_metrics.distances import (
    MMD,
    SlicedWasserstein,
    directions,
    kernel,
    mean_squared_distance,
    sliced_wasserstein,
    squared_mmd,
)
from torch import Tensor

DOUBLE = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


# --- sliced Wasserstein ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "count"), [(3, 12), (16, 40), (40, 16), (1, 1)])
def test_directions_are_orthonormal_bases_and_always_the_same(size: int, count: int) -> None:
    found = directions(size, count)
    assert found.shape == (size, count)
    width = min(size, count)
    gram = found[:, :width].T @ found[:, :width]
    assert torch.allclose(gram, torch.eye(width), atol=1e-5)
    assert torch.equal(found, directions(size, count))


def test_directions_of_several_bases_are_different() -> None:
    found = directions(4, 8)
    assert (found[:, :4].T @ found[:, 4:]).abs().max() < 0.999


@pytest.mark.parametrize("size", [1, 4, 16])
def test_sets_that_are_one_shifted_are_the_shift_apart(size: int) -> None:
    """Along theta all move by m . theta, and its square has the mean |m|^2 / D over any orthonormal basis."""
    draws, shift = normal(500, size), torch.arange(1.0, size + 1, dtype=DOUBLE)
    wanted = math.sqrt(shift.square().sum().item() / size)
    assert sliced_wasserstein(draws + shift, draws, directions(size, 4 * size)) == pytest.approx(wanted, rel=1e-5)


def test_two_normal_distributions() -> None:
    """Along theta N(0, 1) and N(m . theta, s^2), whose squared distance is (m . theta)^2 + (s - 1)^2: its mean over
    bases is |m|^2 / D + (s - 1)^2 = 4/4 + 0.25, and draws add about 1/n."""
    shift = torch.tensor([2.0, 0.0, 0.0, 0.0], dtype=DOUBLE)
    found = sliced_wasserstein(1.5 * normal(20_000, 4, seed=1) + shift, normal(20_000, 4, seed=2), directions(4, 64))
    assert found == pytest.approx(math.sqrt(1.25), abs=0.02)


def test_equal_sets_in_any_order_are_nothing_apart() -> None:
    draws = normal(300, 5)
    shuffled = draws[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    assert sliced_wasserstein(draws, shuffled, directions(5, 10)) < 1e-6


def test_two_sets_of_one_distribution_come_closer_as_they_grow() -> None:
    small, large = (
        sliced_wasserstein(normal(n, 8, seed=1), normal(n, 8, seed=2), directions(8, 64)) for n in (200, 20_000)
    )
    assert 0 < 5 * large < small


# --- maximum mean discrepancy ----------------------------------------------------------------------------------------


def test_two_points_of_each_by_hand() -> None:
    """a = {0, 1}, b = {0, 3}, c = 1: k(0,1) + k(0,3) - k(0,3) - k(0,1) with h_12 = k(a1,a2) + k(b1,b2) - k(a1,b2) -
    k(b1,a2) = 1/2 + 1/10 - 1/10 - 1/2 = 0; and with b = {2, 3}: 1/2 + 1/2 - 1/10 - 1/2 = 0.4."""
    a = torch.tensor([[0.0], [1.0]], dtype=DOUBLE)
    assert squared_mmd(a, torch.tensor([[0.0], [3.0]], dtype=DOUBLE), [1.0]) == (pytest.approx(0.0), None)
    assert squared_mmd(a, torch.tensor([[2.0], [3.0]], dtype=DOUBLE), [1.0]) == (pytest.approx(0.4), None)


def test_three_points_of_each_and_the_jackknife_by_hand() -> None:
    """a = {0, 0, 0}, b = {1, 1, 3}, c = 1. h_ij = 1 + k(b_i, b_j) - k(0, b_j) - k(b_i, 0):
    h_12 = 1 + 1 - 1/2 - 1/2 = 1,  h_13 = h_23 = 1 + 1/5 - 1/10 - 1/2 = 0.6, mean 2.2/3.
    Without one row the pair that is left: 0.6, 0.6, 1; the error is sqrt(2/3 x (2 x (0.4/3)^2 + (0.8/3)^2))."""
    a = torch.zeros(3, 1, dtype=DOUBLE)
    b = torch.tensor([[1.0], [1.0], [3.0]], dtype=DOUBLE)
    value, error = squared_mmd(a, b, [1.0])
    assert value == pytest.approx(2.2 / 3)
    assert error == pytest.approx(math.sqrt(2 / 3 * (2 * (0.4 / 3) ** 2 + (0.8 / 3) ** 2)))


def test_the_kernel_is_the_mean_over_its_widths() -> None:
    """|a - b|^2 = 25: c = 25 gives 1/2, c = 75 gives 3/4."""
    a, b = torch.zeros(1, 2, dtype=DOUBLE), torch.tensor([[3.0, 4.0]], dtype=DOUBLE)
    assert kernel(a, b, [25.0, 75.0]).item() == pytest.approx(0.625)


def test_more_rows_than_a_chunk_are_as_in_one_sum() -> None:
    """The unbiased formula of Gretton et al. (2012), with the paired terms of the cross sum left out (eq. 4)."""
    m = 600
    a, b = normal(m, 3, seed=1), normal(m, 3, seed=2) + 0.1
    off = ~torch.eye(m, dtype=torch.bool)
    whole = (kernel(a, a, [2.0])[off] + kernel(b, b, [2.0])[off] - 2 * kernel(a, b, [2.0])[off]).mean()
    value, _ = squared_mmd(a, b, [2.0])
    assert value == pytest.approx(whole.item(), abs=1e-12)


def test_it_is_unbiased_and_its_error_is_its_spread() -> None:
    """400 pairs of sets of 20 draws of one distribution: the mean is 0 within its error, some are negative; of shifted
    ones, the jackknife's error is their spread within a quarter."""
    found = torch.tensor(
        [squared_mmd(normal(20, 2, seed=2 * i), normal(20, 2, seed=2 * i + 1), [4.0]) for i in range(400)]
    )
    assert found[:, 0].mean().abs() < 4 * found[:, 0].std() / 20
    assert (found[:, 0] < 0).any()
    apart = [squared_mmd(normal(40, 2, seed=2 * i), normal(40, 2, seed=2 * i + 1) + 1, [4.0]) for i in range(400)]
    values, errors = torch.tensor(apart).T
    assert errors.mean() == pytest.approx(values.std().item(), rel=0.25)


def test_the_kernels_width_is_in_distances_of_prior_draws() -> None:
    """Of the points 0, 1 and 3: (1 + 9 + 4) / 3."""
    assert mean_squared_distance(torch.tensor([[0.0], [1.0], [3.0]])) == pytest.approx(14 / 3)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "settings", "said"),
    [
        (MMD, {"scales": []}, "'scales' must be a list of numbers > 0"),
        (MMD, {"scales": [1.0, 0.0]}, "'scales' must be a list of numbers > 0"),
        (MMD, {"rows": 1}, "'rows' must be >= 2"),
        (SlicedWasserstein, {"directions": 0}, "'directions' must be >= 1"),
    ],
)
def test_settings_without_a_meaning_are_refused(metric: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        metric(**settings)
