"""`jointgen study`: what its file may say, its grid, and runs that go on after failures and limits."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from support.paths import QUICKSTART, REPO

from jointgen.cli import compare, study_runs, study_search
from jointgen.cli.study_file import Parameter, Study, point_name, toml_of
from jointgen.cli.study_runs import Clock, Work
from jointgen.cli.study_tables import beside, points_of, write_results
from jointgen.config.recipe import write_recipe
from jointgen.config.toml import parse_toml
from jointgen.contracts.figures import Display, Estimate
from jointgen.errors import ConfigError
from jointgen.registry.components import Registry
from jointgen.reports.comparison.charts import make_chart
from jointgen.reports.comparison.formats import Pictures
from jointgen.reports.comparison.runs import ComparedRun, Figure
from jointgen.runs.folder import RunFolder
from jointgen.runs.records import Summary

# --- the file --------------------------------------------------------------------------------------------------------


def read(text: str, registry: Registry, tmp_path: Path) -> Study:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return Study.read(path, registry)


GRID = """
recipe = "quickstart"
seeds = 2
[grid]
recipe = ["vae_mnist", "ali_mnist.toml"]
"train.steps" = [10, 20]
"""


def test_a_grid_is_every_combination(registry: Registry, tmp_path: Path) -> None:
    study = read(GRID, registry, tmp_path)
    assert [*study.rows] == [
        "vae_mnist, steps=10",
        "vae_mnist, steps=20",
        "ali_mnist, steps=10",
        "ali_mnist, steps=20",
    ]
    row = study.rows["ali_mnist, steps=20"]
    assert study.recipe_of(row) == REPO / "recipes/ali_mnist.toml"
    work = Work(study, Path("out"), ("train.batch=7",), Clock(None))
    assert work.settings_of(row, 1) == ["train.batch=7", "train.steps=20", 'name="ali_mnist, steps=20"', "seed=1"]
    assert work.folder(row, 1) == Path("out/ali-mnist-steps-20-1")


def test_rows_are_multiplied_by_a_grid_and_a_study_may_be_one_recipe(registry: Registry, tmp_path: Path) -> None:
    two = 'recipe = "quickstart"\n[rows.A]\n[rows.B]\nset = ["seed=1"]\n[grid]\n"prior.size" = [2, 4]\n'
    study = read(two, registry, tmp_path)
    assert [*study.rows] == ["A, size=2", "A, size=4", "B, size=2", "B, size=4"]
    assert study.rows["B, size=2"].set == ["seed=1", "prior.size=2"]
    assert [*read('recipe = "quickstart"', registry, tmp_path).rows] == ["mine"]
    based = read('base = "quickstart"\nseeds = 2', registry, tmp_path)
    assert based.recipe_of(based.rows["mine"]) == REPO / "recipes/quickstart.toml"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            'recipe = "quikstart"',
            ["recipe: no file '...', and no shipped recipe 'quikstart'; did you mean 'quickstart'?"],
        ),
        ("seeds = 0", ["seeds: must be >= 1, got 0"]),
        ("", ["recipe: missing; expected a file or the name of a shipped recipe"]),
        ('recipe = "quickstart"\n[rows.B]\nstart = "A"', ["rows.B.start: no row 'A'; known: B"]),
        ('recipe = "quickstart"\n[grid]\nx = []', ["grid.x: lists no value"]),
        (
            'recipe = "quickstart"\n[grid]\nseed = [1]',
            ["grid.seed: is what tells the runs apart; `seeds` says how many"],
        ),
        ('recipe = "quickstart"\nname = "a"\n[rows.A]\nname = "b"', ["name: unknown key", "rows.A.name: unknown key"]),
        ('recipe = "quickstart"\nrows = 3', ["rows: expected a table, got 3"]),
        ('recipe = "quickstart"\n[rows]\nA = 3', ["rows.A: expected a table, got 3"]),
        ('recipe = "quickstart"\n[grid]\n"prior.size" = 4', ['grid."prior.size": expected a list, got 4']),
        ('recipe = "quickstart"\n[rows."a b"]\n[rows.A-b]', ["rows whose runs would share a folder: 'a b', 'A-b'"]),
        ('recipe = "quickstart"\n[rows.A]\ncurv = true', ["rows.A.curv: unknown key; did you mean 'curve'?"]),
        (
            'recipe = "quickstart"\nseeds = 2\n[search]\nmetric = "elbo"\nspace = {}',
            ["search: takes the place of rows, a grid and seeds; leave them out"],
        ),
        (
            'recipe = "quickstart"\n[search]\nmetric = "elbo"\nspace = { a = { low = 2, high = 1 }, b = { low = 1 } }',
            ["search.space.a.high: must be > low = 2, got 1", "search.space.b: give choices, or low and high"],
        ),
    ],
)
def test_every_mistake_of_a_study_is_told(text: str, problems: list[str], registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text, registry, tmp_path)
    place = tmp_path / "mine.toml"
    for line, expected in zip(caught.value.lines, problems, strict=True):
        begin, _, rest = f"{place}: {expected}".partition("...")
        assert line.startswith(begin) and rest in line


def test_values_are_written_as_toml() -> None:
    values = {
        "a": [1, 2.5, "x"],
        "b": {"type": "sgd", "nesterov": True},
        "c": 1e-5,
        "d": float("inf"),
        "e": "\U0001f600",
    }
    assert parse_toml("\n".join(f"{key} = {toml_of(value)}" for key, value in values.items())) == values
    assert point_name({"optimizer.model.lr": 0.1, "optimizer.critics.lr": 0.2}) == "model.lr=0.1, critics.lr=0.2"


# --- running ---------------------------------------------------------------------------------------------------------

FAKE = """
import json, pathlib, sys
words = sys.argv[1:]
folder = pathlib.Path(words[words.index("--out") + 1])
folder.mkdir(parents=True, exist_ok=True)
with open("calls.txt", "a") as calls:
    print(folder.name, file=calls)
