"""Trackers that Accelerate has, opened by the main process alone.

None needs an account or a network: each keeps its run in the run folder, unless an environment variable of its own says
otherwise. Accelerate imports their packages, and only if a recipe asks for them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
from accelerate import tracking
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker
from PIL import Image

from jointgen.plugin import StartedTracker, TrackerOptions

PROJECT = "jointgen"
_MLFLOW_URI = "MLFLOW_TRACKING_URI"
_MLFLOW_REFUSES = re.compile(r"[^\w\-. :/]", re.ASCII)


@attrs.frozen
class TensorBoard:
    """TensorBoard's event files in the run folder."""

    package: ClassVar[str] = "tensorboard"

    @contextlib.contextmanager
    def start(self, options: TrackerOptions) -> Iterator[StartedTracker]:
        """Start it; events after the step that a run goes on from are hidden."""
        purge_step = None if options.step is None else options.step + 1
        tracker = TensorBoardTracker("tensorboard", options.folder, purge_step=purge_step)

        def picture(name: str, path: Path, step: int) -> None:
            tracker.log_images({name: _pixels(path)[None]}, step, dataformats="NHWC")

        with _running(tracker):
            yield StartedTracker(tracker.log, picture)


@attrs.frozen
class WandB:
    """Weights & Biases, offline in the run folder unless WANDB_MODE says otherwise.

    A run that is resumed logs some steps again; W&B drops them, and has them already.

    Args:
        options: Further arguments of `wandb.init`.
    """

    package: ClassVar[str] = "wandb"
    options: dict[str, Any] = attrs.field(factory=dict)

    @contextlib.contextmanager
    def start(self, options: TrackerOptions) -> Iterator[StartedTracker]:
        """Start it."""
        own = {
            "dir": str(options.folder),
            "name": os.environ.get("WANDB_NAME", options.folder.name),
            "mode": os.environ.get("WANDB_MODE", "offline"),
            "id": options.known_id,
            "resume": "allow" if options.known_id else None,
            "settings": {"console": "off"},  # it would put itself between us and the terminal
        }
        tracker = WandBTracker(os.environ.get("WANDB_PROJECT", PROJECT), **{**own, **self.options})

        def picture(name: str, path: Path, step: int) -> None:
            tracker.log_images({name: [_pixels(path)]}, step)

        with _running(tracker):
            tracker.store_init_configuration(dict(options.recipe))
            yield StartedTracker(tracker.log, picture, tracker.tracker.id)


@attrs.frozen
class MLflow:
    """MLflow, with a data base of one file in the run folder unless MLFLOW_TRACKING_URI says otherwise.

    MLflow 3 no longer writes its file store.
    """

    package: ClassVar[str] = "mlflow"

    @contextlib.contextmanager
    def start(self, options: TrackerOptions) -> Iterator[StartedTracker]:
        """Start it."""
        local = _MLFLOW_URI not in os.environ  # also there once mlflow.set_tracking_uri has been called
        tracker = MLflowTracker(
            PROJECT,
            logging_dir=(options.folder / "mlartifacts").as_uri() if local else None,
            run_id=options.known_id,
            run_name=options.folder.name,
        )

        def log(values: Mapping[str, float], step: int) -> None:
            tracker.log(_accepted(values), step)

        def picture(name: str, path: Path, step: int) -> None:
            tracker.log_artifact(str(path), "samples")

        place = {_MLFLOW_URI: f"sqlite:///{options.folder / 'mlflow.db'}"} if local else {}
        with _environment(place), _running(tracker):
            if options.known_id is None:  # a parameter is written once
                tracker.store_init_configuration(_accepted(options.recipe))
            yield StartedTracker(log, picture, tracker.tracker.info.run_id)


@attrs.frozen
class _Plain:
    """A tracker that is started by Accelerate's class with arguments, and needs no more care.

    Args:
        options: Further arguments of the package's own start, which come before ours.
    """

    options: dict[str, Any] = attrs.field(factory=dict)
    tracker: ClassVar[str] = ""
    offline: ClassVar[Mapping[str, str]] = {}
    """Environment variables that keep it off the network and in the run folder, where the user has not set them; "{}"
    is the run folder."""

    def arguments(self, options: TrackerOptions) -> dict[str, Any]:
        """Return the arguments of Accelerate's class."""
        raise NotImplementedError

    def id_of(self, tracker: Any) -> str:
        """Return what finds the run again."""
        return ""

    def show(self, tracker: Any) -> Callable[[str, Path, int], None]:
        """Return what logs a picture."""
        return lambda name, path, step: tracker.log_images({name: _pixels(path)}, step)

    @contextlib.contextmanager
    def start(self, options: TrackerOptions) -> Iterator[StartedTracker]:
        """Start it."""
        place = {name: text.format(options.folder) for name, text in self.offline.items()}
        tracker = getattr(tracking, self.tracker)(**{**self.arguments(options), **self.options})
        with _environment(place), _running(tracker):
            if options.known_id is None:
                tracker.store_init_configuration(dict(options.recipe))
            yield StartedTracker(tracker.log, self.show(tracker), self.id_of(tracker.tracker))


