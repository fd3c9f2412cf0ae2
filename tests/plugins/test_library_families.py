"""Families of libraries: the distributions of torch, and the flows of zuko."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jointgen_families.flows.zuko_flows import Zuko
from jointgen_families.torch_family import NamedRandomness, Torch
from support.checks import failures
from torch.distributions import Gamma

from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError

torch.set_num_threads(1)

PLANE = Space((2,))
SMALL: dict[str, Any] = {"hidden": [4], "length": 2, "context": 2}


def noise(rows: int, **options: Any) -> Any:
    return Noise(3, 1, **options).named("z", rows)


@pytest.mark.parametrize("distribution", ["StudentT", "Cauchy"])
def test_distributions_of_all_numbers_keep_every_promise(distribution: str) -> None:
    assert failures("family", Torch(distribution), spaces=[PLANE]) == {}


@pytest.mark.parametrize("distribution", ["Beta", "Gamma", "Exponential", "Chi2", "ContinuousBernoulli"])
def test_distributions_of_a_range_keep_every_promise(distribution: str) -> None:
    assert failures("family", Torch(distribution), spaces=[Space((1,), low=0.0, high=1.0)]) == {}


@pytest.mark.parametrize(
    ("distribution", "unkept"),
    [
        ("Gumbel", {"extremes are finite"}),  # its density falls with exp(exp(-x))
        ("LogNormal", {"extremes are finite"}),  # exp of any number
        ("HalfNormal", {"log prob has the log determinant of the draw"}),  # two numbers of the noise give one draw
    ],
)
def test_others_break_the_promises_alone_that_their_definition_does(distribution: str, unkept: set[str]) -> None:
    space = Space((1,)) if distribution == "Gumbel" else Space((1,), low=0.0, high=1.0)
    assert {*failures("family", Torch(distribution), spaces=[space])} == unkept


def test_gamma_variates_of_named_noise_have_the_moments_and_the_gradient_of_gammas() -> None:
    shape = torch.tensor([0.3, 1.0, 7.5], dtype=torch.float64).expand(40_000, 3).clone().requires_grad_()
    with NamedRandomness(noise(40_000, dtype=torch.float64)):
        drawn = Gamma(shape, torch.ones((), dtype=torch.float64), validate_args=False).rsample()
    expected = shape[0].detach()
    assert torch.allclose(drawn.mean(0), expected, rtol=0.03)  # E = a, Var = a
    assert torch.allclose(drawn.var(0), expected, rtol=0.06)
    (gradient,) = torch.autograd.grad(drawn.sum(), shape)
    assert torch.allclose(gradient.mean(0), torch.ones(3, dtype=torch.float64), rtol=0.05)  # d E / da = 1


def test_two_processes_draw_what_one_does() -> None:
    module = Torch("StudentT").build(PLANE)
    params = torch.linspace(-1, 1, 48).view(8, 6)
    whole = module(params).draw(noise(8)).read("sample")
    halves = [module(params[4 * r : 4 * r + 4]).draw(noise(4, rank=r, world=2)).read("sample") for r in (0, 1)]
    assert torch.equal(whole, torch.cat(halves))


def test_a_normal_of_torch_has_the_density_and_the_draws_of_the_formula() -> None:
    distribution = Torch("Normal").build(Space((1,)))(torch.tensor([[0.5, math.log(2.0)]]))
    value = torch.tensor([[1.5]])
    density = -0.5 * ((1.5 - 0.5) / 2) ** 2 - math.log(2) - 0.5 * math.log(2 * math.pi)
    assert distribution.log_prob(value).item() == pytest.approx(density)
    assert distribution.draw(noise(1)).read("sample").item() == pytest.approx(0.5 + 2 * noise(1).normal(1).item())


def test_densities_near_the_end_of_the_range_are_those_of_the_formula() -> None:
    """Gamma(a, 1) at x: (a - 1) log x - x - log Gamma(a); LogNormal(-20, 1) at its median: 20 - log sqrt(2 pi)."""
    plane, tiny = Space((1,), low=0.0), torch.tensor([[1e-20]])
    gamma = Torch("Gamma", fixed={"rate": 1.0}).build(plane)(torch.tensor([[math.log(0.05)]]))
    assert gamma.log_prob(tiny).item() == pytest.approx(-0.95 * math.log(1e-20) - math.lgamma(0.05), rel=1e-5)
    normal = Torch("LogNormal", fixed={"scale": 1.0}).build(plane)(torch.tensor([[-20.0]]))
    assert normal.log_prob(torch.tensor([[math.exp(-20.0)]])).item() == pytest.approx(
        20 - 0.5 * math.log(2 * math.pi), rel=1e-5
    )
    assert math.isfinite(gamma.log_prob(torch.tensor([[0.0]])).item())
    assert gamma.log_prob(torch.tensor([[-1e-20]])).item() == -math.inf


def test_minus_the_mean_log_density_of_draws_is_the_entropy() -> None:
    """Also where many draws lie below float32's 2^-24: 45 % of Gamma(0.05, 1)."""
    rows = 20_000
    gamma = Torch("Gamma", fixed={"rate": 1.0}).build(Space((1,), low=0.0))(
        torch.full((rows, 1), math.log(0.05), dtype=torch.float64)
    )
    drawn = gamma.draw(noise(rows)).read("sample")
    found = -gamma.log_prob(drawn).mean().item()
    assert found == pytest.approx(
        Gamma(0.05, 1.0).entropy().item(), abs=0.6
    )  # its sd over rows is 19, 0.13 of the mean


