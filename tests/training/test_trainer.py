"""The training loop: repeatability, resume, stages, stopping, what is written."""

from __future__ import annotations

import json
import math
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import logged, stop_after, train_small, weights

import jointgen
from jointgen.contracts.figures import Estimate
from jointgen.errors import ConfigError, JointgenError, NonFiniteError, StoppedError
from jointgen.objectives import E, Objective, Stage, elbo, p, q
from jointgen.runs import checkpoint
from jointgen.runtime.workers import Workers
from jointgen.training.log_window import MOST_HELD, LogWindow
from jointgen.training.stopping import EarlyStopping

RUN: dict[str, Any] = {
    "train.log_every": 10,
    "train.eval_every": 20,
    "train.sample_every": 20,
    "train.checkpoint_every": 10,
}


def train(out: Path, objective: Any = None, stop: Any = lambda: 0, resume: Any = False, **changes: Any) -> Any:
    """resume: "changed" for one that allows changes."""
    overrides = {**RUN, **{key.replace("__", "."): value for key, value in changes.items()}}
    how = {"resume": bool(resume), "allow_changes": resume == "changed"}
    return train_small(out, overrides, objective=objective, stop=stop, **how)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 40 steps."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(out, train__steps=40)
    return out


def test_resume_continues_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    """Stopped at step 17, between log events, evaluations and checkpoints; then run to 40."""
    out = tmp_path / "resumed"
    with pytest.raises(StoppedError, match="stopped at step 17") as stopped:
        train(out, stop=stop_after(17), train__steps=40)
    assert stopped.value.exit_status == 128 + 15
    assert json.loads((out / "summary.json").read_text())["status"] == "stopped"
    train(out, resume=True, train__steps=40)
    last = "checkpoints/step-00000040"
    mine, theirs = weights(out / last), weights(whole / last)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    resumed, uninterrupted = (checkpoint.load(folder / last).state for folder in (out, whole))
    torch.testing.assert_close(resumed["optimizers"], uninterrupted["optimizers"], rtol=0, atol=0)
    assert resumed["progress"]["ends"] == uninterrupted["progress"]["ends"] == [40]
    assert resumed["progress"]["patience"] == uninterrupted["progress"]["patience"]
    assert logged(out) == logged(whole)
    for picture in (whole / "samples").iterdir():
        assert (out / "samples" / picture.name).read_bytes() == picture.read_bytes()


def test_resolved_recipe_repeats_the_run(whole: Path, tmp_path: Path) -> None:
    jointgen.run(whole / "recipe.toml", out=tmp_path / "again", quiet=True)
    last = "checkpoints/step-00000040"
    mine, theirs = weights(tmp_path / "again" / last), weights(whole / last)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert (tmp_path / "again" / "recipe.toml").read_text() == (whole / "recipe.toml").read_text()


def test_seed_decides_the_weights(whole: Path, tmp_path: Path) -> None:
    train(tmp_path / "other", train__steps=10, seed=1)
    mine = weights(tmp_path / "other" / "checkpoints/step-00000010")
    theirs = weights(whole / "checkpoints/step-00000030")
    name = "encoder/trunk.layers.0.weight"
    assert mine[name].shape == theirs[name].shape and not torch.equal(mine[name], theirs[name])


