"""Penalties on critics whose slopes are known: a linear critic's is its weights, a quadratic one's is its input."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from jointgen_critics.penalties import R1, GradientPenalty
from torch import Tensor

from jointgen.contracts.noise import Noise

DOUBLE = torch.float64
NOISE = Noise(0, dtype=DOUBLE).named("penalty", 2)
X = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=DOUBLE)
Z = torch.tensor([[0.5], [-2.0]], dtype=DOUBLE)


def linear(*values: Tensor) -> Tensor:
    """3 x_1 + 4 x_2 + 12 z, whose slope has the squared norm 9 + 16 + 144 = 169 everywhere."""
    x, z = values
    return x @ torch.tensor([3.0, 4.0], dtype=DOUBLE) + 12.0 * z.squeeze(1)


def quadratic(*values: Tensor) -> Tensor:
    """(|x|^2 + |z|^2) / 2, whose slope at (x, z) is (x, z)."""
    return 0.5 * torch.cat(values, 1).square().sum(1)


@pytest.mark.parametrize(("at", "expected"), [("numerator", 84.5), ("denominator", 84.5), ("both", 169.0)])
def test_r1_of_a_linear_critic_is_half_its_squared_slope_on_each_side(
    at: Literal["numerator", "denominator", "both"], expected: float
) -> None:
    assert R1(at=at)(linear, (X, Z), (2 * X, -Z), NOISE).tolist() == pytest.approx([expected, expected])


def test_r1_takes_the_slope_at_the_side_that_it_names() -> None:
    # at (X, Z): (1 + 4 + 0.25) / 2 and (9 + 1 + 4) / 2; at twice these points four times as much
    near, far = [2.625, 7.0], [10.5, 28.0]
    sides = (X, Z), (2 * X, 2 * Z)
    assert R1(at="numerator")(quadratic, *sides, NOISE).tolist() == pytest.approx(near)
    assert R1()(quadratic, *sides, NOISE).tolist() == pytest.approx(far)
    assert R1(at="both")(quadratic, *sides, NOISE).tolist() == pytest.approx([13.125, 35.0])


def test_gradient_penalty_of_a_linear_critic_is_the_squared_distance_of_its_slope_from_one() -> None:
    assert GradientPenalty()(linear, (X, Z), (-X, 5 * Z), NOISE).tolist() == pytest.approx([144.0, 144.0])


def test_gradient_penalty_takes_the_slope_at_one_point_between_the_two_sides() -> None:
    """From 0 to (6, 8) the quadratic critic's slope has the norm 10 s at the share s."""
    share = Noise(0, dtype=DOUBLE).named("penalty", 2).uniform()
    positive = (torch.tensor([[6.0], [6.0]], dtype=DOUBLE), torch.tensor([[8.0], [8.0]], dtype=DOUBLE))
    negative = (torch.zeros(2, 1, dtype=DOUBLE), torch.zeros(2, 1, dtype=DOUBLE))
    noise = Noise(0, dtype=DOUBLE).named("penalty", 2)
    found = GradientPenalty()(quadratic, positive, negative, noise)
    assert found.tolist() == pytest.approx([(10 * s - 1) ** 2 for s in share.tolist()])


def test_gradient_penalty_of_a_flat_critic_is_one_with_a_finite_gradient() -> None:
    slope = torch.zeros((), dtype=DOUBLE, requires_grad=True)
    penalty = GradientPenalty()(lambda *values: slope * linear(*values), (X, Z), (-X, Z), NOISE)
    assert penalty.tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    penalty.sum().backward()
    assert slope.grad is not None and torch.isfinite(slope.grad)


def test_penalties_are_not_weighted() -> None:
    sides = (X, Z), (X, Z)
    for light, heavy in ((R1(0.1), R1(5.0, every=2)), (GradientPenalty(1.0), GradientPenalty(7.0, every=3))):
        noises = [Noise(0, dtype=DOUBLE).named("penalty", 2) for _ in range(2)]
        assert torch.equal(light(quadratic, *sides, noises[0]), heavy(quadratic, *sides, noises[1]))
