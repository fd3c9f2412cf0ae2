"""Weights that change over a stage, from the recipe to the numbers that training multiplies by."""

from __future__ import annotations

import tomllib
from typing import Any

import attrs
import pytest
from support.paths import QUICKSTART, SHIPPED

from jointgen.compiler.compiled_recipe import CompiledRecipe, compile_recipe
from jointgen.compiler.plan import Summand
from jointgen.config.recipe import read_recipe, write_recipe
from jointgen.errors import ConfigError
from jointgen.objectives import E, Objective, Weight, WeightTable, log_ratio, p, q, table_of, weight_of
from jointgen.registry.components import Registry


def test_a_ramp_by_hand() -> None:
    """From 2 to 10 over half of the stage: a quarter is half of the way."""
    weight = Weight("lambda", to=10.0, start=2.0, over=0.5)
    assert [weight.at(progress) for progress in (0.0, 0.25, 0.5, 0.9, 1.0)] == [2.0, 6.0, 10.0, 10.0, 10.0]


def test_cycles_by_hand() -> None:
    """Four cycles, each rising from 0 to 1 in its first half: cycle 2 spans 0.25 to 0.5 and has risen by 0.375."""
    weight = Weight("beta", to=1.0, start=0.0, over=0.5, cycles=4)
    rising = [weight.at(progress) for progress in (0.0, 0.0625, 0.125, 0.2, 0.25, 0.3125, 0.375, 0.5)]
    assert rising == [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 0.0]
    assert weight.at(1.0) == 1.0  # what evaluation uses
    assert weight.describe() == "beta = 0 to 1 over the first 50% of each of 4 parts of the stage"


def test_a_weight_waits_and_steps() -> None:
    """Constant for half of the stage, then either at once or over the next quarter at its value."""
    step = Weight("c", to=0.5, start=0.01, after=0.5)
    assert [step.at(progress) for progress in (0.0, 0.49, 0.5, 1.0)] == [0.01, 0.01, 0.5, 0.5] and step.moves
    assert step.describe() == "c = 0.01, and 0.5 after the first 50% of the stage"
    late = Weight("c", to=10.0, start=2.0, over=0.25, after=0.5)
    assert [late.at(progress) for progress in (0.25, 0.5, 0.625, 0.75, 1.0)] == [2.0, 2.0, 6.0, 10.0, 10.0]
    assert late.describe() == "c = 2 to 10 over 25% of the stage, after its first 50%"
    with pytest.raises(ConfigError, match=r"its schedule ends at 1.2 of the stage; after \+ over is at most 1"):
        Weight("c", to=1.0, start=0.0, over=0.7, after=0.5)
    table = WeightTable(to=0.5, start=0.01, over=0.0, after=0.5)
    assert table.named("c") == step and table_of(step) == table


def test_a_table_and_its_weight_are_the_same() -> None:
    table = WeightTable(to=1.0, start=0.5, over=0.25, cycles=3)
    assert table_of(weight_of("w", table)) == table
    assert table_of(weight_of("w", 2.0)) == 2.0
    assert weight_of("w", 2.0, ramp=0.25) == weight_of("w", WeightTable(to=2.0, start=0.0, over=0.25))


def compiled(registry: Registry, recipe: str, **objective: Any) -> CompiledRecipe:
    changes = {f"objective.{key.rstrip('_')}": value for key, value in objective.items()}
    path = next(
        folder / f"{recipe}.toml" for folder in (QUICKSTART.parent, SHIPPED) if (folder / f"{recipe}.toml").is_file()
    )
    return compile_recipe(read_recipe(path, changes, registry=registry), registry)


def weights_at(compiled: CompiledRecipe, progress: float) -> dict[str, float]:
    """term -> what it is multiplied by, in the model's update of the last stage."""
    (model,) = [update for update in compiled.plans[-1].updates if update.update.name == "model"]
    return {named(summand): summand.weight(lambda weight: weight.at(progress)) for summand in model.summands}


def named(summand: Summand) -> str:
    return str(summand.term)


@pytest.mark.parametrize("how", [{"warm_up": 0.4}, {"beta": {"start": 0.0, "to": 1.0, "over": 0.4}}], ids=str)
def test_kl_warm_up_of_a_vae(how: dict[str, Any], registry: Registry) -> None:
    """At 10 % of the run a quarter of the rate counts, whichever way it is said."""
    found = weights_at(compiled(registry, "vae_mnist", **how), 0.1)
    assert found == pytest.approx({"log p(x|z)": 1.0, "log q(z|x)": -0.25, "log p(z)": 0.25})


