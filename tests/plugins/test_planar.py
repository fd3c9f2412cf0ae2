"""Planar flows: the recursion against a plain loop, the inverse against closed forms, densities against quadrature."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jointgen_families.flows import recursion
from jointgen_families.flows.planar import Planar, PlanarTransform, bent
from jointgen_families.flows.recursion import Backwards, solve
from jointgen_families.gaussian import Gaussian
from torch import Tensor, nn
from torch.nn import functional as F

from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError

torch.set_num_threads(1)

DOUBLE = torch.float64


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def noise(rows: int, dtype: torch.dtype = DOUBLE) -> NoiseSource:
    return Noise(0, dtype=dtype).named("n", rows)


def layers(B: int, K: int, D: int, scale: float, margin: float = 0.0) -> PlanarTransform:
    u, w, b = normal(B, K, D, scale=scale), normal(B, K, D, scale=scale, seed=1), normal(B, K, scale=scale, seed=2)
    return PlanarTransform(u, w, b, margin)


def built(config: Planar, size: int) -> nn.Module:
    torch.manual_seed(0)
    return config.build(Space((size,))).double()


def params_for(config: Planar, size: int, rows: int, scale: float = 0.5) -> Tensor:
    return normal(rows, *config.outputs(Space((size,))), scale=scale, seed=3)


# --- one layer's scalar equation -------------------------------------------------------------------------------------


def test_the_scalar_equation_has_the_partial_derivatives_derived_by_hand() -> None:
    """alpha + c tanh(alpha + b) = t at t = 0.7, c = -0.6, b = 0.3: with s = sech^2(alpha + b),
    d alpha/dt = 1/(1 + c s), d alpha/dc = -tanh/(1 + c s), d alpha/db = 1/(1 + c s) - 1."""
    t, c, b = (torch.full((1, 1), v, dtype=DOUBLE) for v in (0.7, -0.6, 0.3))
    h = Backwards.solve(t + b, c, c[0])
    alpha = torch.atanh(h) - b
    torch.testing.assert_close(alpha + c * torch.tanh(alpha + b), t, rtol=0, atol=1e-15)
    by_start, _, by_c = Backwards.gradients(1 / (1 - h * h), h, c, c[0])  # of atanh(h) = alpha + b
    for value, expected in zip((by_start, by_c, by_start - 1), (1.110304, -1.014227, 0.110304), strict=True):
        assert value.item() == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize("c", [-1.0, -1 + 1e-12, -0.9, -0.5, 0.0, 0.5, 5.0, 1e4])
def test_the_scalar_equation_is_solved_to_rounding(c: float) -> None:
    t = torch.cat([s * torch.logspace(-12, 8, 201, dtype=DOUBLE) for s in (-1, 1)] + [torch.zeros(1, dtype=DOUBLE)])
    a = solve(t, torch.full_like(t, c))
    residual = a + c * torch.tanh(a) - t
    assert bool((residual.abs() <= 4 * torch.finfo(DOUBLE).eps * (t.abs() + abs(c))).all())


def test_known_solutions() -> None:
    """c = 0: a = t. t = 0: a = 0. A bias of -1e8 saturates tanh at -1, so alpha = t + c."""
    t = normal(50)
    assert torch.equal(solve(t, torch.zeros_like(t)), t)
    assert solve(torch.zeros(1, dtype=DOUBLE), torch.full((1,), -0.7, dtype=DOUBLE)).item() == 0.0
    b, c = -1e8, 0.4
    alpha = solve(t + b, torch.full_like(t, c)) - b
    torch.testing.assert_close(alpha, t + c, rtol=0, atol=1e-7)  # 1e8 has seven digits after the point


def test_a_point_that_is_not_a_number_stays_one() -> None:
    assert solve(torch.tensor([math.nan, 1.0]), torch.tensor([0.5, 0.5])).isnan().tolist() == [True, False]


# --- K layers at once ------------------------------------------------------------------------------------------------


def bent_u(u: Tensor, w: Tensor, margin: float = 0.0) -> Tensor:
    """u + e w, which a PlanarTransform never forms."""
    _, e = bent((u * w).sum(-1, keepdim=True), w.square().sum(-1, keepdim=True), margin)
    return u + e * w


def plain(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Rezende & Mohamed 2015, eqs 10 to 12, one D-dimensional layer after the other."""
    total = torch.zeros(len(z), dtype=z.dtype)
    for k in range(u.shape[-2]):
        h = torch.tanh((w[..., k, :] * z).sum(-1) + b[..., k])
        psi = (1 - h**2)[:, None] * w[..., k, :]
        total = total + torch.log(torch.abs(1 + (u[..., k, :] * psi).sum(-1)))
        z = z + u[..., k, :] * h[:, None]
    return z, total


