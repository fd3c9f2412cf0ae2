"""Trackers that get a run's figures and pictures besides its own files: TensorBoard, Weights & Biases, MLflow.

They are Accelerate's, opened by the main process alone. None needs an account or a network: W&B keeps its run in the
run folder until `wandb sync`, and MLflow in a data base there, unless the user's WANDB_MODE or MLFLOW_TRACKING_URI
says otherwise. Accelerate imports their packages, and only if a recipe asks for them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from accelerate import PartialState
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker
from PIL import Image

from jointgen.config.documents import read_document
from jointgen.config.toml import flatten
from jointgen.errors import ConfigError, MissingFileError
from jointgen.runtime.atomic_files import replace_text

PROJECT = "jointgen"
_MLFLOW_URI = "MLFLOW_TRACKING_URI"
_MLFLOW_REFUSES = re.compile(r"[^\w\-. :/]", re.ASCII)


def check_installed(names: Iterable[str]) -> None:
    """Raise ConfigError if the package of a tracker is missing; the message says how to install it."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        ways = [
            f"{name!r} needs its package: uv sync --extra {name}, or pip install 'jointgen[{name}]'" for name in missing
        ]
        raise ConfigError(ways, "train", "trackers")


@attrs.frozen
class TrackerOptions:
    """The options that a tracker starts with.

    Args:
        folder: The run folder.
        recipe: The resolved recipe, with dotted keys.
        known_id: The id that the tracker gave the run before it was resumed; None for a new run.
        step: The last step that counts, in a run that is resumed.
    """

    folder: Path
    recipe: Mapping[str, Any]
    known_id: str | None
    step: int | None


@attrs.frozen
class StartedTracker:
    """A started tracker.

    Args:
        log: Logs figures by name at a step.
        picture: Logs a picture: its name, its file and a step.
        id: Finds the run again when it is resumed; empty if the tracker needs none.
    """

    log: Callable[[Mapping[str, float], int], None]
    picture: Callable[[str, Path, int], None]
    id: str = ""


@attrs.frozen
class Trackers:
    """The trackers of a run, which `start_trackers` has started.

    Args:
        started: The trackers by name.
        closing: Ends them.
    """

    started: Mapping[str, StartedTracker]
    closing: contextlib.ExitStack

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log figures by name."""
        for tracker in self.started.values():
            tracker.log(values, step)

    def pictures(self, paths: Sequence[Path], step: int) -> None:
        """Log pictures of `samples/`, under the part of their names before `-step-`."""
        for tracker in self.started.values():
            for path in paths:
                tracker.picture(path.stem.removesuffix(f"-step-{step:08d}"), path, step)

    def close(self) -> None:
        """Flush and end the trackers."""
        self.closing.close()


def start_trackers(names: Iterable[str], folder: Path, recipe: str, step: int | None) -> Trackers:
    """Start the trackers of a recipe, and keep their ids in the run folder, by which a resumed run finds them again.

    Args:
        names: Their names.
        folder: The run folder.
        recipe: The text of the resolved recipe.
        step: The last step that counts, in a run that is resumed.

    Raises:
        ConfigError: One of them does not start.
        FileError: The file of their ids is damaged.
    """
    file, known = folder / "trackers.json", dict[str, str]()
    with contextlib.suppress(MissingFileError):
        known = read_document(file, dict[str, str], "remove it: the trackers then begin runs of their own")
    settings = {key: str(value) if isinstance(value, list) else value for key, value in flatten(tomllib.loads(recipe))}
    PartialState(cpu=True)  # Accelerate's trackers ask it for their rank; the run's own, where there is one
    started = dict[str, StartedTracker]()
    closing = contextlib.ExitStack()
    for name in dict.fromkeys(names):
        try:
            options = TrackerOptions(folder.absolute(), settings, known.get(name), step)
            started[name] = closing.enter_context(_START[name](options))
        except Exception as error:  # packages raise anything: no login, no server, a version that does not fit
            closing.close()
            reason = str(error).strip().split("\n")[0]
            message = f"{name!r} does not start: {type(error).__name__}: {reason}"
            raise ConfigError(message, "train", "trackers") from error
    ids = {name: tracker.id for name, tracker in started.items() if tracker.id}
    if ids and ids != known:
        replace_text(file, json.dumps({**known, **ids}, indent=2) + "\n")
    return Trackers(started, closing)


@contextlib.contextmanager
def _tensorboard(options: TrackerOptions) -> Iterator[StartedTracker]:
    purge_step = None if options.step is None else options.step + 1
    tracker = TensorBoardTracker("tensorboard", options.folder, purge_step=purge_step)

    def picture(name: str, path: Path, step: int) -> None:
        tracker.log_images({name: _pixels(path)[None]}, step, dataformats="NHWC")

    with _running(tracker):
        yield StartedTracker(tracker.log, picture)


@contextlib.contextmanager
def _wandb(options: TrackerOptions) -> Iterator[StartedTracker]:
    """Start W&B. A run that is resumed logs some steps again; W&B drops them, and has them already."""
    tracker = WandBTracker(
        os.environ.get("WANDB_PROJECT", PROJECT),
        dir=str(options.folder),
        name=os.environ.get("WANDB_NAME", options.folder.name),
        mode=os.environ.get("WANDB_MODE", "offline"),
        id=options.known_id,
        resume="allow" if options.known_id else None,
        settings={"console": "off"},  # it would put itself between us and the terminal
    )

    def picture(name: str, path: Path, step: int) -> None:
        tracker.log_images({name: [_pixels(path)]}, step)

    with _running(tracker):
        tracker.store_init_configuration(dict(options.recipe))
        yield StartedTracker(tracker.log, picture, tracker.tracker.id)


@contextlib.contextmanager
def _mlflow(options: TrackerOptions) -> Iterator[StartedTracker]:
    """Start MLflow, with a data base of one file in the run folder: MLflow 3 no longer writes its file store."""
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

    with _environment(_MLFLOW_URI, f"sqlite:///{options.folder / 'mlflow.db'}" if local else None), _running(tracker):
        if options.known_id is None:  # a parameter is written once
            tracker.store_init_configuration(_accepted(options.recipe))
        yield StartedTracker(log, picture, tracker.tracker.info.run_id)


_START: Mapping[str, Callable[[TrackerOptions], contextlib.AbstractContextManager[StartedTracker]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


@contextlib.contextmanager
def _running(tracker: GeneralTracker) -> Iterator[None]:
    tracker.start()
    try:
        yield
    finally:
        tracker.finish()


@contextlib.contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Set a variable for as long as a tracker runs; None leaves it as it is."""
    if value is None:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _accepted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values under names that MLflow accepts."""
    return {_MLFLOW_REFUSES.sub("_", name)[:250]: value for name, value in values.items()}


def _pixels(path: Path) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