if pathlib.Path("broken").exists() and folder.name == pathlib.Path("broken").read_text():
    print("jointgen: out of luck")
    print()
    sys.exit(1)
(folder / "summary.json").write_text(json.dumps({"status": "done", "step": 1}))
"""


@pytest.fixture
def work(registry: Registry, here: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """The work of a study of two settings and two seeds, whose commands only leave a summary."""
    monkeypatch.setattr(study_runs, "COMMAND", [sys.executable, "-c", FAKE])
    Path("out").mkdir()
    text = 'recipe = "quickstart"\nseeds = 2\n[grid]\n"prior.size" = [2, 4]\n'
    return Work(read(text, registry, here), Path("out"), (), Clock(None))


def called() -> list[str]:
    path = Path("calls.txt")
    names = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return names


def test_a_failed_run_ends_no_other_and_is_tried_again(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr(study_runs, "note", messages.append)
    monkeypatch.setattr(study_runs, "warn", messages.append)
    rows = [*work.study.rows.values()]
    Path("broken").write_text("size-4-0")
    assert list(study_runs.finish_all(work, rows, range(2), 1)) == [True, False, True, True]
    assert called() == ["size-2-0", "size-4-0", "size-2-1", "size-4-1"], "all of a seed before the next"
    assert work.failure(rows[1], 0) == f"out of luck ({Path('out/size-4-0.log')})"
    assert any(line.startswith("[2/4] size-4-0 failed after ") for line in messages)
    Path("broken").unlink()
    messages.clear()
    assert list(study_runs.finish_all(work, rows, range(2), 2)) == [True] * 4
    assert called() == ["size-4-0"] and work.failure(rows[1], 0) == ""
    assert messages[0] == "[3/4] size-4-0 begins" and messages[1].startswith("[4/4] size-4-0 done in ")
    assert all(work.is_finished(row, seed) for row in rows for seed in range(2))


def test_the_time_left_is_by_the_mean_of_what_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six runs one was done; two take 100 and 140 s, so that three more take two workers 1.5 rounds of 120 s."""
    messages: list[str] = []
    monkeypatch.setattr(study_runs, "note", messages.append)
    progress = study_runs.Progress(6, 1, 2)
    progress.ends("a", 100.0)
    progress.ends("b", 140.0)
    assert messages == [
        "[2/6] a done in 1 min 40 s; about 3 min 20 s left",
        "[3/6] b done in 2 min 20 s; about 3 min 0 s left",
    ]


