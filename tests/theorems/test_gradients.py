"""AS-VAE's gradients on the linear-Gaussian model, where the critics are known (docs/zoo/papers.md).

q(x) = N(0, 1.3), q(z|x) = N(a x, v) with a = 0.6, v = 0.7; p(z) = N(0, 1), p(x|z) = N(b z, w) with b = 0.9, w = 0.4.
Every term is a quadratic of (x, eps) or (z, xi), so its gradient is one too, and its expectation is its average over
the four equally likely points x = +-sqrt(1.3), eps = +-1 (z = +-1, xi = +-1): their moments up to the second are
those of the Gaussians. No sampling, and the answer to all digits.

Half r, -KL(q(x,z) || p(x,z)):  E z^2 = 0.36 1.3 + 0.7 = 1.168,  E x z = 0.78,  E (x - b z)^2 = 0.84208,
    a: (b 1.3 - b^2 a 1.3) / w - a 1.3 = 1.3455 - 0.78          = 0.5655
    v: -b^2 / (2 w) - 1/2 + 1 / (2 v) = -1.0125 - 0.5 + 5/7      = -0.798214
    b: (0.78 - 0.9 1.168) / 0.4                                  = -0.678
    w: -1 / (2 w) + 0.84208 / (2 w^2) = -1.25 + 2.6315           = 1.3815
Half g, -KL(p(x,z) || q(x,z)):  E x^2 = 0.81 + 0.4 = 1.21,  E x z = 0.9,  E (z - a x)^2 = 0.3556,
    a: (0.9 - 0.6 1.21) / 0.7                                    = 0.248571
    v: -1 / (2 v) + 0.3556 / (2 v^2) = -0.714286 + 0.362857      = -0.351429
    b: (a - a^2 b) / v - b / 1.3 = 0.394286 - 0.692308           = -0.298022
    w: -a^2 / (2 v) - 1 / 2.6 + 1 / (2 w) = -0.257143 - 0.384615 + 1.25 = 0.608242
The aggregate posterior, -KL(q(z) || p(z)) = -(S - 1 - log S) / 2 with S = a^2 1.3 + v = 1.168,
    a: -(1 - 1 / S) a 1.3 = -0.143836 0.78                       = -0.112192
    v: -(1 - 1 / S) / 2                                          = -0.071918
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from jointgen_asvae.objective import ASVAE
from jointgen_vae.objective import VAE
from support.models import assemble
from support.networks import GaussianDraw, StandardNormal, WrittenCritic
from support.noise import WrittenNoise
from torch import Tensor, nn

from jointgen.contracts.space import Space
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.update import UpdateRunner
from jointgen.objectives import E, Objective, elbo, log_ratio, p, q

DOUBLE = torch.float64
VAR_X, A, V, B, W = 1.3, 0.6, 0.7, 0.9, 0.4
HALF_R = (
    (B * 1.3 - B**2 * A * 1.3) / W - A * 1.3,
    -(B**2) / (2 * W) - 1 / 2 + 1 / (2 * V),
    (0.78 - B * 1.168) / W,
    -1 / (2 * W) + 0.84208 / (2 * W**2),
)
HALF_G = (
    (0.9 - A * 1.21) / V,
    -1 / (2 * V) + 0.3556 / (2 * V**2),
    (A - A**2 * B) / V - B / 1.3,
    -(A**2) / (2 * V) - 1 / 2.6 + 1 / (2 * W),
)
AGGREGATE = (-(1 - 1 / 1.168) * A * 1.3, -(1 - 1 / 1.168) / 2, 0.0, 0.0)
BOTH = tuple(r + g for r, g in zip(HALF_R, HALF_G, strict=True))


def test_the_arithmetic_above_is_the_papers_table() -> None:
    assert list(HALF_R) == pytest.approx([0.565500, -0.798214, -0.678000, 1.381500], abs=1e-6)
    assert list(HALF_G) == pytest.approx([0.248571, -0.351429, -0.298022, 0.608242], abs=1e-6)


# --- the model, its critics and its four points ----------------------------------------------------------------------


def log_normal(value: Tensor, mean: Tensor | float, var: float) -> Tensor:
    return -0.5 * ((value - mean) ** 2 / var + math.log(2 * math.pi * var))


def log_q(x: Tensor, z: Tensor) -> Tensor:
    return log_normal(x, 0.0, VAR_X) + log_normal(z, A * x, V)


def log_p(x: Tensor, z: Tensor) -> Tensor:
    return log_normal(z, 0.0, 1.0) + log_normal(x, B * z, W)


def log_px(x: Tensor) -> Tensor:
    return log_normal(x, 0.0, B**2 + W)


def log_qz(z: Tensor) -> Tensor:
    return log_normal(z, 0.0, A**2 * VAR_X + V)


CRITICS: dict[str, Callable[..., Tensor]] = {
    "f1": lambda x, z: log_q(x, z) - log_px(x) - log_normal(z, 0.0, 1.0),  # eq 7
    "f2": lambda x, z: log_p(x, z) - log_qz(z) - log_normal(x, 0.0, VAR_X),
    "T": lambda x, z: log_p(x, z) - log_q(x, z),
    "e": lambda z: log_normal(z, 0.0, 1.0) - log_qz(z),
}


class LinearNormal(nn.Module):
    """N(slope given, var), its parameters the oracle's own: a slope and a variance."""

    def __init__(self, slope: float, var: float, gaussian: Any):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=DOUBLE))
        self.var = nn.Parameter(torch.tensor(var, dtype=DOUBLE))
        self.gaussian = gaussian

    def forward(self, given: Tensor, k: int = 1) -> Any:
        return self.gaussian(self.slope * given, 0.5 * self.var.log())


