"""The implicit family with moments, and the Gaussians that are matched to it: by hand, by counts, by quadrature."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jointgen_families.correlated import CorrelatedGaussian
from jointgen_families.gaussian import DiagonalGaussian, Gaussian
from jointgen_families.implicit_basis import POINTS, ImplicitBasis, fixed_noise
from torch import Tensor

from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError

torch.set_num_threads(1)

DOUBLE = torch.float64
VECTOR = Space((2,))
MAPS = Space((2, 3, 1))
COVARIANCES: list[Any] = ["full", "diagonal"]


def noise(rows: int, name: str = "n", seed: int = 0, dtype: torch.dtype = DOUBLE) -> NoiseSource:
    return Noise(seed, dtype=dtype).named(name, rows)


def built(family: ImplicitBasis, space: Space = VECTOR) -> Any:
    """Built in double precision, a little off its start, so that no noise has mean 0 and variance 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = family.build(space).double()
        for parameter in module.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return module


def params_for(family: ImplicitBasis, space: Space = VECTOR, rows: int = 5) -> Tensor:
    return torch.randn(rows, *family.outputs(space), generator=torch.Generator().manual_seed(1), dtype=DOUBLE)


# --- the law ---------------------------------------------------------------------------------------------------------


def linear() -> tuple[Any, Tensor]:
    """z = z0 + a_1 v_1 + a_2 v_2 in the plane, v_i = W_i' eps_i + b_i with eps_i of two numbers, and its parameters.

    At raw weights 0 a_i is the start: init_scale / sqrt 2 = 1 for init_scale = sqrt 2; at raw u < 0 that times exp(u).
        v_1: W = [[1, 0], [2, 1]], b = (1, -1); covariance W'W = [[1 + 4, 2], [2, 1]]
        v_2: W = [[0, 3], [0, 0]], b = (0, 2);  covariance         [[0, 0], [0, 9]]
    z0 = (0.5, 0.25), a_1 = (1, 1), a_2 = (1, 1/2), so
        mean = (0.5 + 1, 0.25 - 1 + 2/2) = (1.5, 0.25)
        covariance = [[5, 2], [2, 1]] + [[0, 0], [0, 9/4]] = [[5, 2], [2, 3.25]]
    """
    module = ImplicitBasis(basis=2, noise=2, hidden=[], init_scale=math.sqrt(2)).build(VECTOR).double()
    module.noises.weights[0].data = torch.tensor([[[1.0, 0.0], [2.0, 1.0]], [[0.0, 3.0], [0.0, 0.0]]], dtype=DOUBLE)
    module.noises.biases[0].data = torch.tensor([[[1.0, -1.0]], [[0.0, 2.0]]], dtype=DOUBLE)
    return module, torch.tensor([[0.5, 0.25, 0.0, 0.0, 0.0, math.log(0.5)]], dtype=DOUBLE)


def test_the_moments_of_linear_noises_by_hand() -> None:
    module, params = linear()
    law = module(params).moments()
    covariance = law.log_scale.exp()[0].outer(law.log_scale.exp()[0]) * (law.root @ law.root.mT)[0]
    assert law.mean[0].tolist() == pytest.approx([1.5, 0.25], abs=1e-6)
    # 1e-5 of every correlation is given up for a root (2 is 1.99998), and the fixed noise is kept in float32
    assert covariance.flatten().tolist() == pytest.approx([5, 2, 2, 3.25], abs=5e-5)
    module.covariance = "diagonal"
    assert module(params).moments().log_scale.exp().square()[0].tolist() == pytest.approx([5, 3.25], abs=1e-5)


def test_draws_are_what_the_equation_says() -> None:
    module, params = linear()
    eps = noise(1).normal(2, 2)[0]  # (m, e)
    v = [eps[i] @ module.noises.weights[0][i] + module.noises.biases[0][i, 0] for i in range(2)]
    by_hand = params[0, :2] + v[0] + torch.tensor([1.0, 0.5], dtype=DOUBLE) * v[1]
    torch.testing.assert_close(module(params).draw(noise(1)).read("sample")[0], by_hand, rtol=0, atol=1e-12)


