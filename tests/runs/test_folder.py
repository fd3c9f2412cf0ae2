from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jointgen.contracts.figures import Estimate
from jointgen.errors import ConfigError, FileError
from jointgen.runs.folder import RunFolder
from jointgen.runs.log import RunLog
from jointgen.runs.log_file import LogEvent
from jointgen.runs.records import Summary


def logged(log: RunLog, steps: Iterable[int]) -> None:
    for step in steps:
        log.add(step, 10 * step, 0.5 * step, {"elbo_nats": -step / 3})


def log_in(path: Path) -> RunLog:
    return RunLog(RunFolder(path).create(), ["tensorboard"])


# --- the folder ---


def test_layout(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "x").create()
    folder.write_recipe("format = 1\n")
    folder.write_summary(Summary(status="running", step=0))
    with RunLog(folder) as log:
        logged(log, [1])
    names = {"recipe.toml", "metrics.jsonl", "summary.json", "checkpoints", "samples", "tensorboard"}
    assert {*os.listdir(folder.path)} == names
    assert RunFolder.open(folder.path).read_recipe() == "format = 1\n"


def test_a_handle_touches_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "x")
    assert not folder.holds_run() and folder.read_summary() is None and folder.read_log().events == []
    assert not folder.path.exists()


@pytest.mark.parametrize("status", ["running", "done", "failed", "stopped"])
def test_refuses_to_overwrite(tmp_path: Path, status: Any) -> None:
    folder = RunFolder(tmp_path / "x").create()
    folder.write_summary(Summary(status=status, step=4000))
    (folder.checkpoints / "step-00004000").mkdir()
    with pytest.raises(ConfigError) as caught:
        RunFolder(tmp_path / "x").goes_on(resume=False)
    assert str(caught.value) == (
        f"out: {tmp_path}/x already holds a run (status {status}, step 4000); "
        'give another out=, resume="auto" to go on, or overwrite=True to begin anew'
    )
    assert RunFolder(tmp_path / "x").goes_on(resume=True)


@pytest.mark.parametrize("left", ["recipe.toml", "metrics.jsonl", "checkpoints/step-00000001"])
def test_refuses_whatever_a_killed_run_left(tmp_path: Path, left: str) -> None:
    """What holds no checkpoint may start again, and what holds a damaged one goes on, or says that it cannot."""
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).touch()
    way = "to go on" if "step" in left else "to start it again"
    refused = rf'no summary\.json.*resume="auto" {way}, or overwrite=True to begin anew$'
    with pytest.raises(ConfigError, match=refused):
        RunFolder(tmp_path).goes_on(resume=False)
    assert RunFolder(tmp_path).goes_on(resume=True) == ("step" in left)


def test_a_checkpoint_that_was_never_finished_is_none(tmp_path: Path) -> None:
    (tmp_path / "checkpoints/.tmp-step-00000001").mkdir(parents=True)
    assert not RunFolder(tmp_path).goes_on(resume=True)
    (tmp_path / "checkpoints/.old-0-step-00000001").mkdir()  # killed between the renames of a step's two
    assert RunFolder(tmp_path).goes_on(resume=True)


@pytest.mark.parametrize(
    ("status", "step", "refused"),
    [("running", 0, False), ("failed", 7, False), ("running", 7, True), ("stopped", 7, True), ("done", 7, True)],
)
def test_a_run_whose_checkpoints_are_gone_is_not_started_over(
    tmp_path: Path, status: Any, step: int, refused: bool
) -> None:
    """Who fails before the first checkpoint has none; who was resumed, stopped or finished had one."""
    folder = RunFolder(tmp_path).create()
    folder.write_summary(Summary(status=status, step=step))
    if not refused:
        assert not folder.goes_on(resume=True)
        return
    with pytest.raises(ConfigError, match=rf"^out: .*\(status {status}, step 7\) without its checkpoints"):
        folder.goes_on(resume=True)


