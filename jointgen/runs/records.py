"""What the files of a run hold, as classes: whoever writes a file and whoever reads it use the same one. Torch-free.

They are read by `jointgen.runs.folder`, strictly: a key that is missing, unknown or of another type is an error that
names the file. A field with a default is one that runs of earlier versions of jointgen lack.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import attrs

from jointgen.config.fields import MAX_COUNT, MAX_SIZE, between
from jointgen.contracts.data_keys import KeyRole
from jointgen.contracts.figures import Estimate

Status = Literal["running", "done", "stopped", "failed"]

MAX_SECONDS = 1e10
"""No run trains for longer: 317 years."""
valid_step = between(0, MAX_COUNT)
valid_rows = between(0, MAX_COUNT * MAX_SIZE)  # a whole batch in each step
valid_events = between(0, 10 * MAX_COUNT)  # a step logs few
valid_parameters = between(0, 10**15)
valid_seconds = between(0.0, MAX_SECONDS)

CHECKPOINT_NAME = re.compile(r"(?P<aside>\.old-[0-9]+-)?step-(?P<step>[0-9]{1,18})")
"""The names of checkpoint folders, `aside` while they are being replaced or removed."""


# --- summary.json ----------------------------------------------------------------------------------------------------


@attrs.frozen
class CriticVerdict:
    """Whether a critic can be trusted, and its figures over its last log events.

    Args:
        ratio: What it estimates, such as "log q(x,z)/p(x,z)".
        trusted: Whether it is trusted; None where it is a score or had too few log events.
        distrusted_since: The step since which it is not.
        step: The step of its last log event.
        rows: The rows of each side that the figures are of.
        figures: Its figures by name.
        note: Why it is not trusted.
    """

    ratio: str
    trusted: bool | None
    distrusted_since: int | None
    step: int = attrs.field(validator=valid_step)
    rows: int = attrs.field(validator=valid_rows)
    figures: dict[str, float | None]
    note: str = ""


@attrs.frozen
class BestRecord:
    """The best checkpoint so far by `train.keep_best`: the metric, its value there, and the checkpoint's name."""

    metric: str
    value: float | None
    checkpoint: str | None


@attrs.frozen
class WarmStartRecord:
    """The weights that a run began with (`train.init_from`).

    Args:
        run: The folder of the run that they are of.
        checkpoint: The name of its checkpoint.
        sha256: The hash of the checkpoint's manifest, which covers every file.
        averaged: Whether they are averages.
        parts: The parts that began with them.
    """

    run: str
    checkpoint: str
    sha256: str
    averaged: bool
    parts: list[str]


@attrs.frozen
class EnvironmentRecord:
    """The software and the machine of a run (`jointgen.runtime.environment`)."""

    versions: dict[str, str | None] = attrs.Factory(dict)
    platform: str = ""
    device: str = ""
    git_commit: str | None = None


# --- environment.json ------------------------------------------------------------------------------------------------


@attrs.frozen
class ComponentRecord:
    """A component that a run used.

    Args:
        kind: Its kind, such as "encoder".
        type: Its name in the registry.
        distribution: The installed distribution that registered it, or who else did.
        version: The version of the distribution.
    """

    kind: str
    type: str
    distribution: str
    version: str = ""

    @property
    def provider(self) -> str:
        """The distribution with its version."""
        return f"{self.distribution} {self.version}".strip()


@attrs.frozen
class RepositoryRecord:
    """The git repository of whoever started a run: its folder, and its commit, with "-dirty" if files had changed."""

    folder: str
    commit: str


@attrs.frozen(kw_only=True)
class SessionRecord:
    """The software of a run from one start to its end, or to the next start.

    Args:
        step: The step at which it began: 0, or that of the checkpoint from which it went on.
        argv: The command line of the process.
        folder: The folder in which it was started.
        repository: The repository in which its recipe lay, if any.
        python: The version of Python.
        components: The components that the recipe uses, by the keys of their tables ("encoder.network").
        packages: The version of every installed distribution, by name.
    """

    step: int = attrs.field(validator=valid_step)
    argv: list[str] = attrs.Factory(list)
    folder: str = ""
    repository: RepositoryRecord | None = None
    python: str = ""
    components: dict[str, ComponentRecord] = attrs.Factory(dict)
    packages: dict[str, str] = attrs.Factory(dict)


