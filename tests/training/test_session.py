"""What a run is started with stands in its environment.json, and a part that is missing later says where it is from."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from jointgen.cli.main import main
from jointgen.config.recipe import read_recipe
from jointgen.config.toml import parse_toml, to_toml
from jointgen.config.used_components import used_components
from jointgen.registry.components import IN_PROCESS, Registry
from jointgen.runs.folder import RunFolder
from jointgen.runs.records import ComponentRecord, Sessions
from jointgen.runtime.environment import repository_of


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunFolder:
    """A copy of a run on digits."""
    return RunFolder(shutil.copytree(trained, tmp_path / "run"))


def test_a_run_records_what_it_was_started_with(run: RunFolder) -> None:
    (session,) = run.read_sessions().sessions
    version = importlib.metadata.version("jointgen")
    assert session.step == 0
    assert session.argv == sys.argv
    assert session.packages["jointgen"] == version
    assert session.packages["torch"] == importlib.metadata.version("torch")
    assert len(session.packages) == len({dist.name for dist in importlib.metadata.distributions()})
    assert session.components["encoder.network"] == ComponentRecord("encoder", "mlp", "jointgen", version)
    assert session.components["data"] == ComponentRecord("data", "digits", "jointgen", version)
    assert os.path.isdir(session.folder)


def test_components_go_by_the_keys_of_their_tables(registry: Registry) -> None:
    recipe = read_recipe(
        {
            "data": {"type": "digits", "rows": 100},
            "prior": {"type": "normal", "size": 2},
            "encoder": {"network": {"type": "mlp"}, "family": {"type": "gaussian"}},
            "decoders": {"p": {"network": {"type": "mlp"}, "family": {"type": "gaussian"}}},
            "objective": {"type": "vae"},
            "train": {"steps": 1},
            "eval": {"metrics": ["elbo", {"type": "rmse"}]},
        },
        registry=registry,
    )
    found = {path: f"{one.kind} {one.name}" for path, one in used_components(recipe, registry).items()}
    assert found == {
        "data": "data digits",
        "objective": "objective vae",
        "prior": "prior normal",
        "encoder.network": "encoder mlp",
        "encoder.family": "family gaussian",
        "decoders.p.network": "decoder mlp",
        "decoders.p.family": "family gaussian",
        "optimizer.model": "optimizer adam",
        "optimizer.critics": "optimizer adam",
        "eval.metrics[0]": "metric elbo",
        "eval.metrics[1]": "metric rmse",
        "train.trackers[0]": "tracker tensorboard",
    }


def test_a_run_that_goes_on_adds_what_it_goes_on_with(run: RunFolder) -> None:
    words = ["run", str(run.recipe), "--out", str(run.path), "--resume", "--quiet"]
    assert main([*words, "--allow-changes", "--set", "train.steps=21"]) == 0
    first, second = run.read_sessions().sessions
    assert (first.step, second.step) == (0, 20)
    run.environment.write_text("{")
    assert main([*words, "--allow-changes", "--set", "train.steps=22"]) == 2


def test_the_commit_is_that_of_the_recipe(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/a.toml").write_text("")
    assert repository_of(tmp_path / "recipes") is None
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "a")
    assert repository_of(tmp_path / "recipes") == (str(tmp_path), git("rev-parse", "HEAD"))
    (tmp_path / "recipes/a.toml").write_text("# changed")
    assert repository_of(tmp_path / "recipes") == (str(tmp_path), git("rev-parse", "HEAD") + "-dirty")


def rename_encoder(run: RunFolder, came_from: ComponentRecord) -> None:
    """Let the run be of an encoder 'mine', which nothing here registers."""
    run.recipe.write_text(run.recipe.read_text().replace('type = "mlp"', 'type = "mine"', 1))
    sessions = json.loads(run.environment.read_text())["sessions"]
    sessions[-1]["components"]["encoder.network"] = attrs.asdict(came_from)
    run.environment.write_text(json.dumps({"sessions": sessions}))


@pytest.mark.parametrize(
    ("came_from", "message"),
    [
        (
            ComponentRecord("encoder", "mine", "my-nets", "0.3"),
            "encoder 'mine' came from my-nets 0.3, which is not installed: pip install my-nets==0.3",
        ),
        (
            ComponentRecord("encoder", "mine", "attrs", "0.3"),
            f"encoder 'mine' came from attrs 0.3, and attrs {importlib.metadata.version('attrs')}, which is installed, "
            "has none: pip install attrs==0.3",
        ),
        (
            ComponentRecord("encoder", "mine", IN_PROCESS),
            "encoder 'mine' was defined in the notebook or script that trained the run; load it in Python, where "
            "it has been defined again",
        ),
    ],
)
def test_a_missing_plugin_says_what_to_install(
    came_from: ComponentRecord, message: str, run: RunFolder, say: Callable[..., Any]
) -> None:
    rename_encoder(run, came_from)
    refusal = say("sample", run.path, "-o", run.path / "s.png").refusal
    assert refusal == f"{run.recipe}: encoder.network.type: {message}"


def test_what_no_distribution_registered_is_unknown(run: RunFolder, say: Callable[..., Any]) -> None:
    rename_encoder(run, ComponentRecord("encoder", "mine", "somebody"))
    assert "unknown encoder 'mine'" in say("sample", run.path, "-o", run.path / "s.png").refusal
    run.environment.unlink()
    assert run.read_sessions() == Sessions()
    assert "unknown encoder 'mine'" in say("sample", run.path, "-o", run.path / "s.png").refusal


def lose(run: RunFolder, *keys: str) -> None:
    """Let components of a run have come from acme 0.3, which is not here."""
    tables = parse_toml(run.recipe.read_text())
    kinds = {"encoder.network": "encoder", "optimizer.model": "optimizer", "eval.metrics[0]": "metric"}
    sessions = json.loads(run.environment.read_text())["sessions"]
    for key in keys:
        first, _, last = key.partition("[")[0].partition(".")
        table = tables.setdefault(first, {}).setdefault(last, {})
        table.update({"type": "acme"}) if isinstance(table, dict) else table.insert(0, {"type": "acme"})
        one = ComponentRecord(kinds[key], "acme", "acme", "0.3")
        sessions[-1]["components"][key] = attrs.asdict(one)
    run.recipe.write_text(to_toml(tables))
    run.environment.write_text(json.dumps({"sessions": sessions}))


def test_what_only_training_uses_may_be_missing(run: RunFolder, say: Callable[..., Any]) -> None:
    lose(run, "optimizer.model", "eval.metrics[0]")
    said = say("sample", run.path, "-n", 2, "-o", run.path / "s.png")
    assert said.status == 0
    without = "loaded without what only training and evaluations use: optimizer 'acme', metric 'acme' of acme 0.3"
    assert said.problems[0] == f"jointgen: {run.path}: {without}"
    lose(run, "encoder.network")
    said = say("sample", run.path, "-o", run.path / "s.png")
    came = "'acme' came from acme 0.3, which is not installed"
    assert said.refusal == f"{run.recipe}: encoder.network.type: encoder {came}: pip install acme==0.3"


def test_a_run_that_goes_on_names_all_that_is_missing_and_what_to_install(
    run: RunFolder, say: Callable[..., Any]
) -> None:
    lose(run, "encoder.network", "optimizer.model", "eval.metrics[0]")
    said = say("run", run.recipe, "--out", run.path, "--resume")
    came = "'acme' came from acme 0.3, which is not installed"
    assert said.status == 2
    assert sorted(said.problems) == [
        f"jointgen: encoder.network.type: encoder {came}",
        f"jointgen: eval.metrics[0].type: metric {came}: pip install acme==0.3",
        f"jointgen: optimizer.model.type: optimizer {came}",
    ]
