"""Events of a run: what callbacks and plugins are told, when, and that they change nothing."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from support.paths import QUICKSTART
from support.runs import SMALL, logged, stop_after, train_small, weights

import jointgen
from jointgen.errors import ConfigError, StoppedError
from jointgen.registry.discovery import forget_plugins

RUN = {
    **SMALL,
    "train.steps": 6,
    "train.log_every": 2,
    "train.eval_every": 3,
    "train.checkpoint_every": 4,
    "train.trackers": [],
}
PATH = list[tuple[str, int]]


class Recorder:
    """Notes what it is told, as (event, step), and does whatever it can to the run meanwhile."""

    def __init__(self) -> None:
        self.told: PATH = []
        self.figures: list[dict[str, float]] = []
        self.last: list[bool] = []
        self.checkpoints: list[str] = []
        self.end = ("", "")
        self.resumed_from: int | None = -1

    def jointgen_run_start(self, run: Any) -> None:
        self.told.append(("start", run.step))
        self.resumed_from = run.resumed_from
        run.recipe["train"]["steps"] = 10_000

    def jointgen_log(self, run: Any, figures: Any) -> None:
        self.told.append(("log", run.step))
        self.figures.append(dict(figures))
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        torch.set_grad_enabled(False), torch.set_default_dtype(torch.float64), torch.set_num_threads(2), os.chdir("/")
        torch.use_deterministic_algorithms(True), torch.set_float32_matmul_precision("medium")
        torch.set_default_device("meta")
        with pytest.raises(TypeError):
            figures["model/loss"] = 0.0

    def jointgen_evaluated(self, run: Any, estimates: Any, last: bool) -> None:
        self.told.append(("evaluated", run.step))
        self.last.append(last)
        assert estimates["elbo"].value < 0
        model = run.model()
        assert model.sample(2).shape == (2, 1, 8, 8)
        with torch.no_grad():
            for parameter in model.parts.modules.parameters():
                parameter.zero_()

    def jointgen_checkpoint(self, run: Any, path: Path) -> None:
        assert (path / "manifest.json").is_file()
        self.told.append(("checkpoint", run.step))
        self.checkpoints.append(path.name)

    def jointgen_run_end(self, run: Any, status: str, note: str) -> None:
        self.told.append(("end", run.step))
        self.end = (status, note)
        assert (run.path / "report.html").is_file() == (status == "done")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without anybody who is told."""
    out = tmp_path_factory.mktemp("plain") / "run"
    jointgen.run(QUICKSTART, RUN, out=out, quiet=True)
    return out


def same_run(one: Path, other: Path) -> None:
    for name in ("step-00000004", "step-00000006"):
        first, second = (weights(run / "checkpoints" / name) for run in (one, other))
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert logged(one) == logged(other)


def test_a_callback_is_told_of_every_event_and_changes_nothing(plain: Path, tmp_path: Path) -> None:
    told = Recorder()
    jointgen.run(QUICKSTART, RUN, out=tmp_path / "run", quiet=True, callbacks=[told])
    assert told.told == [
        ("start", 0),
        ("log", 2),
        ("evaluated", 3),
        ("log", 4),
        ("checkpoint", 4),
        ("log", 6),
        ("checkpoint", 6),
        ("evaluated", 6),
        ("end", 6),
    ]
    assert told.last == [False, True] and told.end == ("done", "") and told.resumed_from is None
    lines = [line for line in logged(tmp_path / "run") if "model/loss" in line]
    assert [figures["model/loss"] for figures in told.figures] == [line["model/loss"] for line in lines]
    assert "images_per_s" in told.figures[0]
    same_run(plain, tmp_path / "run")


