"""The bare loops that jointgen is timed against compute what jointgen does; studies are made of runs that can begin."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.paths import REPO

from jointgen.cli.evaluate import chosen_metrics
from jointgen.cli.study_file import Study
from jointgen.cli.study_runs import Clock, Work
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe, read_tables, write_recipe
from jointgen.registry.discovery import load_plugins

FOLDER = REPO / "benchmarks"


def measured(row: str, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> Any:
    monkeypatch.syspath_prepend(FOLDER)
    overhead = importlib.import_module("overhead")
    monkeypatch.setattr(overhead, "Memory", lambda device: SimpleNamespace(peak=lambda: 0.0))
    given = argparse.Namespace(mnist=None, cifar=None, device="cpu", set=[], **arguments)
    return overhead.Comparison(overhead.ROWS[row], given).measured([])


def test_a_step_has_the_gradients_of_a_loop_written_by_hand_and_few_operations_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the same weights, rows and random numbers."""
    found = measured("mlp", monkeypatch, rounds=1, count=True)
    assert found.difference < 2e-4  # relative, in float32; a weight that is a tenth off makes 5e-3
    ours, bare = (found.operations[arm].total() for arm in ("jointgen", "bare"))
    assert 400 < bare < ours <= 1.0503 * bare  # 154.25 a step


def test_a_step_of_asvae_has_the_gradients_of_a_loop_written_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the critic's update and its R1 penalty."""
    assert measured("asvae32", monkeypatch, rounds=0).difference < 2e-4


STUDIES = sorted((FOLDER / "studies").glob("*.toml"))
ZOO = sorted((REPO / "studies").glob("*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_row_of_a_study_is_a_run_that_could_begin(path: Path) -> None:
    """Recipes are checked as `jointgen run` checks them before it reads data: keys, parts, requirements."""
    registry = load_plugins().registry
    study = Study.read(path, registry)
    known = {name.strip() for name in study.columns.split(",")}
    assert {axis for pair in study.axes for axis in pair} <= known
    budgets = list(study.budgets.values()) or [()]
    for i, row in enumerate(study.rows.values()):
        budget = budgets[i % len(budgets)]  # in turns: preparing takes a while
        work = Work(study, Path("runs"), tuple(budget), Clock(None))
        recipe = read_recipe(study.recipe_of(row), work.settings_of(row, 0), registry=registry)
        model = SimpleNamespace(compiled=compile_recipe(recipe, registry))
        assert recipe.name == row.name
        assert chosen_metrics(study.metrics, model)


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_the_rows_of_the_zoo_are_recipes(path: Path) -> None:
    """Without their parts, which the tests of every recipe build; figures that early stopping watches are evaluated."""
    registry = load_plugins().registry
    study = Study.read(path, registry)
    assert {axis for pair in study.axes for axis in pair} <= {name.strip() for name in study.columns.split(",")}
    chosen = Work(study, Path("runs"), (*study.budgets["common"], *study.budgets["choose"]), Clock(None))
    for row in study.rows.values():
        settings = [*chosen.settings_of(row, 0)]
        tables = read_tables(study.recipe_of(row), settings)
        settings += [f"sources.{name}.validation=10000" for name in tables.get("sources", {})]
        recipe = read_recipe(study.recipe_of(row), settings, registry=registry)
        assert (recipe.name, recipe.train.steps, recipe.eval.split) == (row.name, 10_000, "validation")


def test_runs_of_another_budget_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    registry = load_plugins().registry
    study = Study.read(FOLDER / "studies/mnist_conv.toml", registry)
    row, clock = study.rows["VAE"], Clock(None)
    small = Work(study, tmp_path, tuple(study.budgets["cpu"]), clock)
    assert small.changes(row, 0) == []  # there is none yet
    recipe = read_recipe(study.recipe_of(row), small.settings_of(row, 0), registry=registry)
    (tmp_path / "vae-0").mkdir()
    (tmp_path / "vae-0" / "recipe.toml").write_text(write_recipe(recipe, registry))
    assert small.changes(row, 0) == []
    whole = Work(study, tmp_path, tuple(study.budgets["full"]), clock)
    assert f"{tmp_path / 'vae-0'}: train.steps: 1500 -> 100000" in whole.changes(row, 0)