def test_closed_kl_is_annealed_in_cycles(registry: Registry) -> None:
    """Two cycles, each rising over its first half: at 5/8 of the run the second has risen by half."""
    beta = {"start": 0.0, "to": 1.0, "over": 0.5, "cycles": 2}
    found = weights_at(compiled(registry, "vae_mnist", beta=beta, analytic=True), 0.625)
    assert found == pytest.approx({"log p(x|z)": 1.0, "KL(q(z|x) : p(z))": -0.5})


def test_iwae_warms_up_within_its_mean(registry: Registry) -> None:
    objective = registry.get("objective", "iwae").load()
    iwae: Any = objective
    text = str(iwae(k=3, beta=WeightTable(1.0, 0.0, 0.5)).objective())
    assert "E[q(x,z); k=3 logmeanexp](log p(x|z) - beta*(log q(z|x) - log p(z)))" in text
    assert "beta = 0 to 1 over the first 50% of the stage" in text


def test_both_halves_of_asvae_follow_schedules(registry: Registry) -> None:
    """At half of the stage: weight_g 0.5 (of 0 to 1), w 1.5 (of 2 to 1), lambda 4 (0 to 8, all of it)."""
    found = weights_at(
        compiled(
            registry,
            "quickstart",
            ramp=0.0,
            weight_g={"start": 0.0, "to": 1.0, "over": 1.0},
            w={"start": 2.0, "to": 1.0, "over": 1.0},
            lambda_={"start": 0.0, "to": 8.0, "over": 1.0},
        ),
        0.5,
    )
    assert found["log q(z|stop(x))"] == pytest.approx(0.5 * 1.5)
    assert found["T"] == pytest.approx(-0.5 * 4.0)
    assert found["log p(x|z)"] == 1.0


def test_a_table_survives_the_resolved_recipe(registry: Registry) -> None:
    table = {"start": 0.0, "to": 8.0, "over": 0.5, "cycles": 2}
    first = compiled(registry, "quickstart", ramp=0.0, lambda_=table).recipe
    again = read_recipe_text(write_recipe(first, registry), registry)
    assert attrs.asdict(again.objective) == attrs.asdict(first.objective)


def read_recipe_text(text: str, registry: Registry) -> Any:
    return read_recipe(tomllib.loads(text), registry=registry)


def test_a_schedule_composed_in_python_is_written_and_repeats(registry: Registry) -> None:
    """Cycles survive the way through the text of an `expression`."""
    expression: Any = registry.get("objective", "expression").load()
    vae: Any = registry.get("objective", "vae").load()
    objective = vae(beta=WeightTable(1.0, 0.0, 0.5, 4)).objective()
    written = expression.of(objective, registry)
    assert written.weights == {"beta": WeightTable(1.0, 0.0, 0.5, 4)}
    assert str(written.objective()) == str(objective)


FALLING = {"start": 1.0, "to": 0.1, "over": 0.5, "cycles": 2}


def test_a_penalty_on_a_schedule_survives_the_resolved_recipe(registry: Registry) -> None:
    penalties = [{"type": "r1", "weight": FALLING}, {"type": "gradient_penalty", "weight": 2.0}]
    first = compiled(registry, "quickstart", critic={"penalties": penalties}).recipe
    again = read_recipe_text(write_recipe(first, registry), registry)
    assert again.objective == first.objective
    assert again.objective.critic.penalties[0].weight == WeightTable(**FALLING)


def test_a_penalty_on_a_schedule_composed_in_python_is_written_and_repeats(registry: Registry) -> None:
    expression: Any = registry.get("objective", "expression").load()
    r1: Any = registry.get("penalty", "r1").load()
    f = log_ratio(q.x, p.x, name="f", penalties=(r1(WeightTable(**FALLING)), r1(0.5, at="numerator")))
    objective = Objective.of(E(p.x, f))
    written = read_recipe_text(
        write_recipe(
            attrs.evolve(compiled(registry, "quickstart").recipe, objective=expression.of(objective, registry)),
            registry,
        ),
        registry,
    )
    (again,) = compile_recipe(written, registry).stages
    weights = again.objective.weights
    assert weights == {"r1_f": Weight("r1_f", 0.1, start=1.0, over=0.5, cycles=2)}
    assert "- r1_f*R1(f) - 0.5*R1(f)" in str(again.objective)


def test_two_penalties_of_a_kind_have_schedules_of_their_own(registry: Registry) -> None:
    tables = [
        {"type": "r1", "weight": {**FALLING, "to": to}, "at": at} for to, at in ((0.1, "numerator"), (0.2, "both"))
    ]
    (stage,) = compiled(registry, "quickstart", critic={"penalties": tables}).stages
    assert {"r1_T": 0.1, "r1_T_2": 0.2}.items() <= {name: w.to for name, w in stage.objective.weights.items()}.items()