def test_the_moments_are_those_of_the_draws() -> None:
    """200 000 draws per law; the fixed set of 256 noises estimates the moments of each v_i: a few per cent remain."""
    family = ImplicitBasis(basis=3, noise=3, hidden=[8])
    module = built(family)
    for row in params_for(family, rows=3):
        law = module(row.expand(200_000, -1))
        z = law.draw(noise(200_000)).read("sample")
        matched = module(row[None]).moments()
        scale, correlation = matched.log_scale.exp()[0], (matched.root @ matched.root.mT)[0, 0, 1]
        assert scale.tolist() == pytest.approx(z.std(0).tolist(), rel=0.05)
        assert ((z.mean(0) - matched.mean[0]) / scale).abs().max() < 0.05
        assert correlation.item() == pytest.approx(torch.corrcoef(z.T)[0, 1].item(), abs=0.05)


@pytest.mark.parametrize("space", [VECTOR, MAPS], ids=str)
def test_it_starts_with_mean_z0_and_the_scale_asked_for(space: Space) -> None:
    family = ImplicitBasis(init_scale=0.3)
    module = family.build(space).double()
    params = torch.zeros(2, *family.outputs(space), dtype=DOUBLE)
    z0 = torch.randn(2, *space.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    params[:, : space.shape[0]] = z0
    law = module(params).moments()
    torch.testing.assert_close(law.mean, z0, rtol=0, atol=1e-6)
    torch.testing.assert_close(law.log_scale.exp(), torch.full_like(z0, 0.3), rtol=0, atol=1e-6)
    module.start_at(torch.full(space.shape, 2.0))
    torch.testing.assert_close(module(torch.zeros_like(params)).mean, torch.full_like(z0, 2.0), rtol=0, atol=1e-6)


def test_every_v_is_of_its_own_noise_and_of_nothing_else() -> None:
    """The same noise under two rows of parameters: (z - z0) / a is the same sum where a is one number for all i."""
    family = ImplicitBasis(basis=3, noise=2, hidden=[5])
    module = built(family)
    first, second = torch.zeros(2, 1, *family.outputs(VECTOR), dtype=DOUBLE)
    second[:, :2], second[:, 2:] = 1.7, -0.4
    z, other = (module(params).draw(noise(1)).read("sample") - module.offset for params in (first, second))
    torch.testing.assert_close((other - 1.7) / math.exp(-0.4), z, rtol=0, atol=1e-12)
    eps = noise(1).normal(3, 2).transpose(0, 1).clone()
    whole = module.noises(eps)
    eps[1] += 1.0
    moved = (module.noises(eps) - whole).abs().sum((1, 2))
    assert moved[1] > 0 and moved[0] == 0 and moved[2] == 0


@pytest.mark.parametrize("space", [VECTOR, MAPS], ids=str)
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_shapes_readings_and_rows(covariance: Any, space: Space) -> None:
    family = ImplicitBasis(basis=3, covariance=covariance)
    module, params = built(family, space), params_for(family, space)
    law = module(params)
    draw = law.draw(noise(5))
    for reading in family.capabilities(space).paths:
        assert draw.read(reading).shape == (5, *space.shape)
        assert draw.read(reading).dtype == DOUBLE
    assert torch.equal(law.mean, draw.read("mean"))
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(module(params[order]).mean, law.mean[order], rtol=0, atol=1e-12)
    matched, alone = law.moments(), module(params[2:3]).moments()  # of a row whatever the other rows are
    z = draw.read("sample")
    torch.testing.assert_close(alone.standardize(z[2:3]), matched.standardize(z)[2:3], rtol=0, atol=1e-9)
    assert matched.log_prob(z).shape == (5,)
    assert matched.draw(noise(5)).read("mean").shape == z.shape


def test_a_draw_reaches_every_parameter_and_the_moments_none() -> None:
    for covariance in COVARIANCES:
        family = ImplicitBasis(basis=3, hidden=[4], covariance=covariance)
        module, params = built(family), params_for(family).requires_grad_()
        module(params).draw(noise(5)).read("sample").square().sum().backward()
        for name, parameter in [*module.named_parameters(), ("params", params)]:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        matched = module(params).moments()
        assert not any(value.requires_grad for value in vars(matched).values() if isinstance(value, Tensor))


def test_a_draw_and_moments_keep_when_parameters_move() -> None:
    family = ImplicitBasis(basis=2)
    module, params = built(family), params_for(family)
    law = module(params)
    draw, matched = law.draw(noise(5)), law.moments()
    before = [draw.read("sample").clone(), draw.read("mean").clone(), matched.mean.clone(), matched.log_scale.clone()]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 1.0
    after = [draw.read("sample"), draw.read("mean"), matched.mean, matched.log_scale]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    torch.testing.assert_close(law.moments().mean, matched.mean, rtol=0, atol=0)


def test_state_holds_the_parameters_and_not_the_fixed_noise() -> None:
    family = ImplicitBasis(basis=2)
    module, other, params = built(family), family.build(VECTOR).double(), params_for(family)
    assert not any("points" in name for name in module.state_dict())
    other.load_state_dict(module.state_dict())
    one, two = (m(params).moments() for m in (module, other))
    assert torch.equal(one.mean, two.mean) and torch.equal(one.root, two.root)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("size", [0.0, 30.0, 1e4, 1e15])
def test_extreme_outputs_stay_finite(size: float, covariance: Any, dtype: torch.dtype) -> None:
    family = ImplicitBasis(basis=3, covariance=covariance)
    module = family.build(VECTOR).to(dtype)
    signs = torch.tensor([[1.0], [-1.0]], dtype=dtype)
    params = (size * signs).expand(2, *family.outputs(VECTOR)).clone().requires_grad_()
    law = module(params)
    z, matched = law.draw(noise(2, dtype=dtype)).read("sample"), law.moments()
    values = [z, matched.draw(noise(2, dtype=dtype)).read("sample"), matched.standardize(z), matched.log_prob(z)]
    assert all(bool(value.isfinite().all()) for value in values)
    values[-1].sum().backward()
    assert params.grad is not None and params.grad.isfinite().all()


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_moments_are_whole_where_networks_run_in_bfloat16(covariance: Any) -> None:
    family = ImplicitBasis(covariance=covariance)
    module = family.build(Space((16,)))
    params = params_for(family, Space((16,))).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        law = module(params.bfloat16())
        matched = law.moments()
        values = [matched.standardize(law.draw(noise(5, dtype=torch.float32)).read("sample")), matched.mean]
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in values)


