"""WAE, InfoVAE, DIP-VAE and MINE as their recipes write them, against losses written by hand in plain torch.

Codes and data are in the plane, encoder and decoder linear, and all draws are written numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from jointgen_critics.divergences import MMD, Covariance, FeatureMeans, PullingAway, SlicedWasserstein
from support.models import assemble
from support.networks import GaussianDraw, StandardNormal, WrittenCritic
from support.noise import WrittenNoise
from support.paths import SHIPPED
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from jointgen.config.recipe import read_recipe
from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.update import UpdateRunner
from jointgen.objectives import Objective
from jointgen.registry.discovery import load_plugins

DOUBLE = torch.float64
ROWS = 5
X, EPS, XI, ETA, OTHER = Noise(7, dtype=DOUBLE).named("written", 5).normal(ROWS, 2)
A, B = torch.tensor([[0.6, 0.2], [-0.3, 0.8]], dtype=DOUBLE), torch.tensor([[0.9, -0.4], [0.1, 0.5]], dtype=DOUBLE)
S, R = -0.4, -0.7  # log standard deviations of encoder and decoder


class Law(GaussianDraw):
    def kl_to(self, other: Any) -> Tensor:
        return kl(self.mean, self.log_scale)


class Linear(nn.Module):
    """N(given weight, exp(log_scale)^2)."""

    def __init__(self, weight: Tensor, log_scale: float):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.log_scale = nn.Parameter(torch.tensor(log_scale, dtype=DOUBLE))

    def forward(self, given: Tensor, k: int = 1) -> Any:
        return Law(given @ self.weight, self.log_scale)


class Written(WrittenNoise):
    def shared(self, name: str, rows: int) -> Any:
        return Noise(0, dtype=DOUBLE).named(name, rows)


def kl(mean: Tensor, log_scale: Tensor) -> Tensor:
    """KL to N(0, I), in closed form."""
    return (0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale).sum(1)


def log_normal(value: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    return (-0.5 * ((value - mean) / log_scale.exp()).square() - log_scale - 0.5 * math.log(2 * math.pi)).sum(1)


def f(x: Tensor) -> Tensor:
    return 0.4 * x[:, :1] * x[:, 1:] - 0.3 * x[:, :1]


def t(x: Tensor, z: Tensor) -> Tensor:
    return (x * z).sum(1, keepdim=True) - 0.2 * z[:, :1]


class Layered(WrittenCritic):
    """A critic with one hidden layer of two units."""

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        return (hidden(x),)


def hidden(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0] * x[:, 1], (x[:, 0] - 0.5).square()], 1)


def compiled(name: str, update: str) -> tuple[float, list[Tensor]]:
    """The loss of a recipe's update, and its gradient by weight and scale of encoder and decoder."""
    path = next(SHIPPED.rglob(f"{name}.toml"))
    objective: Objective = read_recipe(path, registry=load_plugins().registry).objective.objective()
    modules = {
        "encoder": Linear(A, S),
        "decoder": Linear(B, R),
        "prior": StandardNormal(2),
        "f": Layered(f),
        "t": WrittenCritic(t),
    }
    plan, parts = assemble(objective, modules, spaces={v: Space((2,)) for v in "xz"})
    noise = Written(
        {"q(z|x)": EPS, "p(z)": XI, "p1(z)": OTHER, "p(x|z)": ETA, "p'(x|z)": 0 * ETA},
    )
    runner = UpdateRunner(next(u for u in plan.updates if u.name == update), parts)
    loss, _, _ = runner.loss(StepInputs({"data": {"x": X}}, noise, ROWS))
    wanted = [w for n in ("encoder", "decoder") for w in (modules[n].weight, modules[n].log_scale)]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return loss.item(), [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]


def by_hand(loss: Callable[..., Tensor]) -> tuple[float, list[Tensor]]:
    leaves = [torch.as_tensor(value, dtype=DOUBLE).clone().requires_grad_() for value in (A, S, B, R)]
    value = loss(*leaves)
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return value.item(), [torch.zeros_like(w) if g is None else g for w, g in zip(leaves, found, strict=True)]


# --- the systems ----------------------------------------------------------------------------------------------------


def u_statistic(a: Tensor, b: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Gretton et al. 2012, eq. 3, pair by pair."""
    n = len(a)
    pairs = [(i, j) for i in range(n) for j in range(n)]
    own = sum(kernel(v[i], v[j]) for v in (a, b) for i, j in pairs if i != j) / (n * (n - 1))
    return own - 2 * sum(kernel(a[i], b[j]) for i, j in pairs) / n**2


def imq(a: Tensor, b: Tensor) -> Tensor:
    """WAE's code: the sum over s of C / (C + |a - b|^2), C = 2 D s."""
    squared = (a - b).square().sum()
    return sum(4 * s / (4 * s + squared) for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))


def wae_mmd(a: Tensor, s: Tensor, b: Tensor, r: Tensor) -> Tensor:
    z = X @ a + s.exp() * EPS
    return 0.05 * (X - z @ b).square().sum(1).mean() + 10 * u_statistic(z, XI, imq)


