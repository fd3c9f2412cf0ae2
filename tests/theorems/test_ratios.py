"""Learned log-ratios reach the closed forms, on linear-Gaussian models.

q(x) = N(0, X), q(z|x) = N(a x, v), p(z) = N(0, 1), p(x|z) = N(b z, w). Critics are small networks trained by the
engine's own updates on fresh draws; the error stated is the mean absolute one over draws of both sides of the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from jointgen_nets.mlp import MLPDiscriminator
from support.models import assemble, make_step, resolve
from support.networks import Line, StandardNormal, WatchedCritic
from torch import Tensor

from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.update import UpdateRunner
from jointgen.objectives import Objective, Product, Ratio, log_ratio, p, q
from jointgen.objectives.objective import critic_update, resolved

DOUBLE = torch.float64
Function = Callable[[Tensor, Tensor], Tensor]


def log_normal(value: Tensor, mean: Tensor | float, var: float) -> Tensor:
    return -0.5 * ((value - mean) ** 2 / var + math.log(2 * math.pi * var))


@attrs.frozen
class Pair:
    """The two joints, by the variance of the data, the encoder's slope and variance, and the decoder's."""

    X: float
    a: float
    v: float
    b: float
    w: float

    def log_q(self, x: Tensor, z: Tensor) -> Tensor:
        return log_normal(x, 0.0, self.X) + log_normal(z, self.a * x, self.v)

    def log_p(self, x: Tensor, z: Tensor) -> Tensor:
        return log_normal(z, 0.0, 1.0) + log_normal(x, self.b * z, self.w)

    def log_px(self, x: Tensor) -> Tensor:
        return log_normal(x, 0.0, self.b**2 + self.w)

    def log_qx(self, x: Tensor) -> Tensor:
        return log_normal(x, 0.0, self.X)

    def log_qz(self, z: Tensor) -> Tensor:
        return log_normal(z, 0.0, self.a**2 * self.X + self.v)

    def covariance(self, over: Product) -> Tensor:
        """(D, D) of q(x,z), p(x)p(z) and so on, variables in order of their names."""
        joints = {
            "q": [[self.X, self.a * self.X], [self.a * self.X, self.a**2 * self.X + self.v]],
            "p": [[self.b**2 + self.w, self.b], [self.b, 1.0]],
        }
        blocks = []
        for marginal in sorted(over.marginals, key=lambda m: m.variables):
            kept = ["xz".index(v) for v in marginal.variables]
            blocks.append(torch.tensor(joints[marginal.joint.name], dtype=DOUBLE)[kept][:, kept])
        return torch.block_diag(*blocks)

    def ratios(self) -> dict[str, tuple[Ratio, Function]]:
        """Each with its closed form."""
        log_pz: Callable[[Tensor], Tensor] = lambda z: log_normal(z, 0.0, 1.0)  # noqa: E731
        return {
            "f1": (  # eq 7
                log_ratio(q.xz, p.x * p.z, name="f1"),
                lambda x, z: self.log_q(x, z) - self.log_px(x) - log_pz(z),
            ),
            "f2": (
                log_ratio(p.xz, q.x * q.z, name="f2"),
                lambda x, z: self.log_p(x, z) - self.log_qx(x) - self.log_qz(z),
            ),
            "T": (log_ratio(p.xz, q.xz, name="T"), lambda x, z: self.log_p(x, z) - self.log_q(x, z)),
            "d": (log_ratio(p.x, q.x, name="d"), lambda x, z: self.log_px(x) - self.log_qx(x)),
            "e": (log_ratio(p.z, q.z, name="e"), lambda x, z: log_pz(z) - self.log_qz(z)),
            "t": (  # AVB
                log_ratio(q.xz, q.x * p.z, name="t"),
                lambda x, z: log_normal(z, self.a * x, self.v) - log_pz(z),
            ),
        }


APART = Pair(X=1.3, a=0.6, v=0.7, b=0.9, w=0.4)
EQUAL = Pair(X=1.21, a=0.9 / 1.21, v=0.4 / 1.21, b=0.9, w=0.4)
"""The encoder is the decoder's own posterior, and the data its marginal: p = q, with rho = 0.9 / 1.1."""
HALF = Pair(X=1.0, a=0.5, v=0.75, b=0.5, w=0.75)
"""p = q with rho = 1/2."""


