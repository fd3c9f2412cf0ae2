"""The continuous Bernoulli against torch's, quadrature and closed forms; all of it also where logits are near 0."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jointgen_families.continuous_bernoulli import (
    NEAR_ZERO,
    NEAR_ZERO_QUANTILE,
    ContinuousBernoulli,
    log_density,
    log_mass,
    mean_of,
    quantile,
)
from torch import Tensor
from torch.autograd import gradcheck

from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.contracts.space import Space

torch.set_num_threads(1)

UNIT = Space((1,), low=0.0, high=1.0, bins=256)
LOGITS = [-80.0, -5.0, -1.0, -0.31, -0.29, -0.031, -0.029, -1e-4, 0.0, 1e-9, 0.02, 0.04, 0.25, 0.35, 2.0, 30.0, 700.0]


def noise(rows: int, dtype: torch.dtype = torch.float64) -> NoiseSource:
    return Noise(0, dtype=dtype).named("n", rows)


def law(logit: float, rows: int, space: Space = UNIT, dtype: torch.dtype = torch.float64) -> Any:
    module = ContinuousBernoulli().build(space).to(dtype)
    return module(torch.full((rows, *space.shape), logit, dtype=dtype))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_by_hand() -> None:
    """lambda = 3/4: C = 2 artanh(-1/2) / (-1/2) = 2 log 3, so log p(1) = log(2 log 3) + log 3/4 = 0.787195 - 0.287682.

    The mean is (3/4) / (1/2) + 1 / (2 artanh(-1/2)) = 1.5 - 1 / log 3 = 0.589761 (docs/concepts/densities.md).
    """
    distribution = law(math.log(3), 2)
    assert distribution.log_prob(column(1.0, 0.0)[:, None]).tolist() == pytest.approx([0.499513, -0.599099], abs=1e-6)
    assert distribution.mean[0].item() == pytest.approx(0.589761, abs=1e-6)


def test_agrees_with_torch_away_from_one_half() -> None:
    # theirs works on lambda, which rounds the digits of a large logit away
    logits = column(-4, -1, -0.4, -0.2, -0.05, 0.05, 0.2, 0.4, 1, 4)
    theirs = torch.distributions.ContinuousBernoulli(logits=logits, lims=(0.49999, 0.50001))
    for point in (0.001, 0.3, 0.5, 0.9, 1.0):
        x = torch.full_like(logits, point)
        torch.testing.assert_close(log_density(logits, x), theirs.log_prob(x), rtol=1e-9, atol=1e-9)
        if point < 1:
            torch.testing.assert_close(quantile(logits, x), theirs.icdf(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mean_of(logits), theirs.mean, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("logit", LOGITS)
def test_density_mean_and_masses_by_quadrature(logit: float) -> None:
    """Simpson's rule with steps h = 1 / 8192: relative error (logit h)^4 / 180, 3e-7 at the largest."""
    n = 4096
    x = torch.linspace(0, 1, 2 * n + 1, dtype=torch.float64)
    weights = torch.ones_like(x)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    density = log_density(torch.full_like(x, logit), x).exp() * weights / (6 * n)
    assert density.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert (density * x).sum().item() == pytest.approx(mean_of(column(logit)).item(), abs=1e-6)
    centres = (torch.arange(256, dtype=torch.float64) + 0.5) / 256
    masses = law(logit, 256).log_prob_bins(centres[:, None]).exp()
    assert masses.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert torch.equal(masses, log_mass(torch.full_like(centres, logit), centres, 1 / 256).exp())
    slopes = (torch.full_like(centres, logit) * (centres - 0.5)).exp()  # mass ratios of equal bins, whatever C is
    if abs(logit) < 100:
        torch.testing.assert_close(masses / masses.sum(), slopes / slopes.sum(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("logit", LOGITS)
def test_quantile_inverts_the_distribution_function(logit: float) -> None:
    # F(x) = (e^(logit x) - 1) / (e^logit - 1), and by symmetry 1 - F(1 - x) for the other sign
    u = torch.linspace(0.001, 0.999, 333, dtype=torch.float64)
    x = quantile(torch.full_like(u, logit), u)
    a = -abs(logit)
    y = x if logit <= 0 else 1 - x
    back = torch.special.expm1(a * y) / math.expm1(a) if logit else x
    torch.testing.assert_close(back if logit <= 0 else 1 - back, u, rtol=0, atol=1e-9)
    assert (x >= 0).all() and (x <= 1).all() and (x.diff() > 0).all()


def test_series_and_closed_forms_meet() -> None:
    """Across the switch, each function moves by its slope times the gap of 2e-9 and by no more than rounding beside."""
    u = column(0.02, 0.3, 0.5, 0.77, 0.99)
    functions = {
        NEAR_ZERO: (lambda l: log_density(l, u), lambda l: log_mass(l, u, 1 / 64), mean_of),
        NEAR_ZERO_QUANTILE: (lambda l: quantile(l, u),),
    }
    for bound, group in functions.items():
        for function in group:
            for sign in (-1, 1):
                inside, outside = (torch.full_like(u, sign * (bound + gap)) for gap in (-1e-9, 1e-9))
                torch.testing.assert_close(function(inside), function(outside), rtol=0, atol=4e-9)
                slopes = [
                    torch.autograd.grad(function(l.requires_grad_()).sum(), l)[0].double() for l in (inside, outside)
                ]
                torch.testing.assert_close(*slopes, rtol=0, atol=1e-8)


def test_slopes_at_logit_zero_by_hand() -> None:
    # d log p = x - 1/2 and d log mass the same at the centre, d mean = 1/12, d quantile = u (1 - u) / 2
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    x = column(0.0, 0.25, 0.9)
    for value, slope in [
        (log_density(zero, x), x - 0.5),
        (log_mass(zero, x, 1e-3), x - 0.5),
        (mean_of(zero), torch.full_like(x, 1 / 12)),
        (quantile(zero, x), x * (1 - x) / 2),
    ]:
        torch.testing.assert_close(torch.autograd.grad(value.sum(), zero)[0], slope, rtol=0, atol=1e-12)


def test_gradients_are_those_of_differences() -> None:
    logits = column(-40, -3, -0.35, -0.2, -0.02, 0.0, 0.01, 0.05, 0.4, 5, 40).requires_grad_()
    x = torch.linspace(0.05, 0.95, 11, dtype=torch.float64).requires_grad_()
    assert gradcheck(log_density, (logits, x), eps=1e-6, atol=1e-6)
    assert gradcheck(quantile, (logits, x), eps=1e-6, atol=1e-6)
    assert gradcheck(mean_of, (logits,), eps=1e-6, atol=1e-6)
    assert gradcheck(lambda l: log_mass(l, x.detach(), 0.1), (logits,), eps=1e-6, atol=1e-6)


def test_extreme_logits_stay_finite_in_float32() -> None:
    logits, x = torch.cartesian_prod(
        torch.tensor([-1e30, -1e6, -100.0, -0.3, -1e-3, 0.0, 1e-30, 0.03, 17.0, 100.0, 1e6, 1e30]),
        torch.tensor([0.0, 6e-8, 0.3, 0.5, 1 - 6e-8, 1.0]),
    ).T
    logits.requires_grad_()
    inner = x.clamp(6e-8, 1 - 6e-8)
    results = [log_density(logits, x), log_mass(logits, x.clamp(1 / 512, 511 / 512), 1 / 256), mean_of(logits)]
    for result in [*results, quantile(logits, inner)]:
        assert result.isfinite().all()
        assert torch.autograd.grad(result.sum(), logits)[0].isfinite().all()
    assert (log_mass(logits, x.clamp(1 / 512, 511 / 512), 1 / 256) <= 0).all()


def test_float32_agrees_with_float64() -> None:
    logits, u = torch.cartesian_prod(
        torch.cat([-torch.logspace(-6, 3, 40), torch.logspace(-6, 3, 40)]), torch.linspace(0.01, 0.99, 15)
    ).T
    for function in (log_density, quantile, lambda l, c: log_mass(l, c, 1 / 64), lambda l, _: mean_of(l)):
        single, double = logits.clone().requires_grad_(), logits.double().requires_grad_()
        values = function(single, u), function(double, u.double())
        torch.testing.assert_close(values[0].double(), values[1], rtol=2e-6, atol=2e-6)
        slopes = [torch.autograd.grad(v.sum(), l)[0].double() for v, l in zip(values, (single, double), strict=True)]
        torch.testing.assert_close(*slopes, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("logit", [-30.0, -1.0, 0.0, 0.02, 4.0])
def test_draws_are_uniform_through_the_distribution_function(logit: float) -> None:
    # 200 000 draws: a decile's standard error is at most 0.5 / 447 = 0.0011
    distribution = law(logit, 200_000)
    x = distribution.draw(noise(200_000)).read("sample")
    u = torch.special.expm1(logit * x) / math.expm1(logit) if logit else x
    for decile in torch.linspace(0.1, 0.9, 9).tolist():
        assert (u < decile).double().mean().item() == pytest.approx(decile, abs=0.005)
    assert x.mean().item() == pytest.approx(distribution.mean[0].item(), abs=0.003)


def test_another_range_is_stretched_to() -> None:
    """On [-1, 3], p(v) = p_01((v + 1) / 4) / 4: at v = 3 and lambda = 3/4, 0.499513 - log 4 = -0.886781.

    The mean is -1 + 4 x 0.589761 = 1.359044, and 48 bins are those of [0, 1].
    """
    space = Space((1,), low=-1.0, high=3.0, bins=48)
    stretched = law(math.log(3), 1, space)
    assert stretched.log_prob(column(3.0)[:, None]).item() == pytest.approx(-0.886781, abs=1e-6)
    assert stretched.mean.item() == pytest.approx(1.359044, abs=2e-6)
    unit = law(math.log(3), 1, Space((1,), low=0.0, high=1.0, bins=48))
    for x in (0.01, 0.5, 0.99):
        ours, theirs = (d.log_prob_bins(column(v)[:, None]) for d, v in ((stretched, 4 * x - 1), (unit, x)))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    sample = law(math.log(3), 1000, space).draw(noise(1000)).read("sample")
    assert sample.min() >= -1 and sample.max() <= 3 and sample.max() > 2.9


def test_start_at_inverts_the_mean_and_keeps_off_the_ends() -> None:
    # at the ends the mean is kept at 1 %: there it is 1 / a - (something like e^-a), so |logit| is 100
    module = ContinuousBernoulli().build(Space((4,), low=0.0, high=1.0)).double()
    module.start_at(torch.tensor([0.0, 1.0, 0.5, 0.589761]))
    assert module.offset.tolist() == pytest.approx([-100.0, 100.0, 0.0, math.log(3)], abs=2e-5)