def test_noises_that_have_died_leave_the_narrowest_gaussian() -> None:
    module = ImplicitBasis(basis=2).build(VECTOR).double()
    module.noises.weights[-1].data.zero_()
    matched = module(torch.zeros(1, 6, dtype=DOUBLE)).moments()
    assert matched.log_scale.tolist() == [[-7.0, -7.0]]
    assert matched.log_prob(matched.mean).isfinite()


def test_a_setting_or_a_variable_it_cannot_serve_is_named() -> None:
    for wrong in ({"basis": 0}, {"noise": 0}, {"hidden": [4, 0]}, {"init_scale": 0.0}, {"covariance": "low"}):
        (key, value), = wrong.items()  # fmt: skip
        with pytest.raises(ValueError, match=f"{key}.*{value[-1] if key == 'hidden' else value}"):
            ImplicitBasis(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match='type: "implicit_basis" is a family of real variables, this one is 4 binary'):
        ImplicitBasis().capabilities(Space((4,), kind="binary", bins=2))


def test_it_declares_moments_and_no_density() -> None:
    can = ImplicitBasis().capabilities(VECTOR)
    assert can.moments and can.own_density == can.foreign_density == "none" and can.noise_input == 0
    assert "moments of its draws" in str(can)
    assert Gaussian().capabilities(VECTOR).moments


