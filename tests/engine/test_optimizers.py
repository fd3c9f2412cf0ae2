"""Optimizers and learning rates: what a recipe's tables mean, which parts they train, what is logged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from jointgen_optim.optimizers import SGD, Adam, AdamW, RMSprop
from support.paths import QUICKSTART, SHIPPED
from support.runs import SMALL, stop_after, train_small
from torch import nn

from jointgen.compiler.compiled_recipe import CompiledRecipe, compile_recipe
from jointgen.config.optimizers import OptimizerTables, Rate, StageTables
from jointgen.config.recipe import read_recipe
from jointgen.config.toml import read_toml
from jointgen.engine.optimizers import Optimizers, _to_parameter_layout
from jointgen.errors import StoppedError
from jointgen.registry.components import Registry
from jointgen.reports.explain.sizes import sizes_of
from jointgen.runs import checkpoint

# --- rates -----------------------------------------------------------------------------------------------------------


def rates(table: Rate, *steps: int, of: int = 100) -> list[float]:
    return [table.rate(step, of) for step in steps]


def test_a_rate_is_constant_unless_something_is_said() -> None:
    assert rates(Adam(lr=2.0), 0, 50, 99) == [2.0, 2.0, 2.0]
    assert rates(Adam(lr=2.0, schedule="constant"), 0, 50, 99) == [2.0, 2.0, 2.0]


def test_the_two_keys_of_old_still_mean_a_line() -> None:
    """From 70 % to the end, from 1 to 0.1: at 85 % half of the way, 1 - 0.9 / 2 = 0.55; at the end 0.1."""
    table = Adam(lr=2.0, decay_from=0.7, final=0.1)
    assert rates(table, 50, 70, 85, 100) == pytest.approx([2.0, 2.0, 1.1, 0.2])
    assert rates(Adam(lr=2.0, decay_from=1.0, final=1.0), 0, 99) == [2.0, 2.0]  # the defaults of resolved recipes


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes_keep_their_rates(path: Path, registry: Registry) -> None:
    """Bit for bit the formula that they were tuned with, of decay_from (1 if not given) and final (1)."""
    recipe = read_recipe(path, registry=registry)
    steps = recipe.train.total_steps
    for table in (recipe.optimizer.model, recipe.optimizer.critics):
        begin, final = (1.0 if value is None else value for value in (table.decay_from, table.final))
        for step in (0, steps // 2, round(steps * 0.7), round(steps * 0.9), steps - 1):
            done = (step / steps - begin) / (1.0 - begin) if begin < 1.0 else 0.0
            expected = table.lr * max(final, 1.0 - (1.0 - final) * done) if done > 0.0 else table.lr
            assert table.rate(step, steps) == expected


def test_warm_up_reaches_the_rate_with_its_last_step() -> None:
    """5 % of 100 steps: 1/5, 2/5, ..., 5/5, and never 0."""
    assert rates(Adam(lr=1.0, warmup=0.05), 0, 1, 3, 4, 5, 99) == pytest.approx([0.2, 0.4, 0.8, 1.0, 1.0, 1.0])
    assert rates(SGD(lr=1.0, warmup=0.001), 0) == [1.0]  # shorter than one step


def test_cosine_falls_after_the_warm_up() -> None:
    """Begins at 20 of 100 steps: (1 + cos(pi done)) / 2 at done = 0, 1/4, 1/2, 1 is 1, (2 + sqrt 2) / 4, 1/2, 0."""
    table = AdamW(lr=3.0, warmup=0.2, schedule="cosine")
    expected = [1.5, 3.0, 3.0 * (2 + math.sqrt(2)) / 4, 1.5, 0.0]
    assert rates(table, 9, 20, 40, 60, 100) == pytest.approx(expected)


def test_cosine_to_a_share_from_a_place() -> None:
    """From half on, to a tenth: at three quarters 0.1 + 0.9 / 2."""
    table = RMSprop(lr=1.0, schedule="cosine", decay_from=0.5, final=0.1)
    assert rates(table, 49, 75, 100) == pytest.approx([1.0, 0.55, 0.1])


def test_linear_by_name_falls_from_the_warm_up_to_nothing() -> None:
    """Begins at 20 of 100 steps, so 60 is half way."""
    assert rates(SGD(lr=1.0, warmup=0.2, schedule="linear"), 60, 100) == pytest.approx([0.5, 0.0])


# --- from the recipe to torch ----------------------------------------------------------------------------------------


def small(registry: Registry, changes: dict[str, Any] | None = None) -> CompiledRecipe:
    recipe = read_recipe(QUICKSTART, {**SMALL, **(changes or {})}, registry=registry)
    return compile_recipe(recipe, registry)


def made(compiled: CompiledRecipe) -> Optimizers:
    return Optimizers(compiled, compiled.parts)


@pytest.mark.parametrize(
    ("table", "cls", "held"),
    [
        ({"type": "adam", "betas": [0.5, 0.9], "eps": 1e-6}, torch.optim.Adam, {"betas": (0.5, 0.9), "eps": 1e-6}),
        ({"type": "adamw"}, torch.optim.AdamW, {"weight_decay": 0.01, "betas": (0.9, 0.999)}),
        (
            {"type": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
            torch.optim.SGD,
            {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        ),
        ({"type": "rmsprop", "alpha": 0.9, "centered": True}, torch.optim.RMSprop, {"alpha": 0.9, "centered": True}),
        ({}, torch.optim.Adam, {"betas": (0.9, 0.999), "weight_decay": 0.0}),
    ],
    ids=["adam", "adamw", "sgd", "rmsprop", "default"],
)
def test_each_type_is_torchs_own(table: dict[str, Any], cls: type, held: dict[str, Any], registry: Registry) -> None:
    (optimizer,) = made(small(registry, {"optimizer.model": {"lr": 0.25, **table}})).of(["encoder", "decoder"])
    assert type(optimizer) is cls
    group = optimizer.param_groups[0]
    assert {key: group[key] for key in held} == held and group["lr"] == 0.25
    assert group["foreach" if cls is torch.optim.RMSprop else "fused"] is True


def test_a_part_may_have_a_table_of_its_own(registry: Registry) -> None:
    """The encoder leaves the group of the model, although the same update trains both; nothing is inherited."""
    tables = {"optimizer.parts": {"encoder": {"type": "sgd", "lr": 0.5}}}
    compiled = small(registry, tables)
    optimizers = made(compiled)
    of_model = optimizers.of(["encoder", "decoder"])
    assert {type(one) for one in of_model} == {torch.optim.Adam, torch.optim.SGD}
    (sgd,) = [one for one in of_model if isinstance(one, torch.optim.SGD)]
    trained = {id(p) for p in sgd.param_groups[0]["params"]}
    assert trained == {id(p) for p in compiled.parts.parameters(["encoder"])}
    (critic,) = optimizers.of(["T"])
    assert critic.param_groups[0]["betas"] == (0.5, 0.99)  # [optimizer.critics] of the quickstart
    optimizers.set_rates(0, [10])
    assert optimizers.rates() == {"lr/encoder": 0.5, "lr/model": 1e-3, "lr/critics": 1e-3}


def test_rates_follow_the_run_that_early_stopping_shortened(registry: Registry) -> None:
    """Step 60 of 100 stands at 60 %, where nothing falls yet; of 80 it stands at 75 %, a sixth of the way to 0.02."""
    optimizers = made(small(registry))
    optimizers.set_rates(60, [100])
    assert optimizers.rates()["lr/model"] == 1e-3
    optimizers.set_rates(60, [80])
    assert optimizers.rates()["lr/model"] == pytest.approx(1e-3 * (1 - 0.98 / 6))


# --- tables of a stage -----------------------------------------------------------------------------------------------

TWO = {"objective.vae_first": 0.5}
"""The stages vae and asvae, of half a run each."""
STUDY = {
    **TWO,
    "optimizer.model": {"lr": 1e-3},
    "optimizer.stages.asvae.model": {"lr": 5e-4, "betas": [0.5, 0.999], "decay_from": 0.5, "final": 0.0},
}


def test_a_stage_may_have_tables_of_its_own(registry: Registry) -> None:
    """Encoder and decoder have one optimizer in each stage, the critic the only one that it needs. Rates of a stage's
    table count from its beginning: 75 of 50 to 100 is half of the way, where the fall begins, and 85 is 0.7 of it, so
    0.4 of the fall."""
    compiled = small(registry, STUDY)
    optimizers = made(compiled)
    (first,) = optimizers.of(["encoder", "decoder"])
    optimizers.set_rates(49, [50, 100])
    assert optimizers.rates() == {"lr/model": 1e-3}
    optimizers.begin(1)
    (second,) = optimizers.of(["encoder", "decoder"])
    assert second is not first and second.param_groups[0]["betas"] == (0.5, 0.999)
    assert second.param_groups[0]["params"] == first.param_groups[0]["params"]
    for step, rate in ((50, 5e-4), (75, 5e-4), (85, 5e-4 * 0.6)):
        optimizers.set_rates(step, [50, 100])
        assert optimizers.rates() == pytest.approx({"lr/model": rate, "lr/critics": 1e-3})


def test_rates_of_a_stage_follow_one_that_early_stopping_moved(registry: Registry) -> None:
    """The first stage ended at 10 of 50, so the second goes from 10 to 60: 35 is half of it, where the fall begins, and
    50 is (50 - 10) / 50 = 0.8 of it, 0.6 of the fall."""
    optimizers = made(small(registry, STUDY))
    optimizers.begin(1)
    optimizers.set_rates(35, [10, 60])
    assert optimizers.rates()["lr/model"] == 5e-4
    optimizers.set_rates(50, [10, 60])
    assert optimizers.rates()["lr/model"] == pytest.approx(5e-4 * 0.4)


def test_a_stage_without_tables_goes_on_with_the_runs_optimizer(registry: Registry) -> None:
    optimizers = made(small(registry, {**TWO, "optimizer.stages.asvae.critics": {"type": "sgd"}}))
    (first,) = optimizers.of(["encoder", "decoder"])
    optimizers.begin(1)
    assert optimizers.of(["encoder", "decoder"]) == [first]
    assert isinstance(optimizers.of(["T"])[0], torch.optim.SGD)


def test_a_stage_keeps_its_tables_where_it_is_the_only_one(registry: Registry) -> None:
    """As after a warm start, for which the first is left out: the whole run is that stage."""
    optimizers = made(small(registry, {**STUDY, "objective.vae_first": 0.0}))
    optimizers.set_rates(70, [100])
    assert optimizers.rates() == pytest.approx({"lr/model": 5e-4 * 0.6, "lr/critics": 1e-3})


def test_which_of_four_tables_trains_a_part(registry: Registry) -> None:
    """A part's own before one that it shares; of two such, the stage's before the run's."""
    tables = OptimizerTables(
        model=Adam(lr=1.0),
        parts={"a": Adam(lr=2.0)},
        stages={"s": StageTables(model=Adam(lr=3.0), parts={"b": Adam(lr=4.0)})},
    )
    found = {
        (part, stage): tables.of(part, stage, critic=critic).settings.lr
        for part, critic in (("a", False), ("b", False), ("c", False), ("f", True))
        for stage in ("s", "t")
    }
    in_s, in_t = ({part: found[part, stage] for part in "abcf"} for stage in "st")
    assert in_s == {"a": 2.0, "b": 4.0, "c": 3.0, "f": 1e-3}
    assert in_t == {"a": 2.0, "b": 1.0, "c": 1.0, "f": 1e-3}