def test_a_run_that_goes_on_tells_nothing_twice(plain: Path, tmp_path: Path) -> None:
    """Stopped after step 4, whose log event and checkpoint are told by the first part; and once it is done, nothing."""
    first, second, third = Recorder(), Recorder(), Recorder()
    with pytest.raises(StoppedError):
        jointgen.run(QUICKSTART, RUN, out=tmp_path / "run", quiet=True, callbacks=[first], stop=stop_after(4))
    assert first.told[-3:] == [("checkpoint", 4), ("checkpoint", 4), ("end", 4)]  # due, and for the signal
    assert first.end[0] == "stopped" and 'resume="auto"' in first.end[1]
    jointgen.run(QUICKSTART, RUN, out=tmp_path / "run", quiet=True, callbacks=[second], resume=True)
    assert second.told == [("start", 4), ("log", 6), ("checkpoint", 6), ("evaluated", 6), ("end", 6)]
    assert second.resumed_from == 4
    same_run(plain, tmp_path / "run")
    jointgen.run(QUICKSTART, RUN, out=tmp_path / "run", quiet=True, callbacks=[third], resume=True)
    assert third.told == []


class PrunedError(Exception):
    """What a search raises to end a run."""


@attrs.frozen
class Pruner:
    """Ends a run at its first evaluation."""

    ends: list[tuple[str, str]] = attrs.field(factory=list)

    def jointgen_evaluated(self, estimates: Any) -> None:
        raise PrunedError("worse than the others")

    def jointgen_run_end(self, status: str, note: str) -> None:
        self.ends.append((status, note))


def test_what_a_callback_raises_ends_the_run_and_reaches_its_giver(tmp_path: Path) -> None:
    pruner = Pruner()
    with pytest.raises(PrunedError, match="worse than the others"):
        jointgen.run(QUICKSTART, RUN, out=tmp_path / "run", quiet=True, callbacks=[pruner])
    assert pruner.ends == [("failed", "worse than the others")]
    assert '"status": "failed"' in (tmp_path / "run/summary.json").read_text()


class Misspelt:
    def jointgen_logged(self, run: Any) -> None: ...


class NoEvent:
    def jointgen_commands(self, commands: Any) -> None: ...


class WrongArgument:
    def jointgen_log(self, run: Any, values: Any) -> None: ...


