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
from torch import Tensor

from jointgen.noise import Noise
from jointgen.objectives import E, Objective, Ratio, log_ratio, p, q
from jointgen.objectives.objective import critic_update, resolved
from jointgen.space import Space
from jointgen.step import CompiledUpdate, Moment

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
MILD = Pair(X=1.0, a=0.5, v=0.75, b=0.5, w=0.75)
"""p = q with rho = 1/2, where averages of exp f settle."""


@pytest.fixture
def pair_of(assemble: Any, nets: Any) -> Callable[..., Any]:
    """(pair, critics by name) -> (plan, parts) of an objective that only trains these critics."""

    def make(pair: Pair, critics: dict[str, Any], resolve: Any) -> Any:
        modules = {
            "encoder": nets.Line(pair.a, 0.0, 0.5 * math.log(pair.v)),
            "decoder": nets.Line(pair.b, 0.0, 0.5 * math.log(pair.w)),
            "prior": nets.StandardNormal(),
        }
        ratios = [resolved(pair.ratios()[name][0], resolve) for name in critics]
        objective = Objective(tuple(critic_update(ratio) for ratio in ratios))
        named = {f.part for joint in objective.joints.values() for f in joint.factors}
        return assemble(objective, {n: m for n, m in modules.items() if n in named} | critics)

    return make


def moment(pair: Pair, rows: int, step: int) -> Moment:
    noise = Noise(0, step, dtype=DOUBLE)
    x = math.sqrt(pair.X) * noise.named("data", rows).normal(1)
    return Moment({"data": {"x": x}}, noise, rows, step, pair_block=16)


def sides(plan: Any, parts: Any, name: str, pair: Pair, rows: int) -> list[tuple[Tensor, ...]]:
    """What the critic is shown as positives and as negatives: (x, z), or the one of them that it sees."""
    update = CompiledUpdate(next(u for u in plan.updates if u.name == name), plan, parts)
    shown: list[tuple[Tensor, ...]] = []
    handle = parts.modules[name].register_forward_pre_hook(lambda module, inputs: shown.append(inputs))
    with torch.no_grad():
        update.loss(moment(pair, rows, 10**6))
    handle.remove()
    return shown


def closed(pair: Pair, name: str, inputs: tuple[Tensor, ...]) -> Tensor:
    x, z = inputs if len(inputs) == 2 else inputs * 2
    return pair.ratios()[name][1](x, z).squeeze(1)


# --- trained critics ---------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(pair_of: Callable[..., Any], make_step: Any, resolve: Any) -> Callable[..., dict[str, tuple[float, float]]]:
    """(pair, names, steps) -> (mean absolute error, mean absolute closed form) of each critic, in nats."""

    def run(pair: Pair, names: tuple[str, ...], steps: int = 1500, rows: int = 512) -> dict[str, tuple[float, float]]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            critics = {
                name: MLPDiscriminator(hidden=[48, 48])
                .build({v: Space((1,)) for v in pair.ratios()[name][0].variables})
                .double()
                for name in names
            }
        plan, parts = pair_of(pair, critics, resolve)
        step = make_step(plan, parts, 3e-3, None, torch.optim.Adam)
        for number in range(steps):
            for optimizers in step.optimizers.values():
                optimizers[0].param_groups[0]["lr"] = 3e-3 * min(1.0, 2 * (1 - number / steps))
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


def test_x(trained):
    import time
    for pair, names in ((APART, ("T","d")), (APART,("t",)), (APART, ("f1","f2")), (EQUAL,("f1","f2")), (EQUAL,("T","d"))):
        for steps, rows in ((1000,512),(1500,512),(1500,1024)):
            t=time.time(); print(pair.X, names, steps, rows, trained(pair,names,steps,rows), time.time()-t)
