"""Resuming: what may have changed, damage, a finished run, the best checkpoint, disks that are full."""

from __future__ import annotations

import errno
import json
import math
import re
import shutil
import signal
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import safetensors.torch
import torch
from jointgen_data import digits
from jointgen_metrics import reconstruction
from safetensors.torch import load, save
from support.runs import SMALL, logged, train_small, weights
from support.tampering import SPECIAL, reseal
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

import jointgen
from jointgen.config.recipe import Eval, changed_keys
from jointgen.contracts.figures import Estimate
from jointgen.contracts.metrics import MetricFigure, per_row
from jointgen.errors import CheckpointError, ComponentError, ConfigError, StoppedError, WriteError
from jointgen.reports import pictures
from jointgen.runs import checkpoint, tensor_tree
from jointgen.runs import log as run_log
from jointgen.runs.folder import RunFolder
from jointgen.runs.log import RunLog
from jointgen.training.critic_trust import CriticTrust
from jointgen.training.reporter import RunReporter
from jointgen.training.state import GlobalGenerators, RunProgress
from jointgen.training.stopping import BestCheckpoint, EarlyStopping, best_checkpoint_of

RUN: dict[str, Any] = {
    "objective.critic.penalties": [],
    "train.steps": 12,
    "train.log_every": 4,
    "train.eval_every": 5,
    "train.checkpoint_every": 4,
}


def train(out: Path, *, changes: Any = None, **options: Any) -> Any:
    return train_small(out, {**RUN, **(changes or {})}, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps with checkpoints at 4, 8 and 12. Tests only read it."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    train(out)
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "copied")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# --- a recipe that changed -------------------------------------------------------------------------------------------


def test_every_change_is_named() -> None:
    old = """
        seed = 0
        [train]
        steps = 40
        clip = 1.0
        [encoder.network]
        type = "mlp"
        hidden = [8]
        [objective]
        critic = { penalties = [{ type = "r1", weight = 0.1 }] }
    """
    new = """
        seed = 0
        [train]
        steps = 60
        early_stopping = { patience = 3 }
        [encoder.network]
        type = "conv"
        channels = 3
        [objective]
        critic = { penalties = [{ type = "r1", weight = 0.2 }] }
    """
    assert [str(change) for change in changed_keys(old, new)] == [
        "train.steps: 40 -> 60",
        "train.clip: 1.0 -> not set",
        "train.early_stopping.patience: not set -> 3",
        "encoder.network.type: 'mlp' -> 'conv'",
        "objective.critic.penalties[0].weight: 0.1 -> 0.2",
    ]
    assert changed_keys(old, old) == []


def test_long_texts_that_differ_at_their_end_are_shown_whole() -> None:
    (change,) = changed_keys(f'a = "{"x" * 70}1"', f'a = "{"x" * 70}2"')
    assert str(change) == f"a: '{'x' * 70}1' -> '{'x' * 70}2'"