@pytest.fixture
def gradient() -> Callable[..., list[float]]:
    """An objective's ascent direction for (a, v, b, w) by its compiled model update, over the four points."""

    def take(objective: Objective, critics: Any = CRITICS) -> list[float]:
        modules = {
            "encoder": LinearNormal(A, V, GaussianDraw),
            "decoder": LinearNormal(B, W, GaussianDraw),
            "prior": StandardNormal(),
        }
        closed = {name: WrittenCritic(critics[name]) for name in objective.ratios}
        plan, parts = assemble(objective, {**modules, **closed})
        root, eps = (torch.tensor(pairs, dtype=DOUBLE)[:, None] for pairs in zip(*SIGNS, strict=True))
        noise = WrittenNoise({"q(z|x)": eps, "p(z)": root, "p(x|z)": eps})
        moment = StepInputs({"data": {"x": math.sqrt(VAR_X) * root}}, noise, 4)
        UpdateRunner(plan.updates[0], parts).gradient(moment)
        params = (w for name in ("encoder", "decoder") for w in (modules[name].slope, modules[name].var))
        return [0.0 if w.grad is None else -w.grad.item() for w in params]  # the update minimises

    return take


SIGNS = list(itertools.product((1.0, -1.0), repeat=2))


def literal(**weights: float) -> Objective:
    return ASVAE(form="literal", **weights).objective()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (literal(), BOTH),
        (literal(weight_g=0.0), HALF_R),
        (literal(weight_r=0.0), HALF_G),
        (literal(weight_r=0.3, weight_g=2.0), [0.3 * r + 2 * g for r, g in zip(HALF_R, HALF_G, strict=True)]),
        (ASVAE(lambda_=1.0, w=1.0).objective(), BOTH),  # docs/concepts/why-the-literal-as-vae-does-not-train.md
        (ASVAE(lambda_=1.0, w=1.0, weight_r=0.0).objective(), HALF_G),
        (VAE().objective(), HALF_R),
    ],
    ids=["literal", "literal r", "literal g", "literal weighted", "T", "T g", "VAE"],
)
def test_frozen_critics_give_the_gradient_of_the_symmetric_kl(
    objective: Objective, expected: Sequence[float], gradient: Callable[..., list[float]]
) -> None:
    assert gradient(objective) == pytest.approx(expected, abs=1e-12)


def test_the_weights_of_half_g_scale_its_two_parts(gradient: Callable[..., list[float]]) -> None:
    """w moves a and v only (the sleep term, all explicit), lambda b and w only (through the samples)."""
    a, v, b, var = HALF_G
    found = gradient(ASVAE(lambda_=10.0, w=0.1, weight_r=0.0).objective())
    assert found == pytest.approx((0.1 * a, 0.1 * v, 10 * b, 10 * var), abs=1e-12)


