"""Trackers that get a run's figures and pictures besides its own files: components of kind tracker."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
from accelerate import PartialState

from jointgen.config.documents import read_document
from jointgen.config.toml import flatten
from jointgen.contracts.trackers import StartedTracker, TrackerOptions
from jointgen.errors import ConfigError, MissingFileError, Problems
from jointgen.registry.components import Registry
from jointgen.registry.discovery import CORE
from jointgen.runtime.atomic_files import replace_text


def named_trackers(entries: Sequence[Any], registry: Registry) -> dict[str, Any]:
    """Return the trackers of a recipe by name, each once; an entry is a name or a tracker with its settings.

    Raises:
        ConfigError: A name is unknown, or a package is missing; the message says how to install it.
    """
    found, problems = dict[str, Any](), Problems()
    for number, entry in enumerate(entries):
        with problems.collect("train", "trackers", number):
            tracker = registry.default("tracker", entry) if isinstance(entry, str) else entry
            name = registry.name_of("tracker", type(tracker))
            if found.setdefault(name, tracker) != tracker:
                raise ConfigError(f"{name!r} is there already, with other settings")
    for name, tracker in found.items():
        if importlib.util.find_spec(tracker.package) is None:
            problems.add(f"{name!r} needs its package: {_way_to(tracker.package)}", "train", "trackers")
    problems.raise_any()
    return found


def _way_to(package: str) -> str:
    """Say how to install a package: by one of our extras, where there is one."""
    extras = metadata.metadata(CORE).get_all("Provides-Extra") or []
    if package in extras:
        return f"uv sync --extra {package}, or pip install '{CORE}[{package}]'"
    return f"uv pip install {package}"


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


def start_trackers(entries: Sequence[Any], registry: Registry, folder: Path, recipe: str, step: int | None) -> Trackers:
    """Start the trackers of a recipe, and keep their ids in the run folder, by which a resumed run finds them again.

    Args:
        entries: As the recipe has them.
        registry: Where they are found.
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
    for name, tracker in named_trackers(entries, registry).items():
        try:
            options = TrackerOptions(folder.absolute(), settings, known.get(name), step)
            started[name] = closing.enter_context(tracker.start(options))
        except Exception as error:  # packages raise anything: no login, no server, a version that does not fit
            closing.close()
            reason = str(error).strip().split("\n")[0]
            message = f"{name!r} does not start: {type(error).__name__}: {reason}"
            raise ConfigError(message, "train", "trackers") from error
    ids = {name: tracker.id for name, tracker in started.items() if tracker.id}
    if ids and ids != known:
        replace_text(file, json.dumps({**known, **ids}, indent=2) + "\n")
    return Trackers(started, closing)