# --- the fixed noise -------------------------------------------------------------------------------------------------


def test_the_fixed_noise_is_one_set_with_the_moments_of_a_normal() -> None:
    points = fixed_noise(3)
    torch.manual_seed(99)
    assert torch.equal(points, fixed_noise(3))
    assert points.shape == (POINTS, 3)
    assert points.mean(0).abs().max() < 1e-7
    torch.testing.assert_close(points.T @ points / POINTS, torch.eye(3), rtol=0, atol=1e-6)
    assert points.pow(4).mean(0).tolist() == pytest.approx([3.0] * 3, abs=1.0)


# --- matched Gaussians -----------------------------------------------------------------------------------------------


def correlated() -> CorrelatedGaussian:
    """Mean (1, -1), variances (4, 1/4), correlation 0.6."""
    mean = torch.tensor([[1.0, -1.0]], dtype=DOUBLE)
    correlation = torch.tensor([[[1.0, 0.6], [0.6, 1.0]]], dtype=DOUBLE)
    return CorrelatedGaussian(mean, torch.tensor([[math.log(2), -math.log(2)]], dtype=DOUBLE), correlation, VECTOR)


def test_the_correlated_density_by_hand() -> None:
    """At (3, -1): d = (2, 0), C = [[4, .6], [.6, .25]] of determinant 1 - 0.36 = 0.64, d' C^-1 d = 4 0.25 / 0.64.

    log N = -1/2 1.5625 - 1/2 log 0.64 - log 2 pi = -0.78125 + 0.223144 - 1.837877 = -2.395983
    """
    value = torch.tensor([[3.0, -1.0]], dtype=DOUBLE)
    assert correlated().log_prob(value).item() == pytest.approx(-2.395983, abs=3e-5)  # the jitter is 1e-5


def test_the_correlated_density_integrates_to_one() -> None:
    axes = torch.linspace(-13, 15, 701, dtype=DOUBLE), torch.linspace(-4.5, 2.5, 351, dtype=DOUBLE)
    law = correlated()
    grid = torch.cartesian_prod(*axes)
    whole = CorrelatedGaussian(
        law.mean.expand(len(grid), 2), law.log_scale.expand(len(grid), 2), (law.root @ law.root.mT), VECTOR
    )
    assert (whole.log_prob(grid).exp().sum() * 0.04 * 0.02).item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("kind", ["gaussian", "correlated"])
def test_standardized_draws_are_the_noise_itself(kind: str) -> None:
    if kind == "gaussian":
        law: Any = DiagonalGaussian(
            torch.full((4, 2), 3.0, dtype=DOUBLE), torch.full((4, 2), -1.0, dtype=DOUBLE), VECTOR
        )
    else:
        one = correlated()
        law = CorrelatedGaussian(one.mean.expand(4, 2), one.log_scale.expand(4, 2), one.root @ one.root.mT, VECTOR)
    z = law.draw(noise(4)).read("sample")
    torch.testing.assert_close(law.standardize(z), noise(4).normal(2), rtol=0, atol=1e-12)


def test_a_gaussians_moments_are_itself_without_a_gradient() -> None:
    params = torch.randn(3, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    law = Gaussian().build(VECTOR).double()(params)
    matched = law.moments()
    value = torch.ones(3, 2, dtype=DOUBLE)
    assert torch.equal(matched.log_prob(value), law.log_prob(value))
    assert law.log_prob(value).requires_grad and not matched.log_prob(value).requires_grad