@pytest.fixture
def pair_of() -> Callable[..., Any]:
    """(pair, critics by name) -> (plan, parts) of an objective that only trains these critics."""

    def make(pair: Pair, critics: dict[str, Any]) -> Any:
        modules = {
            "encoder": Line(pair.a, 0.0, 0.5 * math.log(pair.v)),
            "decoder": Line(pair.b, 0.0, 0.5 * math.log(pair.w)),
            "prior": StandardNormal(),
        }
        ratios = [resolved(pair.ratios()[name][0], resolve) for name in critics]
        objective = Objective(tuple(critic_update(ratio) for ratio in ratios))
        named = {f.part for joint in objective.joints.values() for f in joint.factors}
        return assemble(objective, {n: m for n, m in modules.items() if n in named} | critics)

    return make


def moment(pair: Pair, rows: int, step: int) -> StepInputs:
    noise = Noise(0, step, dtype=DOUBLE)
    x = math.sqrt(pair.X) * noise.named("data", rows).normal(1)
    return StepInputs({"data": {"x": x}}, noise, rows, step, pair_block=16)


def sides(plan: Any, parts: Any, name: str, pair: Pair, rows: int) -> list[tuple[Tensor, ...]]:
    """What the critic is shown as positives and as negatives: (x, z), or the one of them that it sees."""
    update = UpdateRunner(next(u for u in plan.updates if u.name == name), parts)
    shown: list[tuple[Tensor, ...]] = []
    handle = parts.modules[name].register_forward_pre_hook(lambda module, inputs: shown.append(inputs))
    with torch.no_grad():
        update.loss(moment(pair, rows, 10**6))
    handle.remove()
    return shown


def closed(pair: Pair, name: str, inputs: tuple[Tensor, ...]) -> Tensor:
    x, z = inputs if len(inputs) == 2 else inputs * 2
    return pair.ratios()[name][1](x, z).squeeze(1)


def kl(a: Tensor, b: Tensor) -> float:
    """KL(N(0, a) || N(0, b)) = 1/2 (tr b^-1 a - D + log det b / det a)."""
    return 0.5 * (torch.linalg.solve(b, a).trace() - len(a) + torch.logdet(b) - torch.logdet(a)).item()


def near(values: Tensor, expected: float) -> None:
    """The mean is within five of its standard errors, and these are small."""
    error = (values.std() / math.sqrt(len(values))).item()
    assert error < 0.02
    assert values.mean().item() == pytest.approx(expected, abs=5 * error + 1e-12)


# --- what the critics are shown, against the closed forms ------------------------------------------------------------

EVERY = ("T", "d", "e", "f1", "f2", "t")


@pytest.mark.parametrize("pair", [APART, HALF], ids=["apart", "equal"])
@pytest.mark.parametrize("name", EVERY)
def test_the_sides_of_a_ratio_are_drawn_from_what_it_names(name: str, pair: Pair, pair_of: Callable[..., Any]) -> None:
    """Over positives log num/den averages KL(num || den), over negatives -KL(den || num), and its exponential 1:

    200 000 draws as the critic's own update makes them, and the KL of two Gaussians.
    """
    ratio, _ = pair.ratios()[name]
    plan, parts = pair_of(pair, {name: WatchedCritic()})
    positive, negative = (closed(pair, name, shown) for shown in sides(plan, parts, name, pair, 200_000))
    num, den = pair.covariance(ratio.num), pair.covariance(ratio.den)
    near(positive, kl(num, den))
    near(negative, -kl(den, num))
    near(negative.exp(), 1.0)


