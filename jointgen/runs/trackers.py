"""Where a run's figures and pictures go besides its own files: TensorBoard, Weights & Biases, MLflow.

These are Accelerate's trackers, opened by the main process alone. None needs an account or a network: W&B keeps its
run in the run folder until `wandb sync`, and MLflow in a data base there, unless the user's own WANDB_MODE or
MLFLOW_TRACKING_URI says otherwise. Their packages are imported by Accelerate, and only when they are asked for.
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

from jointgen.errors import ConfigError
from jointgen.runtime.atomic_files import replace_text

PROJECT = "jointgen"
_MLFLOW_URI = "MLFLOW_TRACKING_URI"
_MLFLOW_REFUSES = re.compile(r"[^\w\-. :/]", re.ASCII)


def check_installed(names: Iterable[str]) -> None:
    """ConfigError for a tracker whose package is not here, saying how to install it."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        ways = [
            f"{name!r} needs its package: uv sync --extra {name}, or pip install 'jointgen[{name}]'" for name in missing
        ]
        raise ConfigError(ways, "train", "trackers")


@attrs.frozen
class Opening:
    """What a tracker is told when it starts.

    recipe: the resolved recipe, flat.  known: the id of the run that goes on, where there is one.  step: the last
    step that counts, where the run is resumed.
    """

    folder: Path
    recipe: Mapping[str, Any]
    known: str | None
    step: int | None


@attrs.frozen
class Tracked:
    """A started tracker. picture: (name, file, step).  id: how it finds the run again; empty where it need not."""

    log: Callable[[Mapping[str, float], int], None]
    picture: Callable[[str, Path, int], None]
    id: str = ""


class Trackers:
    """Those of a recipe, started. Pictures are those of `samples/`, by what stands before their step."""

    def __init__(self, names: Iterable[str], folder: Path, recipe: str, step: int | None):
        """recipe: the resolved one's text.  step: as in Opening. ConfigError where one cannot start."""
        self._closing = contextlib.ExitStack()
        self._file = folder / "trackers.json"
        known = json.loads(self._file.read_text()) if self._file.exists() else {}
        flat = dict(_flat(tomllib.loads(recipe)))
        PartialState(cpu=True)  # Accelerate's trackers ask it for their rank; the run's own, where there is one
        self._started = {
            name: self._start(name, Opening(folder.absolute(), flat, known.get(name), step))
            for name in dict.fromkeys(names)
        }
        ids = {name: tracked.id for name, tracked in self._started.items() if tracked.id}
        if ids and ids != known:
            replace_text(self._file, json.dumps({**known, **ids}, indent=2) + "\n")

    def log(self, values: Mapping[str, float], step: int) -> None:
        for tracked in self._started.values():
            tracked.log(values, step)

    def pictures(self, paths: Sequence[Path], step: int) -> None:
        for tracked in self._started.values():
            for path in paths:
                tracked.picture(path.stem.removesuffix(f"-step-{step:08d}"), path, step)

    def close(self) -> None:
        """Flushes and ends them."""
        self._closing.close()

    def _start(self, name: str, opening: Opening) -> Tracked:
        try:
            return self._closing.enter_context(_OPENERS[name](opening))
        except Exception as error:  # whatever a package raises: no login, no server, a version that does not fit
            self.close()
            reason = str(error).strip().split("\n")[0]
            raise ConfigError(
                f"{name!r} does not start: {type(error).__name__}: {reason}", "train", "trackers"
            ) from error


@contextlib.contextmanager
def _tensorboard(opening: Opening) -> Iterator[Tracked]:
    purge_step = None if opening.step is None else opening.step + 1
    tracker = TensorBoardTracker("tensorboard", opening.folder, purge_step=purge_step)

    def picture(name: str, path: Path, step: int) -> None:
        tracker.log_images({name: _pixels(path)[None]}, step, dataformats="NHWC")

    with _running(tracker):
        yield Tracked(tracker.log, picture)


@contextlib.contextmanager
def _wandb(opening: Opening) -> Iterator[Tracked]:
    """A run that is resumed logs some steps again; W&B drops them, and they are what it has."""
    tracker = WandBTracker(
        os.environ.get("WANDB_PROJECT", PROJECT),
        dir=str(opening.folder),
        name=os.environ.get("WANDB_NAME", opening.folder.name),
        mode=os.environ.get("WANDB_MODE", "offline"),
        id=opening.known,
        resume="allow" if opening.known else None,
        settings={"console": "off"},  # it would put itself between us and the terminal
    )

    def picture(name: str, path: Path, step: int) -> None:
        tracker.log_images({name: [_pixels(path)]}, step)

    with _running(tracker):
        tracker.store_init_configuration(dict(opening.recipe))
        yield Tracked(tracker.log, picture, tracker.tracker.id)


@contextlib.contextmanager
def _mlflow(opening: Opening) -> Iterator[Tracked]:
    """Its file store is no longer written by MLflow 3, so the run folder has a data base of one file."""
    local = _MLFLOW_URI not in os.environ  # also there once mlflow.set_tracking_uri has been called
    tracker = MLflowTracker(
        PROJECT,
        logging_dir=(opening.folder / "mlartifacts").as_uri() if local else None,
        run_id=opening.known,
        run_name=opening.folder.name,
    )

    def log(values: Mapping[str, float], step: int) -> None:
        tracker.log(_accepted(values), step)

    def picture(name: str, path: Path, step: int) -> None:
        tracker.log_artifact(str(path), "samples")

    with _environment(_MLFLOW_URI, f"sqlite:///{opening.folder / 'mlflow.db'}" if local else None), _running(tracker):
        if opening.known is None:  # a parameter is written once
            tracker.store_init_configuration(_accepted(opening.recipe))
        yield Tracked(log, picture, tracker.tracker.info.run_id)


_OPENERS: Mapping[str, Callable[[Opening], contextlib.AbstractContextManager[Tracked]]] = {
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
    """Sets a variable for as long as a tracker runs; None leaves it as it is."""
    if value is None:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _accepted(values: Mapping[str, Any]) -> dict[str, Any]:
    """By names that MLflow accepts."""
    return {_MLFLOW_REFUSES.sub("_", name)[:250]: value for name, value in values.items()}


def _pixels(path: Path) -> np.ndarray:
    """(H, W, 3) uint8"""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with scalars; lists as text."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", str(value) if isinstance(value, list) else value