@attrs.frozen
class Trackio(_Plain):
    """Trackio, with its data base in the run folder unless TRACKIO_DIR says otherwise: TRACKIO_DIR=RUN/trackio trackio
    show."""

    package: ClassVar[str] = "trackio"
    tracker: ClassVar[str] = "TrackioTracker"
    offline: ClassVar[Mapping[str, str]] = {"TRACKIO_DIR": "{}/trackio"}

    def arguments(self, options: TrackerOptions) -> dict[str, Any]:
        """Return the arguments of Accelerate's class."""
        name = options.folder.name
        return {"run_name": PROJECT, "name": name, "resume": "allow" if options.known_id else "never"}

    def id_of(self, tracker: Any) -> str:
        """Return the run's name, by which trackio finds it."""
        return str(tracker.name)

    def show(self, tracker: Any) -> Callable[[str, Path, int], None]:
        """Return what logs a picture: pictures stay in samples/, since Accelerate logs none with trackio."""
        return lambda name, path, step: None


@attrs.frozen
class Aim(_Plain):
    """Aim, with its repository in the run folder: aim up --repo RUN."""

    package: ClassVar[str] = "aim"
    tracker: ClassVar[str] = "AimTracker"

    def arguments(self, options: TrackerOptions) -> dict[str, Any]:
        """Return the arguments of Accelerate's class."""
        known = {"run_hash": options.known_id} if options.known_id else {}
        return {"run_name": options.folder.name, "logging_dir": str(options.folder), "experiment": PROJECT, **known}

    def id_of(self, tracker: Any) -> str:
        """Return the run's hash."""
        return str(tracker.hash)


@attrs.frozen
class DVCLive(_Plain):
    """DVCLive, with its tables in RUN/dvclive; it makes no experiment and no commit of its own."""

    package: ClassVar[str] = "dvclive"
    tracker: ClassVar[str] = "DVCLiveTracker"

    def arguments(self, options: TrackerOptions) -> dict[str, Any]:
        """Return the arguments of Accelerate's class."""
        place = {"dir": str(options.folder / "dvclive"), "resume": options.step is not None}
        return {**place, "save_dvc_exp": False, "dvcyaml": None}

    def show(self, tracker: Any) -> Callable[[str, Path, int], None]:
        """Return what logs a picture."""
        return lambda name, path, step: tracker.tracker.log_image(f"{name}.png", str(path))


@attrs.frozen
class Comet(_Plain):
    """Comet, offline in RUN/comet unless COMET_START_ONLINE says otherwise: comet upload."""

    package: ClassVar[str] = "comet_ml"
    tracker: ClassVar[str] = "CometMLTracker"
    offline: ClassVar[Mapping[str, str]] = {"COMET_START_ONLINE": "0", "COMET_OFFLINE_DIRECTORY": "{}/comet"}

    def arguments(self, options: TrackerOptions) -> dict[str, Any]:
        """Return the arguments of Accelerate's class."""
        known = {"experiment_key": options.known_id} if options.known_id else {}
        return {"run_name": os.environ.get("COMET_PROJECT_NAME", PROJECT), **known}

    def id_of(self, tracker: Any) -> str:
        """Return the experiment's key."""
        return str(tracker.get_key())

    def show(self, tracker: Any) -> Callable[[str, Path, int], None]:
        """Return what logs a picture."""
        return lambda name, path, step: tracker.tracker.log_image(str(path), name=name, step=step)


@attrs.frozen
class ClearML(_Plain):
    """ClearML, offline unless CLEARML_OFFLINE_MODE says otherwise; it says at the end where its session lies."""

    package: ClassVar[str] = "clearml"
    tracker: ClassVar[str] = "ClearMLTracker"
    offline: ClassVar[Mapping[str, str]] = {"CLEARML_OFFLINE_MODE": "1", "CLEARML_CACHE_DIR": "{}/clearml"}

    def arguments(self, options: TrackerOptions) -> dict[str, Any]:
        """Return the arguments of Accelerate's class."""
        known: dict[str, Any] = {"continue_last_task": options.known_id} if options.known_id else {}
        captured = {"auto_connect_frameworks": False, "auto_connect_streams": False, "auto_connect_arg_parser": False}
        return {"project_name": PROJECT, "task_name": options.folder.name, **captured, **known}

    def id_of(self, tracker: Any) -> str:
        """Return the task's id."""
        return str(tracker.id)


@attrs.frozen
class SwanLab(_Plain):
    """SwanLab, offline in RUN/swanlog unless SWANLAB_MODE says otherwise: swanlab sync."""

    package: ClassVar[str] = "swanlab"
    tracker: ClassVar[str] = "SwanLabTracker"

    def arguments(self, options: TrackerOptions) -> dict[str, Any]:
        """Return the arguments of Accelerate's class."""
        mode = os.environ.get("SWANLAB_MODE", "offline")
        place = {"logdir": str(options.folder / "swanlog"), "mode": mode, "experiment_name": options.folder.name}
        known = {"id": options.known_id, "resume": "allow"} if options.known_id else {}
        return {"run_name": PROJECT, **place, **known}

    def id_of(self, tracker: Any) -> str:
        """Return the run's id."""
        return str(tracker.id)

    def show(self, tracker: Any) -> Callable[[str, Path, int], None]:
        """Return what logs a picture."""
        return lambda name, path, step: tracker.log_images({name: [_pixels(path)]}, step)


@contextlib.contextmanager
def _running(tracker: GeneralTracker) -> Iterator[None]:
    tracker.start()
    try:
        yield
    finally:
        tracker.finish()


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set variables that the user has not set, for as long as a tracker runs."""
    new = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def _accepted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values under names that MLflow accepts."""
    return {_MLFLOW_REFUSES.sub("_", name)[:250]: value for name, value in values.items()}


def _pixels(path: Path) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
