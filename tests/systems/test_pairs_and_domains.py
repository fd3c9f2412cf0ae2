"""Triangle GAN, DiscoGAN and f-GAN as their recipes write them, against their losses by hand in plain torch.

Numbers take the places of images and labels, lines those of networks, and critics are polynomials whose coefficients
are trained. Each gradient is compared, of the generators' update by their slopes, of each critic's by its coefficients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from support.models import assemble
from support.networks import DOUBLE, GaussianDraw, StandardNormal, number
from support.noise import WrittenNoise
from support.paths import SHIPPED
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from jointgen.compiler.gradient_paths import PartTraits
from jointgen.config.recipe import read_recipe
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.update import UpdateRunner
from jointgen.registry.discovery import load_plugins

ROWS = torch.tensor(
    [[0.3, -1.1, 0.8, 1.9], [-0.2, 0.7, 1.3, -0.9], [1.2, -0.4, 0.1, -1.5], [0.6, -0.8, 0.5, 0.2]], dtype=DOUBLE
)[:, :, None]
X, U, V, W = ROWS
EPS, ETA, XI, ZETA = (0.7 * ROWS.roll(1, 1) - 0.2).unbind(0)


class Sum(nn.Module):
    """out = slope * (sum of given) + 0.5 eps: a conditional of one parameter."""

    def __init__(self, slope: float):
        super().__init__()
        self.slope = number(slope)

    def forward(self, *given: Tensor, k: int = 1) -> GaussianDraw:
        return GaussianDraw(self.slope * torch.stack(given).sum(0), torch.log(torch.tensor(0.5, dtype=DOUBLE)))


class Critic(nn.Module):
    """w . (a, a b, b^2), or w . (a, a a, a^2) of one number."""

    def __init__(self, *weights: float):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=DOUBLE))

    def forward(self, *inputs: Tensor) -> Tensor:
        return polynomial(self.weights, *inputs)

    def features(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return features(self.weights, *inputs)


def polynomial(w: Tensor, a: Tensor, b: Tensor | None = None) -> Tensor:
    b = a if b is None else b
    return (w * torch.cat([a, a * b, b * b], 1)).sum(1)


def features(w: Tensor, a: Tensor) -> tuple[Tensor, ...]:
    """Two layers of one number each."""
    return w[0] * a, (w[1] + w[2]) * a * a


WEIGHTS: dict[str, Any] = {
    "d1": (0.4, -0.3, 0.2),
    "d2": (-0.5, 0.1, 0.3),
    "fx": (0.3, 0.2, -0.1),
    "fz": (-0.2, 0.5, 0.1),
    "f": (0.6, -0.1, -0.2),
}
SLOPES: dict[str, Any] = {"encoder": 0.8, "decoder": -0.6}


def compiled(name: str, update: str, data: Any, noise: dict[str, Tensor], by: str, progress: float = 0.0) -> Tensor:
    """The gradient of an update of a recipe's loss by a parameter of one part."""
    path = next(SHIPPED.rglob(f"{name}.toml"))
    objective: Any = read_recipe(path, registry=load_plugins().registry).objective.objective()
    parts: dict[str, nn.Module] = {part: Sum(slope) for part, slope in SLOPES.items()}
    parts |= {"prior": StandardNormal(), "classes": StandardNormal()}
    parts |= {critic: Critic(*WEIGHTS[critic]) for critic in objective.ratios}
    named = {factor.part for joint in objective.joints.values() for factor in joint.factors}
    traits = {source: PartTraits("data") for source in data} | (
        {"classes": PartTraits("prior", {"sample": "exact"}, trainable=False)} if "classes" in named else {}
    )
    plan, model = assemble(objective, {n: m for n, m in parts.items() if n in named or n in WEIGHTS}, traits)
    runner = UpdateRunner(next(u for u in plan.updates if u.name == update), model)
    runner.gradient(StepInputs(data, WrittenNoise(noise), 4, progress=progress))
    (parameter,) = parts[by].parameters()
    assert parameter.grad is not None
    return parameter.grad