def test_a_changed_recipe_is_refused_by_name(finished: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        train(finished, resume=True, changes={"train.steps": 20, "train.clip": 5.0, "seed": 1})
    first, *changes = refused.value.lines
    assert first.startswith(
        f"out: the run in {finished} has another recipe; to go on with this one: allow_changes=True"
    )
    assert sorted(changes) == ["  seed: 0 -> 1", "  train.clip: not set -> 5.0", "  train.steps: 12 -> 20"]


def test_more_steps_when_told(copied: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The weights of step 12 are where it goes on; recipe.toml is the new one; the log has all of it."""
    before = weights(finished / "checkpoints/step-00000012")
    done = train(copied, resume="auto", allow_changes=True, changes={"train.steps": 16}, quiet=False)
    assert done.summary["step"] == 16
    assert f"jointgen: {copied} goes on from step 12 of 16" in capsys.readouterr().err.splitlines()
    assert tomllib.loads((copied / "recipe.toml").read_text())["train"]["steps"] == 16
    assert [json.loads(line)["step"] for line in (copied / "metrics.jsonl").read_text().splitlines()] == [
        *(4, 5, 8, 10, 12),
        *(15, 16),
    ]
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in weights(copied / "checkpoints/step-00000012").items()
    )
    train(copied, resume="auto", changes={"train.steps": 16})  # and it is the run's recipe now
    assert capsys.readouterr() == ("", ""), "quiet"


def test_fewer_steps_than_are_made(finished: Path) -> None:
    with pytest.raises(ConfigError, match="train: a budget of 8 steps is less than the 12 that the run has made"):
        train(finished, resume=True, allow_changes=True, changes={"train.steps": 8})


MODEL = "Adam with 2 moments of encoder+decoder"


def test_changed_optimizer_settings_are_the_ones_used(copied: Path) -> None:
    train(copied, resume=True, allow_changes=True, changes={"train.steps": 13, "optimizer.model.betas": [0.1, 0.2]})
    groups = checkpoint.find(copied / "checkpoints").state["optimizers"][MODEL]["param_groups"]
    assert [group["betas"] for group in groups] == [(0.1, 0.2)]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"encoder.network.hidden": [9]}, r"encoder/trunk\.layers\.0\.weight is \(9, 64\) now, and \(8, 64\) there"),
        (
            {"decoder.network.hidden": [8, 8]},
            r"decoder/trunk\.\S+ is .* now, and .* there \(and \d more\)",
        ),
    ],
)
def test_other_shapes_cannot_be(finished: Path, changes: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong) as refused:
        train(finished, resume=True, allow_changes=True, changes=changes)
    assert len(refused.value.lines) == 1


@pytest.mark.parametrize("table", [{"type": "sgd"}, {"type": "rmsprop", "momentum": 0.9}], ids=str)
def test_another_optimizer_cannot_be(finished: Path, table: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"out: .* cannot be resumed with this recipe: it has no optimizer '(SGD|RMSprop) with"
    ):
        train(finished, resume=True, allow_changes=True, changes={"optimizer.model": table})


def test_changes_are_allowed_only_to_a_run_that_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"allow_changes: .*resume"):
        train(tmp_path / "run", allow_changes=True)


# --- nothing to go on from yet ----------------------------------------------------------------------------------------


def test_resume_starts_where_nothing_is(tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run", resume=True, quiet=False)
    assert capsys.readouterr().err.startswith(f"jointgen: {tmp_path}/run holds no run yet: it starts\n")
    assert logged(tmp_path / "run") == logged(finished)
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "done"


def ended_early(out: Path, **changes: Any) -> None:
    """A run that ended after step 5, which it logged, and before a checkpoint."""

    def die() -> int:
        raise Killed

    with pytest.raises(Killed):
        train(out, changes={"train.log_every": 1, "train.checkpoint_every": None, **changes}, stop=die)
    assert not (out / "checkpoints").exists() or not list((out / "checkpoints").iterdir())


class Killed(BaseException):
    """Ends a run as a kill does: nothing catches it."""


def test_resume_starts_again_what_ended_before_its_first_checkpoint(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain `run` refuses and names the way; --resume takes it, and what the first attempt logged is gone."""
    out = tmp_path / "run"
    ended_early(out)
    (out / "metrics.jsonl").write_text("noise\n")
    with pytest.raises(ConfigError, match=r"no checkpoint\); give another out=, resume=.auto. to start it again"):
        train(out)
    capsys.readouterr()
    train(out, resume=True, quiet=False)
    said = capsys.readouterr().err
    assert said.startswith(f"jointgen: {out} holds no checkpoint: the run ended before its first, and starts again")
    assert "train.log_every: 1 -> 4, train.checkpoint_every: not set -> 4" in said
    assert logged(out) == logged(finished)
    assert (out / "recipe.toml").read_text() == (finished / "recipe.toml").read_text()
    mine, theirs = (weights(run / "checkpoints/step-00000012") for run in (out, finished))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_damaged_evaluation_is_told_before_more_is_trained(copied: Path) -> None:
    """The page shows it at the end; a damaged summary is written again, and is no reason to refuse."""
    (copied / "evaluation.json").write_text("noise")
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"evaluation\.json: is damaged"):
        train(copied, resume=True, allow_changes=True, changes={"train.steps": 14})
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before
    (copied / "evaluation.json").unlink()
    (copied / "summary.json").write_text("noise")
    assert train(copied, resume=True, allow_changes=True, changes={"train.steps": 14}).summary["step"] == 14


def test_damaged_checkpoints_are_not_started_over(copied: Path) -> None:
    for manifest in copied.glob("checkpoints/*/manifest.json"):
        manifest.unlink()
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        train(copied, resume=True)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


# --- a finished run --------------------------------------------------------------------------------------------------


def test_a_finished_run_is_left_alone(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    done = train(finished, resume=True, quiet=False)
    assert capsys.readouterr().err == f"jointgen: {finished} is finished (step 12); nothing was done\n"
    assert done.metrics["elbo"]["n"] == 32
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


@pytest.mark.parametrize(
    "lost",
    [
        ["report.html"],
        ["samples/samples-step-00000012.png"],
        ["samples/reconstructions-step-00000012.png", "report.html"],
    ],
)
def test_what_a_finished_run_lacks_is_written(
    lost: list[str], copied: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in lost:
        (copied / name).unlink()
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.suffix in (".json", ".jsonl")}
    train(copied, resume=True, quiet=False)
    said = f"jointgen: {copied} is finished (step 12); written again: {', '.join(lost)}\n"
    assert capsys.readouterr().err == said
    for name in lost:
        assert (copied / name).stat().st_size > 0
        assert name == "report.html" or (copied / name).read_bytes() == (finished / name).read_bytes()
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    "summary", [b"", b"noise", b'{"status": "done", "step": 12}', b'{"status": "done", "step": 8}']
)
def test_a_summary_that_says_nothing_is_written_again(
    summary: bytes, copied: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "summary.json").write_bytes(summary)
    train(copied, resume=True)
    found = [json.loads((run / "summary.json").read_text()) for run in (copied, finished)]
    assert found[0]["status"] == "done" and found[0]["metrics"] == found[1]["metrics"]
    said = capsys.readouterr().err
    assert said.startswith(f"jointgen: {copied}/summary.json: is damaged") == (not summary.startswith(b"{"))


def test_the_page_of_an_earlier_end_does_not_stay(copied: Path) -> None:
    """A run that goes on is not what its page shows; it has the new one at its new end."""
    seen = []

    def look() -> int:
        seen.append((copied / "report.html").exists())
        return 0

    train(copied, resume=True, allow_changes=True, changes={"train.steps": 14}, stop=look)
    assert not any(seen) and "step-00000014" in (copied / "report.html").read_text()


def test_without_its_summary_it_is_finished_again(copied: Path, finished: Path) -> None:
    """Killed after the last step and before summary.json."""
    (copied / "summary.json").write_text('{"status": "running", "step": 0}')
    shutil.rmtree(copied / "samples")
    train(copied, resume=True)
    metrics = [json.loads((run / "summary.json").read_text())["metrics"] for run in (copied, finished)]
    assert metrics[0] == metrics[1]
    assert sorted(path.name for path in (copied / "samples").iterdir()) == [
        "reconstructions-step-00000012.png",
        "samples-step-00000012.png",
    ]


# --- damage ----------------------------------------------------------------------------------------------------------


def test_resume_passes_over_a_damaged_one_and_says_so(
    copied: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(copied / "checkpoints/step-00000012/encoder.safetensors")
    train(copied, resume=True)
    assert capsys.readouterr().err == (
        "jointgen: step-00000012 is damaged (encoder.safetensors: contents differ from what was written);"
        " going on from step-00000008\n"
    )
    mine, theirs = (
        weights(copied / "checkpoints/step-00000012"),
        weights(finished / "checkpoints/step-00000012"),
    )
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_tensor_of_another_type_is_no_weight_to_resume_with(copied: Path) -> None:
    """It would be cast. `load` takes it: models are used in other precisions than they were trained in."""
    newest = copied / "checkpoints/step-00000012"
    file = newest / "encoder.safetensors"
    tensors = load(file.read_bytes())
    name = next(iter(tensors))
    tensors[name] = tensors[name].to(torch.float16)
    file.write_bytes(save(tensors))
    reseal(newest)
    line = f"encoder/{name} is torch.float32 now, and torch.float16 there"
    with pytest.raises(ConfigError, match=re.escape(line)):
        train(copied, resume=True, changes={"train.steps": 16}, allow_changes=True)
    assert jointgen.load(copied).checkpoint == "step-00000012"


def test_a_run_goes_on_in_another_precision(copied: Path) -> None:
    changes = {"train.steps": 14, "train.precision": "fp64"}
    assert train(copied, resume=True, changes=changes, allow_changes=True).summary["step"] == 14


@pytest.mark.parametrize("file", ["latest", "summary.json"])
def test_a_newest_checkpoint_that_was_removed_is_said(copied: Path, file: str) -> None:
    shutil.rmtree(copied / "checkpoints/step-00000012")
    (copied / ("summary.json" if file == "latest" else "checkpoints/latest")).unlink()
    line = f"{copied}/checkpoints/step-00000012: is missing, and {file} names it; step-00000008 is used"
    with pytest.warns(UserWarning, match=re.escape(line)) as said:
        jointgen.load(copied)
    assert len(said) == 1


def test_load_passes_over_a_damaged_one_and_warns(copied: Path) -> None:
    (copied / "checkpoints/step-00000012/encoder.safetensors").unlink()
    with pytest.warns(UserWarning, match=r"step-00000012 is damaged \(encoder.*\); step-00000008 is used"):
        jointgen.load(copied)
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors: no such file\nthe newest whole one is .*08$"):
        jointgen.load(copied, checkpoint="step-00000012")


def test_commands_say_what_they_pass_over(copied: Path, say: Any) -> None:
    flip(copied / "checkpoints/step-00000012/manifest.json")
    said = say("eval", copied, "--metrics", "rmse")
    assert said.status == 0
    (line,) = said.problems
    assert line.startswith("jointgen: step-00000012 is damaged (manifest.json: ") and line.endswith(
        "step-00000008 is used"
    )
    said = say("eval", copied, "--metrics", "rmse", "--checkpoint", "step-00000012")
    assert said.status == 1
    assert said.problems[-1] == f"jointgen: the newest whole one is {copied}/checkpoints/step-00000008"


def test_a_checkpoint_that_is_not_there(finished: Path, say: Any) -> None:
    problem = say("eval", finished, "--checkpoint", "step-00000013").refusal
    assert problem.startswith(f"--checkpoint: 'step-00000013' is not in {finished}/checkpoints; did you mean 'step-")
    assert "train.keep_best" in say("eval", finished, "--checkpoint", "best").refusal


def test_a_checkpoint_by_name(finished: Path) -> None:
    weight = dict(jointgen.load(finished, checkpoint="step-00000004").parts.modules.named_parameters())
    saved = weights(finished / "checkpoints/step-00000004")["ema.encoder/trunk.layers.0.weight"]
    assert torch.equal(weight["encoder.trunk.layers.0.weight"], saved)


# --- the best one ----------------------------------------------------------------------------------------------------


def measure(name: str, better: Any = None, values: Any = lambda batch: batch) -> MetricFigure:
    collects = () if values is None else (per_row(name, values),)
    return MetricFigure(name, "nats", "", collects, note="no density", better=better)


@pytest.mark.parametrize(
    ("better", "figures", "best"),
    [
        ("higher", [1.0, 3.0, float("nan"), 3.0, 2.0], "step-2"),
        ("lower", [2.0, None, float("-inf"), 1.0, 1.0], "step-4"),
    ],
)
def test_the_best_by_hand(better: str, figures: list[float | None], best: str) -> None:
    """NaN, infinities and equal values are no improvement."""
    seen = BestCheckpoint("m", better)
    names = [f"step-{step}" for step in "12345"]
    improved = [seen.improved({"m": value}, name) for value, name in zip(figures, names, strict=True)]
    assert seen.checkpoint == best
    assert [name for name, better in zip(names, improved, strict=True) if better][-1] == best
    again = BestCheckpoint("m", better)
    again.load_state_dict(seen.state_dict())
    assert (again.value, again.checkpoint) == (seen.value, best)
    other = BestCheckpoint("n", better)
    other.load_state_dict(seen.state_dict())
    assert other.checkpoint is None


@pytest.mark.parametrize(
    ("name", "every", "message"),
    [
        ("elbo", None, "looks at evaluations, so train.eval_every must say how often"),
        ("elbbo", 5, "evaluations do not find 'elbbo'; did you mean 'elbo'"),
        ("bits", 5, r"this model has no 'bits' \(no density\)"),
        ("count", 5, "'count' does not say which way is better; known: elbo"),
    ],
)
def test_what_cannot_keep_the_best(name: str, every: int | None, message: str) -> None:
    measures = [measure("elbo", "higher"), measure("bits", "lower", None), measure("count")]
    with pytest.raises(ConfigError, match=rf"^train\.keep_best: {message}"):
        best_checkpoint_of(name, every, measures)


def test_the_best_one_stays(tmp_path: Path) -> None:
    """At a rate of 1e-30 nothing improves, so the first evaluation is the best; the last checkpoint alone stays too."""
    rates = {"optimizer.model.lr": 1e-30, "optimizer.critics.lr": 1e-30}
    changes = {**rates, "train.keep_best": "elbo", "train.keep_checkpoints": 1}
    done = train(tmp_path / "run", changes=changes)
    root = tmp_path / "run/checkpoints"
    assert (root / "best").read_text() == "step-00000005\n"
    assert sorted(path.name for path in root.iterdir()) == ["best", "latest", "step-00000005", "step-00000012"]
    assert done.summary["best"]["checkpoint"] == "step-00000005"
    assert done.summary["best"]["value"] == pytest.approx(events(tmp_path / "run", "eval/elbo")[0])
    assert checkpoint.find(root, "best").step == 5 and checkpoint.find(root).step == 12
    jointgen.load(tmp_path / "run", checkpoint="best")


def events(run: Path, name: str) -> list[float]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [event[name] for event in found if name in event]


# --- global generators, data -----------------------------------------------------------------------------------------


def test_the_callers_generators_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that draws from them gets the same numbers in every run of a seed, whatever was drawn before."""
    drawn: list[float] = []
    real = digits.Digits.open

    def noisy_open(self: Any, split: str) -> Any:
        rows = real(self, split)
        return Noisy(rows, drawn) if split == "train" else rows

    monkeypatch.setattr(digits.Digits, "open", noisy_open)
    found = []
    for n in range(2):
        torch.manual_seed(n)
        np.random.seed(n)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()
        drawn.clear()
        train(tmp_path / f"run{n}", changes={"train.steps": 2})
        assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
        found.append(drawn[-2:])  # of the two steps; the reads before them belong to the checks at the start
    assert found[0] == found[1] and len(set(found[0])) == 2


class Noisy:
    def __init__(self, rows: Any, drawn: list[float]):
        self.rows, self.drawn = rows, drawn

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Tensor) -> dict[str, Tensor]:
        if len(index) == SMALL["train.batch"]:
            self.drawn.append(float(torch.rand(())) + float(np.random.rand()))
        return self.rows.take(index)


def test_resume_reads_only_the_rows_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after 6 of 12 steps: 6 batches are left, and twice 4 rows, to look at and to try gradients on.

    All 1500 are read once, to see that they are those that the run began with.
    """
    taken: list[int] = []
    real = digits.Digits.open

    def counted_open(self: Any, split: str) -> Any:
        rows = real(self, split)
        return Counted(rows, taken) if split == "train" else rows

    monkeypatch.setattr(digits.Digits, "open", counted_open)
    calls = iter(range(100))
    with pytest.raises(StoppedError):
        train(tmp_path / "run", stop=lambda: 15 if next(calls) == 5 else 0)
    taken.clear()
    train(tmp_path / "run", resume=True)
    assert taken == [4, 4, 1500, *[16] * 6]


class Counted:
    def __init__(self, rows: Any, taken: list[int]):
        self.rows, self.taken = rows, taken

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Tensor) -> dict[str, Tensor]:
        self.taken.append(len(index))
        return self.rows.take(index)


# --- what plugins raise ----------------------------------------------------------------------------------------------


def test_what_a_plugin_raises_is_in_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After step 5 of 12, with checkpoints at every fourth. It is a fault, so it is raised as it is."""
    opened: list[Any] = []
    real = digits.Digits.open
    monkeypatch.setattr(digits.Digits, "open", lambda self, split: opened.append(real(self, split)) or opened[-1])
    steps: list[int] = []

    def breaks() -> int:
        steps.append(1)
        if len(steps) == 5:
            for rows in opened:
                rows.values["y"] = None
        return 0

    with pytest.raises(AttributeError):
        train(tmp_path / "run", stop=breaks)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["note"].startswith("AttributeError: 'NoneType' object has no attribute 'index_select' (")
    assert re.search(r"jointgen_data/common\.py:\d+, in TensorRows\.take\b.*\)$", summary["note"])
    monkeypatch.undo()
    assert train(tmp_path / "run", resume=True).summary["status"] == "done"


def test_a_summary_that_cannot_be_written_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks() -> int:
        monkeypatch.setattr(RunReporter, "write_summary", lambda *_: {}["x"])
        raise ZeroDivisionError("first")

    with pytest.raises(ZeroDivisionError, match="first") as caught:
        train(tmp_path / "run", stop=breaks)
    assert caught.value.__notes__ == ["summary.json could not say so: KeyError: 'x'"]


def test_an_interrupted_cell_leaves_no_running_run(tmp_path: Path) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", stop=interrupt)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["status"], summary["note"]) == ("failed", "interrupted at step 1")
    assert train(tmp_path / "run", resume=True).summary["status"] == "done"


def test_a_metric_that_raises_at_the_end_costs_its_own_figures(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All others and the page are there, the summary names it, and once it is mended --resume has its figures too."""

    def root(*_: object) -> Any:
        raise ZeroDivisionError("no rows")

    out, whole = tmp_path / "run", json.loads((finished / "summary.json").read_text())["metrics"]
    monkeypatch.setattr(reconstruction, "root", root)
    with pytest.raises(ComponentError, match=r"metric 'rmse' .* raises ZeroDivisionError: no rows") as failed:
        train(out)
    assert failed.value.exit_status == 1
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "failed" and "metric 'rmse'" in summary["note"]
    assert summary["note"].endswith('all other figures are there, and resume="auto" evaluates again')
    assert summary["metrics"].keys() == whole.keys()
    broken = {name for name, figure in summary["metrics"].items() if figure != whole[name]}
    assert broken == {"rmse", "code_rmse"} and summary["metrics"]["rmse"]["value"] is None
    assert (out / "report.html").stat().st_size > 0 and checkpoint.find(out / "checkpoints").step == 12
    monkeypatch.undo()
    train(out, resume=True)
    assert json.loads((out / "summary.json").read_text())["metrics"] == whole


@pytest.mark.parametrize(
    ("better", "bound", "logged", "line"),
    [
        ("higher", "lower", [30.0, 43.5, 40.0], "m was 43.5 at step 1,000 and is 38.2 at the end; train.keep_best"),
        ("higher", "lower", [41.1], "m was 41.1 at step 500 and "),  # 2.9 more; 2 errors of the difference are 2.83
        ("higher", "lower", [41.0], ""),
        ("higher", "lower", [43.1], "m was 43.1 at step 500 and "),
        ("higher", "lower", [30.0, 43.0, 40.0], ""),  # 4.8 more; the best of three is allowed 3.48 errors, 4.92
        ("lower", "upper", [43.5, 33.0], "m was 33 at step 1,000 and is 38.2 at the end; "),
        ("higher", None, [43.5], ""),
        ("higher", "lower", [], ""),
    ],
)
def test_a_better_bound_during_training_is_said(
    better: Any, bound: Any, logged: list[float], line: str, tmp_path: Path
) -> None:
    """An error of 1 nat on 100 rows each makes sqrt(2) of the difference."""
    log = RunLog(RunFolder(tmp_path).create(), [])
    for number, value in enumerate(logged, 1):
        log.add(500 * number, 0, 0.0, {"eval/m": value})
    last = Estimate(38.2, "nats", "", "test", 100, 1.0, bound, better=better)
    reporter = SimpleNamespace(folder=RunFolder(tmp_path), recipe=SimpleNamespace(eval=Eval(quick_rows=100)))
    found = RunReporter.passed_its_best(reporter, {"none": attrs.evolve(last, value=None), "m": last})  # type: ignore[arg-type]
    assert [one[: len(line)] for one in found] == ([line] if line else [])


def test_a_log_that_is_lost_in_the_last_evaluation_costs_no_figure(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The summary is there. To go on is refused until the log is moved away, and then what it has lost is said."""
    out, evaluate = tmp_path / "run", RunReporter.evaluate

    def lose_log(reporter: RunReporter, **options: Any) -> Any:
        if not options.get("quick"):
            (out / "metrics.jsonl").rename(tmp_path / "moved")
            (out / "metrics.jsonl").mkdir()
        return evaluate(reporter, **options)

    monkeypatch.setattr(RunReporter, "evaluate", lose_log)
    reason = f"{out}/metrics.jsonl: is a folder; expected a file"
    with pytest.raises(ConfigError, match=r"metrics\.jsonl: is a folder"):  # the page shows curves
        train(out)
    assert f"jointgen: {reason}\n" in capsys.readouterr().err
    summary, whole = (json.loads((run / "summary.json").read_text()) for run in (out, finished))
    assert (summary["status"], summary["metrics"]) == ("done", whole["metrics"])
    monkeypatch.undo()

    with pytest.raises(ConfigError) as refused:
        train(out, resume=True)
    assert str(refused.value) == f"{reason}; move it away, and the run goes on with a new log"
    (out / "metrics.jsonl").rmdir()
    train(out, resume=True)
    assert "has lost 5 of the 5 events that the run logged up to step 12" in capsys.readouterr().err
    assert (out / "report.html").is_file() and json.loads((out / "summary.json").read_text()) == summary


# --- signals ---------------------------------------------------------------------------------------------------------


def test_stopped_before_the_last_figures(tmp_path: Path, finished: Path) -> None:
    """A signal in the last evaluation ends the run at once; resuming writes what is missing."""
    calls = iter(range(100))
    with pytest.raises(StoppedError, match=r"stopped at step 12; resume=.auto. goes on from .*-00000012") as stopped:
        train(tmp_path / "run", stop=lambda: 15 if next(calls) == 13 else 0)  # 12 steps, then before and in it
    assert stopped.value.exit_status == 143
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "stopped"
    train(tmp_path / "run", resume=True)
    assert (
        json.loads((tmp_path / "run/summary.json").read_text())["metrics"]
        == (json.loads((finished / "summary.json").read_text())["metrics"])
    )


def test_python_may_train_in_any_thread_and_keeps_its_signal_handlers(tmp_path: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before, found = [signal.getsignal(n) for n in numbers], []
    during: list[Any] = []
    options = {"stop": lambda: during.append([signal.getsignal(n) for n in numbers]) or 0}
    thread = threading.Thread(
        target=lambda: found.append(train(tmp_path / "run", changes={"train.steps": 2}, **options))
    )
    thread.start()
    thread.join()
    assert found[0].summary["status"] == "done"
    assert during and all(seen == before for seen in during)


# --- its other files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, "was missing, and is written again"),
        (
            lambda path: path.write_text(path.read_text().replace("steps = 12", "steps = 13")),
            "was not that of the checkpoint (train.steps: 13 -> 12), and is written again",
        ),
    ],
)
def test_a_recipe_that_is_gone_is_written_again(
    copied: Path, damage: Callable[[Path], object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (copied / "recipe.toml").read_text()
    damage(copied / "recipe.toml")
    train(copied, resume=True, quiet=False)
    assert f"jointgen: {copied}/recipe.toml: {said}\n" in capsys.readouterr().err
    assert (copied / "recipe.toml").read_text() == whole


@pytest.mark.parametrize("name", ["recipe.toml", "metrics.jsonl", "evaluation.json"])
@pytest.mark.parametrize("damage", SPECIAL)
def test_what_is_no_file_of_a_run_is_refused_before_anything_is_trained(
    copied: Path, name: str, damage: Callable[[Path], object]
) -> None:
    damage(copied / name)
    before = {path: path.lstat().st_mtime_ns for path in copied.rglob("*")}
    with pytest.raises(ConfigError, match=rf"^{copied}/{name}: "):
        train(copied, changes={"train.steps": 14}, resume=True, allow_changes=True)
    assert {path: path.lstat().st_mtime_ns for path in copied.rglob("*")} == before


@pytest.mark.parametrize("name", ["checkpoints", "samples", "tensorboard"])
def test_a_run_that_goes_on_writes_through_no_link(copied: Path, tmp_path: Path, name: str) -> None:
    away = shutil.move(copied / name, tmp_path / "away")
    (copied / name).symlink_to(away)
    before = sorted(Path(away).rglob("*"))
    with pytest.raises(ConfigError, match=rf"{name}: is a link, and a run writes into its own folder only"):
        train(copied, changes={"train.steps": 14}, resume=True, allow_changes=True, quiet=False)
    assert sorted(Path(away).rglob("*")) == before


def test_events_that_the_log_has_lost_are_said(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (copied / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (copied / "metrics.jsonl").write_bytes(b"".join(lines[:-1]))
    train(copied, changes={"train.steps": 14}, resume=True, allow_changes=True, quiet=False)
    lost = f"has lost 1 of the {len(lines)} events that the run logged up to step 12"
    assert f"jointgen: {copied}/metrics.jsonl: {lost}" in capsys.readouterr().err


# --- a checkpoint that is whole, and not of such a run --------------------------------------------------------


@pytest.mark.parametrize(
    "name, edit",
    [
        ("window", lambda state: state.update(steps="x")),
        ("window", lambda state: state.update(steps=-1)),
        ("window", lambda state: state.update(steps=True)),
        ("window", lambda state: state["rows"].append({"names": ["a"], "at": ["1"], "rows": torch.ones(1, 1)})),
        ("window", lambda state: state["rows"].append({"names": ["a"], "at": [1], "rows": torch.ones(1, 2)})),
        ("randomness", lambda state: state.pop("python")),
        ("randomness", lambda state: state.update(numpy="text")),
    ],
)
def test_a_state_beside_tensors_is_one_line(copied: Path, name: str, edit: Callable[[Any], object]) -> None:
    path = copied / "checkpoints/step-00000012"
    tensors = safetensors.torch.load((path / f"{name}.safetensors").read_bytes())
    state = tensor_tree.parse((path / f"{name}.json").read_bytes(), tensors)
    edit(state)
    tensors = {}
    (path / f"{name}.json").write_text(json.dumps(tensor_tree.split(state, tensors, name)))
    (path / f"{name}.safetensors").write_bytes(safetensors.torch.save(tensors))
    reseal(path)
    with pytest.raises(CheckpointError) as caught:
        train(copied, resume=True)
    assert str(caught.value).startswith(f"checkpoint {path}") and "\n" not in str(caught.value)


def edit_progress(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the plain values of a checkpoint's progress.json, and seal the checkpoint again."""
    state = tensor_tree.parse((path / "progress.json").read_bytes(), {})
    edit(state)
    (path / "progress.json").write_text(json.dumps(tensor_tree.split(state, {}, "")))
    reseal(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda state: state.clear(),
        lambda state: state.update(step=11),
        lambda state: state.update(planned=[13]),
        lambda state: state.update(wall_s="x"),
        lambda state: state.update(init_from=5),
        lambda state: state["best"].update(value=1.0, checkpoint="../../x"),
        lambda state: state["health"][0].update(events=[1, "a"]),
    ],
)
def test_a_state_of_something_else_is_one_line(copied: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = copied / "checkpoints/step-00000012"
    edit_progress(path, edit)
    before = {file: file.read_bytes() for file in copied.rglob("*") if file.is_file()}
    with pytest.raises(CheckpointError) as caught:
        train(copied, resume=True)
    assert {file: file.read_bytes() for file in copied.rglob("*") if file.is_file()} == before
    assert str(caught.value).startswith(f"checkpoint {path} holds what no such run writes (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "edit",
    [
        lambda state: state.pop("step"),
        lambda state: state.update(step="12"),
        lambda state: state.update(step=True),
        lambda state: state.update(ends=None),
        lambda state: state.update(ends=[]),
        lambda state: state.update(ends=["a", "b"]),
        lambda state: state.update(ends=[11]),
        lambda state: state.update(ends=[13]),
        lambda state: state.update(planned=[1]),
        lambda state: state.update(wall_s=None),
        lambda state: state.update(wall_s=1e308),
        lambda state: state.update(wall_s=math.nan),
        lambda state: state.update(init_from={"run": "r"}),
        lambda state: state.update(log_events="x"),
        lambda state: state.update(log_events=-5),
        lambda state: state.update(patience=7),
        lambda state: state["patience"].update(best=["a"]),
        lambda state: state["patience"].update(waited="x"),
        lambda state: state.update(best=7),
        lambda state: state["best"].update(value="x", checkpoint="step-00000004"),
        lambda state: state["best"].update(value=1.0),
        lambda state: state.update(health=[7]),
        lambda state: state["health"][0].update(step="s"),
        lambda state: state["health"][0].update(events=[{"saturation": "a"}]),
        lambda state: state["health"][0].update(events=[{"negative_log_mean_exp": 5.0}] * 50),
        lambda state: state["health"][0].update(name=[]),
        lambda state: state["health"][0].update(more=1),
    ],
)
def test_a_plain_state_is_read_strictly_before_anything_is_set(
    finished: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    held = checkpoint.find(finished / "checkpoints").state["progress"]
    edit(held)
    parts: list[tuple[Any, Any]] = [
        (RunProgress(0, 0.0, [12], [12]), held),
        (EarlyStopping(None), held["patience"]),
        (BestCheckpoint(), held["best"]),
        (CriticTrust(9), held["health"]),
    ]
    refused = 0
    for item, state in parts:
        before = item.state_dict()
        try:
            item.load_state_dict(state)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error) and item.state_dict() == before
    assert refused == 1


def test_the_checkpoint_before_one_of_something_else_goes_on(copied: Path) -> None:
    shutil.rmtree(copied / "checkpoints/step-00000012")
    assert train(copied, resume=True).summary["step"] == 12


def test_states_of_earlier_versions_are_read(copied: Path) -> None:
    """They do not say how many events were logged, nor what was watched; a loss may have been NaN."""

    def age(state: dict[str, Any]) -> None:
        del state["log_events"], state["patience"]["watched"]
        state["patience"]["best"] = [math.nan, 1]

    edit_progress(copied / "checkpoints/step-00000012", age)
    train(copied, resume=True, allow_changes=True, changes={"train.steps": 14})
    edit_progress(copied / "checkpoints/step-00000014", age)
    assert train(copied, resume=True, changes={"train.steps": 14}).summary["step"] == 14


def drop_state(checkpoint: Path, name: str) -> None:
    def forget(manifest: dict[str, Any]) -> None:
        manifest["state"].remove(name)
        del manifest["files"][f"{name}.json"], manifest["files"][f"{name}.safetensors"]

    reseal(checkpoint, forget)


def test_a_checkpoint_without_a_state_is_one_line(copied: Path) -> None:
    path = copied / "checkpoints/step-00000012"
    drop_state(path, "optimizers")
    with pytest.raises(CheckpointError, match=r"holds what no such run writes \(KeyError: .optimizers.\)"):
        train(copied, resume=True)


def test_what_an_older_checkpoint_does_not_know_is_said(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drop_state(copied / "checkpoints/step-00000012", "window")
    train(copied, resume=True)
    assert "jointgen: step-00000012 does not know window, which begin anew\n" in capsys.readouterr().err


# --- a full disk -----------------------------------------------------------------------------------------------------


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("module", "name", "where", "newest"),
    [
        (checkpoint, "write_flushed", "checkpoint {}/checkpoints/step-00000008", 4),
        (run_log, "append_text", "{}/metrics.jsonl", 4),
        (SummaryWriter, "add_scalar", "{}/tensorboard", 4),
        (pictures, "replace_bytes", "{}/samples", 12),
    ],
)
def test_a_full_disk_ends_the_run_with_one_line(
    module: Any, name: str, where: str, newest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the fifth of 12 steps, with checkpoints at every fourth: the last one that was written is whole."""
    out = tmp_path / "run"
    steps: list[int] = []

    def fills_up() -> int:
        steps.append(1)
        if len(steps) == 5:
            monkeypatch.setattr(module, name, full, raising=False)
        return 0

    with pytest.raises((CheckpointError, WriteError)) as failed:
        train(out, stop=fills_up)
    said = f"{where.format(out)} could not be written: the disk is full"
    assert str(failed.value).split("\n")[0] == said
    assert failed.value.exit_status == 1
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "failed" and summary["note"].startswith(said)
    assert checkpoint.find(out / "checkpoints").step == newest
    monkeypatch.undo()
    train(out, resume=True)


# --- several processes -----------------------------------------------------------------------------------------------


class Two:
    """The second of two processes, of which the first holds what the second does, plus one."""

    rank, world, device = 1, 2, torch.device("cpu")

    def gather(self, tensor: Tensor) -> Tensor:
        return torch.cat([tensor + 1, tensor])


def test_every_process_has_its_own_generators_back() -> None:
    """The first of the two has the seed 8 of torch's generator, when the second has 7."""
    of = {seed: torch.Generator().manual_seed(seed).get_state() for seed in (7, 8)}

    class Seeded(Two):
        def gather(self, tensor: Tensor) -> Tensor:
            first = of[8][None] if torch.equal(tensor[0], of[7]) else tensor
            return torch.cat([first, tensor])

    generators = GlobalGenerators(0, Seeded())  # type: ignore[arg-type]
    before = torch.get_rng_state()
    torch.manual_seed(7)
    saved = generators.state_dict()
    torch.set_rng_state(before)
    assert torch.equal(saved["torch"], torch.stack([of[8], of[7]]))
    again = GlobalGenerators(0, Two())  # type: ignore[arg-type]
    again.load_state_dict(saved)
    with again.seeded():
        assert torch.equal(torch.get_rng_state(), of[7])
    assert torch.equal(torch.get_rng_state(), before) and again.notes == []


def test_another_number_of_processes_leaves_the_generators_alone(finished: Path) -> None:
    saved = checkpoint.find(finished / "checkpoints").state["randomness"]
    fresh, two = GlobalGenerators(0, Two()), GlobalGenerators(0, Two())  # type: ignore[arg-type]
    two.load_state_dict(saved)
    (note,) = two.notes
    assert note.startswith("the checkpoint was written by 1 process(es) and this run has 2: ")
    drawn = []
    for generators in (fresh, two):
        with generators.seeded():
            drawn.append(torch.get_rng_state())
    assert torch.equal(*drawn)
