"""Trackers: TensorBoard for real, W&B and MLflow by stand-ins that record, and for real where they are installed."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.paths import QUICKSTART
from support.runs import stop_after, train_small
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import jointgen
from jointgen.errors import ConfigError, FileError, StoppedError
from jointgen.registry.discovery import load_plugins
from jointgen.runs.folder import RunFolder
from jointgen.runs.log import RunLog
from jointgen.runs.trackers import named_trackers

RUN: dict[str, Any] = {"train.steps": 4, "train.log_every": 1, "train.sample_every": 2}


def picture(path: Path) -> Path:
    """2 high, 3 wide, red."""
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (3, 2), (255, 0, 0)).save(path)
    return path


def log_of(path: Path, *trackers: str, resume: bool = False) -> RunLog:
    return RunLog(RunFolder(path).create(), trackers)


# --- TensorBoard -----------------------------------------------------------------------------------------------------


def test_tensorboard_has_figures_and_pictures(tmp_path: Path) -> None:
    with log_of(tmp_path, "tensorboard") as log:
        log.add(7, 70, 0.5, {"eval/elbo": 1.5})
        log.add_pictures([picture(tmp_path / "samples/samples-x1-step-00000007.png")], 7)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("eval/elbo")] == [(7, 1.5)]
    (shown,) = board.Images("samples-x1")
    assert (shown.step, shown.width, shown.height) == (7, 3, 2)


def test_no_tracker_leaves_the_log_alone(tmp_path: Path) -> None:
    with log_of(tmp_path) as log:
        log.add(1, 10, 0.5, {"loss": 1.0})
    assert log.folder.read_log().events[0].values["loss"] == 1.0
    assert os.listdir(tmp_path / "tensorboard") == [] and not (tmp_path / "trackers.json").exists()


# --- what is wrong ---------------------------------------------------------------------------------------------------


def test_a_missing_package_is_told_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else found(name, *a))
    with pytest.raises(ConfigError) as caught:
        jointgen.run(QUICKSTART, {"train.trackers": ["tensorboard", "wandb"]}, out=tmp_path / "run")
    assert caught.value.lines == [
        "train.trackers: 'wandb' needs its package: uv sync --extra wandb, or pip install 'jointgen[wandb]'"
    ]
    assert not (tmp_path / "run").exists()
    named_trackers(["tensorboard"], load_plugins().registry)


def test_a_tracker_that_does_not_start_is_one_line(tmp_path: Path, fake_wandb: FakeWandB) -> None:
    fake_wandb.failure = RuntimeError("api_key not configured\nand more")
    with pytest.raises(ConfigError) as caught:
        log_of(tmp_path, "tensorboard", "wandb").start_trackers()
    assert caught.value.lines == ["train.trackers: 'wandb' does not start: RuntimeError: api_key not configured"]


# --- Weights & Biases ------------------------------------------------------------------------------------------------


class Config(dict[str, Any]):
    """wandb.config, whose update takes an option."""

    def update(self, values: Any, allow_val_change: bool = False) -> None:  # type: ignore[override]
        super().update(values)


class FakeWandB(ModuleType):
    """Records what Accelerate's tracker does."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.inits: list[dict[str, Any]] = []
        self.logged: list[tuple[Any, int]] = []
        self.finished = 0
        self.failure: Exception | None = None
        self.config = Config()

    def init(self, **arguments: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        self.inits.append(arguments)
        return SimpleNamespace(id=arguments["id"] or "abc123", log=self.log, finish=self.finish)

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished += 1

    @staticmethod
    def Image(pixels: np.ndarray) -> tuple[int, ...]:  # noqa: N802  its own name
        return pixels.shape


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandB:
    module = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    return module


def test_wandb_is_offline_in_the_run_folder(tmp_path: Path, fake_wandb: FakeWandB) -> None:
    with log_of(tmp_path / "mine", "wandb") as log:
        log.folder.write_recipe("seed = 3\n[train]\nsteps = 5\n[encoder.network]\nhidden = [8, 8]\n")
        log.add(7, 70, 0.5, {"loss": 1.5})
        log.add_pictures([picture(tmp_path / "mine/samples/reconstructions-step-00000007.png")], 7)
    (init,) = fake_wandb.inits
    assert init["mode"] == "offline" and init["dir"] == str(tmp_path / "mine") and init["id"] is init["resume"] is None
    assert (init["project"], init["name"]) == ("jointgen", "mine")
    assert fake_wandb.config == {"seed": 3, "train.steps": 5, "encoder.network.hidden": "[8, 8]"}
    assert fake_wandb.logged == [({"loss": 1.5}, 7), ({"reconstructions": [(2, 3, 3)]}, 7)]
    assert fake_wandb.finished == 1
    assert json.loads((tmp_path / "mine/trackers.json").read_text()) == {"wandb": "abc123"}


def test_wandb_mode_is_the_users_own(tmp_path: Path, fake_wandb: FakeWandB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    log_of(tmp_path, "wandb").start_trackers()
    assert fake_wandb.inits[0]["mode"] == "online" and fake_wandb.inits[0]["project"] == "theirs"


def test_resume_goes_on_in_the_same_run(tmp_path: Path, fake_wandb: FakeWandB) -> None:
    """Stopped at step 3 of 4: W&B is given the same id, steps go on, and the log is complete."""
    changes = {**RUN, "train.trackers": ["wandb"]}
    with pytest.raises(StoppedError):
        train_small(tmp_path / "run", changes, stop=stop_after(3))
    train_small(tmp_path / "run", changes, resume=True)
    assert [(init["id"], init["resume"]) for init in fake_wandb.inits] == [(None, None), ("abc123", "allow")]
    assert [step for values, step in fake_wandb.logged if "model/loss" in values] == [1, 2, 3, 4]
    assert [step for values, step in fake_wandb.logged if "samples" in values] == [2, 4]
    assert fake_wandb.finished == 2
    assert os.listdir(tmp_path / "run/tensorboard") == []  # not among the trackers


# --- MLflow ----------------------------------------------------------------------------------------------------------


class FakeMLflow(ModuleType):
    """Records what Accelerate's tracker does, and where it would go at that time."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.__spec__ = ModuleSpec("mlflow", None)
        self.calls: list[tuple[str, Any]] = []
        self.utils = SimpleNamespace(
            validation=SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
        )

    def search_experiments(self, filter_string: str) -> list[Any]:
        self.calls.append(("uri", os.environ["MLFLOW_TRACKING_URI"]))
        return []

    def create_experiment(self, name: str, artifact_location: str | None, tags: Any) -> str:
        self.calls.append(("artifacts", artifact_location))
        return "1"

    def start_run(self, run_id: str | None, **_: Any) -> Any:
        self.calls.append(("run", run_id))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "r1"))

    def log_params(self, values: dict[str, Any]) -> None:
        self.calls.append(("params", values))

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.calls.append(("metrics", (values, step)))

    def log_artifact(self, local_path: str, artifact_path: str) -> None:
        self.calls.append(("artifact", (Path(local_path).name, artifact_path)))

    def end_run(self) -> None:
        self.calls.append(("end", None))


@pytest.fixture
def fake_mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMLflow:
    module = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "MLFLOW_TAGS"):
        monkeypatch.delenv(name, raising=False)
    return module


def test_mlflow_keeps_a_data_base_in_the_run_folder(tmp_path: Path, fake_mlflow: FakeMLflow) -> None:
    """Names lose what MLflow refuses; the environment is as it was once the run is over."""
    with log_of(tmp_path, "mlflow") as log:
        log.folder.write_recipe("seed = 3\n")
        log.add(7, 70, 0.5, {"model/E[q(x,z)](log p(x|z))": 1.5})
        log.add_pictures([picture(tmp_path / "samples/samples-step-00000007.png")], 7)
    assert fake_mlflow.calls == [
        ("uri", f"sqlite:///{tmp_path}/mlflow.db"),
        ("artifacts", f"file://{tmp_path}/mlartifacts"),
        ("run", None),
        ("params", {"seed": 3}),
        ("metrics", ({"model/E_q_x_z___log p_x_z__": 1.5}, 7)),
        ("artifact", ("samples-step-00000007.png", "samples")),
        ("end", None),
    ]
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"mlflow": "r1"}
    with RunLog(RunFolder(tmp_path), ["mlflow"]) as again:
        again.cut_back(7)
        again.start_trackers()
    resumed = fake_mlflow.calls[7:]
    assert ("run", "r1") in resumed and not any(what == "params" for what, _ in resumed)  # written once


def test_mlflow_goes_to_the_users_own_server(
    tmp_path: Path, fake_mlflow: FakeMLflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://example.org")
    with log_of(tmp_path, "mlflow") as log:
        log.start_trackers()
    assert fake_mlflow.calls[:2] == [("uri", "https://example.org"), ("artifacts", None)]
    assert os.environ["MLFLOW_TRACKING_URI"] == "https://example.org"


# --- for real --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_real_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for _ in range(2):
        with log_of(tmp_path, "wandb", resume=True) as log:
            log.add(7, 70, 0.5, {"model/E[q(x,z)](log p(x|z))": 1.5})
            log.add_pictures([picture(tmp_path / "samples/samples-step-00000007.png")], 7)
    (run_id,) = json.loads((tmp_path / "trackers.json").read_text()).values()
    assert len(list(tmp_path.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb"))) >= 1


@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mlflow", "sqlalchemy")), reason="mlflow is not installed"
)
def test_real_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for step in (7, 8):
        with log_of(tmp_path, "mlflow", resume=True) as log:
            log.add(step, 70, 0.5, {"model/E[q(x,z)](log p(x|z))": 1.5})
    client = importlib.import_module("mlflow").MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run_id,) = json.loads((tmp_path / "trackers.json").read_text()).values()
    history = client.get_metric_history(run_id, "model/E_q_x_z___log p_x_z__")
    assert [(entry.step, entry.value) for entry in history] == [(7, 1.5), (8, 1.5)]


@pytest.mark.parametrize("text", ["", "[]", '{"wandb": 1}', '{"wandb": null}'])
def test_damaged_ids_are_one_line(tmp_path: Path, text: str) -> None:
    with log_of(tmp_path) as log:
        (tmp_path / "trackers.json").write_text(text)
        with pytest.raises(FileError, match=r"trackers\.json: is damaged .*; remove it: the trackers then begin"):
            log.start_trackers()