def by_hand(loss: Callable[..., Tensor], by: str) -> Tensor:
    """The gradient of loss(encoder's slope, decoder's slope, critics) by one of them."""
    leaves = {n: torch.tensor(value, dtype=DOUBLE, requires_grad=True) for n, value in (SLOPES | WEIGHTS).items()}
    (found,) = torch.autograd.grad(loss(**leaves), leaves[by])
    return found


# --- Triangle GAN: x = X and (x, y) = (U, V) are data; y = e X + eps/2, and x = d (xi + zeta) + eta/2 for y = xi

TRIANGLE: Any = {"data": {"x": X}, "labelled": {"x": U, "y": V}}
TRIANGLE_NOISE = {"q(y|x)": EPS, "p(y)": XI, "p(z)": ZETA, "p(x|y,z)": ETA}
PENALTIES = ("R1(d1 at r(x,y) : q(x,y))", "R1(d1 at r(x,y) : p(x,y))", "R1(d2)")  # R1 asks for noise and draws none
TRIANGLE_NOISE |= dict.fromkeys(PENALTIES, EPS)


def triangle_draws(encoder: Tensor, decoder: Tensor) -> tuple[Any, Any]:
    return (X, encoder * X + EPS / 2), (decoder * (XI + ZETA) + ETA / 2, XI)


def triangle_generators(encoder: Tensor, decoder: Tensor, d1: Tensor, d2: Tensor, **_: Tensor) -> Tensor:
    """Eq. 5, non-saturating: each generator wants its pairs taken for true, and for the other generator's."""
    of_q, of_p = triangle_draws(encoder, decoder)
    wants = logsigmoid(polynomial(d1, *of_q)) + logsigmoid(-polynomial(d2, *of_q))
    return -(wants + logsigmoid(polynomial(d1, *of_p)) + logsigmoid(polynomial(d2, *of_p))).mean()


