"""log q(z) and prod q(z): beta-TCVAE and FactorVAE by hand, and total correlations in closed form."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from support.models import SmallModel, small_model
from support.paths import SHIPPED
from torch import Tensor
from torch.nn.functional import logsigmoid

from jointgen.config.recipe import read_recipe
from jointgen.contracts.noise import Noise
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.aggregates import log_shares
from jointgen.engine.gradient_check import check_ownership
from jointgen.engine.program import re_pair_each
from jointgen.errors import ConfigError
from jointgen.objectives import E, Objective, Vocabulary, elbo, log_aggregate, log_ratio, p, parse, q
from jointgen.objectives.recipe_text import Expression
from jointgen.registry.discovery import load_plugins

REGISTRY = load_plugins().registry
DOUBLE = torch.float64
ROWS, N = 8, 100
BOTH = elbo(q, p) + E(q.xz, log_aggregate(q.z) - log_aggregate(q.z, each=True))
t = log_ratio(q.z, q.z.by_dimension, name="t")


def of_recipe(name: str) -> SmallModel:
    objective: Any = read_recipe(SHIPPED / f"relatives/{name}.toml", registry=REGISTRY).objective.objective()
    return small_model(objective).double()


def inputs_of(model: SmallModel) -> StepInputs:
    return attrs.evolve(model.inputs(ROWS), source_rows={"data": N}, pair_block=4)


def by_hand(model: SmallModel) -> tuple[Any, Any, Tensor, Tensor, Tensor]:
    """The laws q(z|x) and p(x|z) of all rows, x, z and the log-densities of z_i under q(z_j|x_m), (n, M, D)."""
    inputs, modules = inputs_of(model), model.parts.modules
    x = inputs.data["data"]["x"].double()
    law: Any = modules["encoder"](x)
    z = law.draw(inputs.noise.named("q(z|x)", ROWS)).read("sample")
    apart = (z[:, None] - law.mean) / law.log_scale.exp()
    return law, modules["decoder"](z), x, z, -0.5 * apart.square() - law.log_scale - 0.5 * math.log(2 * math.pi)


@pytest.mark.parametrize("text", ["E[p(z)](log q(z))", "E[p(x,z)](log q(z))"])
def test_the_density_of_an_aggregate_is_a_use_of_its_conditional(text: str) -> None:
    """Nothing is drawn of q(z|x), and it trains."""
    assert "encoder" in small_model(Objective.of(parse(text))).plan.updates[0].trains


def gradients(loss: Tensor, model: SmallModel, parts: tuple[str, ...]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, model.parts.parameters(parts), allow_unused=True))


def test_beta_tcvae_is_the_papers_with_stratified_weights() -> None:
    model = of_recipe("beta_tcvae_mnist")
    loss, _, _ = model.update().loss(inputs_of(model))
    _, likelihood, x, z, each = by_hand(model)
    log_weights = torch.full((ROWS, ROWS), math.log((N - 1) / (N * (ROWS - 1))), dtype=DOUBLE)
    log_weights.fill_diagonal_(-math.log(N))
    log_q_of_x, log_q = each.sum(2).diagonal(), (each.sum(2) + log_weights).logsumexp(1)
    log_product = (each + log_weights[:, :, None]).logsumexp(1).sum(1)
    log_p = (-0.5 * z.square() - 0.5 * math.log(2 * math.pi)).sum(1)
    bound = likelihood.log_prob(x) - (log_q_of_x - log_q) - 6 * (log_q - log_product) - (log_product - log_p)
    assert loss.item() == pytest.approx(-bound.mean().item(), rel=1e-10)
    parts = ("encoder", "decoder")
    for found, wanted in zip(gradients(loss, model, parts), gradients(-bound.mean(), model, parts), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-10)


def test_factor_vae_is_the_papers() -> None:
    model = of_recipe("factor_vae_mnist")
    law, likelihood, x, z, _ = by_hand(model)
    critic = model.parts.modules["t"]
    kl = (0.5 * (law.mean.square() + (2 * law.log_scale).exp() - 1) - law.log_scale).sum(1)
    wanted = -(likelihood.log_prob(x) - kl - 6.4 * critic(z)).mean()
    loss, _, _ = model.update().loss(inputs_of(model))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-10)
    # in blocks of 4 rows the second number comes from the row before
    order = torch.tensor([3, 0, 1, 2, 7, 4, 5, 6])
    others = torch.stack([z[:, 0], z[order, 1]], 1).detach()
    wanted = -(logsigmoid(critic(z.detach())) + logsigmoid(-critic(others))).mean()
    loss, _, _ = model.update("t").loss(inputs_of(model))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-10)
    for found, other in zip(gradients(loss, model, ("t",)), gradients(wanted, model, ("t",)), strict=True):
        assert torch.allclose(found, other, rtol=1e-8, atol=1e-12)


# --- the estimators in closed form ----------------------------------------------------------------------------------


def shares(n: int, m: int, rows: int, own: bool, k: int = 1) -> Tensor:
    node: Any = attrs.make_class("Node", ["source", "own"])("data", own)
    inputs = StepInputs({}, Noise(0, dtype=DOUBLE), n // k, source_rows={"data": rows})
    return log_shares(inputs, n, m, node).exp()


def test_shares_sum_to_one_and_make_the_density_unbiased() -> None:
    """Over all batches of 2 of 5 rows that hold row i, the mean of 1/5 q_i + 4/5 q_j is the mean of all five."""
    found = shares(2, 2, 5, own=True)
    assert torch.allclose(found, torch.tensor([[0.2, 0.8], [0.8, 0.2]], dtype=DOUBLE))
    q_of = torch.tensor([0.3, 1.0, 0.1, 0.7, 0.4], dtype=DOUBLE)
    for i in range(5):
        over_batches = [found[0, 0] * q_of[i] + found[0, 1] * q_of[j] for j in range(5) if j != i]
        assert torch.stack(over_batches).mean().item() == pytest.approx(q_of.mean().item())
    assert torch.allclose(shares(4, 2, 5, own=True, k=2), found.repeat_interleave(2, 0))
    assert torch.allclose(shares(3, 3, 5, own=False), torch.full((3, 3), 1 / 3, dtype=DOUBLE))
    assert torch.allclose(
        shares(3, 3, 2, own=True).sum(1), torch.ones(3, dtype=DOUBLE)
    )  # no fewer rows than the batch has


def correlated(rows: int, rho: float) -> Tensor:
    a, b = Noise(0, dtype=DOUBLE).named("rows", rows).normal(2).unbind(1)
    return torch.stack([a, rho * a + math.sqrt(1 - rho**2) * b], 1)


def test_total_correlation_of_a_gaussian() -> None:
    """x ~ N(0, [[1, r], [r, 1]]), q(z|x) = N(x, s^2): TC = -1/2 log(1 - (r / (1 + s^2))^2); all data in the batch."""
    rows, rho, scale = 1200, 0.8, 0.4
    x = correlated(rows, rho)
    z = x + scale * Noise(0, dtype=DOUBLE).named("z", rows).normal(2)
    each = -0.5 * ((z[:, None] - x) / scale).square() - math.log(scale) - 0.5 * math.log(2 * math.pi)
    found = each.sum(2).logsumexp(1) - math.log(rows) - (each.logsumexp(1) - math.log(rows)).sum(1)

    correlation = E(q.z, log_aggregate(q.z) - log_aggregate(q.z, each=True))
    model = small_model(Objective.of(correlation), latents={"z": 2}).double()
    model.parts.modules["encoder"].trunk = FixedOutputs(scale)
    inputs = StepInputs({"data": {"x": x}}, WrittenCodes(z, x, scale), rows)
    loss, _, _ = model.update().loss(inputs)
    assert -loss.item() == pytest.approx(found.mean().item(), rel=1e-9)
    wanted = -0.5 * math.log(1 - (rho / (1 + scale**2)) ** 2)
    assert -loss.item() == pytest.approx(wanted, abs=0.06)  # three standard errors of 1,200 rows


class FixedOutputs(torch.nn.Module):
    """Means that are the inputs, and one log-scale; a parameter keeps it something to train."""

    def __init__(self, scale: float):
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(scale), dtype=DOUBLE))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.log_scale.expand_as(x)], 1)


class WrittenCodes:
    """Noise that makes these codes."""

    device, dtype = "cpu", DOUBLE

    def __init__(self, z: Tensor, x: Tensor, scale: float):
        self.eps = (z - x) / scale

    def named(self, name: str, rows: int) -> Any:
        return attrs.make_class("Source", ["rows", "dtype", "eps"], bases=(OfCodes,))(rows, DOUBLE, self.eps)


class OfCodes:
    def normal(self, *shape: int) -> Tensor:
        return self.eps  # type: ignore[attr-defined, no-any-return]


def test_numbers_of_other_rows_are_independent_and_as_before() -> None:
    z = correlated(4096, 0.9)
    others = re_pair_each(z, 0, 16)
    assert torch.equal(others.sort(0).values, z.sort(0).values)  # the law of each number is kept exactly
    assert abs(torch.corrcoef(others.T)[0, 1].item()) < 4 / math.sqrt(4096)
    whole = torch.arange(12.0).reshape(4, 3)
    assert re_pair_each(whole, 1, 4).tolist() == [[9, 7, 5], [0, 10, 8], [3, 1, 11], [6, 4, 2]]


# --- text, and what refuses it --------------------------------------------------------------------------------------


@pytest.mark.parametrize("expr", [BOTH, E(q.xz, -t), E(q.z.by_dimension, t), E(q.x * q.z.by_dimension, t)], ids=str)
def test_text_reads_back(expr: Any) -> None:
    assert parse(str(expr), Vocabulary(ratios={"t": t})) == expr
    written = Expression.of(Objective.of(expr), REGISTRY)
    assert Expression.of(written.objective(), REGISTRY) == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("E[q(x,z)](log prod q(x))", r"q\(x\).*: x is no conditional that draws 'x' alone at character 15"),
        ("E[q(x,z)](log q(w))", "no factor"),
        ("E[prod q(x,z)](log q(z))", "prod is of one variable"),
    ],
)
def test_mistakes_are_marked(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"train": {"steps": 1, "batch": 8, "micro_batches": 2, "pair_block": 2}},
            "train.micro_batches: .*whole batch",
        ),
        (
            {"encoder": {"network": {"type": "mlp"}, "family": {"type": "planar", "length": 2}}},
            "needs a density of each dimension by itself.*families that do: .*gaussian",
        ),
        (
            {"encoder": {"network": {"type": "mlp"}, "family": {"type": "implicit", "noise": 2}}},
            "encoder.family: .*a density at points that it did not draw",
        ),
    ],
    ids=["micro-batches", "planar", "implicit"],
)
def test_what_cannot_have_it_is_refused(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_model(Objective.of(BOTH), **tables)


def test_a_report_cannot_have_it() -> None:
    with pytest.raises(ConfigError, match=r"report 'tc': log q\(z\) depends on the whole batch"):
        Objective.of(elbo(q, p), reports=(("tc", E(q.z, log_aggregate(q.z))),))


def test_a_block_has_as_many_rows_as_numbers() -> None:
    with pytest.raises(ConfigError, match=r"train.pair_block: must be at least 6, got 4.*each of the 6 numbers of 'z'"):
        small_model(
            Objective.of(elbo(q, p) - E(q.z, t)),
            prior={"type": "normal", "size": 6},
            train={"steps": 1, "batch": 8, "pair_block": 4},
        )


@pytest.mark.parametrize("expr", [BOTH, elbo(q, p) - E(q.z, 2 * t)], ids=["log q(z)", "prod q(z)"])
def test_gradients_are_owned(expr: Any) -> None:
    model = small_model(Objective.of(expr))
    assert check_ownership(model.plan, model.parts, model.data(6), 6) == {}