def test_an_object_that_is_no_callback_is_refused_before_anything(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        train_small(tmp_path / "run", callbacks=[Misspelt(), Recorder(), object(), NoEvent(), WrongArgument()])
    first, second, third, fourth = caught.value.lines
    assert first.startswith("callbacks[0]: implements jointgen_logged, which is no hook; did you mean 'jointgen_log'?")
    assert second.startswith("callbacks[2]: implements no hook")
    assert third.startswith("callbacks[3]: jointgen_commands is no event of a run")
    assert fourth.startswith(f"callbacks[4]: {__file__}:")
    assert fourth.endswith(": jointgen_log is given no 'values'; known: figures, run")
    assert not (tmp_path / "run").exists()


# --- plugins ---------------------------------------------------------------------------------------------------------

PLUGIN = """
import jointgen
from jointgen.plugin import Problem, Section
from markupsafe import Markup

TOLD = []

@jointgen.hookimpl
def jointgen_run_start(run):
    TOLD.append(("start", run.step))

@jointgen.hookimpl
def jointgen_log(run, figures):
    TOLD.append(("log", run.step))
    return 1 / 0

@jointgen.hookimpl
def jointgen_run_end(status):
    TOLD.append(status)

@jointgen.hookimpl
def jointgen_check(recipe):
    if recipe["train"]["steps"] > 100:
        yield Problem(f"at most 100 here, got {recipe['train']['steps']}", "train", "steps")
        yield "ask for more"

@jointgen.hookimpl
def jointgen_report_sections(run):
    picture = bytes.fromhex("89504e470d0a1a0a00")
    table = [["what", "EUR"], ["power", 0.01]]
    yield Section("Costs & more", ["<b>cheap</b>", Markup("<i>really</i>"), table, picture])
    assert run.step == 6 and run.model().sample(1).shape == (1, 1, 8, 8)

@jointgen.hookimpl
def jointgen_commands(commands):
    def add_arguments(parser):
        parser.add_argument("--loudly", action="store_true", help="shout")
    def cheer(arguments):
        print("HURRAH" if arguments.loudly else 1 / 0)
    commands.add("cheer", "praise a run", cheer, add_arguments)
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a distribution with one plugin."""

    def install(source: str, name: str = "cheerful") -> None:
        monkeypatch.syspath_prepend(tmp_path / "site")
        info = tmp_path / "site" / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (tmp_path / "site" / f"{name}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[jointgen.plugins]\n{name} = {name}\n")
        forget_plugins()

    yield install
    monkeypatch.undo()
    sys.modules.pop("cheerful", None)
    forget_plugins()


def test_a_plugin_is_told_and_what_it_raises_is_reported_once(
    plain: Path, plugin: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin(PLUGIN)
    jointgen.run(QUICKSTART, RUN, out=tmp_path / "run", quiet=True)
    import cheerful  # noqa: PLC0415

    assert cheerful.TOLD == [("start", 0), ("log", 2)]  # and nothing after it raised
    warned = [line for line in caplog.messages if "cheerful" in line]
    assert len(warned) == 1
    start = "plugin 'cheerful' (cheerful 1.0): jointgen_log raises ZeroDivisionError: division by zero ("
    assert warned[0].startswith(start) and warned[0].endswith("; the run goes on without")
    same_run(plain, tmp_path / "run")

    page = (tmp_path / "run/report.html").read_text()
    assert "<h2>Costs &amp; more</h2>" in page and "<p>&lt;b&gt;cheap&lt;/b&gt;</p>" in page and "<i>really</i>" in page
    assert "<th>EUR</th>" in page and "<td>0.01</td>" in page and "data:image/png;base64,iVBORw0KGgoA" in page
    assert "From cheerful 1.0." in page


def test_a_plugin_checks_recipes(plugin: Callable[..., None], tmp_path: Path, say: Any) -> None:
    plugin(PLUGIN)
    said = say("run", QUICKSTART, "--set", "train.steps=101", "--set", "prior.size=0", "--out", tmp_path / "run")
    assert said.status == 2 and any("prior.size" in line for line in said.problems)
    said = say("run", QUICKSTART, "--set", "train.steps=101", "--set", "train.batch=7000", "--out", tmp_path / "run")
    assert said.status == 2
    problems = [line.removeprefix("jointgen: ") for line in said.problems]
    assert "train.steps: at most 100 here, got 101" in problems and "ask for more" in problems
    assert any(line.startswith("train.batch: ") for line in problems)
    assert not (tmp_path / "run").exists()


def test_a_plugin_adds_commands(plugin: Callable[..., None], say: Any) -> None:
    plugin(PLUGIN)
    assert say("cheer", "--loudly").out == "HURRAH\n"
    (line,) = say("cheer").problems
    assert line.startswith("jointgen: the command 'cheer' of cheerful 1.0 raises ZeroDivisionError: division by zero (")
    assert "praise a run [cheerful 1.0]" in " ".join(say("--help").out.split())
    assert say("cheer", "--loud").refusal.startswith("unknown option --loud; did you mean '--loudly'?")
    assert "did you mean 'cheer'" in say("cher").refusal


@pytest.mark.parametrize(
    ("name", "reason"),
    [("sample", "the command 'sample' is there already"), ("Two words", "must be a word of small letters")],
)
def test_a_command_that_cannot_be_is_said_and_left_out(
    name: str, reason: str, plugin: Callable[..., None], say: Any
) -> None:
    source = "import jointgen\n@jointgen.hookimpl\ndef jointgen_commands(commands):\n    "
    plugin(f"{source}commands.add({name!r}, 'does it', print)\n")
    said = say("--help")
    assert said.status == 0 and f"[{name}" not in said.out
    (line,) = said.problems
    assert line.startswith("jointgen: plugin 'cheerful' (cheerful 1.0) adds no command: PluginError: ")
    assert reason in line


def test_a_section_that_raises_says_so_on_the_page(
    plugin: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = "import jointgen\n@jointgen.hookimpl\ndef jointgen_report_sections(run):\n    return ['text']\n"
    plugin(source)
    train_small(tmp_path / "run", {"train.steps": 1, "train.trackers": []})
    said = "jointgen_report_sections raises TypeError: returned a str, expected a Section"
    assert said in (tmp_path / "run/report.html").read_text() and said in caplog.text