def test_an_empty_or_foreign_folder_will_do(tmp_path: Path) -> None:
    (tmp_path / "slurm.log").write_text("hello")
    RunFolder(tmp_path).create()
    RunFolder(tmp_path).create()  # made, but nothing of a run in it yet
    assert (tmp_path / "slurm.log").read_text() == "hello"


def test_open_wants_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a run folder \(it has no recipe\.toml\)"):
        RunFolder.open(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    for path in (tmp_path / "x", tmp_path / "x/y/z"):
        with pytest.raises(ConfigError, match=r"^out: .* cannot be made a run folder: .*/x is not a folder"):
            RunFolder(path).goes_on(resume=False)
    with pytest.raises(ConfigError, match=r"^out: .* cannot be made a run folder: .*File name too long"):
        RunFolder(tmp_path / ("n" * 300)).goes_on(resume=True)


def test_summary_is_strict_json(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path).create()
    fid = Estimate(float("nan"), "", "", "test", 3, float("inf"))
    folder.write_summary(Summary(status="done", step=3, metrics={"fid": fid}))
    text = json.loads(folder.summary.read_text(), parse_constant=pytest.fail)
    assert text["metrics"]["fid"] == {**fid.as_dict(), "value": None, "standard_error": None}
    assert os.listdir(tmp_path) != [] and not any(name.startswith(".tmp") for name in os.listdir(tmp_path))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("step", 10**18, "step: must be <= 1,000,000,000, got 1000000000000000000"),
        ("images_seen", 2**63, "images_seen: must be <= "),
        ("log_events", 10**18, "log_events: must be <= 10,000,000,000, got "),
        ("wall_s", 1e308, "wall_s: must be <= 1e+10, got 1e+308"),
        ("wall_s", -5.0, "wall_s: must be >= 0, got -5.0"),
    ],
)
def test_what_no_run_can_have_done_is_refused(tmp_path: Path, key: str, value: float, said: str) -> None:
    folder = RunFolder(tmp_path).create()
    folder.summary.write_text(json.dumps({"status": "done", "step": 3, key: value}))
    with pytest.raises(FileError) as refused:
        folder.read_summary()
    assert said in str(refused.value)


# --- the log ---


def test_one_object_per_event(tmp_path: Path) -> None:
    with log_in(tmp_path) as log:
        log.add(5, 640, 1.23456, {"elbo_nats": -101.25, "f1": float("nan"), "f2": float("-inf")})
    line = log.folder.metrics.read_text()
    assert line == '{"step": 5, "images_seen": 640, "wall_s": 1.235, "elbo_nats": -101.25, "f1": null, "f2": null}\n'
    assert log.folder.read_log().events == [LogEvent(5, 640, 1.235, {"elbo_nats": -101.25, "f1": None, "f2": None})]


def test_numbers_survive_exactly(tmp_path: Path) -> None:
    value = torch.rand((), generator=torch.Generator().manual_seed(0)).item() / 3
    with log_in(tmp_path) as log:
        log.add(1, 1, 0.0, {"x": value})
    assert log.folder.read_log().events[0].values["x"] == value


def test_tensorboard_shows_a_cut_back_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with log_in(tmp_path) as log:
        logged(log, range(1, 7))
    later = time.time() + 60  # event files are read in the order of the seconds in their names
    monkeypatch.setattr(time, "time", lambda: later)
    with log_in(tmp_path) as log:
        log.cut_back(4)
        log.add(5, 50, 9.0, {"elbo_nats": 7.0})
    events = EventAccumulator(str(log.folder.tensorboard)).Reload().Scalars("elbo_nats")
    assert [event.step for event in events] == [1, 2, 3, 4, 5]
    assert events[-1].value == 7.0


def test_no_event_file_without_a_log(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path).create()
    with RunLog(folder):
        folder.write_summary(Summary(status="running", step=0))
    assert os.listdir(folder.tensorboard) == []