def test_memory_counts_the_stage_that_keeps_most(registry: Registry) -> None:
    """Adam of encoder and decoder alone; then SGD of those and Adam of the critic: never all of them at once."""
    compiled = small(registry, {**TWO, "optimizer.stages.asvae.model": {"type": "sgd"}})
    model, critic = (sum(p.numel() for p in compiled.parts.parameters(n)) for n in (["encoder", "decoder"], ["T"]))
    assert sizes_of(compiled).memory["optimizers"] == 4 * 2 * max(model, critic)


def trained(out: Path, changes: dict[str, Any], steps: int, **options: Any) -> dict[str, Any]:
    """What the last checkpoint of a run holds."""
    given = {**changes, "train.steps": steps, "train.log_every": 1, "train.checkpoint_every": 1}
    train_small(out, given, **options)
    saved = checkpoint.find(out / "checkpoints")
    return {"parts": saved.parts, **saved.state["optimizers"]}


def test_moments_start_anew_with_a_stages_table(tmp_path: Path) -> None:
    """After two steps of the second stage its Adam has counted two, and the run's has forgotten what it had."""
    kept = trained(tmp_path / "run", {**STUDY, "train.ema": 0.0}, 4)
    first, second = (kept[f"Adam with 2 moments of encoder+decoder{stage}"] for stage in ("", " in stage asvae"))
    assert first["state"] == {}
    assert {float(state["step"]) for state in second["state"].values()} == {2.0}
    logged = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [event["lr/model"] for event in logged] == [1e-3, 1e-3, 5e-4, 5e-4]
    assert ["lr/critics" in event for event in logged] == [False, False, True, True]


