"""Makes the rows of a table: runs that differ in nothing but their seed are one row; finds labels for the rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jointgen.config.toml import flatten
from jointgen.config.values import show
from jointgen.errors import ConfigError
from jointgen.reports.comparison.runs import ComparedRun, settings_of

MAX_LABEL_KEYS = 3
"""A label names at most so many settings."""


def group_rows(runs: Sequence[ComparedRun], *, aggregate: bool, same_data: bool) -> dict[str, list[ComparedRun]]:
    """Group runs into rows.

    Args:
        runs: The runs.
        aggregate: Whether runs that differ only in their seed become one row.
        same_data: Whether sources that differ only in where their data lies have the same data.

    Returns:
        The runs of each row, ordered by seed, by the row's label.

    Raises:
        ConfigError: Two runs have the same recipe and the same seed; a second one is not a second sample.
    """
    if not aggregate:
        return dict(zip(_folder_names(runs), ([run] for run in runs), strict=True))
    rows: dict[str, list[ComparedRun]] = {}
    problems = []
    for run in runs:
        settings = settings_of(run.recipe)
        if same_data:
            settings["data"], settings["sources"] = run.data_keys(None, "size", "reading", "loading"), {}
        members = rows.setdefault(repr(settings), [])
        if same := [other for other in members if other.seed == run.seed]:
            twice = f"the recipe and the seed ({run.seed}) of {same[0].path}"
            problems.append(f"{run.path}: has {twice}; leave one out, or use --no-aggregate")
        members.append(run)
    if problems:
        raise ConfigError(problems)
    groups = [sorted(members, key=lambda run: run.seed) for members in rows.values()]
    return dict(zip(_labels([members[0] for members in groups]), groups, strict=True))


def _labels(runs: Sequence[ComparedRun]) -> list[str]:
    """Find different labels: recipes' names, with the settings that differ where names are equal, or else folders."""
    names = [run.name for run in runs]
    labels = list(names)
    for name in {name for name in names if names.count(name) > 1}:
        places = [i for i, other in enumerate(names) if other == name]
        flat = [{key: show(value) for key, value in flatten(settings_of(runs[i].recipe))} for i in places]
        keys = [key for key in dict.fromkeys(k for f in flat for k in f) if len({f.get(key) for f in flat}) > 1]
        if len(keys) > MAX_LABEL_KEYS:
            details = _folder_names([runs[i] for i in places])
        else:
            details = [", ".join(f"{key} = {f.get(key, 'not set')}" for key in keys) for f in flat]
        for i, detail in zip(places, details, strict=True):
            labels[i] = f"{name} ({detail})"
    return labels if len(set(labels)) == len(labels) else _folder_names(runs)


def _folder_names(runs: Sequence[ComparedRun]) -> list[str]:
    """Name runs by their folders, with as many parents as it takes to tell them apart."""
    parts = [Path(run.path).parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [run.path for run in runs]