@pytest.mark.parametrize("per_row", [True, False])
def test_the_recursion_equals_the_plain_loop_in_value_and_gradient(per_row: bool) -> None:
    B, K, D = 4, 7, 3
    rows = (B,) if per_row else ()
    raw = [normal(*rows, K, D, seed=1), normal(*rows, K, D, seed=2), normal(*rows, K, seed=3), normal(B, D, seed=4)]
    u, w, b, z0 = (x.requires_grad_() for x in raw)
    ours = PlanarTransform(u, w, b).forward(z0)
    theirs = plain(z0, bent_u(u, w), w, b)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    weights = normal(B, D, seed=5)
    gradients = [torch.autograd.grad((weights * z).sum() + l.sum(), (u, w, b, z0)) for z, l in (ours, theirs)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("per_row", [True, False])
def test_gradients_are_finite_differences_both_ways(direction: str, per_row: bool) -> None:
    rows = (3,) if per_row else ()
    raw = [normal(3, 2), normal(*rows, 4, 2, seed=1), normal(*rows, 4, 2, seed=2), normal(*rows, 4, seed=3)]

    def run(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> Any:
        return getattr(PlanarTransform(u, w, b, margin=0.1), direction)(z)

    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in raw])


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    z, u, w, b = normal(1, 2).requires_grad_(), normal(2, 2), normal(2, 2, seed=1), normal(2)
    (first,) = torch.autograd.grad(PlanarTransform(u, w, b).forward(z)[0].square().sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("K", [1, 5])
def test_log_det_is_that_of_the_jacobian(K: int) -> None:
    flow, z0 = layers(1, K, 3, 1.0), normal(1, 3, seed=7)
    jacobian = torch.autograd.functional.jacobian(lambda z: flow.forward(z[None])[0][0], z0[0])
    expected = torch.linalg.slogdet(jacobian)
    torch.testing.assert_close(flow.forward(z0)[1], expected.logabsdet[None], rtol=0, atol=1e-12)
    assert expected.sign.item() == 1


# docs/concepts/densities.md: the round trip of 80 layers in 40 dimensions, float64, for weights of these scales
ROUND_TRIPS = {0.1: 5e-15, 0.3: 6e-12, 0.6: 2e-7, 1.0: 2e-5}


@pytest.mark.parametrize("scale", ROUND_TRIPS)
@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_eighty_layers_there_and_back(scale: float, margin: float) -> None:
    flow, z0 = layers(64, 80, 40, scale, margin), normal(64, 40, seed=7)
    z, log_det = flow.forward(z0)
    back, same = flow.inverse(z)
    torch.testing.assert_close(back, z0, rtol=0, atol=ROUND_TRIPS[scale])
    torch.testing.assert_close(same, log_det, rtol=0, atol=10 * ROUND_TRIPS[scale])


def test_the_inverse_works_in_float64_whatever_it_is_given() -> None:
    """A float32 point is inverted as the float64 point that it is."""
    flow, z = layers(8, 80, 4, 0.5), normal(8, 4).float()
    single = [x.float() for x in (flow.u, flow.w, flow.b)]
    found = PlanarTransform(*single).inverse(z)
    expected = PlanarTransform(*(x.double() for x in single)).inverse(z.double())
    assert found[0].dtype == found[1].dtype == torch.float32
    torch.testing.assert_close(found, tuple(x.float() for x in expected), rtol=0, atol=0)


# --- the constraint --------------------------------------------------------------------------------------------------


def test_any_layer_becomes_invertible() -> None:
    for margin in (0.0, 0.2):
        u, w = normal(1000, 5, scale=4), normal(1000, 5, scale=4, seed=1)
        products = (bent_u(u, w, margin) * w).sum(-1)
        assert products.min() >= -1 + margin - 1e-12
        t, room = (u * w).sum(-1), 1 - margin
        torch.testing.assert_close(products, F.softplus(t + math.log(math.exp(room) - 1)) - room, rtol=0, atol=1e-9)


def test_orthogonal_vectors_are_left_alone_and_a_zero_w_is_no_trap() -> None:
    u, w = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    torch.testing.assert_close(bent_u(u, w), u, rtol=0, atol=1e-7)
    zero = torch.zeros(1, 2, requires_grad=True)
    assert torch.equal(bent_u(u, zero), u)
    assert torch.autograd.grad(bent_u(u, zero).sum(), zero)[0].isfinite().all()


def test_a_fresh_flow_is_near_the_identity() -> None:
    """docs/concepts/densities.md: |sum log-det| of 80 layers in 40 dimensions at scale 0.01 is at most 0.05 (the
    published m would give 29)."""
    worst = max(
        layers(128, 80, 40, 0.01).forward(normal(128, 40, seed=seed))[1].mean().abs().item() for seed in range(5)
    )
    assert worst < 0.05
    config, z = Planar(base=Gaussian(scale="fixed")), normal(16, 40)
    flow = built(config, 40)(torch.zeros(16, *config.outputs(Space((40,))), dtype=DOUBLE))
    base = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
    torch.testing.assert_close(flow.log_prob(z), base, rtol=0, atol=2.0)  # of -57 nats


# --- the family ------------------------------------------------------------------------------------------------------


def test_outputs_are_the_bases_then_u_w_and_b_of_every_layer() -> None:
    space = Space((3,))
    assert Planar(length=5).outputs(space) == (2 * 3 + 5 * (2 * 3 + 1),)
    assert Planar(length=5, amortized=False).outputs(space) == (2 * 3,)
    image = Space((1, 4, 4))
    assert Planar(Gaussian(scale="global"), amortized=False).outputs(image) == (1, 4, 4)
    with pytest.raises(ConfigError, match="real variables"):
        Planar().capabilities(Space((2,), kind="binary"))


@pytest.mark.parametrize("amortized", [True, False])
def test_a_draw_scores_itself_as_the_inverse_does(amortized: bool) -> None:
    """In value and in the whole gradient: of the parameters, and through the sample."""
    config = Planar(length=6, amortized=amortized, init_scale=0.5)
    module, params = built(config, 3), params_for(config, 3, 4).requires_grad_()
    wanted = [params, *module.parameters()]
    found = []
    for by_draw in (True, False):
        law = module(params)
        draw = law.draw(noise(4))
        density = draw.log_prob() if by_draw else law.log_prob(draw.read("sample"))
        gradients = torch.autograd.grad(density.sum(), wanted, allow_unused=True)
        found.append(
            (density, [torch.zeros_like(p) if g is None else g for p, g in zip(wanted, gradients, strict=True)])
        )
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-9)


