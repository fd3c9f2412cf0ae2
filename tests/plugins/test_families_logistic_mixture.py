"""PixelCNN++'s mixture of discretised logistics, against sums over all levels, counts and plain formulas."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from jointgen_families.discretized_logistic import DiscretizedLogistic
from jointgen_families.logistic_mixture import LogisticMixture, mean_within
from torch import Tensor
from torch.autograd import gradcheck

from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.contracts.space import Space

torch.set_num_threads(1)

RGB = Space((3, 1, 1), low=0.0, high=1.0, bins=4)
IMAGE = Space((3, 4, 4), low=0.0, high=1.0, bins=256)


def noise(rows: int, dtype: torch.dtype = torch.float64) -> NoiseSource:
    return Noise(0, dtype=dtype).named("n", rows)


def random_params(family: LogisticMixture, space: Space, rows: int = 1, seed: int = 0) -> Tensor:
    shape = (rows, *family.outputs(space))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distribution(family: LogisticMixture, space: Space, params: Tensor) -> Any:
    return family.build(space).to(params.dtype)(params)


def all_levels(space: Space) -> Tensor:
    """(bins^C, C, 1, 1): the centres of every combination of levels of a single pixel."""
    assert space.low is not None and space.bin_width is not None and space.bins is not None
    axis = space.low + (torch.arange(space.bins, dtype=torch.float64) + 0.5) * space.bin_width
    return torch.cartesian_prod(*[axis] * space.shape[0]).view(-1, space.shape[0], 1, 1)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# --- density ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("coupling", [True, False])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 3.0)])
def test_masses_of_all_colours_sum_to_one(low: float, high: float, coupling: bool, seed: int) -> None:
    space = Space((3, 1, 1), low=low, high=high, bins=6)
    family, values = LogisticMixture(components=3, coupling=coupling), all_levels(space)
    log_mass = distribution(family, space, random_params(family, space, seed=seed).expand(216, -1, -1, -1))
    assert log_mass.log_prob_bins(values).exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_masses_of_all_256_grey_levels_sum_to_one_also_in_float32() -> None:
    space = Space((1, 1, 1), low=0.0, high=1.0, bins=256)
    family = LogisticMixture(init_scale=0.02)
    params = random_params(family, space).float().expand(256, -1, -1, -1)
    masses = distribution(family, space, params).log_prob_bins(all_levels(space).float()).exp()
    assert masses.sum().item() == pytest.approx(1.0, abs=1e-5)


def test_coupled_density_is_constant_on_bins_and_integrates_to_one() -> None:
    """Two points a bin along each of three axes; an earlier channel's place in its bin must not move a later one."""
    family = LogisticMixture(components=2)
    fine = all_levels(Space((3, 1, 1), low=0.0, high=1.0, bins=8))
    density = distribution(family, RGB, random_params(family, RGB).expand(512, -1, -1, -1)).log_prob(fine).exp()
    assert (density.sum() / 512).item() == pytest.approx(1.0, abs=1e-12)
    same_bin = density.view(4, 2, 4, 2, 4, 2).movedim((1, 3, 5), (3, 4, 5)).flatten(3)
    torch.testing.assert_close(same_bin, same_bin[..., :1].expand_as(same_bin), rtol=1e-12, atol=0)