def test_run_folder_holds_what_scripts_rely_on(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["status"] == "done" and summary["step"] == 40 and summary["images_seen"] == 40 * 16
    assert {"value", "unit", "estimator", "split", "n"} <= summary["metrics"]["elbo"].keys()
    assert summary["metrics"]["elbo"]["n"] == 32 and summary["metrics"]["elbo"]["bound"] == "lower"
    assert {"step", "images_seen", "wall_s"} <= json.loads((whole / "metrics.jsonl").read_text().splitlines()[0]).keys()
    assert (whole / "checkpoints/latest").read_text().strip() == "step-00000040"
    assert (whole / "samples/samples-step-00000040.png").stat().st_size > 0
    assert (whole / "samples/reconstructions-step-00000020.png").stat().st_size > 0
    assert list((whole / "tensorboard").iterdir())
    assert tomllib.loads((whole / "recipe.toml").read_text())["train"]["steps"] == 40


def test_a_run_is_never_overwritten(whole: Path) -> None:
    with pytest.raises(jointgen.ConfigError, match="already holds a run \\(status done, step 40\\)"):
        train(whole, train__steps=40)


def test_resume_with_another_recipe_is_refused(whole: Path) -> None:
    with pytest.raises(jointgen.ConfigError, match="another recipe"):
        train(whole, resume=True, train__steps=41)


def test_budget_in_images(tmp_path: Path) -> None:
    """160 images at 16 a step are 10 steps."""
    run = train(tmp_path / "run", train__steps=None, train__images=160)
    assert run.summary["step"] == 10


def test_a_term_that_breaks_stops_the_run(tmp_path: Path) -> None:
    """A learning rate of 1000 breaks the third step: its number and its term are named, and nothing is saved."""
    with pytest.raises(NonFiniteError, match=r"step 2: 'model/E\[.*' is not finite.*no checkpoint yet"):
        train(tmp_path / "run", train__steps=40, optimizer__model={"type": "sgd", "lr": 1000.0})
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "failed"
    assert not list((tmp_path / "run/checkpoints").glob("step-*"))


def test_a_term_that_breaks_does_not_pass_for_early_stopping(tmp_path: Path) -> None:
    """NaN is no improvement; the evaluation that would end the stage comes before the log would have noticed."""
    settings = {"train__log_every": 1000, "train__eval_every": 2, "train__early_stopping": {"patience": 1}}
    with pytest.raises(NonFiniteError, match=r"step 2: 'model/E\[.*' is not finite"):
        train(tmp_path / "run", train__steps=40, optimizer__model={"type": "sgd", "lr": 1000.0}, **settings)
    assert not list((tmp_path / "run/checkpoints").glob("step-*"))


def test_a_run_whose_processes_drift_apart_says_so_in_its_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differ(self: Workers, named: object) -> None:
        raise JointgenError("processes no longer agree")

    monkeypatch.setattr(Workers, "check_replicas", differ)
    with pytest.raises(JointgenError, match="no longer agree"):
        train(tmp_path / "run", train__steps=3)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["status"], summary["note"]) == ("failed", "processes no longer agree")


def test_average_of_weights_by_hand(tmp_path: Path) -> None:
    """After one step with ema 0.99 the decay is min(0.99, (1 + 0) / (10 + 0)) = 0.1: 0.1 start + 0.9 now."""
    train(tmp_path / "one", train__steps=1)
    saved = checkpoint.load(tmp_path / "one/checkpoints/step-00000001")
    name = "trunk.layers.0.weight"
    now, average = saved.parts["encoder"][name], saved.parts["ema.encoder"][name]
    frozen = start_of(tmp_path)["encoder/trunk.layers.0.weight"]
    assert torch.allclose(average, 0.1 * frozen + 0.9 * now, atol=1e-7)


def start_of(tmp_path: Path) -> dict[str, torch.Tensor]:
    """The weights at the start: those of a run whose first step moves nothing that a float can show."""
    train(tmp_path / "start", train__steps=1, optimizer__model__lr=1e-30, optimizer__critics__lr=1e-30)
    return weights(tmp_path / "start/checkpoints/step-00000001")


def test_stages_divide_the_budget(tmp_path: Path) -> None:
    """A quarter of 40 steps trains the bound alone: no figure of the critic before step 10, and one after."""
    train(tmp_path / "run", train__steps=40, objective__vae_first=0.25)
    events = [e for e in logged(tmp_path / "run") if "model/loss" in e]
    assert [("T/loss" in e) for e in events] == [e["step"] > 10 for e in events]


def test_stages_composed_in_python_are_written_and_repeat(tmp_path: Path) -> None:
    """Both stages, their shares and the second's fewer terms survive the way through the recipe's text."""
    stages = (Stage("bound", Objective.of(elbo(q, p)), 0.5), Stage("fit", Objective.of(E(q.xz, p.log_x_given_z))))
    run = train(tmp_path / "run", objective=stages, train__steps=20)
    text = tomllib.loads((tmp_path / "run/recipe.toml").read_text())["objective"]
    assert [s["share"] for s in text["stages"]] == [0.5, 0.5]
    assert text["stages"][1]["updates"]["model"]["maximize"] == "E[q(x,z)](log p(x|z))"
    assert run.summary["step"] == 20


def test_early_stopping_ends_a_stage_and_keeps_the_next_ones_length() -> None:
    patience = EarlyStopping(2)
    assert not patience.should_stop([3.0, 1.0])
    assert not patience.should_stop([2.0, 2.0])  # one loss improved
    assert not patience.should_stop([2.5, 2.0])  # first evaluation without
    assert patience.should_stop([2.0, 1.0])  # second: equal is no improvement
    patience.restart()
    assert not patience.should_stop([9.0, 9.0])


def test_losses_of_other_figures_are_not_restored() -> None:
    """A checkpoint of a run whose metrics watched other figures says nothing about these losses."""
    saved = EarlyStopping(2, ["of_x", "of_z"])
    assert not saved.should_stop([3.0, 1.0]) and not saved.should_stop([3.0, 1.0])
    same, other = EarlyStopping(2, ["of_x", "of_z"]), EarlyStopping(2, ["of_x"])
    same.load_state_dict(saved.state_dict())
    other.load_state_dict(saved.state_dict())
    assert same.should_stop([3.0, 1.0])  # the second evaluation that is no better
    assert not other.should_stop([3.0])  # the first of its own