def test_the_density_integrates_to_one_at_points_it_did_not_draw() -> None:
    config = Planar(length=4, init_scale=0.5)
    line = torch.linspace(-12, 12, 241, dtype=DOUBLE)
    grid = torch.cartesian_prod(line, line)
    params = params_for(config, 2, 1, scale=0.7).expand(len(grid), -1)
    density = built(config, 2)(params).log_prob(grid).exp()
    assert density.sum().item() * 0.1**2 == pytest.approx(1.0, abs=1e-6)
    one = built(config, 1)(params_for(config, 1, 1).expand(len(line), -1)).log_prob(line[:, None]).exp()
    assert one.sum().item() * 0.1 == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("amortized", [True, False])
def test_the_gradient_at_foreign_points_is_a_finite_difference(amortized: bool) -> None:
    config = Planar(length=3, amortized=amortized, init_scale=0.5)
    module = built(config, 2)
    names = [name for name, _ in module.named_parameters()]

    def log_prob(value: Tensor, params: Tensor, *own: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, own, strict=True)), (params,)).log_prob(value)

    inputs = (normal(3, 2, seed=9), params_for(config, 2, 3), *(p.detach().clone() for p in module.parameters()))
    assert torch.autograd.gradcheck(log_prob, [x.requires_grad_() for x in inputs])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_outputs_are_flowed_in_float32(dtype: torch.dtype) -> None:
    config = Planar(length=80)
    module = config.build(Space((4,)))
    params = params_for(config, 4, 5, scale=0.1).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        law = module(params)
        draw = law.draw(noise(5, torch.float32))
        densities = draw.log_prob(), law.log_prob(draw.read("sample"))
    assert {x.dtype for x in (draw.read("sample"), *densities)} == {torch.float32}
    torch.testing.assert_close(*densities, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [1e-30, 1e-3, 30.0, 1e4])
def test_extreme_layers_stay_finite(size: float) -> None:
    config = Planar(length=80)
    module = config.build(Space((4,)))
    params = torch.cat([torch.zeros(6, 8), params_for(config, 4, 6, scale=size).float()[:, 8:]], 1).requires_grad_()
    law = module(params)
    draw = law.draw(noise(6, torch.float32))
    for density in (draw.log_prob(), law.log_prob(10 * draw.read("sample").detach())):
        assert density.isfinite().all()
        (gradient,) = torch.autograd.grad(density.sum(), params, retain_graph=True)
        assert gradient.isfinite().all()


def test_what_nobody_looks_at_ends_in_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an accelerator no round is cut short by a look: as many as are ever needed for |c| <= 1000."""
    c = torch.cat([-1 + torch.logspace(-15, 0, 100, dtype=DOUBLE), torch.logspace(-3, 3, 100, dtype=DOUBLE)])
    t = torch.linspace(-30, 30, 61, dtype=DOUBLE)[:, None] * torch.logspace(-3, 0, 200, dtype=DOUBLE) + 0 * c
    transform, z = layers(5, 30, 3, 0.5), normal(5, 3, seed=4)
    looked = solve(t, c.expand_as(t)), *transform.forward(z), *transform.inverse(z)
    monkeypatch.setattr(recursion, "may_look", lambda x: False)
    unseen = solve(t, c.expand_as(t)), *transform.forward(z), *transform.inverse(z)
    assert all(torch.equal(a, b) for a, b in zip(looked, unseen, strict=True))
