"""Mixtures of Gaussians: their density, and a sample path that is unbiased, the weights included."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jointgen_families.mixture import Mixture, MixtureOfGaussians, spread_out, with_path
from torch import Tensor

from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError

torch.set_num_threads(1)

DOUBLE = torch.float64


def noise(rows: int, dtype: torch.dtype = DOUBLE) -> NoiseSource:
    return Noise(0, dtype=dtype).named("n", rows)


def parameters(components: int, size: int, seed: int = 0, rows: int = 1) -> list[Tensor]:
    """Logits (rows, K), means and log scales (rows, K, D), attached."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, components, generator=generator, dtype=DOUBLE)
    means, log_scales = (torch.randn(rows, components, size, generator=generator, dtype=DOUBLE) for _ in range(2))
    return [t.requires_grad_() for t in (logits, 1.5 * means.detach(), 0.4 * log_scales.detach() - 0.2)]


def law(parameters: list[Tensor], rows: int) -> MixtureOfGaussians:
    logits, means, log_scales = (t.expand(rows, *t.shape[1:]) for t in parameters)
    return MixtureOfGaussians(logits.log_softmax(1), means, log_scales, Space(tuple(means.shape[2:])))


def moved(point: Tensor, mixture: MixtureOfGaussians) -> Tensor:
    return with_path(point, mixture.log_weights, mixture.means, mixture.log_scales)


# --- density ----------------------------------------------------------------------------------------------------------


def test_density_by_hand() -> None:
    # at 0: 1/4 N(-1, 1) + 3/4 N(1, 2^2) = 1/4 x 0.2419707 + 3/4 x 0.1760327 = 0.1925172, whose log is -1.6475699
    means = torch.tensor([[[-1.0], [1.0]]], dtype=DOUBLE)
    log_scales = torch.tensor([[[0.0], [math.log(2)]]], dtype=DOUBLE)
    mixture = MixtureOfGaussians(torch.tensor([[0.25, 0.75]], dtype=DOUBLE).log(), means, log_scales, Space((1,)))
    assert mixture.log_prob(torch.zeros(1, 1, dtype=DOUBLE)).item() == pytest.approx(-1.6475699, abs=1e-6)
    assert mixture.mean.item() == pytest.approx(0.25 * -1 + 0.75 * 1)


def test_density_integrates_to_one_in_two_dimensions() -> None:
    axis = torch.linspace(-12, 12, 301, dtype=DOUBLE)
    grid = torch.cartesian_prod(axis, axis)
    total = law(parameters(3, 2), len(grid)).log_prob(grid).exp().sum() * 0.08**2
    assert total.item() == pytest.approx(1.0, abs=1e-9)


def test_bins_of_an_image_are_masses_of_the_mixture() -> None:
    # one number on 64 levels, everything well inside: the masses of all levels sum to 1
    space = Space((1, 1, 1), low=0.0, high=1.0, bins=64)
    module = Mixture(components=2, init_scale=0.05, spread=2.0).build(space).double()
    module.start_at(torch.full(space.shape, 0.5))
    levels = ((torch.arange(64, dtype=DOUBLE) + 0.5) / 64).view(64, 1, 1, 1)
    mixture = module(torch.zeros(64, *Mixture(components=2).outputs(space), dtype=DOUBLE))
    assert mixture.log_prob_bins(levels).exp().sum().item() == pytest.approx(1.0, abs=1e-6)


def test_draws_have_its_moments() -> None:
    """N = 200 000: E z z^T = sum_k w_k (m m^T + diag s^2), each entry within 6 of its own standard errors."""
    given, rows = parameters(3, 2), 200_000
    with torch.no_grad():
        z = law(given, rows).draw(noise(rows)).read("sample")
        weights, means, scales = given[0].softmax(1)[0], given[1][0], given[2][0].exp()
    for i, j in ((0, 0), (0, 1), (1, 1)):
        product = z[:, i] * z[:, j]
        expected = (weights * (means[:, i] * means[:, j] + (i == j) * scales[:, i] ** 2)).sum()
        assert product.mean().item() == pytest.approx(expected.item(), abs=6 * product.std().item() / math.sqrt(rows))


