"""Inverse autoregressive, coupling and radial flows against Jacobians, quadrature, closed forms and counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jointgen_families.flows.chain import Chain
from jointgen_families.flows.coupling import Coupling
from jointgen_families.flows.distribution import Flow, FlowDistribution
from jointgen_families.flows.iaf import IAF, IAFStep
from jointgen_families.flows.made import MADE
from jointgen_families.flows.radial import Radial
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from zuko.transforms import AutoregressiveTransform, MonotonicAffineTransform

from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.contracts.space import Space
from jointgen.engine.program import held_twin

torch.set_num_threads(1)

FLOWS: list[Any] = [
    pytest.param(IAF(length=3, hidden=[12, 10], context=4), id="iaf"),
    pytest.param(IAF(length=2, hidden=[12], context=0, bias=1.0), id="iaf without context"),
    pytest.param(IAF(length=2, hidden=[], context=2), id="linear iaf"),
    pytest.param(Coupling(length=3, hidden=[12, 10], context=4), id="coupling"),
    pytest.param(Coupling(length=2, hidden=[12], context=0), id="coupling without context"),
    pytest.param(Coupling(length=3, hidden=[12], context=4, transform="spline"), id="spline"),
    pytest.param(Radial(length=4), id="radial"),
    pytest.param(Radial(length=4, amortized=False), id="radial for all"),
]
SIZES = [2, 3, 5]


def noise(rows: int, name: str = "n", dtype: torch.dtype = torch.float64) -> NoiseSource:
    return Noise(0, dtype=dtype).named(name, rows)


def numbers(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def stirred(family: Flow, size: int, dtype: torch.dtype = torch.float64, strength: float = 0.4) -> Any:
    """A module far from its start, but not chaotic."""
    module = family.build(Space((size,))).double()
    with torch.no_grad():
        for k, parameter in enumerate(module.flow.parameters()):
            parameter.copy_(strength * numbers(*parameter.shape, seed=k))
    return module.to(dtype)


def stirred_distribution(family: Flow, size: int, rows: int = 6, dtype: torch.dtype = torch.float64) -> Any:
    params = 0.5 * numbers(rows, *family.outputs(Space((size,))), dtype=dtype)
    return stirred(family, size, dtype)(params)


# --- every flow: an invertible map and its density -------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FLOWS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-3)], ids=["f64", "f32"])
def test_round_trip_both_ways(family: Flow, size: int, dtype: torch.dtype, tolerance: float) -> None:
    transform, z = stirred_distribution(family, size, dtype=dtype).transform, 2 * numbers(6, size, seed=2, dtype=dtype)
    close: Any = {"rtol": 0, "atol": tolerance}
    for there, back in [(transform.forward, transform.inverse), (transform.inverse, transform.forward)]:
        image, log_det = there(z)
        again, same = back(image)
        assert (image - z).abs().max() > 0.01, "nothing moved"
        torch.testing.assert_close(again, z, **close)
        torch.testing.assert_close(same, log_det, **close)
        assert log_det.shape == (6,) and image.dtype == log_det.dtype == dtype


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FLOWS)
def test_log_det_is_that_of_the_jacobian(family: Flow, size: int) -> None:
    transform, z0 = stirred_distribution(family, size).transform, 2 * numbers(6, size, seed=2)
    # rows do not mix, so the diagonal blocks of the Jacobian of all rows are the rows' own
    jacobian = torch.autograd.functional.jacobian(lambda z: transform.forward(z)[0], z0)
    blocks = jacobian.diagonal(dim1=0, dim2=2).movedim(-1, 0)
    assert jacobian.abs().sum() == pytest.approx(blocks.abs().sum().item())
    torch.testing.assert_close(transform.forward(z0)[1], blocks.slogdet()[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", FLOWS)
def test_density_integrates_to_one_in_two_dimensions(family: Flow) -> None:
    # splines and radial flows have kinks, at which the sum's error is of the order of the cell, 0.05^2
    module, axis = stirred(family, 2, strength=0.3), torch.arange(-12, 12, 0.05, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    params = 0.5 * numbers(1, *family.outputs(Space((2,)))).expand(len(grid), -1)
    with torch.no_grad():
        total = module(params).log_prob(grid).exp().sum().item() * 0.05**2
    assert total == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("family", FLOWS)
def test_a_draw_scores_itself_as_the_inverse_does(family: Flow) -> None:
    """In value, and in the whole gradient: through the sample, the trunk's output and the flow's own parameters."""
    module, params = stirred(family, 3), (0.5 * numbers(6, *family.outputs(Space((3,))))).requires_grad_()
    inputs = [params, *module.parameters()]
    distribution = module(params)
    draw = distribution.draw(noise(6))
    weights = numbers(6, seed=5)  # unequal rows
    own, foreign = draw.log_prob(), distribution.log_prob(draw.read("sample"))
    torch.testing.assert_close(own, foreign, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(weights @ v, inputs, retain_graph=True, allow_unused=True) for v in (own, foreign)]
    for mine, theirs in zip(*gradients, strict=True):
        # of the base's offset the total is nothing where there is no flow, so None and zero are the same
        torch.testing.assert_close(
            torch.zeros(()).double() if mine is None else mine, theirs, rtol=0, atol=1e-8, check_dtype=False
        )


@pytest.mark.parametrize("family", FLOWS)
def test_foreign_density_has_exact_gradients(family: Flow) -> None:
    module, value = stirred(family, 3), (2 * numbers(2, 3, seed=2)).requires_grad_()
    params = (0.5 * numbers(2, *family.outputs(Space((3,))))).requires_grad_()
    names, own = zip(*module.named_parameters(), strict=True)

    def log_prob(value: Tensor, params: Tensor, *own: Tensor) -> Tensor:
        wanted = {f"module.{name}": tensor for name, tensor in zip(names, own, strict=True)}
        return torch.func.functional_call(Scored(module), wanted, (params, value))

    assert torch.autograd.gradcheck(log_prob, (value, params, *own), fast_mode=True, atol=1e-6)


class Scored(nn.Module):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, params: Tensor, value: Tensor) -> Tensor:
        return self.module(params).log_prob(value)


@pytest.mark.parametrize("family", FLOWS)
def test_variables_of_any_shape_are_seen_as_vectors(family: Flow) -> None:
    module, square = family.build(Space((4,))), Space((1, 2, 2))
    shaped = family.build(square)
    shaped.load_state_dict({k: v.view(1, 2, 2) if k == "base.offset" else v for k, v in module.state_dict().items()})
    params = numbers(3, math.prod(family.outputs(square)), dtype=torch.float32)
    value = numbers(3, 4, seed=2, dtype=torch.float32)
    expected = module(params).log_prob(value)
    log_prob = shaped(params.unflatten(1, family.outputs(square))).log_prob(value.view(3, 1, 2, 2))
    torch.testing.assert_close(log_prob, expected)


@pytest.mark.parametrize("family", FLOWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_inputs_stay_finite(family: Flow, dtype: torch.dtype) -> None:
    module = stirred(family, 5, dtype)
    for scale in (0.0, 1e-30, 1e4, 1e6):
        params = (scale * numbers(6, *family.outputs(Space((5,))), dtype=dtype)).requires_grad_()
        distribution = module(params)
        draw = distribution.draw(noise(6, dtype=dtype))
        far, zero = 1e3 * numbers(6, 5, seed=3, dtype=dtype), torch.zeros(6, 5, dtype=dtype)
        foreign = [distribution.log_prob(value) for value in (far, zero)]
        for number in (draw.read("sample"), draw.log_prob(), *foreign):
            assert number.isfinite().all(), scale
            (slope,) = torch.autograd.grad(number.sum(), params, retain_graph=True)
            assert slope.isfinite().all(), scale


@pytest.mark.parametrize("family", FLOWS)
def test_half_precision_parameters_are_computed_in_float32(family: Flow) -> None:
    module = family.build(Space((3,)))
    params = numbers(4, *family.outputs(Space((3,))), dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distribution = module(params)
        draw = distribution.draw(noise(4, dtype=torch.float32))
        foreign = distribution.log_prob(draw.read("sample"))
    assert draw.read("sample").dtype == foreign.dtype == torch.float32
    torch.testing.assert_close(draw.log_prob(), foreign, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", FLOWS)
def test_a_held_flow_gives_its_parameters_no_gradient(family: Flow) -> None:
    module = stirred(family, 3)
    params = (0.5 * numbers(4, *family.outputs(Space((3,))))).requires_grad_()
    value = numbers(4, 3, seed=2).requires_grad_()
    distribution = held_twin(module)(params)
    (distribution.log_prob(value) + distribution.draw(noise(4)).log_prob()).sum().backward()
    assert all(parameter.grad is None for parameter in module.parameters())
    assert value.grad is not None and value.grad.abs().min() > 0
    assert params.grad is not None and params.grad.abs().sum() > 0


@pytest.mark.parametrize("family", FLOWS)
def test_what_a_flow_declares(family: Any) -> None:
    can, space = family.capabilities(Space((3,))), Space((3,))
    assert can.foreign_density == ("D passes" if isinstance(family, IAF) else "analytic")
    assert can.own_density == "analytic" and can.paths == {"sample": "exact", "mean": "exact"} and not can.kl_to
    # two numbers per dimension for the base; each of four radial layers has a centre, alpha and beta
    given = (4 * (3 + 2) if family.amortized else 0) if isinstance(family, Radial) else family.context
    assert family.outputs(space) == (6 + given,)


@pytest.mark.parametrize("family", [IAF(), IAF(bias=1.0), Coupling(), Coupling(transform="spline"), Radial()], ids=str)
def test_a_flow_starts_near_the_identity(family: Any) -> None:
    torch.manual_seed(0)
    context = 0.01 * numbers(500, family.context_size(16), seed=2, dtype=torch.float32)
    z0 = numbers(500, 16, dtype=torch.float32)
    with torch.no_grad():
        z, log_det = family.build(Space((16,))).flow(context).forward(z0)
    assert log_det.abs().mean() < 0.1
    assert 0 < (z - z0).abs().max() < 0.2


# --- IAF -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_reversed", [False, True])
def test_an_iaf_step_is_triangular_in_its_order(is_reversed: bool) -> None:
    made = MADE(5, 3, [20, 20])
    nn.init.normal_(made.layers[-1].weight)
    step = IAFStep(made, numbers(1, 3, dtype=torch.float32), 2.0, is_reversed)
    jacobian = torch.autograd.functional.jacobian(lambda z: step.forward(z)[0], numbers(1, 5, dtype=torch.float32))
    jacobian = jacobian[0, :, 0].flip(0, 1) if is_reversed else jacobian[0, :, 0]
    assert torch.equal(jacobian.triu(1), torch.zeros(5, 5))
    assert (jacobian.tril(-1) != 0).sum() == 10, "every dimension sees all before it"


def test_the_order_is_reversed_between_steps() -> None:
    module = IAF(length=4, context=2).build(Space((3,)))
    chain = module.flow(torch.zeros(1, 2))
    assert [step.is_reversed for step in chain.steps] == [False, True, False, True]


def test_an_iaf_step_by_hand() -> None:
    # biases only: m = 0.5 in both dimensions; raw = 1, so a = 2 + 1 / (1 + 1 / 6.907755) = 2.873542, s = 0.946523
    # y = (m + s (x - m)) / s_0, 1 / s_0 = 1 + exp(-2) = 1.135335, at x = (1.5, -0.5); log s / s_0 = 0.071968 each
    made = MADE(2, 0, []).double()
    nn.init.zeros_(made.layers[-1].weight)
    with torch.no_grad():
        made.layers[-1].bias.copy_(torch.tensor([0.5, 0.5, 1.0, 1.0]))
    step = IAFStep(made, torch.zeros(1, 0).double(), 2.0, False)
    y, log_det = step.forward(torch.tensor([[1.5, -0.5]]).double())
    assert y[0].tolist() == pytest.approx([1.642288, -0.506953], abs=2e-6)
    assert log_det.item() == pytest.approx(2 * 0.071968, abs=4e-6)


@pytest.mark.parametrize(("hidden", "context"), [([], 3), ([8], 0), ([3], 2), ([20, 15, 9], 3)], ids=str)
def test_made_is_solved_as_by_the_textbooks_passes(hidden: list[int], context: int) -> None:
    """Zuko's D passes over the whole network, for y = exp(a) x + b; also with fewer hidden units than dimensions."""
    made, given, y = MADE(6, context, hidden).double(), numbers(7, context), numbers(7, 6, seed=2)
    nn.init.normal_(made.layers[-1].weight, std=0.5)
    textbook = AutoregressiveTransform(lambda x: MonotonicAffineTransform(*made(x, given)), passes=6)

    def invert(i: int, shift: Tensor, scale: Tensor) -> Tensor:
        return MonotonicAffineTransform(shift, scale).inv(y[:, i])

    x = made.solve(given, invert)
    torch.testing.assert_close(x, textbook.inv(y), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(textbook(x), y, rtol=1e-8, atol=1e-8)


class Passes:
    """Counts forward passes of the networks in a module."""

    def __init__(self, module: nn.Module):
        self.count = 0
        for made in module.flow.steps:
            made.register_forward_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1


def test_a_draw_and_its_density_cost_one_pass_per_step() -> None:
    family = IAF(length=3, hidden=[20], context=2)
    module = family.build(Space((5,)))
    passes = Passes(module)
    draw = module(numbers(4, *family.outputs(Space((5,))), dtype=torch.float32)).draw(noise(4, dtype=torch.float32))
    draw.read("sample"), draw.log_prob()
    assert passes.count == 3


def test_a_foreign_point_costs_d_steps_and_the_work_of_about_one_pass() -> None:
    made = MADE(32, 0, [64, 64])
    steps: list[int] = []

    def invert(i: int, m: Tensor, raw: Tensor) -> Tensor:
        steps.append(i)
        return m

    with FlopCounterMode(display=False) as forward:
        made(torch.zeros(100, 32), torch.zeros(100, 0))
    with FlopCounterMode(display=False) as solved:
        made.solve(torch.zeros(100, 0), invert)
    assert steps == list(range(32))
    assert forward.get_total_flops() == 2 * 100 * (32 * 64 + 64 * 64 + 64 * 64)
    # only the triangle is computed: half of it and a little more
    assert 0.4 < solved.get_total_flops() / forward.get_total_flops() < 0.6


# --- coupling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 5])
def test_coupling_steps_move_odd_and_even_dimensions_in_turn(size: int) -> None:
    z = numbers(3, size)
    chain: Chain = stirred_distribution(Coupling(length=2, hidden=[8], context=2), size, rows=3).transform
    for step, kept in zip(chain.steps, (slice(0, None, 2), slice(1, None, 2)), strict=True):
        is_moved = (step.forward(z)[0] != z).all(0)
        expected = torch.ones(size, dtype=torch.bool)
        expected[kept] = False
        assert torch.equal(is_moved, expected)


def test_an_affine_coupling_by_hand() -> None:
    # biases only, shift 0.5 and raw scale 1: a = 1 / (1 + 1 / 6.907755) = 0.873542, exp a = 2.395381
    # the second number 2 goes to 2 * 2.395381 + 0.5 = 5.290762; log|det| = 0.873542
    family = Coupling(length=1, hidden=[], context=0)
    module = family.build(Space((2,))).double()
    net = module.flow.steps[0].net
    nn.init.zeros_(net[-1].weight)
    with torch.no_grad():
        net[-1].bias.copy_(torch.tensor([0.5, 1.0]))
    z, log_det = module.flow(torch.zeros(1, 0)).forward(torch.tensor([[3.0, 2.0]]).double())
    assert z[0].tolist() == pytest.approx([3.0, 5.290762], abs=5e-6)
    assert log_det.item() == pytest.approx(0.873542, abs=1e-6)


def test_splines_are_the_identity_far_away() -> None:
    transform = stirred_distribution(Coupling(transform="spline", hidden=[8], context=2), 4).transform
    far = torch.full((6, 4), 7.0, dtype=torch.float64)
    z, log_det = transform.forward(far)
    assert torch.equal(z, far) and torch.equal(log_det, torch.zeros(6).double())


# --- radial ----------------------------------------------------------------------------------------------------------


def radial(centre: list[float], raw_alpha: float, raw_k: float) -> FlowDistribution:
    """One layer with these numbers on a standard normal base."""
    family, size = Radial(length=1), len(centre)
    module = family.build(Space((size,))).double()
    nn.init.zeros_(module.flow.start)
    params = torch.tensor([[0.0] * 2 * size + [*centre, raw_alpha, raw_k]], dtype=torch.float64)
    return module(params)


def raw(value: float) -> float:
    """What alpha or 1 + beta / alpha of this value comes from: 0.001 + log(1 + exp(raw + c)) = value, c = raw_1."""
    inverse = [v + math.log(-math.expm1(-v)) for v in (value - 1e-3, 1 - 1e-3)]  # log(e^v - 1)
    return inverse[0] - inverse[1]


def test_a_radial_layer_by_hand() -> None:
    # alpha = 2, beta = 3, c = (1, 1, 1), z = c + (3, 0, 4), r = 5: beta h = 3 / 7; f = c + (3, 0, 4) * 10 / 7
    # det = (10 / 7)^2 (1 + 3 / 7 - 3 * 5 / 49) = 100 / 49 * 55 / 49 = 2.290712; its log is 0.828863
    transform = radial([1.0, 1.0, 1.0], raw(2.0), raw(2.5)).transform
    z, log_det = transform.forward(torch.tensor([[4.0, 1.0, 5.0]], dtype=torch.float64))
    assert z[0].tolist() == pytest.approx([1 + 30 / 7, 1.0, 1 + 40 / 7], abs=1e-12)
    assert log_det.item() == pytest.approx(math.log(5500 / 2401), abs=1e-12)
    assert transform.inverse(z)[0][0].tolist() == pytest.approx([4.0, 1.0, 5.0], abs=1e-12)


@pytest.mark.parametrize("k", [-0.998, -0.5, 0.0, 1.0, 5.0, 1e3, 1e6])
@pytest.mark.parametrize("distance", [0.0, 1e-12, 1e-3, 1.0, 1e3, 1e8])
def test_radial_inverse_at_every_strength_and_distance(k: float, distance: float) -> None:
    transform = radial([0.0, 0.0], 0.0, raw(1 + k)).transform
    z = torch.tensor([[0.6 * distance, -0.8 * distance]], dtype=torch.float64)
    z0, log_det = transform.inverse(z)
    again, same = transform.forward(z0)
    torch.testing.assert_close(again, z, rtol=1e-9, atol=1e-300)
    torch.testing.assert_close(same, log_det, rtol=1e-7, atol=1e-9)


def test_a_radial_layer_at_zero_is_the_identity() -> None:
    z = numbers(1, 4)
    moved, log_det = radial([0.3, 0.0, -0.2, 5.0], 1.7, 0.0).transform.forward(z)
    torch.testing.assert_close(moved, z, rtol=0, atol=1e-15)
    assert log_det.abs().item() < 1e-14


def test_radial_layers_that_all_rows_share_are_the_modules_own() -> None:
    shared, amortised = (Radial(length=3, amortized=a).build(Space((2,))) for a in (False, True))
    amortised.load_state_dict(shared.state_dict())
    value, base = numbers(4, 2, dtype=torch.float32), numbers(4, 4, seed=2, dtype=torch.float32)
    same = amortised(torch.cat([base, torch.zeros(4, 3 * 4)], 1)).log_prob(value)
    torch.testing.assert_close(shared(base).log_prob(value), same)
