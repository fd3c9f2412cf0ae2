"""`jointgen run --processes N` as a program: one exit status, one voice, signals, and nothing left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from jointgen.cli import main as cli
from jointgen.errors import ConfigError, LostError
from jointgen.runs import checkpoint

# starts quickly: no scikit-learn, no TensorBoard, no critic
RECIPE = """
format = 1
data = { type = "ring", rows = 64 }
prior = { type = "normal", size = 2 }
encoder = { network = { type = "mlp", hidden = [4] }, family = { type = "gaussian" } }
decoder = { network = { type = "mlp", hidden = [4] }, family = { type = "gaussian" } }
objective = { type = "vae" }
train = { steps = 10000000, batch = 16, log_every = 10, trackers = [] }
eval = { rows = 16, samples = 4 }
"""


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    """Two processes that train in FOLDER/run, for hours if nobody stops them."""
    (folder / "recipe.toml").write_text(RECIPE)
    run = ["-m", "jointgen", "run", str(folder / "recipe.toml"), "--out", str(folder / "run"), "--processes", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *run, *more], text=True, env=environment, **pipes)


def wait_for_steps(out: Path) -> None:
    """Until the run has logged something: it is in its loop."""
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").exists():
        assert time.monotonic() < deadline, "the run did not start"
        time.sleep(0.05)


def children(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a launcher started."""
    table = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not table.exists():
        pytest.skip("only Linux tells a process's children")
    return [int(child) for child in table.read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run of two processes that is in its loop, and its folder."""
    out = tmp_path / "run"
    process = start(tmp_path)
    try:
        wait_for_steps(out)
        yield process, out
    finally:
        process.kill()
        process.communicate()


def test_stopped_by_a_signal_and_resumed(tmp_path: Path, endless: tuple[subprocess.Popen[str], Path]) -> None:
    """SIGTERM to the launcher alone: both processes stop after the same step, with one checkpoint and one message."""
    process, out = endless
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM, said
    step = checkpoint.find(out / "checkpoints").step
    assert json.loads((out / "summary.json").read_text())["status"] == "stopped"
    assert said.count(f"stopped at step {step}") == 1 and said.count("stopping after this step") == 1
    assert "Traceback" not in said


def test_a_killed_process_ends_the_others(endless: tuple[subprocess.Popen[str], Path]) -> None:
    process, _ = endless
    first, second = children(process)
    os.kill(second, signal.SIGKILL)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "process 1 was killed by signal 9; --resume goes on from the last checkpoint" in said
    assert "Traceback" not in said
    assert not is_running(first)


def test_stopped_before_it_trains(tmp_path: Path) -> None:
    """A signal that comes while the processes still import torch ends them all the same, with the same status."""
    process = start(tmp_path)
    while len(pids := children(process)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.2)  # a launcher that has started two notes signals
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said and not any(map(is_running, pids))


def test_a_killed_launcher_leaves_nobody(endless: tuple[subprocess.Popen[str], Path]) -> None:
    process, _ = endless
    pids = children(process)
    process.kill()
    deadline = time.monotonic() + 60
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 2 and not any(map(is_running, pids))


def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    process = start(tmp_path, "--set", "train.batch=15")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert said.count("train.batch: 15 does not divide over 2 process(es)") == 1
    assert "Traceback" not in said and not (tmp_path / "run/recipe.toml").exists()


def test_what_one_process_alone_met_is_told_by_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second process fails first, or alone: it speaks. The first, with the same mistake, then need not."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    launcher = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)

    def fail_with(error: Exception, rank: int) -> str:
        def fail(arguments: object) -> None:
            raise error

        monkeypatch.setattr("jointgen.cli.listing.list_command", fail)
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        cli.main(["list"])
        return capsys.readouterr().err

    assert fail_with(ConfigError("data.root: not on this machine"), 1) == "jointgen: data.root: not on this machine\n"
    assert fail_with(ConfigError("data.root: not on this machine"), 0) == ""
    assert fail_with(LostError("another process went away"), 1) == ""
    assert fail_with(LostError("another process went away"), 0) == "jointgen: another process went away\n"