def test_cut_back_leaves_the_other_lines_byte_for_byte(tmp_path: Path) -> None:
    with log_in(tmp_path) as log:
        logged(log, [0, 2, 4, 6])
    lines = log.folder.metrics.read_bytes().splitlines(keepends=True)
    for step, kept in [(9, 4), (6, 4), (5, 3), (0, 1), (-1, 0)]:
        log.cut_back(step)
        assert log.folder.metrics.read_bytes() == b"".join(lines[:kept])


@pytest.mark.parametrize("torn", [b'{"step": 6, "im', b'{"step": 6}', b"\0\0\0", b'{"a": "\xc3'])
def test_a_torn_last_line_is_no_event(tmp_path: Path, torn: bytes) -> None:
    """A line without its end may be a prefix of another number, so it goes even where it parses."""
    with log_in(tmp_path) as log:
        logged(log, [2, 4])
    whole = log.folder.metrics.read_bytes()
    log.folder.metrics.write_bytes(whole + torn)
    assert [event.step for event in log.folder.read_log().events] == [2, 4]
    log.cut_back(6)
    assert log.folder.metrics.read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "damage"),
    [
        (b"{oops", "Expecting property name enclosed in double quotes"),
        (b"[]", "expected a table, got []"),
        (b'{"step": 1}', "images_seen: missing"),
        (b'{"step": 1.5, "images_seen": 1, "wall_s": 0}', "step: expected a number, got 1.5"),
        (b'{"step": -1, "images_seen": 1, "wall_s": 0}', "'step' must be >= 0, got -1"),
        (b'{"step": 1, "images_seen": 1, "wall_s": 1e308}', "'wall_s' must be <= 1e+10, got 1e+308"),
        (b'{"step": 1000000000000000000, "images_seen": 1, "wall_s": 0}', "'step' must be <= 1,000,000,000, got 10"),
        (b'{"step": 1, "images_seen": 1, "wall_s": 0, "x": "1"}', "x: expected a number, got '1'"),
        (b'{"step": 1, "images_seen": 1, "wall_s": 0, "x": NaN}', "NaN is not JSON"),
        (b'{"step": 1, "images_seen": 1, "wall_s": 1e999}', "1e999 is too large for a number"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_damaged_line_is_said_and_stays(tmp_path: Path, line: bytes, damage: str) -> None:
    with log_in(tmp_path) as log:
        logged(log, [2, 4])
    whole = line + b"\n" + log.folder.metrics.read_bytes()
    log.folder.metrics.write_bytes(whole)
    (said,) = log.cut_back(4)
    assert said.startswith(f"{tmp_path}/metrics.jsonl: damaged and left as it is: line 1 ({damage}")
    assert log.folder.metrics.read_bytes() == whole
    assert [event.step for event in log.folder.read_log().events] == [2, 4]


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (range(2, 13, 2), []),
        ([2, 4, 6], ["has lost 3 of the 6 events that the run logged up to step 12, those of steps 8 to 12"]),
        ([], ["has lost 6 of the 6 events that the run logged up to step 12, those of steps 2 to 12"]),
        ([2, 6, 10, 12], ["has lost 2 of the 6 events that the run logged up to step 12, those of steps 4, 8"]),
        ([2, *range(2, 13, 2)], ["has 7 events up to step 12, and the run logged 6"]),
    ],
)
def test_lost_events_are_said(tmp_path: Path, kept: Iterable[int], said: list[str]) -> None:
    """Six were logged by step 12, one every second step; that of step 14 is none of them."""
    with log_in(tmp_path) as log:
        logged(log, [*kept, 14])
    assert log.folder.read_log().losses(12, 6, 2) == [f"{tmp_path}/metrics.jsonl: {line}" for line in said]


def test_lost_events_at_other_steps_are_counted(tmp_path: Path) -> None:
    """An evaluation's event is lost: the steps that `log_every` names are all there."""
    with log_in(tmp_path) as log:
        logged(log, [2, 4])
    (line,) = log.folder.read_log().losses(4, 3, 2)
    assert line.endswith("has lost 1 of the 3 events that the run logged up to step 4")
    assert log.folder.read_log().losses(4, None, 3) == []


