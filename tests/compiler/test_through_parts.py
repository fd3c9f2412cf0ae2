"""Priors that go through conditional parts: gradients, held runs, dropout, requirements, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jointgen_ali.objective import ALI
from jointgen_asvae.objective import ASVAE
from jointgen_vae.objective import IWAE, VAE
from support.models import small_model
from support.paths import REPO

from jointgen.compiler.build import start_at_data
from jointgen.compiler.compiled_recipe import compile_recipe as prepare_recipe
from jointgen.compiler.parts import PartOfPrior
from jointgen.compiler.requirements import requirements
from jointgen.config.recipe import read_recipe
from jointgen.contracts.noise import Noise
from jointgen.engine.gradient_check import check_ownership
from jointgen.errors import ConfigError, OwnershipError
from jointgen.inference.model import Model
from jointgen.objectives import E, Objective, elbo, joint_from_text, log_ratio, log_sigmoid, p, q
from jointgen.registry.components import Registry
from jointgen.reports.explain.explain import explain

VAMP: dict[str, Any] = {"type": "vamp", "size": 2, "components": 5}
MIXTURE: dict[str, Any] = {"type": "learned", "size": 2, "family": {"type": "mixture", "components": 3}}
DROPPING: dict[str, Any] = {"type": "mlp", "hidden": [6], "dropout": 0.4}
MLP: dict[str, Any] = {"type": "mlp", "hidden": [6]}
GAUSSIAN: dict[str, Any] = {"type": "gaussian"}

f = log_ratio(q.xz, p.xz, name="f")

OBJECTIVES: dict[str, Callable[[], Any]] = {
    "vae": lambda: VAE().objective(),
    "iwae": lambda: IWAE(k=3).objective(),
    "ali": lambda: ALI().objective(),
    "asvae": lambda: ASVAE(ratio="T").objective(),
    "asvae, literal": lambda: ASVAE(form="literal").objective(),
    "held": lambda: Objective.of(elbo(q, p) + E(p.xz, q.log("z|x", stop="x") - p.log("z", hold=True))),
    "held known part": lambda: Objective.of(
        elbo(q, p) + E(p.xz, log_sigmoid(log_ratio(q.xz, p.xz, name="f", known=q.log_z_given_x - p.log_z)))
    ),
    "products": lambda: Objective.of(E(q.xz, -log_ratio(q.xz, q.x * p.z, name="t")) + E(q.x * p.z, p.log_z)),
}


def check(model: Any, rows: int = 4) -> None:
    check_ownership(model.plan, model.parts, model.data(rows), rows)


def dropping(family: dict[str, Any] = GAUSSIAN) -> dict[str, Any]:
    return {"network": DROPPING, "family": family}


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [VAMP, MIXTURE], ids=["vamp", "mixture"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_where_the_plan_says(name: str, prior: dict[str, Any]) -> None:
    encoder = dropping({"type": "mixture", "components": 2})
    check(small_model(OBJECTIVES[name](), prior=prior, encoder=encoder))


def test_log_p_of_z_reaches_the_encoder() -> None:
    model = small_model(VAE().objective(), prior=VAMP)
    (row,) = (s for s in model.plan.updates[0].summands if s.label.endswith("log p(z)"))
    assert row.gradient_paths == {"encoder": {"explicit", "samples"}, "prior": {"explicit"}}
    assert set(model.plan.updates[0].trains) == {"encoder", "decoder", "prior"}
    assert model.plan.runs() == {"encoder": 2, "decoder": 1}


def test_the_plan_counts_the_runs_there_are() -> None:
    model = small_model(ASVAE(ratio="T").objective(), prior=VAMP)
    with model.forwards_counted() as counts:
        model.step()(lambda r: model.inputs(8, repetition=r))
    assert counts == model.plan.runs()


def test_a_leak_into_the_encoder_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder called besides what the plan knows: a prior that does not say that it goes through it."""
    model = small_model(VAE().objective(), prior={"type": "normal", "size": 2})
    encoder, prior = model.parts.modules["encoder"], model.parts.modules["prior"]
    x = torch.zeros(1, 2)

    def forward(rows: int) -> Any:
        return encoder(x.to(next(encoder.parameters()).dtype), k=rows)

    monkeypatch.setattr(type(prior), "forward", lambda self, rows: forward(rows))
    monkeypatch.setattr("jointgen.engine.gradient_check._perturbed_copy", lambda parts, seed: parts)
    model.double()
    with pytest.raises(OwnershipError, match=r"log p\(z\)' leaks a gradient into 'encoder'"):
        check(model)


