"""Signals end a run after a checkpoint, with the status that shells know."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import in_words
from support.paths import QUICKSTART

from jointgen.runtime import signals as stopping
from jointgen.training import reporter as reporting
from jointgen.training import setup as starting
from jointgen.training.checkpoints import CheckpointWriter


@pytest.fixture
def signalled() -> Iterator[Any]:
    """signalled(folder, signals): sends this process the signals, one by one, once the folder's run logs."""
    threads = []

    def send(folder: Path, *signals: int) -> None:
        deadline = time.monotonic() + 60
        while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        for number in signals:
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    def start(folder: Path, *signals: int) -> None:
        threads.append(threading.Thread(target=send, args=(folder, *signals)))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_a_checkpoint_and_resume_finishes(
    number: int, status: int, say: Any, here: Path, signalled: Any
) -> None:
    before = signal.getsignal(number)
    argv = ["run", str(QUICKSTART), "--quiet", "--out", "r", *in_words(train__steps="100", train__log_every="1")]
    signalled(here / "r", number)
    said = say(*argv)
    assert said.status == status, said
    assert signal.getsignal(number) is before
    stopped = json.loads(Path("r/summary.json").read_text())
    assert (stopped["status"], stopped["step"] < 100) == ("stopped", True)
    newest = Path("r/checkpoints/latest").read_text().strip()
    assert newest == f"step-{stopped['step']:08d}"
    assert said.problems == [
        f"jointgen: stopped at step {stopped['step']}; --resume goes on from {Path('r/checkpoints') / newest}"
    ]
    assert say(*argv, "--resume").status == 0
    assert json.loads(Path("r/summary.json").read_text())["step"] == 100
    steps = [json.loads(line)["step"] for line in Path("r/metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 101))


def test_a_second_interrupt_stops_at_once(
    say: Any, here: Path, signalled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckpointWriter, "save", lambda self, state: time.sleep(60))  # a disk that hangs
    monkeypatch.setattr(stopping, "SAME_SIGNAL_S", 0.0)
    signalled(here / "r", signal.SIGINT, signal.SIGINT)
    said = say("run", QUICKSTART, "--quiet", "--out", "r", *in_words(train__steps="100", train__log_every="1"))
    assert said.status == 130
    assert said.problems == ["jointgen: stopped; nothing was written since the last checkpoint"]


def test_a_process_that_is_terminated_leaves_a_checkpoint(say: Any, here: Path) -> None:
    words = in_words(train__steps="200", train__log_every="1", eval__metrics="[{type = 'elbo'}]")
    argv = ["run", str(QUICKSTART), "--out", "r", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "jointgen", *argv], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not Path("r/metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, b""), err
    assert b"Traceback" not in err
    assert b"jointgen: stopping after this step, with a checkpoint" in err
    assert say(*argv, "--resume", "--quiet").status == 0
    assert json.loads(Path("r/summary.json").read_text())["status"] == "done"


def test_one_interrupt_sent_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher passes on the Ctrl-C that the terminal has sent to its processes already; a later one is another."""
    monkeypatch.setattr(stopping, "SAME_SIGNAL_S", 60.0)
    with stopping.StopRequest(quiet=True) as stop:
        stopping.training_begins()
        assert stop() == 0
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            assert stop() == signal.SIGINT
        monkeypatch.setattr(stopping, "SAME_SIGNAL_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def signalling(real: Any, number: int) -> Any:
    """A function that sends this process a signal before it does its work."""

    def signalled_first(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), number)
        return real(*arguments, **options)

    return signalled_first


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_folder_is_made_ends_the_run_at_once(
    number: int, status: int, say: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "check_ownership", signalling(None, number))  # which is not called any more
    said = say("run", QUICKSTART, "--quiet", "--out", "r", *in_words(train__steps="2"))
    assert said.status == status
    assert said.problems == ["jointgen: stopped before the first step; nothing was written"]
    assert not Path("r").exists()


@pytest.mark.parametrize(
    ("module", "where", "step"),
    [(starting, "keep_plugins", 1), (reporting, "write_pictures", 2), (reporting, "evaluate", 2)],
    ids=["start", "picture", "end"],
)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_outside_the_loop(
    module: Any,
    where: str,
    step: int,
    number: int,
    status: int,
    say: Any,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While its folder is made, a run stops after its first step; after the last one it stops at once, and resumes."""
    signalled_first = signalling(getattr(module, where), number)

    argv = ["run", str(QUICKSTART), "--quiet", "--out", "r", *in_words(train__steps="2")]
    with monkeypatch.context() as patch:
        patch.setattr(module, where, signalled_first)
        said = say(*argv)
    assert (said.status, len(said.problems)) == (status, 1), said
    assert said.problems[0].startswith(f"jointgen: stopped at step {step}; --resume goes on from r")
    assert Path("r/checkpoints/latest").read_text() == f"step-{step:08d}\n"
    assert say(*argv, "--resume").status == 0
    summary = json.loads(Path("r/summary.json").read_text())
    assert (summary["status"], summary["step"]) == ("done", 2)