def test_masses_are_pixelcnns_formula() -> None:
    """sum_k w_k prod_c [s((x + 1/4 - m) / s) - s((x - 1/4 - m) / s)] with m_G += c0 R, m_B += c1 R + c2 G.

    4 levels of [-1, 1] have the centres -3/4, -1/4, 1/4, 3/4 and the half-width 1/4 (1/255 for 256 levels).
    """
    family = LogisticMixture(components=2, init_scale=0.5)
    params = random_params(family, RGB)
    numbers = params.flatten().tolist()  # 2 logits, 2 x 3 locations, 2 x 3 log scales, 2 x 3 coefficients
    total = math.exp(numbers[0]) + math.exp(numbers[1])
    expected = []
    for levels in itertools.product(range(4), repeat=3):
        x = [(2 * level + 1) / 4 - 1 for level in levels]
        mass = 0.0
        for k in range(2):
            place = (-0.5, 0.5)[k]  # two components spread over [-1, 1]
            m = [n + place for n in numbers[2 + 3 * k : 5 + 3 * k]]
            s = [0.5 * math.exp(n) for n in numbers[8 + 3 * k : 11 + 3 * k]]
            c = [math.tanh(n) for n in numbers[14 + 3 * k : 17 + 3 * k]]
            m[1] += c[0] * x[0]
            m[2] += c[1] * x[0] + c[2] * x[1]
            product = math.exp(numbers[k]) / total
            for i in range(3):
                above = 1.0 if levels[i] == 3 else sigmoid((x[i] + 0.25 - m[i]) / s[i])
                below = 0.0 if levels[i] == 0 else sigmoid((x[i] - 0.25 - m[i]) / s[i])
                product *= above - below
            mass += product
        expected.append(mass)
    found = distribution(family, RGB, params.expand(64, -1, -1, -1)).log_prob_bins(all_levels(RGB)).exp()
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_one_component_of_one_channel_is_a_discretised_logistic() -> None:
    """Location m on [-1, 1] is (m + 1) / 2 on [0, 1], and scales are halved: 0.1 e^0.3 / 2 = 0.0674929."""
    space = Space((1, 2, 2), low=0.0, high=1.0, bins=256)
    params = torch.tensor([7.0, 0.4, 0.3], dtype=torch.float64).view(1, 3, 1, 1).expand(9, 3, 2, 2)
    mixture = distribution(LogisticMixture(components=1), space, params)
    single = DiscretizedLogistic(scale="fixed", init_scale=0.05 * math.exp(0.3)).build(space).double()
    values = torch.rand(9, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = single(torch.full((9, 1, 2, 2), 0.7, dtype=torch.float64))
    torch.testing.assert_close(mixture.log_prob(values), theirs.log_prob(values), rtol=0, atol=1e-9)


def test_pixels_are_independent_and_their_channels_share_the_indicator() -> None:
    """Two components, black and white, of equal weight: a pixel's colours are grey ones, 1/2 each, or impossible.

    At scale 0.001 on [-1, 1] a component is certain of its bin; log masses: log 1/2 a pixel, below -50 otherwise.
    """
    space = Space((3, 1, 2), low=0.0, high=1.0, bins=2)
    params = torch.zeros(3, 2 * 7, 1, 2, dtype=torch.float64)
    law = distribution(LogisticMixture(components=2, coupling=False, init_scale=0.001), space, params)
    black, white, red = (torch.tensor(c).double() * 0.5 + 0.25 for c in ([0, 0, 0], [1, 1, 1], [1, 0, 0]))
    pictures = torch.stack([torch.stack(pair, 1)[:, None] for pair in ((black, white), (black, black), (black, red))])
    log_mass = law.log_prob_bins(pictures)
    assert log_mass[:2].tolist() == pytest.approx([2 * math.log(0.5)] * 2, abs=1e-9)
    assert log_mass[2] < -50


def test_log_prob_has_the_gradient_of_differences() -> None:
    family = LogisticMixture(components=2)
    space = Space((3, 1, 2), low=-1.0, high=1.0, bins=5)
    params = random_params(family, space, rows=2).requires_grad_()
    values = 2 * torch.rand(2, 3, 1, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64) - 1
    assert gradcheck(lambda p: distribution(family, space, p).log_prob(values), (params,), eps=1e-6, atol=1e-6)
    assert gradcheck(lambda p: distribution(family, space, p).mean, (params,), eps=1e-6, atol=1e-6)


def test_wild_outputs_stay_finite_in_float32() -> None:
    family = LogisticMixture(components=2)
    params = 1e5 * random_params(family, IMAGE, rows=8).float().requires_grad_()
    law = distribution(family, IMAGE, params)
    values = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    draw = law.draw(noise(8, torch.float32))
    for result in (law.log_prob(values), law.mean, draw.read("sample")):
        assert result.isfinite().all()
        assert torch.autograd.grad(result.sum(), params, retain_graph=True)[0].isfinite().all()


# --- draws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", [True, False])
def test_colours_are_drawn_by_their_masses(coupling: bool) -> None:
    """200 000 draws over 64 colours: five standard errors sqrt(p (1 - p) / n) each; uniform within their bins."""
    n, family = 200_000, LogisticMixture(components=3, coupling=coupling, init_scale=0.3)
    params = random_params(family, RGB, seed=5)
    sample = distribution(family, RGB, params.expand(n, -1, -1, -1)).draw(noise(n)).read("sample")
    masses = distribution(family, RGB, params.expand(64, -1, -1, -1)).log_prob_bins(all_levels(RGB)).exp()
    levels = (sample * 4).floor()[:, :, 0, 0].long()
    counts = torch.bincount(levels @ torch.tensor([16, 4, 1]), minlength=64) / n
    assert ((counts - masses).abs() <= 5 * (masses * (1 - masses) / n).sqrt() + 1e-9).all()
    fractions = (sample * 4).frac()  # 600 000 of them: the mean's standard error is 0.0004
    assert fractions.mean().item() == pytest.approx(0.5, abs=0.002)
    assert (fractions < 0.25).double().mean().item() == pytest.approx(0.25, abs=0.003)


def test_the_samples_gradient_is_the_chosen_components() -> None:
    """y_G = m_G + c0 R + s l: 1 for its own location, c0 for red's, s l = y - m - c0 R for its log scale.

    In units of [0, 1], each of these halved. One pixel a row; the second component is 20 scales away from the first.
    """
    family = LogisticMixture(components=2, init_scale=0.05)
    space = Space((2, 1, 1), low=0.0, high=1.0, bins=64)
    params = torch.zeros(40, 2 * 6, 1, 1, dtype=torch.float64)
    params[:, -2:] = 0.3
    params.requires_grad_()
    sample = distribution(family, space, params).draw(noise(40)).read("sample")
    (gradient,) = torch.autograd.grad(sample[:, 1].sum(), params)
    weights, locations, log_scales, coefficients = gradient[..., 0, 0].split([2, 4, 4, 2], 1)
    picked = (sample.detach()[:, 0, 0, 0] > 0.5).long()  # red: -0.5 or 0.5 on [-1, 1]
    rows = torch.arange(40)
    assert not weights.any() and set(picked.tolist()) == {0, 1}
    own, other = (locations.view(40, 2, 2)[rows, k] for k in (picked, 1 - picked))
    expected = torch.tensor([0.5 * math.tanh(0.3), 0.5], dtype=torch.float64)
    torch.testing.assert_close(own, expected.expand(40, 2), rtol=0, atol=1e-12)
    assert not other.any()
    red = ((sample.detach()[:, 0, 0, 0] * 64).floor() + 0.5) / 32 - 1
    slope = coefficients[rows, picked]
    torch.testing.assert_close(slope, 0.5 * red * (1 - math.tanh(0.3) ** 2), rtol=0, atol=1e-12)
    l = torch.logit(noise_after_pick(40))[:, :, 0, 0]
    scales = log_scales.view(40, 2, 2)[rows, picked]
    torch.testing.assert_close(scales, 0.5 * 0.05 * l * expected.new_tensor([math.tanh(0.3), 1]), rtol=0, atol=1e-12)


def noise_after_pick(rows: int) -> Tensor:
    """The draw's uniform numbers for its logistics: it takes one of shape (1, 1, 1) for the components before."""
    source = noise(rows)
    source.uniform(1, 1, 1)
    return source.uniform(2, 1, 1)


# --- mean and start --------------------------------------------------------------------------------------------------


def test_mean_within_is_the_integral() -> None:
    """E[y kept in [-1, 1]] by quadrature over quantiles y = m + s logit u, 200 000 midpoints: error below 1e-6."""
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    for m, s in [(0.0, 0.3), (0.7, 0.3), (-0.98, 0.05), (-1.5, 0.4), (3.0, 1.0), (0.2, 0.001)]:
        expected = (m + s * torch.logit(u)).clamp(-1, 1).mean()
        found = mean_within(torch.tensor(m, dtype=torch.float64), torch.tensor(s, dtype=torch.float64))
        assert found.item() == pytest.approx(expected.item(), abs=2e-6)


def test_the_mean_is_that_of_draws_at_the_edges_too() -> None:
    """50 000 draws of 256 levels, no coupling: a mean's standard error is at most 0.5 / 224 = 0.0022.

    Locations are spread far beyond both edges; draws sit in the middle of their bins on average, 0.002 off an edge.
    """
    family = LogisticMixture(components=3, coupling=False)
    space = Space((3, 1, 1), low=0.0, high=1.0, bins=256)
    params = 2 * random_params(family, space, seed=3)
    law = distribution(family, space, params.expand(50_000, -1, -1, -1))
    sample = law.draw(noise(50_000)).read("sample")
    torch.testing.assert_close(sample.mean(0), law.mean[0], rtol=0, atol=0.011)
    assert law.locations[0].min() < -1.5 and law.locations[0].max() > 1.5


def test_the_mean_of_coupled_channels_is_linear_inside_the_range() -> None:
    """One narrow component at R = 0.4, m_G = -0.2, m_B = 0.1 on [-1, 1], all coefficients tanh(0.5) = 0.462117:

    G = -0.2 + 0.462117 x 0.4 = -0.015153, B = 0.1 + 0.462117 (0.4 - 0.015153) = 0.277844; (. + 1) / 2 on [0, 1].
    """
    params = torch.tensor([0.0, 0.4, -0.2, 0.1, 0, 0, 0, 0.5, 0.5, 0.5], dtype=torch.float64).view(1, 10, 1, 1)
    law = distribution(LogisticMixture(components=1, init_scale=0.01), Space((3, 1, 1), "real", 0.0, 1.0, 256), params)
    assert law.mean.flatten().tolist() == pytest.approx([0.7, 0.4924235, 0.638922], abs=1e-6)


def test_components_start_apart_and_start_at_shifts_them_together() -> None:
    family = LogisticMixture(components=4)
    module = family.build(IMAGE).double()
    zero = torch.zeros(1, *family.outputs(IMAGE), dtype=torch.float64)
    assert module(zero).locations[0, :, 0, 0, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    # at the middle of the range everything is symmetric about it, and nothing is to be shifted
    module.start_at(torch.full(IMAGE.shape, 0.5))
    assert module.offset.abs().max() < 1e-12
    module.start_at(torch.full(IMAGE.shape, 0.0))
    torch.testing.assert_close(module(zero).mean, torch.full((1, *IMAGE.shape), 0.01, dtype=torch.float64))
    gaps = module(zero).locations.diff(dim=1)
    torch.testing.assert_close(gaps, torch.full_like(gaps, 0.5))


def test_the_trunk_gives_pixelcnns_hundred_numbers_per_rgb_pixel() -> None:
    # 10 weights, 10 x 3 locations, 10 x 3 log scales and 10 x 3 coefficients; grey: 10 x (1 + 1 + 1)
    assert LogisticMixture().outputs(Space((3, 32, 32), low=0.0, high=1.0, bins=256)) == (100, 32, 32)
    assert LogisticMixture(coupling=False).outputs(IMAGE) == (70, 4, 4)
    assert LogisticMixture().outputs(Space((1, 8, 8), low=0.0, high=1.0, bins=17)) == (30, 8, 8)