def test_a_stage_without_a_step_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run", train__steps=2, objective__vae_first=1.0)
    assert "stage 'asvae' has no step: its share of the run is too small" in capsys.readouterr().err


def test_early_stopping_watches_what_it_is_told_to() -> None:
    """An ELBO that rises is an improvement; rmse, which the table does not name, counts for nothing."""
    rule = EarlyStopping(2, ["elbo"], higher=["elbo"])

    def after(elbo: float | None, n: int = 8) -> bool:
        found = {name: Estimate(value, "", "", "test", n) for name, value in (("elbo", elbo), ("rmse", 1.0))}
        return rule.should_stop(rule.losses_of(found))

    assert [after(value) for value in (-100.0, -90.0, -95.0, -89.0, -91.0, None)] == [False] * 5 + [True]


def test_early_stopping_refuses_figures_that_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(jointgen.ConfigError) as error:
        train(
            tmp_path / "run",
            train__steps=10,
            train__eval_every=5,
            train__early_stopping={"watch": ["reconstruction", "elbo", "distortion", "rate"]},
        )
    first, second = error.value.lines
    assert first.startswith("train.early_stopping.watch[0]: evaluations do not find 'reconstruction'")
    assert second.startswith("train.early_stopping.watch[3]: 'rate' does not say which way is better")


def test_early_stopping_needs_evaluations(tmp_path: Path) -> None:
    with pytest.raises(jointgen.ConfigError, match=r"train\.early_stopping: .*train\.eval_every"):
        train(tmp_path / "run", train__steps=10, train__early_stopping={"patience": 1}, train__eval_every=None)


def test_early_stopping_shortens_the_run(tmp_path: Path) -> None:
    """A rate of 1e-30 improves nothing: evaluations at 5 (first), 10 (waited 1), so the run ends at step 10 of 40."""
    run = train(
        tmp_path / "run",
        train__steps=40,
        train__eval_every=5,
        train__early_stopping={"patience": 1},
        optimizer__model__lr=1e-30,
        optimizer__critics__lr=1e-30,
    )
    assert run.summary["step"] == 10


STUCK = {  # rates that improve nothing, in two stages of 20 steps
    "train__steps": 40,
    "train__eval_every": 5,
    "train__log_every": 1,
    "objective__vae_first": 0.5,
    "optimizer__model__lr": 1e-30,
    "optimizer__critics__lr": 1e-30,
}


def test_each_stage_has_a_patience_of_its_own(tmp_path: Path) -> None:
    """EarlyStopping 4: the first stage's evaluations at 5, 10, 15 and 20 wait three times, and its length ends it. The
    second's at 25 (first), 30, 35 would have made four and more if they went on counting."""
    run = train(tmp_path / "run", train__early_stopping={"patience": 4}, **STUCK)
    assert run.summary["step"] == 40


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"train__clip": 5.0}, 20),  # the second stage's evaluations at 15 (first) and 20
        ({"train__early_stopping": {"patience": 100}}, 30),  # its 20 steps from 10 on
    ],
    ids=str,
)
def test_a_stage_that_early_stopping_ended_stays_so(tmp_path: Path, changes: dict[str, Any], end: int) -> None:
    """A patience of 1 ends the first stage at 10 (5 is the first evaluation); stopped at 12, resumed otherwise."""
    out, settings = tmp_path / "run", {"train__early_stopping": {"patience": 1}, **STUCK}
    with pytest.raises(StoppedError, match="stopped at step 12"):
        train(out, stop=stop_after(12), **settings)
    run = train(out, resume="changed", **{**settings, **changes})
    assert run.summary["step"] == end
    trained = {event["step"]: "T/loss" in event for event in logged(out) if "model/loss" in event}
    assert trained == {step: step > 10 for step in range(1, end + 1)}


