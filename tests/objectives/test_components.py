"""Components with settings in equations: tables, names, and what is given in Python and no plugin registers (B14)."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from jointgen_critics.kernels import IMQ, RBF
from support.models import resolve
from torch import Tensor

import jointgen
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe
from jointgen.errors import ConfigError
from jointgen.objectives import Apply, E, Objective, Value, cycle, elbo, named, p, q
from jointgen.objectives.recipe_text import Expression
from jointgen.registry.discovery import load_plugins
from jointgen.reports.explain.explain import explain

REGISTRY = load_plugins().registry
TABLES: dict[str, Any] = {
    "name": "toy",
    "data": {"type": "ring", "rows": 64},
    "prior": {"type": "normal", "size": 2},
    "encoder": {"network": {"type": "mlp", "hidden": [4]}, "family": {"type": "gaussian"}},
    "decoder": {"network": {"type": "mlp", "hidden": [4]}, "family": {"type": "gaussian"}},
    "objective": {"type": "vae"},
    "optimizer": {"model": {"lr": 1e-3}},
    "train": {"steps": 2, "batch": 16, "device": "cpu", "threads": 1},
    "eval": {"rows": 32, "samples": 2, "metrics": [{"type": "elbo"}]},
}


@attrs.frozen
class Scaled:
    """A notebook's own distance."""

    factor: float = 1.0

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return self.factor * (a - b).abs().sum(1)


def largest(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().amax(1)


def expression(maximize: str, **more: Any) -> Expression:
    tables = {**TABLES, "objective": {"type": "expression", "maximize": maximize, **more}}
    return read_recipe(tables, registry=REGISTRY).objective


def terms_of(objective: Objective) -> list[Any]:
    return [term.term.component for term in objective.complete(resolve).walk() if isinstance(term, Apply)]


# --- settings in text ------------------------------------------------------------------------------------------------


def test_a_table_gives_a_term_its_settings() -> None:
    text = "E[q(x,z)](log p(x|z) - near(x, mean p(x|z)) - imq(x, mean p(x|z)))"
    written = expression(text, terms={"near": {"type": "imq", "scale": 2.0}})
    assert terms_of(written.objective()) == [IMQ(2.0), IMQ(1.0)]
    assert str(written.objective()) == f"maximise {text}\nnear = IMQ(scale=2.0)"


def test_text_and_python_say_the_same_both_ways() -> None:
    values = (Value("x"), Value("x", "mean", p, p.factor("x|z")))
    objective = Objective.of(
        E(q.xz, Apply(IMQ(2.0), values) + Apply(IMQ(3.0), values) + Apply("imq", values) + Apply("l1", values))
    )
    text = Expression.of(objective, REGISTRY)
    assert text.terms == {"imq_2": IMQ(2.0), "imq_3": IMQ(3.0)}  # the plain name is the registered term's own
    again = text.objective()
    assert terms_of(again) == [IMQ(2.0), IMQ(3.0), IMQ(1.0), resolve("term", "l1")]
    assert Expression.of(again, REGISTRY) == text


def test_a_name_of_ones_own_is_kept() -> None:
    text = Expression.of(Objective.of(E(q.xz, cycle(p, "x|z", distance=named("far", RBF(9.0))))), REGISTRY)
    assert text.terms == {"far": RBF(9.0)}
    assert text.updates["model"].maximize == "E[q(x,z)](far(x, mean p(x|z)))"


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"near": {"type": "imk"}}, r"objective.terms.near.type: unknown term 'imk'.*'imq'"),
        ({"near": {"type": "imq", "scale": 0}}, r"objective.terms.near.scale: must be > 0, got 0"),
        ({"near": {"type": "imq"}, "far": {"type": "imq"}}, r"terms.far: no update and no report uses it"),
        ({"KL": {"type": "imq"}, "near": {"type": "imq"}}, r"terms: 'KL' is a word of the objective language"),
    ],
)
def test_mistakes_in_tables_are_told_with_their_key(terms: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expression("E[q(x,z)](near(x, mean p(x|z)))", terms=terms).objective()


def test_two_components_of_one_name_are_refused() -> None:
    two = E(q.xz, cycle(p, "x|z", distance=named("near", IMQ(1.0)))) + E(
        q.xz, cycle(p, "x|z", distance=named("near", IMQ(2.0)))
    )
    with pytest.raises(ConfigError, match="two different terms are called 'near'"):
        Expression.of(Objective.of(two), REGISTRY)


# --- given in Python, and registered by no plugin --------------------------------------------------------------------


@pytest.mark.parametrize("distance", [Scaled(3.0), largest], ids=["class", "function"])
def test_a_notebooks_own_distance_trains_and_resumes(distance: Any, tmp_path: Any) -> None:
    objective = Objective.of(elbo(q, p) + E(q.xz, -1 * cycle(p, "x|z", distance=distance)))
    run = jointgen.run(TABLES, objective=objective, out=tmp_path / "run", quiet=True)
    name = getattr(distance, "__name__", "Scaled").lower()
    assert f'type = "{__name__}.{name if name == "largest" else "Scaled"}"' in (run.path / "recipe.toml").read_text()
    longer = jointgen.run(
        TABLES, {"train.steps": 4}, objective=objective, out=run.path, resume=True, allow_changes=True, quiet=True
    )
    assert longer.summary["step"] == 4
    assert jointgen.load(run.path).sample(2).shape == (2, 2)


def test_another_process_refuses_it_by_name() -> None:
    with pytest.raises(ConfigError, match=r"terms.own.type: no plugin registers the term '__main__.Own'"):
        expression("E[q(x,z)](own(x, mean p(x|z)))", terms={"own": {"type": "__main__.Own"}})


def test_explain_shows_it() -> None:
    objective = Objective.of(elbo(q, p) + E(q.xz, -1 * cycle(p, "x|z", distance=Scaled(3.0))))
    recipe = attrs.evolve(read_recipe(TABLES, registry=REGISTRY), objective=Expression.of(objective, REGISTRY))
    text = explain(compile_recipe(recipe, REGISTRY))
    assert "scaled(x, mean p(x|z))" in text and "scaled = Scaled(factor=3.0)" in text


def test_what_can_be_no_term_is_refused() -> None:
    with pytest.raises(ConfigError, match="3 is no component"):
        Apply(3, (Value("x"),))
    with pytest.raises(ConfigError, match="write it with def"):
        Apply(lambda a: a, (Value("x"),))


# --- kernels, by hand ------------------------------------------------------------------------------------------------


def test_kernels_are_those_of_the_papers() -> None:
    a, b = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])  # 25 apart; 2 D = 4
    assert RBF(2.0)(a, b).item() == pytest.approx(math.exp(-25 / 8))
    assert IMQ(2.0)(a, b).item() == pytest.approx(8 / (8 + 25))