def test_a_held_prior_holds_what_it_goes_through() -> None:
    objective = Objective.of(E(q.xz, p.log("z", hold=True) + p.log_x_given_z))
    (row, _) = small_model(objective, prior=VAMP).plan.updates[0].summands
    assert row.gradient_paths == {"encoder": {"samples"}}


# --- dropout and drawing ----------------------------------------------------------------------------------------------


def test_dropout_of_a_part_of_a_prior_is_named_and_the_same_everywhere() -> None:
    """One mask per pseudo-input for draws and densities alike, and the same one in every process."""
    model = small_model(VAE().objective(), prior=VAMP, encoder=dropping())
    model.parts.modules.train()
    u = model.parts.modules["prior"].pseudo_inputs()[0].detach()

    def means(rank: int, step: int = 0) -> torch.Tensor:
        part = PartOfPrior(model.parts.modules["encoder"], "prior/encoder", Noise(0, step, rank=rank, world=2))
        return part(u).mean

    assert torch.equal(means(0), means(1)) and torch.equal(means(0), means(0))
    assert not torch.equal(means(0), means(0, step=1))


def test_model_draws_from_a_prior_that_goes_through_the_encoder() -> None:
    """K = 1: p(z) is q(z|u), so the mean of many draws is the encoder's mean at u, within 5 standard errors."""
    model = small_model(VAE().objective(), prior={**VAMP, "components": 1}, encoder=dropping())
    usable = Model(model.compiled, model.parts)
    model.parts.modules.eval()
    z = usable.draw("p", {}, 4000, usable.noise(0, "draw"))["z"]
    with torch.no_grad():
        posterior = model.parts.modules["encoder"](*model.parts.modules["prior"].pseudo_inputs())
    error = (z.mean(0) - posterior.mean[0]).abs() / (posterior.scale[0] / 4000**0.5)
    assert error.max() < 5


def test_priors_start_with_rows_of_the_data() -> None:
    model = small_model(VAE().objective(), prior=VAMP)
    rows = model.data(10)["data"]
    start_at_data(model.parts, model.compiled.binding, rows)
    (found,) = model.parts.modules["prior"].pseudo_inputs()
    assert (found - rows["x"][::2]).abs().max() < 0.05


# --- what is asked of the parts ---------------------------------------------------------------------------------------


def test_a_density_of_the_prior_asks_its_part_for_foreign_points() -> None:
    model = small_model(VAE().objective(), prior=VAMP)
    needs = {(n.part, n.ability) for n in requirements(model.plan, {})}
    assert ("encoder", "foreign density") in needs
    assert not any(part == "prior" for part, _ in needs)
    with pytest.raises(ConfigError) as caught:
        small_model(VAE().objective(), prior=VAMP, encoder={"network": MLP, "family": {"type": "implicit", "noise": 0}})
    text = "encoder.family: the objective needs a density at points that it did not draw for q(z|x), in the term "
    assert any(line.startswith(f"{text}'model/E[q(x,z)] log p(z)'") for line in caught.value.lines)
    assert all("families that do: coupling, gaussian" in line for line in caught.value.lines)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no such part": (
        {"prior": {**VAMP, "encoder": "encodr"}},
        "prior: goes through 'encodr', which is no conditional of the objective; did you mean 'encoder'?",
    ),
    "a part that draws something else": (
        {"prior": {**VAMP, "encoder": "decoder"}},
        "prior: goes through 'decoder', which draws x and not z",
    ),
    "a part that takes noise": (
        {"prior": VAMP, "encoder": {"network": MLP, "family": {"type": "implicit", "noise": 2}}},
        "prior: goes through 'encoder', whose network takes noise, which a prior does not give it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_prior_cannot_go_through(name: str) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(ConfigError) as caught:
        small_model(ALI().objective(), **changes)
    assert caught.value.lines[0].startswith(message)


def test_labels_of_the_encoder_get_pseudo_labels() -> None:
    qq = joint_from_text("q", "q(x,y) q(z|x,y)")
    pp = joint_from_text("p", "p(y) p(z) p(x|z,y)", {"p(y)": "data"})
    model = small_model(Objective.of(elbo(qq, pp)), prior=VAMP, data={"type": "ring", "rows": 64, "labels": True})
    x, y = model.parts.modules["prior"].pseudo_inputs()
    assert x.shape == (5, 2) and y.shape == (5, 8)
    torch.testing.assert_close(y.sum(1), torch.ones(5))
    check(model)


def test_explain_says_what_a_prior_runs(registry: Registry) -> None:
    changes = {"objective": {"type": "vae"}, "prior.type": "vamp"}
    compiled = prepare_recipe(
        read_recipe(REPO / "tests" / "fixtures" / "recipes" / "quickstart.toml", changes, registry=registry), registry
    )
    assert "encoder within prior, on its own inputs" in explain(compiled)