def slope_penalty(w: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """R1 at these rows, of weight 0.1 and every fourth step: 4 * 0.1 / 2 times the squared gradient by both inputs."""
    return 0.2 * ((w[0] + w[1] * b).square() + (w[1] * a + 2 * w[2] * b).square()).mean()


def triangle_d1(encoder: Tensor, decoder: Tensor, d1: Tensor, **_: Tensor) -> Tensor:
    of_q, of_p = triangle_draws(encoder, decoder)
    fakes = logsigmoid(-polynomial(d1, *of_q)) + logsigmoid(-polynomial(d1, *of_p))
    return -(logsigmoid(polynomial(d1, U, V)) + 0.5 * fakes).mean() + slope_penalty(d1, U, V)


def triangle_d2(encoder: Tensor, decoder: Tensor, d2: Tensor, **_: Tensor) -> Tensor:
    of_q, of_p = triangle_draws(encoder, decoder)
    both = logsigmoid(polynomial(d2, *of_q)) + logsigmoid(-polynomial(d2, *of_p))
    return -both.mean() + slope_penalty(d2, *of_q)


# --- DiscoGAN: x = X and z = U are data; z = e X + eps/2, x = d U + eta/2

DISCO: Any = {"data": {"x": X}, "negatives": {"z": U}}
DISCO_NOISE = {"q(z|x)": EPS, "p(x|z)": ETA, "q'(z|x)": 0 * EPS, "p'(x|z)": 0 * ETA, "R1(fx)": EPS, "R1(fz)": EPS}


def disco_generators(
    encoder: Tensor, decoder: Tensor, fx: Tensor, fz: Tensor, cycle: float = 1.3e-5, **_: Tensor
) -> Tensor:
    """Kim et al. 2017, eqs 2 to 7, non-saturating, with the features' means and the weights of the authors' code."""
    z, x = encoder * X + EPS / 2, decoder * U + ETA / 2
    cycles = (U - encoder * x).square() + (X - decoder * z).square()
    layers = [*zip(features(fx, X), features(fx, x), strict=True), *zip(features(fz, U), features(fz, z), strict=True)]
    apart = sum((real.mean() - made.mean()).square() for real, made in layers)
    fooled = (logsigmoid(polynomial(fx, x)) + logsigmoid(polynomial(fz, z))).mean()
    return -0.1 * fooled + 0.0035 * apart + cycle * cycles.mean()


def slope_penalty_of_one(w: Tensor, a: Tensor) -> Tensor:
    """R1 at these rows, of weight 0.1: 0.1 / 2 times the squared slope of w . (a, a^2, a^2)."""
    return 0.05 * (w[0] + 2 * (w[1] + w[2]) * a).square().mean()


def disco_fx(decoder: Tensor, fx: Tensor, **_: Tensor) -> Tensor:
    both = logsigmoid(polynomial(fx, X)) + logsigmoid(-polynomial(fx, decoder * U + ETA / 2))
    return -both.mean() + slope_penalty_of_one(fx, X)


def disco_fz(encoder: Tensor, fz: Tensor, **_: Tensor) -> Tensor:
    both = logsigmoid(polynomial(fz, U)) + logsigmoid(-polynomial(fz, encoder * X + EPS / 2))
    return -both.mean() + slope_penalty_of_one(fz, U)


# --- f-GAN: x = X is data; x = d zeta + eta/2

FGAN: Any = {"data": {"x": X}}
FGAN_NOISE = {"p(z)": ZETA, "p(x|z)": ETA}


def fgan_generator(decoder: Tensor, f: Tensor, **_: Tensor) -> Tensor:
    return -polynomial(f, decoder * ZETA + ETA / 2).mean()


def fgan_critic(decoder: Tensor, f: Tensor, **_: Tensor) -> Tensor:
    return -(polynomial(f, X).mean() - (polynomial(f, decoder * ZETA + ETA / 2) - 1).exp().mean())


Case = tuple[str, Any, dict[str, Tensor], str, str, Callable[..., Tensor]]
"""The recipe, the data, the noise, the update, the part whose parameter moves, and the loss."""


def cases(
    recipe: str, data: Any, noise: dict[str, Tensor], *losses: tuple[str, str, Callable[..., Tensor]]
) -> list[Case]:
    return [(recipe, data, noise, *loss) for loss in losses]


CASES = [
    *cases(
        "triangle_gan_mnist",
        TRIANGLE,
        TRIANGLE_NOISE,
        ("model", "encoder", triangle_generators),
        ("model", "decoder", triangle_generators),
        ("d1", "d1", triangle_d1),
        ("d2", "d2", triangle_d2),
    ),
    *cases(
        "discogan_mnist",
        DISCO,
        DISCO_NOISE,
        ("model", "encoder", disco_generators),
        ("model", "decoder", disco_generators),
        ("fx", "fx", disco_fx),
        ("fz", "fz", disco_fz),
    ),
    *cases("fgan_mnist", FGAN, FGAN_NOISE, ("model", "decoder", fgan_generator), ("f", "f", fgan_critic)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[4]}")
def test_a_recipes_gradient_is_that_of_the_papers_loss(case: Case) -> None:
    recipe, data, noise, update, by, loss = case
    found = compiled(recipe, update, data, noise, by)
    expected = by_hand(loss, by)
    assert expected.abs().max() > 1e-4
    assert torch.allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_discogans_cycle_weighs_100_times_more_from_half_of_the_run(part: str) -> None:
    for progress, cycle in ((0.49, 1.3e-5), (0.5, 1.3e-3), (1.0, 1.3e-3)):
        found = compiled("discogan_mnist", "model", DISCO, DISCO_NOISE, part, progress)
        expected = by_hand(partial(disco_generators, cycle=cycle), part)
        assert torch.allclose(found, expected, rtol=1e-10)


def test_discogans_generators_step_where_its_critics_do_not() -> None:
    """Critics at steps 0, 3, 6, ..., generators at the others."""
    path = next(SHIPPED.rglob("discogan_mnist.toml"))
    objective: Any = read_recipe(path, registry=load_plugins().registry).objective.objective()
    paces = {u.name: (u.every, u.unless) for u in objective.complete(load_plugins().registry.default).updates}
    assert paces == {"model": (1, ("fx",)), "fx": (3, ()), "fz": (3, ())}
