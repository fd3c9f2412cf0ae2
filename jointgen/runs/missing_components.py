"""Components that a run has used and that are not here: what to install, and what a trained model does without.

Torch-free.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from jointgen.errors import ConfigError, FileError, KeyPath, Problem, dotted
from jointgen.registry.components import IN_PROCESS, Registry
from jointgen.runs.folder import RunFolder
from jointgen.runs.records import ComponentRecord
from jointgen.runtime.installed import installed_version
from jointgen.text import listed

OF_TRAINING = ("optimizer", "schedule", "tracker", "metric", "augmentation")
"""The kinds that a trained model does without, where they stand in one of these tables of its recipe."""
TABLES_OF_TRAINING = ("optimizer", "train", "eval", "data", "sources")


@attrs.frozen
class MissingComponents:
    """Components that a run has recorded and that nothing here registers, by the dotted keys of their tables."""

    by_key: Mapping[str, ComponentRecord]

    @classmethod
    def of_run(cls, folder: RunFolder, registry: Registry, tables: Mapping[str, Any]) -> MissingComponents:
        """Look for the components of a run.

        Args:
            folder: The run. One that has no whole record of its components misses none.
            registry: The components that are here.
            tables: The recipe that is read; what it does not name (any more) is not missing.
        """
        recorded: Mapping[str, ComponentRecord] = {}
        with contextlib.suppress(FileError):  # whoever writes to the run says that its record is damaged
            recorded = next((one.components for one in reversed(folder.read_sessions().sessions)), {})
        absent = {key: one for key, one in recorded.items() if one.type not in registry.names(one.kind)}
        named = {key for key, value in _entries(tables, ()) if key in absent and _type_of(value) == absent[key].type}
        return cls({key: one for key, one in absent.items() if key in named})

    @property
    def of_training(self) -> MissingComponents:
        """Those that a trained model does without."""

        def is_of_training(key: str, one: ComponentRecord) -> bool:
            return one.kind in OF_TRAINING and key.partition(".")[0] in TABLES_OF_TRAINING

        return MissingComponents({key: one for key, one in self.by_key.items() if is_of_training(key, one)})

    @property
    def needed(self) -> MissingComponents:
        """The others."""
        spared = self.of_training.by_key
        return MissingComponents({key: one for key, one in self.by_key.items() if key not in spared})

    def removed_from(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        """Return a recipe's tables without these components."""
        whole: dict[str, Any] = _without(tables, (), self.by_key)
        return whole

    def explain(self, problems: Sequence[Problem]) -> list[Problem]:
        """Say what each of these components came from in place of that it is unknown, and at last what to install."""
        paths = {dotted(_table_of(problem)): problem.path for problem in problems}
        origins = {key: origin for key, one in self.by_key.items() if (origin := _origin(one))}
        others = [problem for problem in problems if dotted(_table_of(problem)) not in origins]
        last = {remedy: key for key, (_, remedy) in origins.items()}
        for key, (line, remedy) in origins.items():
            text = f"{line}: {remedy}" if remedy and last[remedy] == key else line
            others.append(Problem(text, *paths[key]) if key in paths else Problem(f"{key}: {text}"))
        return others

    def __str__(self) -> str:
        """Name them with what they came from."""
        by_provider: dict[str, list[str]] = {}
        for one in self.by_key.values():
            by_provider.setdefault(one.provider, []).append(f"{one.kind} {one.type!r}")
        return "; ".join(f"{listed(dict.fromkeys(names))} of {provider}" for provider, names in by_provider.items())


@contextmanager
def explaining_missing(
    tables: Mapping[str, Any], recipe: object, out: str | os.PathLike[str] | None, registry: Registry
) -> Iterator[None]:
    """Say in a ConfigError of a run's recipe what to install, as the run knows it.

    Args:
        tables: The recipe.
        recipe: Its file or name: one that lies in a run folder is that run's.
        out: The folder of the run that it goes on with, if any.
        registry: The components that are here.
    """
    try:
        yield
    except FileError:
        raise
    except ConfigError as error:
        places = [Path(recipe).parent] if isinstance(recipe, str | os.PathLike) else []
        for place in (*places, *([Path(out)] if out is not None else [])):
            if (folder := RunFolder(place)).environment.is_file():
                missing = MissingComponents.of_run(folder, registry, tables)
                raise ConfigError(missing.explain(error.problems)) from None
        raise


def _table_of(problem: Problem) -> KeyPath:
    """The path of the component that a problem with its type is about: of its table, or of the text that names it."""
    return problem.path[:-1] if problem.path[-1:] == ("type",) else problem.path


def _origin(one: ComponentRecord) -> tuple[str, str] | None:
    """Say what a component came from, and what brings it back; None where it is not known."""
    name = f"{one.kind.replace('_', ' ')} {one.type!r}"
    if one.distribution == IN_PROCESS and "." not in one.type:  # a dotted name says itself what to define
        remedy = "load it in Python, where it has been defined again"
        return f"{name} was defined in the notebook or script that trained the run; {remedy}", ""
    if not one.version:
        return None
    here = installed_version(one.distribution)
    if here == one.version:  # it is installed and does not load, which the registry says
        return None
    state = f"and {one.distribution} {here}, which is installed, has none" if here else "which is not installed"
    return f"{name} came from {one.provider}, {state}", f"pip install {one.distribution}=={one.version}"


def _entries(value: Any, path: KeyPath) -> Iterator[tuple[str, Any]]:
    """Every table, list and value of a recipe by its dotted key."""
    if path:
        yield dotted(path), value
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entries(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _entries(item, (*path, index))


def _type_of(value: Any) -> Any:
    return value.get("type") if isinstance(value, Mapping) else value


def _without(value: Any, path: KeyPath, gone: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        kept = {key: (*path, str(key)) for key in value if dotted((*path, str(key))) not in gone}
        return {key: _without(value[key], at, gone) for key, at in kept.items()}
    if isinstance(value, list):
        return [_without(item, (*path, n), gone) for n, item in enumerate(value) if dotted((*path, n)) not in gone]
    return value