@pytest.mark.parametrize("at", [2, 3, 5])
def test_a_stage_with_tables_resumes_bit_for_bit(at: int, tmp_path: Path) -> None:
    """Stopped within the first stage, at its end and within the second."""
    whole = trained(tmp_path / "whole", STUDY, 6)
    with pytest.raises(StoppedError):
        trained(tmp_path / "run", STUDY, 6, stop=stop_after(at))
    resumed = trained(tmp_path / "run", STUDY, 6, resume=True)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def test_memory_counts_what_each_optimizer_keeps(registry: Registry) -> None:
    """Adam keeps 2 numbers per parameter, SGD none and with momentum 1, RMSprop 1 to 3."""
    compiled = small(registry, {"optimizer.model": {"type": "sgd"}, "optimizer.critics": {"type": "rmsprop"}})
    critic = sum(p.numel() for p in compiled.parts.parameters(["T"]))
    assert sizes_of(compiled).memory["optimizers"] == 4 * critic
    assert SGD(momentum=0.9).moments == 1 and RMSprop(momentum=0.9, centered=True).moments == 3


def test_moments_are_those_that_torch_keeps() -> None:
    for settings in (Adam(), AdamW(), SGD(), SGD(momentum=0.5), RMSprop(), RMSprop(centered=True, momentum=0.5)):
        weight = torch.nn.Parameter(torch.ones(3))
        make: Any = getattr(torch.optim, type(settings).__name__)
        optimizer = make([weight], lr=settings.lr, **settings.arguments())
        weight.sum().backward()
        optimizer.step()
        kept = [t for t in optimizer.state[weight].values() if isinstance(t, torch.Tensor) and t.shape == (3,)]
        assert len(kept) == settings.moments


