"""Checks of trackers, in a run folder of their own. One whose package is missing is not checked."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from PIL import Image

from jointgen.contracts.trackers import StartedTracker, TrackerOptions
from jointgen.testing.check import Promises, expect, promise, skip
from jointgen.testing.critics import Subject

TRACKERS: Promises = []


@contextmanager
def options_of(subject: Subject, known_id: str | None = None) -> Iterator[TrackerOptions]:
    """Return the options of a run in a new folder."""
    package = subject.config.package
    expect(isinstance(package, str) and package, f"package is {package!r}, it must be the name of a module")
    if importlib.util.find_spec(package) is None:
        skip(f"its package {package} is not installed")
    PartialState(cpu=True)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # packages warn of whatever their own dependencies do
        yield TrackerOptions(Path(folder), {"seed": 0, "train.steps": 5, "name": "check"}, known_id, None)


@promise(TRACKERS)
def tracker_takes_figures_and_pictures(subject: Subject) -> None:
    with options_of(subject) as options:
        picture = options.folder / "samples-step-00000003.png"
        Image.new("RGB", (3, 2)).save(picture)
        before = dict(os.environ)
        with subject.config.start(options) as started:
            expect(isinstance(started, StartedTracker), f"start() yields a {type(started).__name__}")
            expect(isinstance(started.id, str), f"its id is {started.id!r}, it must be text")
            started.log({"model/loss": 1.5, "model/E[q(x,z)](log p(x|z))": float("nan")}, 3)
            started.picture("samples", picture, 3)
        expect(dict(os.environ) == before, "the environment is another afterwards")


@promise(TRACKERS)
def tracker_ends_however_the_run_ends(subject: Subject) -> None:
    """An error of the run reaches its user, and a run after it may start the tracker again."""
    with options_of(subject) as options:
        for _ in range(2):
            try:
                with subject.config.start(options) as started:
                    started.log({"loss": 1.0}, 1)
                    raise KeyError("the run's own")
            except KeyError:
                continue
            expect(False, "the tracker swallows an error of the run")
