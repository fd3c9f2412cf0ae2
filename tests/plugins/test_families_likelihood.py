"""Discretised logistic and Laplace, against distribution functions, counts and numbers derived by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jointgen_families.bernoulli import Bernoulli
from jointgen_families.bins import extended_logistic_log_mass, logistic_log_mass
from jointgen_families.continuous_bernoulli import ContinuousBernoulli
from jointgen_families.discretized_logistic import DiscretizedLogistic
from jointgen_families.gaussian import Gaussian
from jointgen_families.laplace import Laplace, laplace_log_mass
from jointgen_families.logistic_mixture import LogisticMixture
from torch import Tensor
from torch.autograd import gradcheck

from jointgen.contracts.distributions import Family
from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.contracts.observation import observe
from jointgen.contracts.space import Space

torch.set_num_threads(1)

PIXEL = Space((1,), low=0.0, high=1.0, bins=256)
IMAGE = Space((3, 4, 4), low=0.0, high=1.0, bins=256)
BITS = Space((3, 4, 4), kind="binary")


def noise(rows: int, name: str = "n", dtype: torch.dtype = torch.float64) -> NoiseSource:
    return Noise(0, dtype=dtype).named(name, rows)


def at(family: Any, space: Space, mean: float, rows: int, dtype: torch.dtype = torch.float64) -> Any:
    """`rows` distributions of a family with a scale that no output gives."""
    return family.build(space).to(dtype)(torch.full((rows, *space.shape), mean, dtype=dtype))


def fixed(family: Any, scale: float, **keys: Any) -> Any:
    return family(scale="fixed", init_scale=scale, min_log_scale=-20.0, max_log_scale=20.0, **keys)


def centres(space: Space, dtype: torch.dtype = torch.float64) -> Tensor:
    """(bins, 1) of a one-dimensional variable."""
    assert space.low is not None and space.bin_width is not None and space.bins is not None
    return (space.low + (torch.arange(space.bins, dtype=dtype) + 0.5) * space.bin_width)[:, None]


def log_masses(family: Any, mean: float, space: Space = PIXEL, dtype: torch.dtype = torch.float64) -> Tensor:
    points = centres(space, dtype)
    return at(family, space, mean, len(points), dtype).log_prob_bins(points)


# --- half precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "space"),
    [
        (Gaussian(), IMAGE),
        (Laplace(scale="global"), IMAGE),
        (DiscretizedLogistic(), IMAGE),
        (LogisticMixture(components=3), IMAGE),
        (ContinuousBernoulli(), IMAGE),
        (Bernoulli(), BITS),
    ],
    ids=str,
)
def test_outputs_in_bfloat16_are_scored_and_drawn_in_float32(family: Family, space: Space) -> None:
    """What a network puts out under autocast: the numbers are those of the same outputs in float32, exactly."""
    params = torch.randn(4, *family.outputs(space), generator=torch.Generator().manual_seed(0)).bfloat16()
    half, single = (family.build(space)(p) for p in (params, params.float()))
    sample = half.draw(noise(4, dtype=torch.float32)).read("sample")
    assert sample.dtype == half.log_prob(sample).dtype == half.mean.dtype == torch.float32
    assert torch.equal(sample, single.draw(noise(4, dtype=torch.float32)).read("sample"))
    assert torch.equal(half.log_prob(sample), single.log_prob(sample))


# --- logistic mass ---------------------------------------------------------------------------------------------------


def test_logistic_mass_by_hand() -> None:
    # 4 levels on [0, 1], logistic(1/2, 1/4): level 2 is s(1) - s(0) = 0.7310586 - 0.5 = 0.2310586, the highest
    # 1 - s(1) = 0.2689414 with its tail, s(2) - s(1) = 0.8807971 - 0.7310586 = 0.1497385 without
    space = Space((1,), low=0.0, high=1.0, bins=4)
    extended = log_masses(fixed(DiscretizedLogistic, 0.25), 0.5, space).exp()
    bounded = log_masses(fixed(DiscretizedLogistic, 0.25, edges="bounded"), 0.5, space).exp()
    assert extended.tolist() == pytest.approx([0.2689414, 0.2310586, 0.2310586, 0.2689414], abs=1e-7)
    assert bounded.tolist() == pytest.approx([0.1497385, 0.2310586, 0.2310586, 0.1497385], abs=1e-7)


def test_logistic_mass_far_out_by_hand() -> None:
    # [40, 41] standard: e^-40 (1 - e^-1) up to e^-40 of it, -40 + log 0.6321206 = -40.4586751; and so on the left
    log_mass = logistic_log_mass(torch.tensor([40.5, -40.5]), torch.ones(2))
    assert log_mass.tolist() == pytest.approx([-40.4586751] * 2, abs=5e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("mean", "scale"), [(0.5, 0.1), (0.3, 0.001), (0.0, 0.02), (1.0, 3.0), (-5.0, 0.3), (7.0, 1)])
def test_extended_masses_of_all_levels_sum_to_one(mean: float, scale: float, dtype: torch.dtype) -> None:
    total = log_masses(fixed(DiscretizedLogistic, scale), mean, dtype=dtype).exp().sum().item()
    assert total == pytest.approx(1.0, abs=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize(("mean", "scale"), [(0.5, 0.1), (0.3, 0.001), (0.0, 0.02), (1.0, 3.0)])
def test_bounded_masses_lose_what_lies_outside(mean: float, scale: float) -> None:
    total = log_masses(fixed(DiscretizedLogistic, scale, edges="bounded"), mean).exp().sum().item()
    ends = torch.sigmoid(torch.tensor([(1 - mean) / scale, -mean / scale], dtype=torch.float64))
    assert total == pytest.approx((ends[0] - ends[1]).item(), abs=1e-12)


def test_logistic_density_integrates_to_one_over_the_range_in_two_dimensions() -> None:
    """Four points a bin along both axes, none on an edge, are an exact quadrature of a density constant on bins."""
    space = Space((2,), low=-1.0, high=3.0, bins=7)
    axis = -1 + 4 * (torch.arange(28, dtype=torch.float64) + 0.5) / 28
    grid = torch.cartesian_prod(axis, axis)
    module = DiscretizedLogistic(init_scale=0.4).build(space).double()
    params = torch.tensor([0.3, -2.0, 0.1, 0.7], dtype=torch.float64)  # the second location is outside
    density = module(params.expand(len(grid), -1)).log_prob(grid).exp()
    assert (density.sum() * (4 / 28) ** 2).item() == pytest.approx(1.0, abs=1e-12)
    assert len(density.unique(sorted=True).log().mul(1e9).round().unique()) <= 49  # constant on 7 x 7 bins


@pytest.mark.parametrize("edges", ["extended", "bounded"])
def test_logistic_density_is_its_bin_mass_over_the_bins_volume(edges: Any) -> None:
    # D = 48 and width 1/256: the difference is 48 log 256 = 266.168520
    distribution, generator = at(fixed(DiscretizedLogistic, 0.05, edges=edges), IMAGE, 0.4, 20), torch.Generator()
    x = observe(IMAGE, torch.randint(0, 256, (20, 3, 4, 4), generator=generator), noise(20)).read("sample")
    difference = distribution.log_prob(x) - distribution.log_prob_bins(x)
    assert difference.tolist() == pytest.approx([266.168520] * 20, abs=1e-5)


def test_logistic_mass_in_float32_is_finite_with_finite_gradients_and_agrees_with_float64() -> None:
    m, delta = torch.cartesian_prod(
        torch.tensor([0.0, 1e-6, 0.3, -1.0, 10.0, -88.0, 1e3, -1e6, 1e15, -1e30]),
        torch.tensor([1e-30, 1e-12, 1e-4, 0.05, 1.0, 10.0, 1e3, 1e6, 1e12, 1e30]),
    ).T
    for level in (0, 7, 255):
        levels = torch.full_like(m, level)
        for mass in (logistic_log_mass, lambda m, d, levels=levels: extended_logistic_log_mass(m, d, levels, 256)):
            single = [m.clone().requires_grad_(), delta.clone().requires_grad_()]
            log_mass = mass(*single)
            gradients = torch.autograd.grad(log_mass.sum(), single)
            assert log_mass.isfinite().all() and (log_mass <= 0).all()
            assert all(gradient.isfinite().all() for gradient in gradients)
            torch.testing.assert_close(log_mass.double(), mass(m.double(), delta.double()), rtol=1e-6, atol=1e-6)


def test_logistic_mass_has_the_gradient_of_its_differences() -> None:
    m = torch.tensor([-30.0, -3.0, -0.4, 0.1, 2.0, 8.0], dtype=torch.float64, requires_grad=True)
    levels = torch.tensor([0, 0, 5, 9, 9, 9], dtype=torch.float64)
    for width in (0.01, 0.2, 1.0, 7.0):
        delta = torch.full_like(m, width).detach().requires_grad_()
        assert gradcheck(logistic_log_mass, (m, delta), eps=1e-6, atol=1e-6)
        assert gradcheck(lambda m, d: extended_logistic_log_mass(m, d, levels, 10), (m, delta), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", [DiscretizedLogistic(), DiscretizedLogistic(edges="bounded"), Laplace()], ids=str)
def test_log_probs_stay_finite_for_wild_outputs(family: Any) -> None:
    params = torch.tensor([-1e6, 1e6, -30.0, 0.0, 1.0, 30.0])
    params = torch.cartesian_prod(params, params)[:, :, None, None].requires_grad_()  # location and log scale
    distribution = family.build(Space((1, 1, 1), low=0.0, high=1.0, bins=256))(params)
    for x in (0.001, 0.5, 0.999):
        value = torch.full((36, 1, 1, 1), x)
        for log_prob in (distribution.log_prob(value), distribution.log_prob_bins(value)):
            assert log_prob.isfinite().all()
            assert torch.autograd.grad(log_prob.sum(), params, retain_graph=True)[0].isfinite().all()
    assert distribution.draw(noise(36, dtype=torch.float32)).read("sample").isfinite().all()


# --- logistic draws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", ["extended", "bounded"])
@pytest.mark.parametrize(("mean", "scale"), [(0.45, 0.15), (0.05, 0.1), (1.2, 0.1), (0.5, 0.01)])
def test_logistic_draws_fall_into_bins_by_the_extended_masses(mean: float, scale: float, edges: Any) -> None:
    """Counts of 100 000 draws over 8 levels: five standard errors sqrt(p (1 - p) / n) each; uniform within a bin.

    A fraction's mean over a bin with n p draws has the standard error 0.289 / sqrt(n p).
    """
    space, n = Space((1,), low=0.0, high=1.0, bins=8), 100_000
    sample = at(fixed(DiscretizedLogistic, scale, edges=edges), space, mean, n).draw(noise(n)).read("sample")[:, 0]
    ends = torch.linspace(0, 1, 9, dtype=torch.float64)
    cdf = torch.sigmoid((ends - mean) / scale)
    cdf[0], cdf[-1] = 0.0, 1.0
    for level, p in enumerate(cdf.diff().tolist()):
        inside = sample[(sample >= level / 8) & (sample < (level + 1) / 8)]
        assert len(inside) / n == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / n) + 1e-9)
        if n * p > 1000:
            fractions = inside * 8 - level
            assert fractions.mean().item() == pytest.approx(0.5, abs=5 * 0.289 / math.sqrt(n * p))
            assert (fractions < 0.25).double().mean().item() == pytest.approx(0.25, abs=5 * 0.433 / math.sqrt(n * p))
    assert sample.min() >= 0 and sample.max() < 1


def test_logistic_sample_has_the_gradient_of_the_undiscretised_draw() -> None:
    """y = mean + scale l: dy/dmean = 1 and dy/dlog scale = y - mean, whatever bin y falls into, even beyond an edge."""
    module = DiscretizedLogistic(init_scale=0.3).build(IMAGE).double()
    params = torch.zeros(5, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    draw = module(params).draw(noise(5))
    l = torch.logit(noise(5).uniform(3, 4, 4))
    (gradient,) = torch.autograd.grad(draw.read("sample").sum(), params)
    torch.testing.assert_close(gradient[:, :3], torch.ones(5, 3, 4, 4, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient[:, 3:], 0.3 * l, rtol=0, atol=1e-12)
    assert (0.3 * l < 0).any() and draw.read("sample").min() >= 0  # some were beyond


def test_logistic_sample_lies_in_the_bin_of_the_undiscretised_draw() -> None:
    distribution = at(fixed(DiscretizedLogistic, 0.2), IMAGE, 0.5, 50)
    draw = distribution.draw(noise(50))
    smooth, sample = draw.read("smoothed"), draw.read("sample")
    assert torch.equal((sample * 256).floor(), (smooth * 256).floor().clamp(0, 255))
    assert ((smooth < 0) | (smooth > 1)).any()


@pytest.mark.parametrize(
    ("family", "std"),
    [(DiscretizedLogistic, math.pi / math.sqrt(3)), (Laplace, math.sqrt(2))],
)
@pytest.mark.parametrize("scale", ["global", "per_channel", "fixed"])
def test_view_blurs_data_by_the_models_own_scale_as_its_smoothed_draws_are(family: Any, std: float, scale: Any) -> None:
    """960 000 numbers of scale 0.1; kurtoses 4.2 and 6 give their deviations errors of 1e-3 and 1.2e-3 of themselves.

    The model's own: its smoothed draws about the location 1/2, where it begins.
    """
    module = family(scale=scale, init_scale=0.1).build(IMAGE).double()
    data = observe(IMAGE, torch.full((20_000, 3, 4, 4), 128), noise(20_000, "observe"))
    view = module.view("smoothed", data, noise(20_000, "view"))
    params = torch.full((20_000, 3, 4, 4), 0.5, dtype=torch.float64, requires_grad=True)
    smoothed = module(params).draw(noise(20_000, "draw")).read("smoothed")
    assert not view.requires_grad and smoothed.requires_grad
    for blur in (view - data.read("sample"), smoothed.detach() - 0.5):
        assert blur.mean().item() == pytest.approx(0.0, abs=0.001)
        assert blur.std().item() == pytest.approx(0.1 * std, rel=0.006)
    if scale != "fixed":
        assert torch.autograd.grad(smoothed.sum(), module.log_scale, allow_unused=True) == (None,)


def test_smoothed_is_read_only_where_the_scale_is_no_output() -> None:
    for family in (DiscretizedLogistic, Laplace):
        assert "smoothed" not in family().capabilities(IMAGE).paths
        assert family(scale="global").capabilities(IMAGE).paths["smoothed"] == "exact"


# --- Laplace ---------------------------------------------------------------------------------------------------------


def test_laplace_log_prob_by_hand() -> None:
    # log Laplace(3; 1, 2) = -|3 - 1| / 2 - log 4 = -1 - 1.386294 = -2.386294; twice for 2-d
    distribution = at(fixed(Laplace, 2.0), Space((2,)), 1.0, 1)
    assert distribution.log_prob(torch.full((1, 2), 3.0)).item() == pytest.approx(-4.772589, abs=2e-6)
    theirs = torch.distributions.Laplace(1.0, 2.0).log_prob(torch.full((2,), -0.7)).sum()
    assert distribution.log_prob(torch.full((1, 2), -0.7)).item() == pytest.approx(theirs.item(), abs=1e-6)


def test_laplace_draws_are_uniform_through_its_distribution_function() -> None:
    # 200 000 draws: a decile's standard error is at most 0.5 / 447 = 0.0011
    sample = at(fixed(Laplace, 0.3), Space((1,)), 0.2, 200_000).draw(noise(200_000)).read("sample")
    u = torch.distributions.Laplace(torch.tensor(0.2, dtype=torch.float64), 0.3).cdf(sample)
    for decile in torch.linspace(0.1, 0.9, 9).tolist():
        assert (u < decile).double().mean().item() == pytest.approx(decile, abs=0.005)


def test_laplace_sample_is_exactly_reparameterised() -> None:
    """With side v = 2u - 1, z = mean - scale sign(v) log(1 - |v|): slopes 1 and (z - mean) in log scale."""
    params = torch.tensor([[0.3, -1.0, 0.2, -0.4]], dtype=torch.float64).expand(6, -1).clone().requires_grad_()
    sample = Laplace().build(Space((2,))).double()(params).draw(noise(6)).read("sample")
    (gradient,) = torch.autograd.grad(sample.sum(), params)
    v = 2 * noise(6).uniform(2) - 1
    expected = params[:, :2] - params[:, 2:].exp() * v.sign() * torch.log(1 - v.abs())
    torch.testing.assert_close(sample, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, torch.cat([torch.ones(6, 2), (expected - params[:, :2])], 1).detach())


def test_laplace_mass_against_differences_of_the_distribution_function() -> None:
    m = torch.linspace(-4, 4, 81, dtype=torch.float64)
    law = torch.distributions.Laplace(torch.tensor(0.0, dtype=torch.float64), 1.0)
    for width in (1e-3, 0.05, 0.5, 3.0, 20.0):
        exact = torch.log(law.cdf(m + width / 2) - law.cdf(m - width / 2))
        torch.testing.assert_close(laplace_log_mass(m, torch.full_like(m, width)), exact, rtol=0, atol=1e-11)
    # [39.5, 40.5]: 1/2 e^-39.5 (1 - e^-1), log = -0.693147 - 39.5 - 0.458675 = -40.651822
    far = laplace_log_mass(torch.tensor([40.0, -40.0]), torch.ones(2))
    assert far.tolist() == pytest.approx([-40.651822] * 2, abs=5e-6)


@pytest.mark.parametrize(("mean", "scale"), [(0.5, 0.1), (0.3, 0.001), (0.0, 0.02), (1.0, 3.0)])
def test_laplace_masses_lose_what_lies_outside(mean: float, scale: float) -> None:
    outside = 0.5 * math.exp(-mean / scale) + 0.5 * math.exp(-(1 - mean) / scale)
    assert log_masses(fixed(Laplace, scale), mean).exp().sum().item() == pytest.approx(1 - outside, abs=1e-12)


def test_laplace_mass_in_float32_is_finite_with_finite_gradients_and_agrees_with_float64() -> None:
    m, delta = torch.cartesian_prod(
        torch.tensor([0.0, 1e-6, 0.3, -1.0, 10.0, -88.0, 1e3, -1e6, 1e15]),
        torch.tensor([1e-30, 1e-12, 1e-4, 0.05, 1.0, 10.0, 1e3, 1e6, 1e12]),
    ).T
    single = [m.clone().requires_grad_(), delta.clone().requires_grad_()]
    log_mass = laplace_log_mass(*single)
    assert log_mass.isfinite().all() and (log_mass <= 0).all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(log_mass.sum(), single))
    torch.testing.assert_close(log_mass.double(), laplace_log_mass(m.double(), delta.double()), rtol=1e-6, atol=1e-6)


def test_laplace_mass_has_the_gradient_of_its_differences() -> None:
    m = torch.tensor([-30.0, -3.1, -0.4, 0.12, 2.0, 8.0], dtype=torch.float64, requires_grad=True)
    for width in (0.01, 0.21, 1.0, 7.0):  # no bin's end at the mean, where the density has its kink
        delta = torch.full_like(m, width).detach().requires_grad_()
        assert gradcheck(laplace_log_mass, (m, delta), eps=1e-6, atol=1e-6)