def infovae(a: Tensor, s: Tensor, b: Tensor, r: Tensor) -> Tensor:
    z = X @ a + s.exp() * EPS
    bound = log_normal(X, z @ b, r) - kl(X @ a, s)
    return 999 * u_statistic(z, XI, lambda u, v: (-(u - v).square().sum() / 4).exp()) - bound.mean()


def dipvae(a: Tensor, s: Tensor, b: Tensor, r: Tensor) -> Tensor:
    z, mean = X @ a + s.exp() * EPS, X @ a
    centred = mean - mean.mean(0)
    c = centred.T @ centred / (ROWS - 1)
    penalty = 2 * c[0, 1].square() + 10 * ((c[0, 0] - 1).square() + (c[1, 1] - 1).square())
    return 10 * penalty - (log_normal(X, z @ b, r) - kl(mean, s)).mean()


def mine_gan(a: Tensor, s: Tensor, b: Tensor, r: Tensor) -> Tensor:
    x = XI @ b + r.exp() * ETA
    information = t(x, XI).mean() - t(x, OTHER).exp().mean().log()
    return -logsigmoid(f(x)).mean() - 0.05 * information


def feature_matching(a: Tensor, s: Tensor, b: Tensor, r: Tensor) -> Tensor:
    """Salimans et al. 2016, section 3.1: |E h(x) - E h(G(z))|^2."""
    x = XI @ b + r.exp() * ETA
    return (hidden(X).mean(0) - hidden(x).mean(0)).square().sum()


@pytest.mark.parametrize(
    ("name", "update", "loss"),
    [
        ("feature_matching_mnist", "model", feature_matching),
        ("wae_mmd_mnist", "model", wae_mmd),
        ("infovae_mnist", "model", infovae),
        ("dipvae_mnist", "model", dipvae),
        ("mine_gan_mnist", "generator", mine_gan),
    ],
)
def test_a_recipe_has_the_loss_and_the_gradient_of_the_paper(name: str, update: str, loss: Any) -> None:
    value, gradients = compiled(name, update)
    wanted, by_hands = by_hand(loss)
    assert value == pytest.approx(wanted, rel=1e-12)
    for found, expected in zip(gradients, by_hands, strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


# --- the divergences in closed form ---------------------------------------------------------------------------------


def drawn(name: str, rows: int, size: int) -> Tensor:
    return Noise(3, dtype=DOUBLE).named(name, rows).normal(size)


def source(name: str = "noise") -> Any:
    return Noise(0, dtype=DOUBLE).named(name, 1)


def test_mmd_of_gaussians_is_the_closed_form_on_average() -> None:
    """N(0, I) and N(m, I) in D dimensions under exp(-|a - b|^2 / (2 D s)), whose mean over N(d, 2 I) is
    (v / (v + 2))^(D/2) exp(-|d|^2 / (2 (v + 2))) with v = D s (Gretton et al. 2012)."""
    d, s, shift = 2, 0.5, torch.tensor([1.0, -0.5], dtype=DOUBLE)
    v = d * s
    level = (v / (v + 2)) ** (d / 2)
    wanted = 2 * level * (1 - math.exp(-shift.square().sum().item() / (2 * (v + 2))))
    mmd = MMD("rbf", (s,))
    found = torch.stack([
        mmd(drawn(f"a{i}", 40, d), drawn(f"b{i}", 30, d) + shift, noise=source()) for i in range(300)
    ])  # fmt: skip
    error = (found.std() / len(found) ** 0.5).item()
    assert abs(found.mean().item() - wanted) < 4 * error < 0.15 * wanted


def test_statistics_by_hand() -> None:
    a, b = torch.tensor([[3.0, 4.0], [4.0, -3.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    # cosines 0, 1, 0 of the three pairs
    assert PullingAway()(a, noise=source()).item() == pytest.approx(1 / 3)
    # means (10/3, 5/3) and (1, 1)
    assert FeatureMeans()(a, b, noise=source()).item() == pytest.approx(49 / 9 + 4 / 9)
    assert FeatureMeans("l1")(a, b, noise=source()).item() == pytest.approx(7 / 3 + 2 / 3)
    # variances 1/3 and 49/3, covariance -7/3
    assert Covariance(10.0)(a, noise=source()).item() == pytest.approx(2 * 49 / 9 + 10 * (4 / 9 + (46 / 3) ** 2))


def test_sliced_wasserstein_of_a_shift_is_its_square_over_dimensions() -> None:
    a, shift = drawn("a", 20, 3), torch.tensor([1.0, 2.0, -2.0], dtype=DOUBLE)
    found = SlicedWasserstein(20_000)(a, a + shift, noise=source()).item()
    assert found == pytest.approx(9 / 3, rel=0.03)  # the mean of (u . shift)^2 over directions u
    twice = SlicedWasserstein(20_000)((a + shift).repeat(2, 1), a, noise=source()).item()
    assert twice == pytest.approx(found)  # every row twice is the same distribution
