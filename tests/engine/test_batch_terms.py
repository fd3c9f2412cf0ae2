"""Terms of the whole batch: what they are by hand, what they go with, and what refuses them."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from support.models import ALL_REAL, SmallModel, small_model
from torch import Tensor

from jointgen.compiler.compiled_recipe import check_rows
from jointgen.config.recipe import read_recipe
from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.batch_terms import log_mean_exp_function
from jointgen.engine.gradient_check import check_ownership
from jointgen.engine.trial import try_terms
from jointgen.errors import ComponentError, ConfigError
from jointgen.objectives import (
    E,
    Objective,
    Update,
    Value,
    Vocabulary,
    divergence,
    elbo,
    log_mean_exp,
    log_ratio,
    p,
    parse,
    q,
    statistic,
)
from jointgen.objectives.recipe_text import Expression
from jointgen.registry.discovery import load_plugins

REGISTRY = load_plugins().registry
f = log_ratio(q.z, p.z, name="f")
WORDS = Vocabulary(ratios={"f": f})


@attrs.frozen
class SumOfMeans:
    """The sum of the means of all samples, whose gradient is 1/n in every row."""

    sides: int = 2
    vanishes: str = "nowhere"

    def __call__(self, *samples: Tensor, noise: NoiseSource) -> Tensor:
        return sum((sample.flatten(1).sum(1).mean() for sample in samples), start=torch.zeros(()))


def gradients(model: SmallModel, name: str = "model") -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of an update and its gradient by parameter."""
    loss, _, _ = model.update(name).loss(model.inputs())
    found = dict(model.parts.modules.named_parameters())
    taken = torch.autograd.grad(loss, list(found.values()), allow_unused=True)
    return loss, {n: g for n, g in zip(found, taken, strict=True) if g is not None}


# --- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "term",
    [
        divergence("mmd", q.z, p.z),
        divergence("mmd", q.xz, q.x * q.z),
        divergence("feature_means", q.x, p.x, of=[Value("x", "mean"), "x"]),
        statistic("covariance", q.z),
        log_mean_exp(q.x * q.z, parse("2*f", WORDS)),
        log_mean_exp(0.5 * q.z + 0.5 * p.z, f),
    ],
    ids=str,
)
def test_text_reads_back(term: Any) -> None:
    whole = elbo(q, p) - 10 * term
    assert parse(str(whole), WORDS) == whole
    written = Expression.of(Objective.of(whole), REGISTRY)
    assert Expression.of(written.objective(), REGISTRY) == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mmd(q(z) : p(x))", "the two sides are over different variables at character 1"),
        ("mmd(q(z) : 0.5 p(z) + 0.5 q(z))", "compares products of marginals, .* is a mixture"),
        ("mmd(q(z) : k(z))", "unknown joint 'k'.*⟨k⟩"),
        ("E[q(z)](logmeanexp[p(z)](f))", "logmeanexp.* stands inside one at character 9"),
        ("logmeanexp[p(z)](E[q(z)](f))", "an expectation stands inside another"),
    ],
)
def test_mistakes_are_marked(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text, WORDS)


def test_sides_must_be_as_many_as_the_divergence_takes() -> None:
    with pytest.raises(ConfigError, match=r"covariance\(q\(z\) : p\(z\)\): Covariance takes the draws of one"):
        small_model(Objective.of(elbo(q, p) - divergence("covariance", q.z, p.z)))
    with pytest.raises(ConfigError, match=r"mmd\(q\(z\)\): MMD takes two"):
        small_model(Objective.of(elbo(q, p) - statistic("mmd", q.z)))


def test_a_report_is_a_mean_over_rows() -> None:
    with pytest.raises(ConfigError, match=r"report 'far': .* depends on the whole batch"):
        Objective.of(elbo(q, p), reports=(("far", divergence("mmd", q.z, p.z)),))


# --- numbers --------------------------------------------------------------------------------------------------------


def test_values_and_gradients_by_hand() -> None:
    """The codes of a linear encoder without noise: their mean has the gradient 1/n in each row."""
    encoder = {"network": {"type": "mlp", "hidden": []}, "family": {"type": "implicit", "noise": 0}}
    model = small_model(Objective.of(E(q.z, p.log_z) - 3.0 * divergence(SumOfMeans(), q.z, q.z)), encoder=encoder)
    loss, found = gradients(model.double())
    x = model.inputs().data["data"]["x"].double()
    z = model.parts.modules["encoder"].trunk(x)
    prior = -0.5 * z.square().sum(1) - math.log(2 * math.pi)
    assert loss.item() == pytest.approx(3 * 2 * z.sum(1).mean().item() - prior.mean().item())
    assert torch.allclose(found["encoder.trunk.layers.0.bias"], 6.0 + z.mean(0))


def test_several_values_stand_side_by_side() -> None:
    @attrs.frozen
    class Shapes:
        sides: int = 1
        vanishes: str = "nowhere"

        def __call__(self, a: Tensor, *, noise: NoiseSource) -> Tensor:
            assert a.shape == (8, 4) and noise.rows == 1
            return a.mean()

    model = small_model(Objective.of(elbo(q, p) - statistic(Shapes(), q.xz)))
    gradients(model)