# --- the path ---------------------------------------------------------------------------------------------------------


def test_the_path_leaves_the_point_where_it_is() -> None:
    point = torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    path = moved(point, law(parameters(4, 3), 50))
    assert torch.equal(path, point) and path.requires_grad


def test_the_path_in_one_dimension_keeps_the_distribution_function() -> None:
    """dz = -dF(z) / f(z), F = sum_k w_k Phi((z - m_k) / s_k) differentiated by autograd."""
    given = parameters(3, 1)
    z = torch.linspace(-4, 4, 41, dtype=DOUBLE)[:, None]
    for row in z:
        mixture = law(given, 1)
        cdf = mixture.log_weights.exp() * torch.special.ndtr((row - mixture.means) / mixture.log_scales.exp())[..., 0]
        expected = torch.autograd.grad(-cdf.sum() / mixture.log_prob(row[None]).exp().detach(), given)
        found = torch.autograd.grad(moved(row[None], law(given, 1)).sum(), given)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


FUNCTIONS: dict[str, Any] = {
    "product": lambda z: z[:, 0] * z[:, 1],
    "sine of both": lambda z: torch.sin(z[:, 0] + 2 * z[:, 1]),
    "interaction": lambda z: torch.tanh(z[:, 0]) * z[:, 1] ** 2,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_path_is_unbiased_in_two_dimensions(name: str) -> None:
    """d E[g(z)] by the path, integrated over the plane, against d of the integral of g p. Smooth: sums do."""
    g, given = FUNCTIONS[name], parameters(3, 2)
    axis = torch.linspace(-11, 11, 331, dtype=DOUBLE)
    grid, cell = torch.cartesian_prod(axis, axis), (22 / 330) ** 2
    density = law(given, len(grid)).log_prob(grid).exp()
    expected = torch.autograd.grad((density * g(grid)).sum() * cell, given)
    weights = density.detach() * cell
    keep = weights > 1e-18  # beyond, the path moves a great deal of nothing
    path = moved(grid[keep], law(given, int(keep.sum())))
    found = torch.autograd.grad((weights[keep] * g(path)).sum(), given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert expected[0].abs().max() > 0.003 and expected[1].abs().max() > 0.05  # of the weights and of the means


def step_by_step(point: Tensor, mixture: MixtureOfGaussians) -> Tensor:
    """The same path as it is written: z_d = z_d0 - (F_d - stop F_d) / stop f_d, the weights after z_<d attached."""
    log_r, done = mixture.log_weights, []
    for d in range(point.shape[1]):
        m, s = mixture.means[:, :, d], mixture.log_scales[:, :, d].exp()
        normal = torch.distributions.Normal(m, s)
        r = log_r.softmax(1)
        cdf = (r * normal.cdf(point[:, d : d + 1])).sum(1)
        density = (r * normal.log_prob(point[:, d : d + 1]).exp()).sum(1)
        z = point[:, d] - (cdf - cdf.detach()) / density.detach()
        log_r = log_r + normal.log_prob(z[:, None])
        done.append(z)
    return torch.stack(done, 1)


@pytest.mark.parametrize("size", [1, 5, 150])  # 150: three blocks
def test_blocks_solve_the_steps(size: int) -> None:
    given = parameters(3, size, rows=4)
    given[1].data *= 0.1  # components that overlap, so that many steps matter
    mixture = law(given, 4)
    point = mixture.draw(noise(4)).read("sample").detach()
    weights = torch.randn(4, size, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    expected = torch.autograd.grad((weights * step_by_step(point, mixture)).sum(), given)
    found = torch.autograd.grad((weights * moved(point, law(given, 4))).sum(), given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)


def test_one_component_is_a_gaussian() -> None:
    """dz/dm = 1 and dz/dlog s = z - m, each dimension by itself."""
    given, rows = parameters(1, 3), 20
    z = law(given, rows).draw(noise(rows)).read("sample")
    by_logit, by_mean, by_scale = torch.autograd.grad(z.sum(), given)
    assert by_logit.abs().max() < 1e-12
    torch.testing.assert_close(by_mean[0, 0], torch.full((3,), float(rows), dtype=DOUBLE))
    torch.testing.assert_close(by_scale[0, 0], (z - given[1][0]).sum(0).detach())


def test_the_path_is_finite_in_float32_where_components_are_far_apart_and_weights_tiny() -> None:
    logits = torch.tensor([[0.0, -60.0, 3.0]]).requires_grad_()
    means = torch.tensor([[-30.0, 0.0, 1e4], [1e4, 0.0, -30.0]]).T[None].contiguous().requires_grad_()
    log_scales = torch.tensor([[-6.0, 3.0, -2.0], [3.0, -6.0, 0.0]]).T[None].contiguous().requires_grad_()
    mixture = law([logits, means, log_scales], 2000)
    z = mixture.draw(noise(2000, torch.float32)).read("sample")
    gradients = torch.autograd.grad(z.square().sum() + mixture.log_prob(z).sum(), [logits, means, log_scales])
    assert z.isfinite().all() and mixture.log_prob(z).isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_both_tails_in_float32_are_those_of_float64() -> None:
    """Eight scales out, Phi is 6e-16: 1 - Phi is nothing in float32, and the ratio Phi / f still about 1/8."""
    point = torch.tensor([[-9.0], [9.0]])
    found = {}
    for dtype in (torch.float32, DOUBLE):
        given = [t.to(dtype).requires_grad_() for t in (torch.zeros(1, 2), torch.tensor([[[-1.0], [1.0]]]))]
        mixture = law([*given, torch.zeros(1, 2, 1, dtype=dtype)], 2)
        found[dtype] = torch.autograd.grad(moved(point.to(dtype), mixture).sum(), given)
    for single, double in zip(found[torch.float32], found[DOUBLE], strict=True):
        assert double.abs().max() > 0.1
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


# --- the family -------------------------------------------------------------------------------------------------------


def test_components_start_apart_and_centred() -> None:
    for components in (2, 3, 10):
        pattern = spread_out(components, Space((4, 3)))
        assert pattern.shape == (components, 4, 3)
        torch.testing.assert_close(pattern.mean(0), torch.zeros(4, 3), rtol=0, atol=1e-6)
        torch.testing.assert_close(pattern.square().mean(0), torch.ones(4, 3), rtol=0, atol=1e-5)
        assert torch.pdist(pattern.flatten(1)).min() > 0.1
    assert spread_out(1, Space((4,))).tolist() == [[0.0] * 4]


def test_an_image_takes_its_maps_from_a_decoder() -> None:
    """K (2 C + 1) maps; a weight's logit is the mean of its map, so adding 1 to all of it adds 1 to the logit."""
    space = Space((3, 4, 4), low=0.0, high=1.0, bins=256)
    family = Mixture(components=5, mean="sigmoid")
    assert family.outputs(space) == (35, 4, 4)
    module = family.build(space)
    params = torch.zeros(2, 35, 4, 4)
    params[:, 0] += 1.0
    distribution = module(params)
    expected = torch.tensor([1.0, 0, 0, 0, 0]).log_softmax(0)
    torch.testing.assert_close(distribution.log_weights[0], expected)
    assert distribution.draw(noise(2, torch.float32)).read("sample").shape == (2, 3, 4, 4)


def test_bfloat16_outputs_are_taken_up_to_float32() -> None:
    module = Mixture(components=2).build(Space((3,)))
    params = torch.randn(4, 14, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        z = module(params).draw(noise(4, torch.float32)).read("sample")
        z.square().sum().backward()
    assert z.dtype == torch.float32 and params.grad is not None and params.grad.isfinite().all()


def test_no_path_is_built_where_no_gradient_is_wanted() -> None:
    with torch.no_grad():
        assert not law(parameters(3, 2), 5).draw(noise(5)).read("sample").requires_grad


def test_what_it_refuses() -> None:
    with pytest.raises(ConfigError, match='type: "mixture" is a family of real variables, this one is 2 binary'):
        Mixture().outputs(Space((2,), kind="binary"))
    with pytest.raises(ValueError, match="components"):
        Mixture(components=0)
    with pytest.raises(ValueError, match="init_scale"):
        Mixture(init_scale=1e-9)