def test_the_losses_of_a_long_log_are_not_written_out_to_be_counted(tmp_path: Path) -> None:
    """Every fourth step has its event, every second one had: the gaps are 20,000, and then one of 10^18."""
    with log_in(tmp_path):
        events = (LogEvent(step, 0, 0.0, {}).as_dict() for step in range(4, 80_001, 4))
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    log = RunFolder(tmp_path).read_log()
    (line,) = log.losses(80_000, 40_000, 2)
    first = ", ".join(str(step) for step in range(2, 80, 4))
    assert line.endswith(
        f"has lost 20,000 of the 40,000 events that the run logged up to step 80,000, "
        f"those of steps {first}, ... and 19,980 more"
    )
    (line,) = log.losses(10**18, 10**18, 1)
    assert ", those of steps 1 to 3, 5 to 7, " in line
    (line,) = log.losses(10**18, 20_001, 1)  # fewer were lost than log_every leads to expect: no step is named
    assert line.endswith("has lost 1 of the 20,001 events that the run logged up to step 1,000,000,000,000,000,000")


def test_cut_back_without_a_log(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.cut_back(3)
    assert not log.folder.metrics.exists()


# --- figures found later ---


def estimate(value: float) -> Estimate:
    return Estimate(value, "nats", "K = 1", "test", 4)


def test_figures_found_later_are_added(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path).create()
    folder.add_evaluation("step-1", {"a": estimate(1.0), "b": estimate(2.0)})
    folder.add_evaluation("step-2", {"a": estimate(3.0)})
    folder.add_evaluation("step-1", {"a": estimate(4.0)})
    found = {name: evaluated.metrics for name, evaluated in folder.read_evaluation().items()}
    assert found == {"step-1": {"a": estimate(4.0), "b": estimate(2.0)}, "step-2": {"a": estimate(3.0)}}


def test_evaluations_at_once_all_count(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path).create()
    adding = [
        threading.Thread(target=folder.add_evaluation, args=("step-1", {f"m{n}": estimate(n)})) for n in range(16)
    ]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    assert {*folder.read_evaluation()["step-1"].metrics} == {f"m{n}" for n in range(16)}


DAMAGED = {
    "": "Expecting value",
    '{"a"': "Expecting ':' delimiter",
    "[]": "expected a table, got []",
    '{"step-1": 3}': "step-1: expected a table, got 3",
    '{"step-1": {"metrics": {"elbo": {}}}}': "step-1.metrics.elbo.value: missing",
    '{"step-1": {"metrics": {"elbo": {"value": NaN}}}}': "NaN is not JSON",
    '{"../step-1": {"metrics": {}}}': "'../step-1': no name of a checkpoint",
    '{"step-1": {"metrics": {}}, "step-1": {"metrics": {}}}': "a key stands twice",
}


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_evaluations_are_neither_read_nor_replaced(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path).create()
    folder.evaluation.write_text(text)
    with pytest.raises(FileError) as caught:
        folder.add_evaluation("step-1", {"elbo": estimate(1.0)})
    assert str(caught.value).startswith(f"{folder.evaluation}: is damaged ({DAMAGED[text]}")
    assert str(caught.value).endswith(f"; remove it and run `jointgen eval {tmp_path}` again")
    assert folder.evaluation.read_text() == text


# --- links out of the folder ---


@pytest.mark.parametrize(
    "name", ["checkpoints", "samples", "tensorboard", "evaluations", "metrics.jsonl", "recipe.toml"]
)
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / "run").create()
    away = tmp_path / "away"
    if (folder.path / name).is_dir():
        (folder.path / name).rmdir()
    (folder.path / name).symlink_to(away)
    with pytest.raises(FileError, match=rf"run/{name}: is a link, and a run writes into its own folder only"):
        folder.goes_on(resume=True)
    assert not away.exists()


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "run").symlink_to("away")
    RunFolder(tmp_path / "run").create().write_recipe("format = 1\n")
    assert (tmp_path / "away/recipe.toml").read_text() == "format = 1\n"