def test_gamma_holds_the_aggregate_posterior_to_the_prior(gradient: Callable[..., list[float]]) -> None:
    """-gamma KL(q(z) : p(z)) besides the ELBO, and half g as it was."""
    assert list(AGGREGATE) == pytest.approx([-0.112192, -0.071918, 0.0, 0.0], abs=1e-6)
    expected = [both + 5 * own for both, own in zip(BOTH, AGGREGATE, strict=True)]
    assert gradient(ASVAE(lambda_=1.0, w=1.0, gamma=5.0).objective()) == pytest.approx(expected, abs=1e-12)
    assert gradient(ASVAE(gamma=5.0, weight_r=0.0, lambda_=1.0, w=1.0).objective()) == pytest.approx(HALF_G, abs=1e-12)


def test_a_critic_that_is_not_the_ratio_gives_another_gradient(gradient: Callable[..., list[float]]) -> None:
    """The oracle can fail: f1 off by 0.1 x z moves b's and w's not at all, but a by -0.1 E[x^2] = -0.13."""
    off = {**CRITICS, "f1": lambda x, z: CRITICS["f1"](x, z) + 0.1 * x * z}
    found = gradient(literal(weight_g=0.0), off)
    assert found == pytest.approx((HALF_R[0] - 0.13, *HALF_R[1:]), abs=1e-12)


# --- half r with a known part ----------------------------------------------------------------------------------------


class DataCritic(nn.Module):
    """-d(x): a random network that looks at x alone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.net(x).squeeze(1)


class DeepNormal(nn.Module):
    """A network for mean and log scale."""

    def __init__(self, given: int, out: int, gaussian: Any):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(given, 7), nn.Tanh(), nn.Linear(7, 2 * out)).double()
        self.gaussian = gaussian

    def forward(self, given: Tensor, k: int = 1) -> Any:
        return self.gaussian(*self.net(given).chunk(2, 1))


@pytest.fixture
def deep_gradient() -> Callable[[Objective], Tensor]:
    """The model's gradient with networks, at four rows of x, each with eps in all four corners (+-1, +-1).

    Over the corners the score of q(z|x), (eps / s, eps^2 - 1), sums to zero for whatever network: that is all by which
    one draw of the two gradients differs.
    """

    def take(objective: Objective) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            x = torch.randn(4, 3, dtype=DOUBLE).repeat_interleave(4, 0)
            modules = {
                "encoder": DeepNormal(3, 2, GaussianDraw),
                "decoder": DeepNormal(2, 3, GaussianDraw),
                "prior": StandardNormal(2),
            }
        modules |= {name: DataCritic() for name in objective.ratios}
        plan, parts = assemble(objective, modules, spaces={"x": Space((3,)), "z": Space((2,))})
        corners = torch.tensor(SIGNS, dtype=DOUBLE).repeat(4, 1)
        UpdateRunner(plan.updates[0], parts).gradient(
            StepInputs({"data": {"x": x}}, WrittenNoise({"q(z|x)": corners}), 16)
        )
        return torch.cat([w.grad.flatten() for n in ("encoder", "decoder") for w in modules[n].parameters()])

    return take


RHO = q.log_z_given_x - p.log_z


def test_half_r_with_f1_in_its_known_form_is_the_elbo(deep_gradient: Callable[[Objective], Tensor]) -> None:
    """f1 = rho - d(x) with d any function of x: d sits at data, which no parameter moves."""
    f1 = log_ratio(q.xz, p.x * p.z, name="f1", known=RHO)
    found = deep_gradient(Objective.of(E(q.xz, p.log_x_given_z - f1)))
    bound = deep_gradient(Objective.of(elbo(q, p)))
    assert bound.norm() > 0.1
    assert torch.allclose(found, bound, rtol=0.0, atol=1e-13)


def test_the_known_part_is_what_makes_it_so(deep_gradient: Callable[[Objective], Tensor]) -> None:
    f1 = log_ratio(q.xz, p.x * p.z, name="f1")
    found = deep_gradient(Objective.of(E(q.xz, p.log_x_given_z - f1)))
    bound = deep_gradient(Objective.of(elbo(q, p)))
    assert (found - bound).norm() > 0.01 * bound.norm()
