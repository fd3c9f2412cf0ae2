"""Rows: runs of one recipe that differ in nothing but their seed, and what the rows are called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jointgen.config.toml import show
from jointgen.errors import ConfigError, dotted
from jointgen.reports.comparison.data_sets import PLACES
from jointgen.reports.comparison.runs import Run

LABEL_KEYS = 3  # settings that a label may name


def group(runs: Sequence[Run], *, aggregate: bool, same_data: bool) -> dict[str, list[Run]]:
    """The runs of each row by its label, by seed.

    Raises ConfigError where two runs are of one recipe and one seed: a second one is no second sample.
    """
    if not aggregate:
        return dict(zip(_paths(runs), ([run] for run in runs), strict=True))
    rows: dict[str, list[Run]] = {}
    for run in runs:
        rows.setdefault(repr(_identity(run, same_data)), []).append(run)
    problems = [problem for members in rows.values() for problem in _repeated(members)]
    if problems:
        raise ConfigError(problems)
    members = [sorted(group, key=lambda run: run.seed) for group in rows.values()]
    return dict(zip(_labels([group[0] for group in members]), members, strict=True))


def _identity(run: Run, same_data: bool) -> dict[str, Any]:
    settings = run.settings()
    if same_data:
        settings["data"] = {key: value for key, value in settings.get("data", {}).items() if key not in PLACES}
    return settings


def _repeated(runs: Sequence[Run]) -> Iterator[str]:
    first: dict[int, Run] = {}
    for run in runs:
        known = first.setdefault(run.seed, run)
        if known is not run:
            yield f"{run.path}: the recipe and the seed ({run.seed}) of {known.path}; leave one out, or --no-aggregate"


def _paths(runs: Sequence[Run]) -> list[str]:
    """Folders' names, with as much of the paths before them as tells them apart."""
    parts = [Path(run.path).parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [run.path for run in runs]


def _labels(runs: Sequence[Run]) -> list[str]:
    """The recipes' names; where several are called alike, with the settings in which they differ, or the folders."""
    names = [run.name for run in runs]
    found = list(names)
    for name in {name for name in names if names.count(name) > 1}:
        where = [i for i, other in enumerate(names) if other == name]
        for i, words in zip(where, _apart([runs[i] for i in where]), strict=True):
            found[i] = f"{name} ({words})"
    return found if len(set(found)) == len(found) else _paths(runs)


def _apart(runs: Sequence[Run]) -> list[str]:
    flat = [dict(_flat(run.settings(), ())) for run in runs]
    keys = [key for key in dict.fromkeys(k for each in flat for k in each) if len({each.get(key) for each in flat}) > 1]
    if len(keys) > LABEL_KEYS:
        return _paths(runs)
    return [", ".join(f"{key} = {each.get(key, 'not set')}" for key in keys) for each in flat]


def _flat(value: Any, at: tuple[str | int, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, (*at, key))
    else:
        yield dotted(at), show(value)
