from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jointgen.errors import CheckpointError, ConfigError
from jointgen.runs.folder import RunFolder
from jointgen.runs.log import RunLog


def logged(log: RunLog, steps: Iterable[int]) -> None:
    for step in steps:
        log.add(step, 10 * step, 0.5 * step, {"elbo_nats": -step / 3})


def log_in(path: Path) -> RunLog:
    return RunLog(RunFolder(path).create())


# --- the folder ---


def test_layout(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "x").create()
    folder.write_recipe("format = 1\n")
    folder.write_summary({"status": "running", "step": 0})
    with RunLog(folder) as log:
        logged(log, [1])
    names = {"recipe.toml", "metrics.jsonl", "summary.json", "checkpoints", "samples", "tensorboard"}
    assert {*os.listdir(folder.path)} == names
    assert RunFolder.open(folder.path).read_recipe() == "format = 1\n"


def test_a_handle_touches_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "x")
    assert not folder.holds_run() and folder.read_summary() == {} and folder.read_metrics() == []
    assert not folder.path.exists()


@pytest.mark.parametrize("status", ["running", "done", "failed", "stopped"])
def test_refuses_to_overwrite(tmp_path: Path, status: str) -> None:
    folder = RunFolder(tmp_path / "x").create()
    folder.write_summary({"status": status, "step": 4000})
    (folder.checkpoints / "step-00004000").mkdir()
    with pytest.raises(ConfigError) as caught:
        RunFolder(tmp_path / "x").goes_on(resume=False)
    assert str(caught.value) == (
        f"out: {tmp_path}/x already holds a run (status {status}, step 4000); "
        "give another --out, or --resume (resume=True) to go on"
    )
    assert RunFolder(tmp_path / "x").goes_on(resume=True)


@pytest.mark.parametrize("left", ["recipe.toml", "metrics.jsonl", "checkpoints/step-00000001"])
def test_refuses_whatever_a_killed_run_left(tmp_path: Path, left: str) -> None:
    """What holds no checkpoint may start again, and what holds a damaged one goes on, or says that it cannot."""
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).touch()
    way = "to go on" if "step" in left else "to start it again"
    with pytest.raises(ConfigError, match=rf"status unknown.*--resume \(resume=True\) {way}$"):
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
    tmp_path: Path, status: str, step: int, refused: bool
) -> None:
    """Who fails before the first checkpoint has none; who was resumed, stopped or finished had one."""
    folder = RunFolder(tmp_path).create()
    folder.write_summary({"status": status, "step": step})
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
    folder.write_summary({"metrics": {"fid": {"value": float("nan"), "n": 3}}, "list": [1.0, float("inf")]})
    text = folder.summary.read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "metrics": {"fid": {"value": None, "n": 3}},
        "list": [1, None],
    }
    assert os.listdir(tmp_path) != [] and not any(name.startswith(".tmp") for name in os.listdir(tmp_path))


# --- the log ---


def test_one_object_per_event(tmp_path: Path) -> None:
    with log_in(tmp_path) as log:
        log.add(5, 640, 1.23456, {"elbo_nats": -101.25, "f1": float("nan"), "f2": float("-inf")})
    line = log.folder.metrics.read_text()
    assert line == '{"step": 5, "images_seen": 640, "wall_s": 1.235, "elbo_nats": -101.25, "f1": null, "f2": null}\n'
    assert log.folder.read_metrics() == [json.loads(line)]


def test_numbers_survive_exactly(tmp_path: Path) -> None:
    value = torch.rand((), generator=torch.Generator().manual_seed(0)).item() / 3
    with log_in(tmp_path) as log:
        log.add(1, 1, 0.0, {"x": value})
    assert log.folder.read_metrics()[0]["x"] == value


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
        folder.write_summary({})
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
    assert [event["step"] for event in log.folder.read_metrics()] == [2, 4]
    log.cut_back(6)
    assert log.folder.metrics.read_bytes() == whole


def test_damage_elsewhere_is_told(tmp_path: Path) -> None:
    with log_in(tmp_path) as log:
        logged(log, [2, 4])
    log.folder.metrics.write_bytes(b"{oops\n" + log.folder.metrics.read_bytes())
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: line 1 is damaged"):
        log.cut_back(2)


def test_cut_back_without_a_log(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.cut_back(3)
    assert not log.folder.metrics.exists()


@pytest.mark.parametrize(
    "text", ["", '{"a"', "[]", '{"step-1": 3}', '{"step-1": {"metrics": {"elbo": {}, "rmse": 2}}}']
)
def test_what_is_no_figure_is_not_read(tmp_path: Path, text: str) -> None:
    """Nor in the way of others."""
    folder = RunFolder(tmp_path).create()
    folder.evaluation.write_text(text)
    assert not any(entry["metrics"] for entry in folder.read_evaluation().values())
    folder.add_evaluation("step-1", {"elbo": {"value": 1.0}})
    assert folder.read_evaluation() == {"step-1": {"metrics": {"elbo": {"value": 1.0}}}}