def test_nothing_begins_once_the_time_is_up(work: Work) -> None:
    work.clock.end()
    assert list(study_runs.finish_all(work, [*work.study.rows.values()], range(1), 1)) == [False, False]
    assert called() == []


def test_a_command_that_is_watched_is_stopped(here: Path) -> None:
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert Clock(None).call(sleeping, here / "log", lambda: True) is False


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["study", "nothing.toml"], "nothing.toml: no such file"),
        (["study", "s.toml", "--budget", "big"], "--budget: no budget 'big'; known: small"),
        (["study", "s.toml", "--out", "s.toml"], "--out: s.toml: cannot be made a folder: File exists"),
        (["study", "s.toml", "--row", "a"], "--row: no row 'a'; did you mean 'A'?"),
        (["study", "s.toml", "--workers", "0"], "argument --workers: expected a whole number"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(words: list[str], problem: str, say: Any, here: Path) -> None:
    Path("s.toml").write_text('recipe = "quickstart"\nbudgets.small = []\n[rows.A]\n')
    assert say(*words).refusal.startswith(problem)
    assert not Path("runs").exists()


def test_two_commands_do_not_work_on_one_study(say: Any, here: Path) -> None:
    Path("s.toml").write_text('recipe = "quickstart"\n')
    Path("out").mkdir()
    with FileLock("out/study.lock"):
        refusal = say("study", "s.toml", "--out", "out").refusal
    assert refusal == "--out: out: another command is working on this study"


# --- results ---------------------------------------------------------------------------------------------------------


def test_runs_without_a_figure_of_an_axis_are_no_points() -> None:
    def figure(name: str, value: float, unit: str) -> Any:
        return Figure.of(name, Estimate(value, unit, "", "test", 1, display=Display(name.upper())), "")

    ali = ComparedRun("ali", {}, {"rmse": figure("rmse", 2.0, "0-255")})
    vae = ComparedRun("vae", {}, {"rmse": figure("rmse", 1.0, "0-255"), "elbo": figure("elbo", -9.0, "nats")})
    (point,) = points_of([ali, vae], ("elbo", "rmse"))
    assert (point.run, point.across, point.up) == (vae, -9.0, 1.0)
    assert point.titles == ("ELBO (nats)", "RMSE (0-255)")


def test_runs_stand_beside_the_one_of_their_seed() -> None:
    """Shares 30/60 and 20/50, bounds 97.5 - 96 and 95.75 - 96.25 by hand; a model without a bound has no line."""

    def run(name: str, seed: int, distance: float, bound: float | None) -> Any:
        figures = {
            "iwae_64": Figure.of("iwae_64", Estimate(bound, "nats", "", "test", 1, bound="lower", better="higher"), ""),
            "fid/net": Figure.of("fid/net", Estimate(distance, "", "", "draws", 1), ""),
        }
        return ComparedRun(f"{name}-{seed}", {"name": name, "seed": seed}, figures)

    runs = [run("VAE", 0, 60.0, -96.0), run("VAE", 1, 50.0, -96.25), run("ALI", 0, 60.5, None)]
    runs += [run("AS-VAE", 0, 30.0, -97.5), run("AS-VAE", 1, 20.0, -95.75), run("AS-VAE", 2, 25.0, -97.0)]
    runs += [run("r = 1", 1, 10.0, -98.25)]
    points = points_of(runs, ("iwae_64", "fid/net"))
    assert beside(points, "VAE").splitlines()[2:] == [
        "| model | seed 0 | seed 1 |",
        "|---|---|---|",
        "| AS-VAE | 0.500; +1.500 | 0.400; -0.500 |",
        "| r = 1 |  | 0.200; +2.000 |",
    ]
    assert beside(points[2:], "VAE") == ""


def test_the_page_has_tables_charts_failures_and_protocol(
    registry: Registry, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A figure of other rows than the rest of its column is left out with a note, and a failed run has its reason."""
    monkeypatch.setattr(compare, "draw_pictures", lambda *_: Pictures())
    text = 'recipe = "quickstart"\naxes = [["elbo", "fid/net"], ["rate", "fid/net"]]\n[rows]\nA = {}\nB = {}\nC = {}\n'
    work = Work(read(text + "D = {}\n", registry, here), Path("out"), ("train.steps=70",), Clock(None))
    rows = [*work.study.rows.values()]
    for i, row in enumerate(rows[:3]):
        folder = RunFolder(work.folder(row, 0))
        folder.path.mkdir(parents=True)
        folder.recipe.write_text(write_recipe(work.recipe_of(row, 0)[0], registry))
        lower: dict[str, Any] = {"bound": "lower", "better": "higher", "display": Display("ELBO", nll=True)}
        figures = {
            "elbo": Estimate(-20.0 - i, "nats", "", "test", 100 if row.name != "C" else 7, **lower),
            "fid/net": Estimate(40.0 - i, "", "", "draws", 100),
        }
        folder.write_summary(Summary(status="done", step=70, wall_s=12.0 + i, parameters=4321, metrics=figures))
    Path("out/d-0.failed").write_text("the loss is <nan> (out/d-0.log)\n")
    write_results(work, [(row, 0) for row in rows[:3]], [(rows[3], 0)], 4)
    page = Path("out/index.html").read_text()
    assert "3 of 4 runs are finished, 1 failed" in page and "the loss is &lt;nan&gt; (out/d-0.log)" in page
    assert page.count("<svg") == 1, "no run has a rate"
    assert page.count('class="mean"') == 3 and ">NLL (ELBO) (nats, upper bound)</text>" in page
    assert "left out, since it is not made as most of its column are: n = 7" in page
    assert "Budget: 70 steps" in page and "Rows that figures are of: test (all)" in page
    table = Path("out/table.md").read_text().splitlines()
    assert [line.split(" | ")[-2:] for line in table if line.startswith("| B |")] == [["13", "4321 |"]]


def test_names_in_a_chart_do_not_lie_on_each_other() -> None:
    chart = make_chart(("x", "y"), {"first": [(0.0, 0.0), (2.0, 2.0)], "second": [(1.0, 1.0)], "far": [(9.0, 9.0)]})
    first, second, _ = chart.series
    assert first.mean == pytest.approx(second.mean, abs=0.1) and abs(first.label[1] - second.label[1]) >= 13
    assert [text for _, text in chart.across][:3] == ["0", "2", "4"] and chart.line == ()
    many = make_chart(("x", "y"), {f"model {i}": [(0.0, 0.01 * i)] for i in range(40)} | {"far": [(9.0, 9.0)]})
    places = [one.label for one in many.series]
    assert len({*places}) == 41 and all(0 < y < 505 and 0 < x < 960 for x, y in places)
    left, right = chart.across[0][0], chart.across[1][0]
    assert first.places[1][0] - first.places[0][0] == pytest.approx(right - left, abs=0.2)


# --- search ----------------------------------------------------------------------------------------------------------


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_search.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"search: a search needs Optuna: pip install 'jointgen\[search\]'"):
        study_search.check_installed()


def test_settings_have_a_folder_of_their_own_whatever_their_order() -> None:
    one, other = study_search.row_at({"a.b": 1, "c": [2]}), study_search.row_at({"c": [2], "a.b": 1})
    assert one.folder == other.folder != study_search.row_at({"a.b": 1, "c": [3]}).folder
    assert one.set == ["a.b=1", "c=[2]"] and one.name == "b=1, c=[2]"


SEARCHED = """
import json, math, pathlib, sys
words = sys.argv[1:]
folder = pathlib.Path(words[words.index("--out") + 1])
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
lr = next(float(word.split("=")[1]) for word in words if word.startswith("optimizer.model.lr="))
value = -(math.log10(lr) + 3) ** 2  # the best is 1e-3
figure = {"value": value, "unit": "nats", "estimator": "", "split": "test", "n": 1, "better": "higher"}
(folder / "summary.json").write_text(json.dumps({"status": "done", "step": 1, "metrics": {"elbo": figure}}))
"""


def test_a_search_finds_the_best_and_goes_on(
    registry: Registry, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="the extra `search` is large, and not part of the environment")
    monkeypatch.setattr(study_runs, "COMMAND", [sys.executable, "-c", SEARCHED])
    text = """
    recipe = "quickstart"
    [search]
    metric = "elbo"
    trials = {trials}
    direction = "maximize"
    space."optimizer.model.lr" = {{ low = 1e-5, high = 1e-1, log = true }}
    """
    Path("out").mkdir()
    for trials in (4, 8):
        work = Work(read(text.format(trials=trials), registry, here), Path("out"), (), Clock(None))
        rows = study_search.run_search(work, registry, 1)
        assert len(rows) == trials == len([*Path("out").glob("trial-*.log")])
    rates = [float(row.set[0].split("=")[1]) for row in rows]
    assert rates == sorted(rates, key=lambda rate: abs(math.log10(rate) + 3))
    assert "best of 8: elbo " in capsys.readouterr().out
    other = text.format(trials=9).replace("optimizer.model.lr", "optimizer.critics.lr")
    with pytest.raises(ConfigError, match="search: the search in out has another space; give another --out"):
        study_search.run_search(Work(read(other, registry, here), Path("out"), (), Clock(None)), registry, 1)
    wrong = text.format(trials=9).replace("optimizer.model.lr", "optimizer.model.rl")
    with pytest.raises(ConfigError, match="rl: unknown key"):
        study_search.run_search(Work(read(wrong, registry, here), Path("out"), (), Clock(None)), registry, 1)


def test_what_a_search_may_choose() -> None:
    with pytest.raises(ConfigError, match="goes with low > 0"):
        Parameter(low=0, high=1, log=True)
    with pytest.raises(ConfigError, match="give choices, or low and high"):
        Parameter(choices=[1], low=0, high=1)
    with pytest.raises(ConfigError, match="goes without low, high, log and step"):
        Parameter(choices=[1], low=0)
    with pytest.raises(ConfigError, match="must list a value"):
        Parameter(choices=[])
    with pytest.raises(ConfigError, match="must be > 0, got 0"):
        Parameter(low=0, high=9, step=0)


def test_the_recipe_of_a_study_may_have_plugin_files(registry: Registry, here: Path) -> None:
    Path("nets.py").write_text(
        "import jointgen\n@jointgen.register.encoder('mine')\ndef net(inputs, output, width: int = 4):\n    'A net.'\n"
    )
    Path("own.toml").write_text(
        'base = "quickstart.toml"\nplugins = ["nets.py"]\nencoder.network = { type = "mine" }\n'
    )
    shutil.copy(QUICKSTART, "quickstart.toml")
    Path("out/VAE-0").mkdir(parents=True)
    work = Work(read('recipe = "own.toml"\n[rows.VAE]\n', registry, here), Path("out"), (), Clock(None))
    row = work.study.rows["VAE"]
    recipe, found = work.recipe_of(row, 0)
    (work.folder(row, 0)).mkdir(exist_ok=True)
    (work.folder(row, 0) / "recipe.toml").write_text(write_recipe(recipe, found))
    assert 'file = "plugins/nets.py"' in write_recipe(recipe, found)
    assert work.changes(row, 0) == []


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """Two rows, the second from the weights of the first, stopped by the limit and called again."""
    study = tmp_path / "small.toml"
    study.write_text(
        """
recipe = "quickstart"
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
    command = [sys.executable, "-m", "jointgen", "study", str(study), "--out", str(tmp_path / "out")]
    assert subprocess.run([*command, "--limit-s", "9"], cwd=tmp_path).returncode == 3
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| VAE |" in text and "| AS-VAE |" in text
    assert "| AS-VAE | " in (tmp_path / "out" / "beside.md").read_text()