# --- a run -----------------------------------------------------------------------------------------------------------


def test_one_step_of_sgd_by_hand(tmp_path: Path) -> None:
    """With clipping to norm 1e-3 and lr 1, all weights together move by at most 1e-3, and by that if the norm is
    larger (it is)."""
    changes = {"optimizer.model": {"type": "sgd", "lr": 1.0}, "train.clip": 1e-3, "train.ema": 0.0}
    start, moved = (
        weights(tmp_path / name, {**changes, "optimizer.model.lr": lr}) for name, lr in (("a", 1e-30), ("b", 1.0))
    )
    squares = sum(float((moved[name] - start[name]).double().square().sum()) for name in start)
    assert math.sqrt(squares) == pytest.approx(1e-3, rel=1e-2)


def weights(out: Path, changes: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The encoder's and decoder's after one step."""
    train_small(out, {**changes, "train.steps": 1})
    saved = checkpoint.load(out / "checkpoints/step-00000001").parts
    return {f"{part}.{name}": t for part in ("encoder", "decoder") for name, t in saved[part].items()}


def test_rates_are_logged(tmp_path: Path) -> None:
    """Warm-up over 5 of 10 steps, logged every 2: steps 2, 4, ... have run at 2/5, 4/5, 1, 1, 1 of 0.01."""
    changes = {"optimizer.model": {"lr": 0.01, "warmup": 0.5}, "train.steps": 10, "train.log_every": 2}
    train_small(tmp_path / "run", {**changes})
    events = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [event["lr/model"] for event in events] == pytest.approx([0.004, 0.008, 0.01, 0.01, 0.01])
    assert read_toml(tmp_path / "run/recipe.toml")["optimizer"]["model"]["type"] == "adam"


def test_a_count_of_steps_keeps_its_type() -> None:
    """Beside a parameter that is a single number, in float64, the count is a float32 of the same shape."""
    number = nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = torch.optim.Adam([number])
    number.grad = torch.ones_like(number)
    optimizer.step()
    _to_parameter_layout(optimizer)
    assert optimizer.state[number]["step"].dtype == torch.float32
