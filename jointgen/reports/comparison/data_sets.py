"""Keeps runs of different data apart, because their figures cannot be compared."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from jointgen.config.values import show
from jointgen.errors import ConfigError
from jointgen.reports.comparison.runs import ComparedRun, source_tables


def split_by_data(runs: Sequence[ComparedRun], data: str | None) -> list[list[ComparedRun]]:
    """Group runs by their data.

    Args:
        runs: The runs.
        data: "mixed" allows several data sets; "same" is the user's word that all runs have the same one.

    Raises:
        ConfigError: There are several data sets and `data` allows none of this. It names the keys that differ.
    """
    if data == "same":
        return [list(runs)]
    groups: dict[str, list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(repr(sorted(_held_out_keys(run).items())), []).append(run)
    found = list(groups.values())
    if len(found) > 1 and data is None:
        first = [group[0] for group in found]
        contents = [run.data_keys(None, "size") for run in first]
        same = "; if it is the same data, --data same" if all(c == contents[0] for c in contents) else ""
        advice = f"--data mixed makes a table for each of the {len(found)} data sets{same}"
        raise ConfigError([*_differences(first), advice])
    return found


def _held_out_keys(run: ComparedRun) -> dict[str, Any]:
    """Select the keys that held-out values depend on. How values are read is noted with each density instead."""
    return run.data_keys(None, "size", "location")


def _differences(runs: Sequence[ComparedRun]) -> Iterable[str]:
    """Yield a line for each key in which data differs; for sources of different types, only for the type."""
    keys = [_held_out_keys(run) for run in runs]
    values = {key: [show(each[key]) if key in each else "not set" for each in keys] for each in keys for key in each}
    different = {key: shown for key, shown in values.items() if len(set(shown)) > 1}
    for key, shown in different.items():
        type_key = f"{key.rpartition('.')[0]}.type"
        if key == type_key or type_key not in different:
            listed = ", ".join(f"{value} ({run.path})" for value, run in zip(shown, runs, strict=True))
            yield f"{key}: {listed}: figures of different data cannot be compared"


def title_of(runs: Sequence[ComparedRun]) -> str:
    """Name the data of runs in a few words, such as "image_folder (birds, size = 64)"."""
    run, (source, table) = runs[0], next(iter(source_tables(runs[0].recipe).items()))
    kind = str(table.get("type", "data"))
    roles = run.key_roles.get(source, {})
    locations = [value for key, value in table.items() if roles.get(key) == "location" and value]
    place = os.path.basename(str(locations[0]).rstrip("/")) if locations else ""
    details = [place] if place and place != kind else []
    details += [f"{key} = {show(value)}" for key, value in table.items() if roles.get(key) == "size"]
    return kind + (f" ({', '.join(details)})" if details else "")