def test_window_averages_and_finds_the_first_non_finite_figure() -> None:
    window = LogWindow()
    window.add({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, step=7)
    window.add({"a": torch.tensor(3.0), "b": torch.tensor(float("nan"))}, step=8)
    window.add({"a": torch.tensor(float("inf")), "b": torch.tensor(0.0)}, step=9)
    assert window.first_non_finite() == (8, "b")
    calm = LogWindow()
    calm.add({"a": torch.tensor(1.0)}, step=0)
    calm.add({"a": torch.tensor(3.0), "c": torch.tensor(5.0)}, step=1)
    assert calm.means() == {"a": 2.0, "c": 5.0} and calm.first_non_finite() is None


@pytest.mark.parametrize("will_change", [False, True])
def test_window_keeps_the_figures_of_many_steps(will_change: bool) -> None:
    """More than are held one by one; those of a CUDA graph are overwritten by the next step."""
    window, memory = LogWindow(), torch.zeros(2)
    for step in range(2 * MOST_HELD + 3):
        figures = memory.copy_(torch.tensor([step, -2.0 * step])) if will_change else torch.tensor([step, -2.0 * step])
        window.add(dict(zip("ab", figures.unbind(), strict=True)), step, will_change=will_change)
    assert window.means() == {"a": MOST_HELD + 1, "b": -2 * MOST_HELD - 2}


def test_window_goes_on_from_its_state() -> None:
    """Cut anywhere, it ends with the same numbers; a broken figure stays known."""
    figures = [{"a": torch.tensor(0.1 * i), "b": torch.tensor(1.0 / i if i else math.inf)} for i in range(5)]
    whole, first, second = LogWindow(), LogWindow(), LogWindow()
    for step, row in enumerate(figures):
        whole.add(row, step)
        (first if step < 3 else second).add(row, step)
        if step == 2:
            second.load_state_dict(first.state_dict())
    assert second.means() == whole.means() and second.steps == 5
    assert second.first_non_finite() == whole.first_non_finite() == (0, "b")


def test_a_quiet_run_prints_nothing_and_its_repr_is_a_line(
    whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    found = {
        quiet: train_small(tmp_path / "run", {**RUN, "train.steps": 40}, resume=True, quiet=quiet)
        for quiet in (True, False)
    }
    printed = capfd.readouterr()
    assert printed.out == ""
    assert [line for line in printed.err.splitlines() if "is finished" in line] == printed.err.splitlines()
    assert len(printed.err.splitlines()) == 1  # that of the run which was not quiet
    assert repr(found[True]) == f"Run(path={tmp_path / 'run'!r}, record=<done, step 40>)"


def test_load_gives_the_averaged_model(whole: Path) -> None:
    model = jointgen.load(whole)
    saved = weights(whole / "checkpoints/step-00000040")
    weight = dict(model.parts.modules.named_parameters())["encoder.trunk.layers.0.weight"]
    assert torch.equal(weight, saved["ema.encoder/trunk.layers.0.weight"])
    assert model.sample(3).shape == (3, 1, 8, 8)
    codes = model.encode(model.sample(5))
    assert codes.shape == (5, 16)
    assert model.decode(codes).shape == (5, 1, 8, 8)
    assert model.elbo(model.sample(5)).shape == (5,)
    assert torch.equal(model.sample(2, seed=3), model.sample(2, seed=3))


def test_values_of_another_type_are_taken(whole: Path) -> None:
    """As encode and decode do it; a half is a half in any precision."""
    model, x = jointgen.load(whole), torch.full((3, 1, 8, 8), 0.5)
    assert torch.equal(model.elbo(x.double()), model.elbo(x))


def test_a_reading_that_nothing_has(whole: Path) -> None:
    with pytest.raises(ConfigError, match="reading: no conditional has 'smothed'; did you mean 'smoothed'"):
        jointgen.load(whole).sample(2, reading="smothed")


def test_a_run_in_float64_is_loaded_as_it_is(tmp_path: Path) -> None:
    """Rounded weights would have other figures than the run's own."""
    run = train(tmp_path / "run", train__steps=3, train__precision="fp64", train__ema=0.0)
    model, saved = jointgen.load(run.path), weights(run.path / "checkpoints/step-00000003")
    for name, parameter in model.parts.modules.named_parameters():
        part, key = name.split(".", 1)
        assert parameter.dtype == torch.float64 and torch.equal(parameter, saved[f"{part}/{key}"]), name
    x = run.model.sample(4)
    assert torch.equal(model.elbo(x), run.model.elbo(x))


def test_an_objective_that_pairs_rows_far_apart_begins(tmp_path: Path) -> None:
    """Four joints of one data source: one re-pairs its rows by a shift of four, and the check at the start has so
    many."""
    joints = {name: f"{name}(x) {name}(z|x)" for name in "rut"}
    bound = "E[q(x,z)](log p(x|z) + log p(z) - log q(z|x) - f)"
    more = " + ".join(f"E[{name}(x,z)](log p(x|z))" for name in joints)
    tables = {"type": "expression", "maximize": f"{bound} + {more}", "joints": joints}
    tables["ratios"] = {"f": "q(x,z) : q(x)q(z)"}
    changes = {"train.steps": 1, "train.pair_block": 16, "objective": tables}
    run = train_small(tmp_path / "run", {**RUN, **changes})
    assert run.summary["status"] == "done"