@pytest.mark.parametrize("pair", [EQUAL, HALF], ids=["rho 0.82", "rho 0.5"])
def test_at_p_equals_q_both_critics_of_asvae_are_the_mutual_information(
    pair: Pair,
    pair_of: Callable[..., Any],
) -> None:
    """f1 = f2 = log p(x,z) / (p(x) p(z)) at every point, with mean I(x; z) = -1/2 log(1 - rho^2), rho^2 = b^2 / X."""
    information = -0.5 * math.log(1 - pair.b**2 / pair.X)
    plan, parts = pair_of(pair, {"f1": WatchedCritic(), "f2": WatchedCritic()})
    for name in ("f1", "f2"):
        positive, negative = sides(plan, parts, name, pair, 200_000)
        for x, z in (positive, negative):
            pointwise = pair.log_p(x, z) - pair.log_px(x) - log_normal(z, 0.0, 1.0)
            assert torch.allclose(closed(pair, name, (x, z)), pointwise.squeeze(1), rtol=0, atol=1e-10)
        near(closed(pair, name, positive), information)


def test_ratios_that_are_zero_at_p_equals_q() -> None:
    z, x = torch.randn(2, 100, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    for name in ("T", "d", "e"):
        assert HALF.ratios()[name][1](x, z).abs().max() < 1e-12
        assert APART.ratios()[name][1](x, z).abs().max() > 0.01


def test_the_two_critics_are_made_of_one_small_ratio() -> None:
    """f1 = rho - d and f2 = rho + T + e, rho = log q(z|x) - log p(z) (the decomposition)."""
    x, z = torch.randn(2, 100, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    value = {name: function(x, z) for name, (_, function) in APART.ratios().items()}
    assert torch.allclose(value["f1"], value["t"] - value["d"], rtol=0, atol=1e-12)
    assert torch.allclose(value["f2"], value["t"] + value["T"] + value["e"], rtol=0, atol=1e-12)


# --- trained critics -------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(pair_of: Callable[..., Any]) -> Callable[..., dict[str, tuple[float, float]]]:
    """(pair, names, steps) -> (mean absolute error, mean absolute closed form) of each critic, in nats."""

    def run(pair: Pair, names: tuple[str, ...], steps: int = 1500, rows: int = 512) -> dict[str, tuple[float, float]]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            critics = {
                name: MLPDiscriminator(hidden=[32, 32])
                .build({v: Space((1,)) for v in pair.ratios()[name][0].variables})
                .double()
                for name in names
            }
        plan, parts = pair_of(pair, critics)
        step = make_step(plan, parts, 5e-3, None, torch.optim.Adam)
        for number in range(steps):
            for optimizers in step.optimizers.values():
                optimizers[0].param_groups[0]["lr"] = 5e-3 * min(1.0, 2 * (1 - number / steps))
            step(lambda r, number=number: moment(pair, rows, number))
        found = {}
        for name in names:
            shown = sides(plan, parts, name, pair, 20_000)
            with torch.no_grad():
                errors = torch.cat([parts.modules[name](*side) - closed(pair, name, side) for side in shown])
            size = torch.cat([closed(pair, name, side) for side in shown]).abs().mean().item()
            found[name] = errors.abs().mean().item(), size
        return found

    return run


# (the model, the critics, steps of 512 rows, bounds on the mean absolute error in nats)
TRAINED: dict[str, tuple[Pair, int, dict[str, float]]] = {
    "apart": (APART, 500, {"T": 0.08, "t": 0.1}),  # of 0.45 and 0.60 nats; t is AVB's log q(z|x) - log p(z)
    "p = q": (HALF, 400, {"f1": 0.09, "f2": 0.09, "T": 0.03, "d": 0.03}),  # of 0.41, 0.41, 0 and 0
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_critic_reaches_the_closed_form(name: str, trained: Callable[..., Any]) -> None:
    pair, steps, bounds = TRAINED[name]
    found = trained(pair, tuple(bounds), steps)
    for critic, bound in bounds.items():
        error, size = found[critic]
        assert error < bound, f"{critic} is off by {error:.3f} of {size:.3f} nats"


def test_an_untrained_critic_does_not(trained: Callable[..., Any]) -> None:
    """All the bounds above are out of reach of a network as it starts."""
    for pair, _, bounds in TRAINED.values():
        found = trained(pair, tuple(bounds), 0)
        assert all(found[critic][0] > 2 * bound for critic, bound in bounds.items()), found
