"""`jointgen runs`: runs of every state, chosen and sorted, without torch and without a refusal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jointgen.contracts.figures import Display, Estimate
from jointgen.errors import ConfigError
from jointgen.reports.run_list import chosen, find_runs, in_order
from jointgen.runs.folder import RunFolder
from jointgen.runs.records import BestRecord, Summary

RECIPE = """
format = 1
name = "{name}"
seed = {seed}
data = {{ type = "digits" }}
objective = {{ type = "vae" }}
train = {{ images = 1000, batch = 100 }}
"""


def figure(value: float | None, better: Any = "lower", *, headline: bool = False) -> Estimate:
    return Estimate(value, "", "", "test", 1, better=better, display=Display(headline=headline))


def write_run(path: Path, summary: Summary | None, *, seed: int = 0, name: str = "") -> None:
    (path / "checkpoints").mkdir(parents=True)
    (path / "recipe.toml").write_text(RECIPE.format(name=name or path.name, seed=seed))
    if summary is not None:
        RunFolder(path).write_summary(summary)


@pytest.fixture
def runs(here: Path) -> Path:
    """Three runs, one of them in a folder of its own, and one whose summary is damaged."""
    fids = {"fid/inception-2015": figure(40.0), "elbo": figure(-90.0, "higher", headline=True), "kid": figure(None)}
    write_run(Path("runs/a"), Summary(status="done", step=10, wall_s=3725.0, metrics=fids), seed=1)
    best = BestRecord("elbo", -95.0, "step-00000005")
    some = {"fid/inception-2015": figure(20.0), "elbo": figure(-95.0, "higher")}
    write_run(Path("runs/group/b"), Summary(status="stopped", step=5, wall_s=7.0, metrics=some, best=best), seed=2)
    write_run(Path("runs/c"), None, seed=3, name="third")
    write_run(Path("runs/d"), None, seed=4)
    Path("runs/d/summary.json").write_text("{")
    Path("runs/no_run").mkdir()
    return Path("runs")


def names(found: Any) -> str:
    return " ".join(Path(run.path).name for run in found)


def test_every_run_is_listed_as_it_is(runs: Path) -> None:
    a, c, d, b = find_runs(runs)
    assert (a.path, a.name, a.objective, a.data, a.status, a.seed) == ("runs/a", "a", "vae", "digits", "done", 1)
    assert (a.step, a.steps, a.time_s, a.best) == (10, 10, 3725.0, "elbo"), "1000 images in batches of 100; a headline"
    assert a.bytes == sum(file.stat().st_size for file in Path("runs/a").iterdir() if file.is_file())
    assert "kid" not in a.figures and b.best == "elbo" and b.path == "runs/group/b"
    assert (c.name, c.status, c.step, c.figures, c.problem) == ("third", "running", None, {}, "")
    assert d.status == "damaged" and d.problem.startswith("runs/d/summary.json: ")
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        find_runs(Path("nowhere"))


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        ([], "a c d b"),
        (["status=stopped"], "b"),
        (["status!=done"], "c d b"),
        (["name=th*"], "c"),
        (["fid<30"], "b"),
        (["fid>30", "status=done"], "a"),
        (["step=5.0"], "b"),
        (["train.batch=100", "seed!=1"], "c d b"),
        (["elbo > -92"], "a"),
    ],
)
def test_runs_are_chosen(conditions: list[str], kept: str, runs: Path) -> None:
    assert names(chosen(find_runs(runs), conditions)) == kept


@pytest.mark.parametrize(
    ("key", "order"),
    [("fid", "b a c d"), ("elbo", "a b c d"), ("time_s", "a b c d"), ("seed", "d c b a"), ("status", "d a c b")],
)
def test_runs_are_sorted_the_best_first(key: str, order: str, runs: Path) -> None:
    assert names(in_order(find_runs(runs), key)) == order


def test_every_mistake_is_told(runs: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        chosen(find_runs(runs), ["status", "statsu=done", "step<many"])
    first, second, third = caught.value.lines
    assert first == "--where: expected KEY=VALUE (or !=, <, >), got 'status'"
    assert second.startswith("--where: no run has 'statsu', a figure or a key of its recipe; did you mean 'status'?")
    assert third == "--where: step<: expected a number, got 'many'"
    with pytest.raises(ConfigError, match="--sort: no run has 'fdi'"):
        in_order(find_runs(runs), "fdi")


def test_the_command(runs: Path, say: Any) -> None:
    said = say("runs", "--sort", "fid")
    rows = [line.split() for line in said.out.splitlines() if line.split() and line.split()[0].startswith("runs/")]
    assert [row[0] for row in rows] == ["runs/group/b", "runs/a", "runs/c", "runs/d"]
    assert rows[1][1:] == ["vae", "digits", "done", "10/10", "1:02", "h", "40", "elbo", "-90", *rows[1][10:]]
    assert rows[2][:5] == ["runs/c", "(third)", "vae", "digits", "running"]
    assert said.status == 0 and [line.split(": ")[1] for line in said.problems] == ["runs/d"]
    found = json.loads(say("runs", "runs", "--json", "--where", "seed=2").out)
    assert [(run["path"], run["figures"]["elbo"]) for run in found] == [("runs/group/b", -95.0)]
    assert say("runs", "runs/no_run").problems == ["jointgen: runs/no_run holds no run"]


def test_it_imports_no_torch(runs: Path) -> None:
    code = "import sys\nfrom jointgen.cli.main import main\nmain(['runs'])\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