@attrs.frozen
class Sessions:
    """The content of `environment.json`: what a run was started with each time, the latest last."""

    sessions: list[SessionRecord] = attrs.Factory(list)


# --- summary.json, whole ---------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Summary:
    """The content of `summary.json`.

    Args:
        status: Whether the run is under way, done, stopped or failed; a run that was killed is still "running".
        note: Why it stopped or failed.
        step: The steps that it has made.
        images_seen: The rows of training data that it has seen.
        wall_s: The seconds of training.
        parameters: The number of parameters of its parts; None in runs of earlier versions.
        log_events: The number of log events up to this step; None in runs of earlier versions.
        seed: Its seed.
        init_from: The weights that it began with, if they are of another run.
        best: Its best checkpoint, if it keeps one.
        critics: The verdict on each critic.
        data_keys: The roles of the keys of its data sources, by part and key; None in runs of earlier versions.
        metrics: The figures of the last evaluation, by name.
        environment: The software and the machine.
    """

    status: Status
    note: str = ""
    step: int = attrs.field(validator=valid_step)
    images_seen: int | None = attrs.field(default=None, validator=valid_rows)
    wall_s: float | None = attrs.field(default=None, validator=valid_seconds)
    parameters: int | None = attrs.field(default=None, validator=valid_parameters)
    log_events: int | None = attrs.field(default=None, validator=valid_events)
    seed: int | None = None
    init_from: WarmStartRecord | None = None
    best: BestRecord | None = None
    critics: dict[str, CriticVerdict] = attrs.Factory(dict)
    data_keys: dict[str, dict[str, KeyRole]] | None = None
    metrics: dict[str, Estimate] = attrs.Factory(dict)
    environment: EnvironmentRecord = EnvironmentRecord()

    def as_dict(self) -> dict[str, Any]:
        """Return the content as plain values, without what the run does not have."""
        return {key: value for key, value in attrs.asdict(self).items() if value is not None}

    @property
    def is_done(self) -> bool:
        """Whether the run came to its end."""
        return self.status == "done"

    @property
    def had_checkpoints(self) -> bool:
        """Whether the run cannot have ended without a checkpoint: who goes on is running at a later step than 0."""
        return self.status in ("done", "stopped") or (self.status == "running" and self.step > 0)

    def distrusted(self) -> list[str]:
        """Return a line for each critic that was not trusted at its last log event."""
        return [f"step {critic.step}: {critic.note}" for critic in self.critics.values() if critic.trusted is False]


def describe_progress(summary: Summary | None, total: int | str | None = None) -> str:
    """Say how far a run is: "status done, step 4000", or "no summary.json"."""
    if summary is None:
        return "no summary.json"
    return f"status {summary.status}, step {summary.step}" + ("" if total is None else f" of {total}")


# --- evaluation.json -------------------------------------------------------------------------------------------------


def checkpoint_name(step: int) -> str:
    """Return the name of a step's checkpoint folder.

    >>> checkpoint_name(1000)
    'step-00001000'
    """
    return f"step-{step:08d}"


def step_of(name: str) -> int:
    """Return the step in the name of a checkpoint folder.

    >>> step_of("step-00001000")
    1000
    """
    match = CHECKPOINT_NAME.fullmatch(name)
    assert match is not None, name
    return int(match["step"])


@attrs.frozen
class EvaluatedCheckpoint:
    """The figures that `jointgen eval` found of a checkpoint, by name."""

    metrics: dict[str, Estimate]


Evaluation = dict[str, EvaluatedCheckpoint]
"""The content of `evaluation.json`: figures by the name of the checkpoint."""
