"""A root of p that models the data itself: its Space, its figures, its samples; there is no code."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import SmallModel
from torch import Tensor
from torch.nn import functional as F

import jointgen
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe, write_recipe
from jointgen.contracts.space import Space
from jointgen.data.split import open_split
from jointgen.errors import ConfigError
from jointgen.inference.bulk import sample_many
from jointgen.inference.model import Model
from jointgen.registry.components import Registry

NO_CODE: dict[str, Any] = {
    "name": "no_code",
    "data": {"type": "digits"},
    "prior": {"type": "learned", "like": "x", "family": {"type": "gaussian"}},
    "objective": {"type": "expression", "maximize": "E[q(x)](log p(x))", "joints": {"q": "q(x)", "p": "p(x)"}},
    "train": {"steps": 3, "batch": 16, "trackers": [], "threads": 1},
    "eval": {"rows": 32, "samples": 4},
}
DIGITS = Space((1, 8, 8), low=0.0, high=1.0, bins=17)


def compiled(registry: Registry, tables: dict[str, Any] = NO_CODE, changes: Any = ()) -> SmallModel:
    return SmallModel(compile_recipe(read_recipe(tables, changes, registry=registry), registry))


def with_prior(**prior: Any) -> dict[str, Any]:
    return {**NO_CODE, "prior": {"type": "learned", "family": {"type": "gaussian"}, **prior}}


def observed(model: SmallModel, rows: int = 8) -> Tensor:
    runner = model.update()
    node = next(n for n in runner.plan.nodes if n.title == "q.x")
    return runner.program.run(model.inputs(rows=rows))[runner.program.index[node]]


@pytest.mark.parametrize("prior", [{"like": "x"}, {"size": [1, 8, 8]}], ids=["like", "size"])
def test_a_prior_of_the_data_takes_the_levels_of_the_data(registry: Registry, prior: dict[str, Any]) -> None:
    model = compiled(registry, with_prior(**prior))
    assert model.compiled.binding.spaces["x"] == DIGITS
    x, raw = observed(model), model.data()["data"]["x"]
    # dequantised: every value lies strictly inside the bin of its level, and none is the level itself
    assert torch.equal((x * 17).floor(), raw.to(x.dtype)) and not bool((x == raw).any())


def test_a_family_of_bins_serves_a_prior_that_is_like_the_data(registry: Registry) -> None:
    model = compiled(registry, with_prior(like="x", family={"type": "discretized_logistic"}))
    assert model.compiled.binding.capabilities["prior"].bin_mass


def test_bits_take_a_family_of_bits(registry: Registry) -> None:
    tables = with_prior(like="x", family={"type": "bernoulli"})
    model = compiled(registry, {**tables, "data": {"type": "digits", "observe": "binarise"}}).double()
    prior: Any = model.parts.modules["prior"]
    x = observed(model)
    by_hand = F.binary_cross_entropy_with_logits(prior(8).logits, x, reduction="none").sum((1, 2, 3)).mean()
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert model.update().loss(model.inputs())[0].item() == pytest.approx(by_hand.item())


def test_a_flow_on_pixels_maximises_the_density_of_dequantised_values(registry: Registry) -> None:
    """realnvp_digits: log N(z0) - log|det df/dz0| with the whole Jacobian, and the gradient of it."""
    family = {"type": "coupling", "length": 2, "hidden": [4], "context": 0}
    model = compiled(registry, with_prior(like="x", family=family)).double()
    prior: Any = model.parts.modules["prior"]
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    law, x = prior(1), observed(model, rows=1).flatten(1)
    with torch.no_grad():
        (z0,), _ = law.transform.inverse(x)
    f = lambda z: law.transform.forward(z[None])[0][0]  # noqa: E731
    slope = torch.autograd.functional.jacobian(f, z0)
    z0 = z0 - torch.linalg.solve(slope, f(z0) - x[0])  # it moves with the parameters such that f(z0) stays x
    slope = torch.autograd.functional.jacobian(f, z0, create_graph=True)
    base = torch.distributions.Normal(law.base.mean.flatten(), law.base.scale.flatten())
    by_hand = torch.linalg.slogdet(slope)[1] - base.log_prob(z0).sum()
    loss = model.update().loss(model.inputs(rows=1))[0]
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-9)
    parameters = list(prior.parameters())
    for a, b in zip(*(torch.autograd.grad(one, parameters) for one in (loss, by_hand)), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no such variable": (
        with_prior(like="y"),
        "prior.like: 'y' is no variable whose Space is known; none is known here",
    ),
    "both": (with_prior(like="x", size=3), "prior.size: must be left out beside like = 'x', which says it, got 3"),
    "a family of levels of a size": (
        with_prior(size=[1, 8, 8], family={"type": "logistic_mixture"}),
        'prior.family.type: "logistic_mixture" is a family of quantised data, this variable has no levels: 1x8x8 real; '
        'a prior that models data has like = "x" in place of a size',
    ),
    "a family of reals for bits": (
        {**with_prior(like="x", family={"type": "coupling"}), "data": {"type": "digits", "observe": "binarise"}},
        'prior.family.type: "coupling" is a family of real variables, this one is 1x8x8 binary in [0, 1], 17 levels',
    ),
    "another shape": (
        with_prior(size=64),
        "objective: 'x' is two different variables: q(x) draws 1x8x8 real in [0, 1], 17 levels from 'data' and p(x) "
        'draws 64 real from \'prior\'; if both come from the data: parts."p(x)" = "data"; if the prior models the '
        'data: prior.like = "x"',
    ),
    "a density of none": (
        with_prior(like="x", family={"type": "implicit"}),
        "prior.family: a prior is a distribution with a density, and this family has none",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_agree_is_refused(registry: Registry, name: str) -> None:
    tables, line = REFUSED[name]
    with pytest.raises(ConfigError) as refused:
        compiled(registry, tables)
    assert refused.value.lines == [line]


def test_two_sources_of_one_variable_must_have_the_same_levels(registry: Registry, tmp_path: Path) -> None:
    """Rows of both are observed by one Space: 256 levels in the place of 17 would make other data of them."""
    np.save(tmp_path / "x.npy", np.zeros((20, 1, 8, 8), np.uint8))
    tables = {
        **NO_CODE,
        "sources": {"more": {"type": "arrays", "path": str(tmp_path / "x.npy")}},
        "discriminator": {"type": "mlp"},
        "objective": {
            "type": "expression",
            "joints": {"q": "q(x)", "p": "p(x)", "r": "r(x)"},
            "parts": {"r(x)": "more"},
            "maximize": "E[q(x)](log p(x)) + E[r(x)](log p(x))",
        },
    }
    with pytest.raises(
        ConfigError, match=r"'x' is two different variables: .* 17 levels from 'data' and .* 256 levels"
    ):
        compiled(registry, tables)
    compiled(
        registry, {**tables, "sources": {"more": {"type": "arrays", "path": str(tmp_path / "x.npy"), "levels": 17}}}
    )


def test_a_code_may_be_like_the_data(registry: Registry) -> None:
    """The prior of another variable takes the shape and levels of x; data that has the variable decides its own."""
    tables = {
        **with_prior(like="x"),
        "encoder": {"network": {"type": "mlp"}, "family": {"type": "gaussian"}},
        "decoder": {"network": {"type": "mlp"}, "family": {"type": "gaussian"}},
        "objective": {"type": "vae"},
    }
    assert compiled(registry, tables).compiled.binding.spaces["z"] == DIGITS


def test_the_resolved_recipe_reads_back(registry: Registry, tmp_path: Path) -> None:
    recipe = read_recipe(NO_CODE, registry=registry)
    (tmp_path / "no_code.toml").write_text(text := write_recipe(recipe, registry))
    assert 'like = "x"' in text and "size" not in text
    assert read_recipe(tmp_path / "no_code.toml", registry=registry) == recipe


# --- figures and samples ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    metrics = ["elbo", "exact", "bits_per_dim", "iwae", "rmse", "rate_distortion", "active_units", "reports"]
    changes = {"train.steps": 1, "train.ema": None, "eval.metrics": metrics}
    return jointgen.run(NO_CODE, changes, out=tmp_path_factory.mktemp("no_code") / "run", quiet=True)


def test_log_p_of_the_data_is_exact_and_bits_say_what_they_are(run: Any) -> None:
    """A Gaussian has the exact mass of bins; the two figures are its sums over pixels, by hand."""
    model, figures = run.model, run.metrics
    raw = open_split(model.compiled.binding, "test").spread(32).take(torch.arange(32))["data"]["x"].double()
    mean, scale = gaussian_of(model)
    edges = (raw / 17, (raw + 1) / 17)
    below, above = (torch.special.ndtr((edge - mean) / scale) for edge in edges)
    bits = -(above - below).log().sum((1, 2, 3)).mean() / (64 * math.log(2))
    assert figures["bits_per_dim"]["value"] == pytest.approx(float(bits), rel=1e-4)
    assert (figures["bits_per_dim"]["bound"], figures["bits_per_dim"]["estimator"]) == ("exact", "exact bin mass")
    # the density of one dequantised value in a bin as narrow as these, against its mean over the bin
    nats = -float(bits) * 64 * math.log(2) + 64 * math.log(17)
    assert figures["exact"]["value"] == pytest.approx(nats, abs=0.5)
    assert figures["exact"]["bound"] == "exact" and figures["exact"]["n"] == 32


def gaussian_of(model: Model) -> tuple[Tensor, Tensor]:
    prior: Any = model.parts.modules["prior"]
    with torch.no_grad():
        law = prior(1)
    return law.mean.double(), law.scale.double()


def test_what_needs_a_code_says_so(run: Any) -> None:
    absent = {name: one["note"] for name, one in run.metrics.items() if one["value"] is None}
    assert absent.keys() == {"elbo", "iwae_64", "rmse", "rate", "distortion", "active_units"}
    assert (
        absent["elbo"]
        == absent["iwae_64"]
        == ("q infers no code, so that nothing is bounded: log p(x) itself is the figure 'exact'")
    )


def test_a_flow_bounds_the_bits_of_levels(registry: Registry, tmp_path: Path) -> None:
    tables = {**with_prior(like="x", family={"type": "coupling", "length": 1, "hidden": [4]})}
    done = jointgen.run(tables, {"train.steps": 1, "eval.metrics": ["bits_per_dim"]}, out=tmp_path / "run", quiet=True)
    figure = done.metrics["bits_per_dim"]
    assert (figure["bound"], figure["estimator"]) == ("upper", "density of dequantised data")


def test_a_model_without_a_code_samples(run: Any) -> None:
    model = run.model
    drawn = sample_many(model, 3, seed=1, progress=lambda done, total: None)
    assert drawn.shape == (3, 1, 8, 8) and torch.equal(drawn, model.sample(3, seed=1))
    assert model.observed == ["x"] and (run.path / "samples").exists()
    assert torch.allclose(model.elbo(drawn.clamp(0, 0.999)), model.elbo(drawn.clamp(0, 0.999), seed=7))  # no draw in it