def test_a_fixed_parameter_is_not_asked_of_the_trunk() -> None:
    family = Torch("StudentT", fixed={"df": 3.0})
    assert family.outputs(PLANE) == (4,)
    assert family.build(PLANE)(torch.zeros(1, 4)).distribution.df.tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"distribution": "StudenT"}, "distribution: 'StudenT' is no distribution .*; did you mean 'StudentT'"),
        ({"distribution": "Poisson"}, "distribution: 'Poisson' is no distribution .* with a sample path"),
        ({"distribution": "Uniform"}, "distribution: 'Uniform' is no distribution .* a fixed range"),
        (
            {"distribution": "Normal", "fixed": {"sigma": 1.0}},
            "fixed.sigma: Normal has no such parameter; known: loc, s",
        ),
        ({"distribution": "Normal", "fixed": {"scale": -1.0}}, "fixed.scale: must be > 0, got -1"),
        ({"distribution": "Chi2", "fixed": {"df": 1.0}}, "fixed: fixes every parameter of Chi2"),
    ],
)
def test_a_wrong_setting_names_what_is_allowed(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Torch(**settings)


@pytest.mark.parametrize(
    ("distribution", "space"),
    [
        ("Gamma", PLANE),
        ("Beta", Space((2,), low=-1.0, high=1.0)),
        ("Beta", Space((2,), low=0.0, high=2.0)),
        ("Normal", Space((2,), kind="binary")),
    ],
)
def test_a_variable_with_values_that_it_does_not_draw_is_refused(distribution: str, space: Space) -> None:
    with pytest.raises(ConfigError, match=r"this (variable|one) is"):
        Torch(distribution).capabilities(space)


@pytest.mark.parametrize(("flow", "fast"), [("MAF", "density"), ("NSF", "draws")])
def test_flows_of_zuko_keep_every_promise(flow: Any, fast: Any) -> None:
    assert failures("family", Zuko(flow_=flow, fast=fast, **SMALL), spaces=[PLANE]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("fast", ["draws", "density"])
@pytest.mark.parametrize("flow", ["MAF", "NSF", "NAF", "UNAF", "SOSPF", "BPF", "CNF"])
def test_every_flow_of_zuko_keeps_every_promise(flow: Any, fast: Any) -> None:
    if (flow, fast) == ("NAF", "density"):
        pytest.skip("it is refused")
    assert failures("family", Zuko(flow_=flow, fast=fast, **SMALL), spaces=[PLANE]) == {}


def test_a_flow_whose_draws_have_wrong_gradients_is_refused() -> None:
    with pytest.raises(ConfigError, match="wrong gradients of draws"):
        Zuko(flow_="NAF", fast="density")