def test_log_mean_exp_is_that_of_the_batch() -> None:
    maximize = E(q.z, f) - log_mean_exp(0.25 * p.z + 0.75 * q.z, f)
    model = small_model(Objective((Update("model", elbo(q, p)), Update("f", maximize, trains="f")))).double()
    loss, found = gradients(model, "f")
    inputs, modules = model.inputs(), model.parts.modules
    z_q = (
        modules["encoder"](inputs.data["data"]["x"].double())
        .draw(inputs.noise.named("q(z|x)", 8))
        .read("sample")
        .detach()
    )
    z_p = modules["prior"](8).draw(inputs.noise.named("p(z)", 8)).read("sample")
    critic = modules["f"]
    inside = 0.25 * critic(z_p).exp().mean() + 0.75 * critic(z_q).exp().mean()
    wanted = -(critic(z_q).mean() - inside.log())
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-12)
    by_hand = torch.autograd.grad(wanted, list(critic.parameters()))
    for (name, _), gradient in zip(critic.named_parameters(), by_hand, strict=True):
        assert torch.allclose(found[f"f.{name}"], gradient, atol=1e-12)


def test_donsker_and_varadhans_bound_is_the_divergence_at_its_optimum() -> None:
    """At f = log a/b + c the bound is KL(a : b) whatever c is; here on a law of three values, all rows in the batch."""
    a, b = (torch.tensor(law, dtype=torch.float64) for law in ([0.2, 0.3, 0.5], [0.5, 0.3, 0.2]))
    wanted = (a * (a / b).log()).sum()
    best = (a / b).log().requires_grad_()
    rows = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    inputs = StepInputs({}, Noise(0, dtype=torch.float64), 10)
    for shift in (0.0, 3.0):
        tail = log_mean_exp_function([(1.0, lambda inputs, values, shift=shift: best[rows] + shift)])(inputs, [])
        bound = (a * (best + shift)).sum() - tail
        assert bound.item() == pytest.approx(wanted.item())
        (slope,) = torch.autograd.grad(bound, best)
        assert slope.abs().max().item() < 1e-12


# --- what it goes with ----------------------------------------------------------------------------------------------

BOTH = elbo(q, p) - 10 * divergence("mmd", q.z, p.z) - statistic("covariance", q.z)


@pytest.mark.parametrize("order", ["model, critics", "same point"])
def test_gradients_are_owned(order: Any) -> None:
    dv = E(q.z, f) - log_mean_exp(p.z, f)
    whole = Objective((Update("model", BOTH - 0.1 * E(q.z, f)), Update("f", dv, trains="f")), order=order)
    model = small_model(whole)
    assert check_ownership(model.plan, model.parts, model.data(6), 6) == {}


def test_a_gradient_reaches_the_encoder_and_not_the_decoder() -> None:
    model = small_model(Objective.of(-1.0 * divergence("mmd", q.z, p.z)))
    assert model.plan.updates[0].trains == ("encoder",)
    model = small_model(Objective.of(-1.0 * divergence("mmd", q.x, p.x)))
    assert model.plan.updates[0].trains == ("decoder",)


@pytest.mark.parametrize(
    ("train", "processes", "message"),
    [
        ({"micro_batches": 2}, 1, r"train.micro_batches: 'model/mmd\(q\(z\) : p\(z\)\)'.*2 micro-batches.*use 1"),
        ({"batch": 1, "pair_block": 2}, 1, r"train.batch: .*at least 2"),
        ({"compile": "default"}, 2, r"train.compile: .*2 processes.*use 'off'"),
    ],
)
def test_what_would_change_it_is_refused(train: dict[str, Any], processes: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model = small_model(Objective.of(BOTH), train={"steps": 1, "batch": 8, **train})
        check_rows(model.compiled.recipe, model.compiled.plans, processes)


def test_a_divergence_that_is_no_number_is_told() -> None:
    def rows(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).sum(1)

    model = small_model(Objective.of(elbo(q, p) - divergence(rows, q.z, p.z)))
    with pytest.raises(ComponentError, match=r"term 'model/rows\(q\(z\) : p\(z\)\)'.*shape \(6,\).*one number"):
        try_terms(model.plan, model.parts, model.compiled.binding, model.data(6), 6)


def test_settings_stand_in_a_table_and_explain_shows_them() -> None:
    tables = {
        "type": "expression",
        "maximize": "E[q(x,z)](log p(x|z)) - 10*MMD(q(z) : p(z))",
        "divergences": {"MMD": {"type": "mmd", "kernel": "rbf", "scales": [1, 2.5]}},
    }
    written = read_recipe({**small_tables(), "objective": tables}, registry=REGISTRY)
    assert "MMD = MMD(kernel='rbf', scales=(1.0, 2.5))" in str(written.objective.objective())


def small_tables() -> dict[str, Any]:
    return {**ALL_REAL, "optimizer": {"model": {"lr": 1e-3}}}
