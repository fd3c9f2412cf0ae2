"""ALI, ALICE and sVAE as their recipes write them, against their losses written by hand in plain torch.

x = 0.3, -1.1, ..., z = a x + sqrt(v) eps under q; z = xi, x = b z + sqrt(w) eta under p, for a handful of written
numbers; the critic is a known polynomial. Each loss is the paper's, with f = log q(x,z) / p(x,z).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from support.models import assemble
from support.networks import GaussianDraw, StandardNormal, WrittenCritic
from support.noise import WrittenNoise
from support.paths import SHIPPED
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from jointgen.config.recipe import read_recipe
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.update import UpdateRunner
from jointgen.objectives import Objective
from jointgen.objectives.expressions import Ratio
from jointgen.objectives.objective import rebuilt
from jointgen.registry.discovery import load_plugins

DOUBLE = torch.float64
A, V, B, W = 0.6, 0.7, 0.9, 0.4
X, EPS, XI, ETA = torch.tensor(
    [[0.3, -1.1, 0.8, 1.9], [-0.2, 0.7, 1.3, -0.9], [1.2, -0.4, 0.1, -1.5], [0.6, -0.8, 0.5, 0.2]], dtype=DOUBLE
)[:, :, None]


def f(x: Tensor, z: Tensor) -> Tensor:
    return (0.4 * x * z - 0.3 * x.square() + 0.2 * z + 0.1 * x).squeeze(1)


class Linear(nn.Module):
    """N(slope given, var)."""

    def __init__(self, slope: float, var: float):
        super().__init__()
        self.slope, self.var = (nn.Parameter(torch.tensor(value, dtype=DOUBLE)) for value in (slope, var))

    def forward(self, given: Tensor, k: int = 1) -> Any:
        return GaussianDraw(self.slope * given, 0.5 * self.var.log())


def of_recipe(name: str) -> Objective:
    """A recipe's objective; its critics see samples, because lines have no relaxed reading."""

    def plain(node: Any) -> Any:
        return attrs.evolve(node, view=()) if isinstance(node, Ratio) else node

    path = next(SHIPPED.rglob(f"{name}.toml"))
    objective: Any = read_recipe(path, registry=load_plugins().registry).objective.objective()
    return attrs.evolve(
        objective, updates=tuple(attrs.evolve(u, maximize=rebuilt(u.maximize, plain)) for u in objective.updates)
    )


def compiled_gradient(objective: Objective) -> list[float]:
    """The gradient of the model's loss by (a, v, b, w), from its compiled update."""
    modules = {
        "encoder": Linear(A, V),
        "decoder": Linear(B, W),
        "prior": StandardNormal(),
        "f": WrittenCritic(lambda x, z: f(x, z)[:, None]),
    }
    plan, parts = assemble(objective, modules)
    # a mean is a reading of a draw, so noise is asked for; it is never looked at
    noise = WrittenNoise({"q(z|x)": EPS, "p(z)": XI, "p(x|z)": ETA, "p'(x|z)": 0 * ETA, "q'(z|x)": 0 * EPS})
    (update,) = (u for u in plan.updates if u.name == "model")
    UpdateRunner(update, parts).gradient(StepInputs({"data": {"x": X}}, noise, 4))
    return [w.grad.item() for n in ("encoder", "decoder") for w in (modules[n].slope, modules[n].var)]


def gradient_by_hand(loss: Callable[..., Tensor]) -> list[float]:
    a, v, b, w = (torch.tensor(value, dtype=DOUBLE, requires_grad=True) for value in (A, V, B, W))
    of_q, of_p = (X, a * X + v.sqrt() * EPS), (b * XI + w.sqrt() * ETA, XI)
    return [float(g) for g in torch.autograd.grad(loss(of_q, of_p, a, v, b, w), (a, v, b, w))]


def log_normal(value: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return (-0.5 * ((value - mean).square() / var + (2 * math.pi * var).log())).squeeze(1)


def ali(of_q: Any, of_p: Any, *_: Tensor) -> Tensor:
    """Dumoulin et al. 2017, section 2.1: the generators' loss is the critic's with the labels swapped."""
    return -(logsigmoid(-f(*of_q)).mean() + logsigmoid(f(*of_p)).mean())


def alice(of_q: Any, of_p: Any, a: Tensor, v: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """Li et al. 2017: and 0.05 times the l1 distance of x and of z to their reconstructions by the means."""
    (x, z), (x_p, z_p) = of_q, of_p
    cycles = (x - b * z).abs().mean() + (z_p - a * x_p).abs().mean()
    return ali(of_q, of_p) + 0.05 * cycles


def svae(of_q: Any, of_p: Any, a: Tensor, v: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """Chen et al. 2018 with their f = -f: E_p f - E_q f, linear, less 0.02 times both log-likelihoods."""
    (x, z), (x_p, z_p) = of_q, of_p
    likelihoods = log_normal(x, b * z, w).mean() + log_normal(z_p, a * x_p, v).mean()
    return f(x, z).mean() - f(x_p, z_p).mean() - 0.02 * likelihoods


@pytest.mark.parametrize(
    ("recipe", "loss"), [("ali_mnist", ali), ("alice_mnist", alice), ("svae_mnist", svae)], ids=["ali", "alice", "svae"]
)
def test_the_models_gradient_is_the_papers(recipe: str, loss: Callable[..., Tensor]) -> None:
    expected = gradient_by_hand(loss)
    assert min(map(abs, expected)) > 1e-3
    assert compiled_gradient(of_recipe(recipe)) == pytest.approx(expected, rel=1e-12)


def test_the_oracle_tells_the_sides_apart() -> None:
    """With f's sign turned, each of the three has another gradient."""
    turned = gradient_by_hand(lambda of_q, of_p, *_: -(logsigmoid(f(*of_q)).mean() + logsigmoid(-f(*of_p)).mean()))
    assert compiled_gradient(of_recipe("ali_mnist")) != pytest.approx(turned, rel=0.1)
