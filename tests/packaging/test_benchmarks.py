"""The bare loops that jointgen is timed against compute what jointgen does; studies are made of runs that can begin."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from support.paths import REPO

from jointgen.cli.evaluate import chosen_metrics
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe, write_recipe
from jointgen.contracts.figures import Display, Estimate
from jointgen.errors import ConfigError
from jointgen.registry.discovery import load_plugins

FOLDER = REPO / "benchmarks"


@pytest.mark.parametrize("row", ["mlp", "asvae32"])
def test_a_step_has_the_gradients_of_a_loop_written_by_hand(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same weights, rows and random numbers; AS-VAE's with the critic's update and its R1 penalty."""
    monkeypatch.syspath_prepend(FOLDER)
    overhead = importlib.import_module("overhead")
    arguments = argparse.Namespace(mnist=None, cifar=None, device="cpu", rounds=0, set=[])
    measured = overhead.Comparison(overhead.ROWS[row], arguments).measured([])
    assert measured.difference < 2e-4  # relative, in float32; a weight that is a tenth off makes 5e-3


STUDIES = sorted((FOLDER / "studies").glob("*.toml"))


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("asvae_table")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_row_of_a_study_is_a_run_that_could_begin(path: Path, table: ModuleType) -> None:
    """Recipes are checked as `jointgen run` checks them before it reads data: keys, parts, requirements."""
    registry = load_plugins().registry
    study = table.Study.read(path.stem, registry)
    known = {name.strip() for name in study.columns.split(",")}
    assert set(study.axes or ()) <= known
    budgets = list(study.budgets.values()) or [()]
    for i, row in enumerate(study.rows.values()):
        budget = budgets[i % len(budgets)]  # in turns: preparing takes a while
        work = table.Work(study, Path("runs"), budget, table.Clock(None))
        recipe = read_recipe(study.path, list(work.settings_of(row, 0)), registry=registry)
        model = SimpleNamespace(compiled=compile_recipe(recipe, registry))
        assert recipe.name == row.name
        assert chosen_metrics(study.metrics, model)


def test_runs_without_a_figure_of_an_axis_are_no_points(table: ModuleType) -> None:
    def figure(name: str, value: float, unit: str) -> Any:
        return table.Figure.of(name, Estimate(value, unit, "", "test", 1, display=Display(name.upper())), "")

    ali = table.ComparedRun("ali", {}, {"rmse": figure("rmse", 2.0, "0-255")})
    vae = table.ComparedRun("vae", {}, {"rmse": figure("rmse", 1.0, "0-255"), "elbo": figure("elbo", -9.0, "nats")})
    (point,) = table.points_of([ali, vae], ("elbo", "rmse"))
    assert (point.run, point.across, point.up) == (vae, -9.0, 1.0)
    assert point.titles == ("ELBO (nats)", "RMSE (0-255)")


def test_runs_stand_beside_the_one_of_their_seed(table: ModuleType) -> None:
    """Shares 30/60 and 20/50, bounds 97.5 - 96 and 95.75 - 96.25 by hand; a model without a bound has no line."""

    def run(name: str, seed: int, distance: float, bound: float | None) -> Any:
        figures = {
            "iwae_64": table.Figure.of(
                "iwae_64", Estimate(bound, "nats", "", "test", 1, bound="lower", better="higher"), ""
            ),
            "fid/net": table.Figure.of("fid/net", Estimate(distance, "", "", "draws", 1), ""),
        }
        return table.ComparedRun(f"{name}-{seed}", {"name": name, "seed": seed}, figures)

    runs = [run("VAE", 0, 60.0, -96.0), run("VAE", 1, 50.0, -96.25), run("ALI", 0, 60.5, None)]
    runs += [run("AS-VAE", 0, 30.0, -97.5), run("AS-VAE", 1, 20.0, -95.75), run("AS-VAE", 2, 25.0, -97.0)]
    runs += [run("r = 1", 1, 10.0, -98.25)]
    points = table.points_of(runs, ("iwae_64", "fid/net"))
    assert table.beside(points, "VAE").splitlines()[2:] == [
        "| model | seed 0 | seed 1 |",
        "|---|---|---|",
        "| AS-VAE | 0.500; +1.500 | 0.400; -0.500 |",
        "| r = 1 |  | 0.200; +2.000 |",
    ]
    assert table.beside(points[2:], "VAE") == ""


def test_every_mistake_of_a_study_is_told(table: ModuleType, tmp_path: Path) -> None:
    registry, path = load_plugins().registry, tmp_path / "mine.toml"
    path.write_text('recipe = "quickstart.toml"\nmetrics = "elbo"\n[rows.VAE]\ncurv = true\n')
    with pytest.raises(ConfigError) as caught:
        table.Study.read(str(path), registry)
    problems = sorted(caught.value.lines)
    assert [problem.split("; ")[0] for problem in problems] == [
        f"{path}: columns: missing",
        f"{path}: rows.VAE.curv: unknown key",
    ]
    path.write_text('recipe = "quickstart.toml"\nmetrics = "elbo"\ncolumns = "elbo"\n[rows.B]\nstart = "A"\n')
    with pytest.raises(ConfigError, match=r"rows.B.start: no row 'A'; known: B"):
        table.Study.read(str(path), registry)
    with pytest.raises(ConfigError, match="no study 'mnits'; did you mean 'mnist'"):
        table.Study.read("mnits", registry)


def test_runs_of_another_budget_are_not_taken_for_this_ones(table: ModuleType, tmp_path: Path) -> None:
    registry = load_plugins().registry
    study = table.Study.read("mnist_conv", registry)
    row, clock = study.rows["VAE"], table.Clock(None)
    small = table.Work(study, tmp_path, tuple(study.budgets["cpu"]), clock)
    assert small.changes(row, 0, registry) == []  # there is none yet
    recipe = read_recipe(study.path, list(small.settings_of(row, 0)), registry=registry)
    (tmp_path / "vae-0").mkdir()
    (tmp_path / "vae-0" / "recipe.toml").write_text(write_recipe(recipe, registry))
    assert small.changes(row, 0, registry) == []
    whole = table.Work(study, tmp_path, tuple(study.budgets["full"]), clock)
    assert f"{tmp_path / 'vae-0'}: train.steps: 1500 -> 100000" in whole.changes(row, 0, registry)


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """Two rows, the second from the weights of the first, stopped by the limit and called again."""
    study = tmp_path / "small.toml"
    study.write_text(
        """
recipe = "quickstart.toml"
metrics = "elbo, rmse"
columns = "elbo, rmse"
axes = ["elbo", "rmse"]
beside = "VAE"
set = ["train.trackers=[]", "train.steps=600", "train.eval_every=600", "train.sample_every=600"]
[rows.VAE]
set = ['objective={type="vae"}']
curve = true
[rows."AS-VAE"]
start = "VAE"
curve = true
"""
    )
    command = [sys.executable, str(FOLDER / "asvae_table.py"), str(study), "--out", str(tmp_path / "out")]
    assert subprocess.run([*command, "--limit-s", "9"], cwd=tmp_path).returncode == 3
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| VAE |" in text and "| AS-VAE |" in text
    assert "| AS-VAE | " in (tmp_path / "out" / "beside.md").read_text()
    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {
        "table-samples.png",
        "table-reconstructions.png",
        "curve-samples.png",
        "curve-reconstructions.png",
        "curve.png",
    }
    started = json.loads((tmp_path / "out" / "as-vae-0" / "summary.json").read_text())
    assert str(tmp_path / "out" / "vae-0") in str(started["init_from"])
