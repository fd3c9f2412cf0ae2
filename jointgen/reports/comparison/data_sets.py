"""Which runs saw the same data: only these can be compared."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from jointgen.config.toml import show
from jointgen.errors import ConfigError
from jointgen.reports.comparison.runs import Run

NOT_HELD_OUT = ("flip", "labels", "download", "verify", "observe", "workers", "max_broken")
"""Keys of data sources that change nothing about the held-out values; of `observe`, see `Figure.observed`."""
PLACES = ("root", "path", "test_path", "data_dir")
"""Keys that say where data lies; the same data may lie elsewhere."""


def by_data(runs: Sequence[Run], data: str | None) -> list[list[Run]]:
    """The runs of each data set.

    data: "mixed" allows several, "same" is the user's word that they are one. Raises ConfigError, naming what differs,
    where there are several and nothing is said.
    """
    if data == "same":
        return [list(runs)]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(repr(_facts(run)), []).append(run)
    found = list(groups.values())
    if len(found) > 1 and data is None:
        raise ConfigError([*_differences([group[0] for group in found]), _advice(found)])
    return found


def _facts(run: Run) -> list[tuple[str, Any]]:
    """(key, value) of all that the held-out values depend on, in order."""
    found = [(f"{part}.{key}", value) for part, table in run.data.items() for key, value in table.items()]
    return sorted((key, value) for key, value in found if key.rpartition(".")[2] not in NOT_HELD_OUT)


def _differences(runs: Sequence[Run]) -> Iterable[str]:
    """A line for each key that they differ in; for sources of different types only that."""
    facts = [dict(_facts(run)) for run in runs]
    found: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for each in facts for key in each):
        values = [show(each[key]) if key in each else "not set" for each in facts]
        if len(set(values)) > 1:
            found[key] = values
    for key, values in found.items():
        type_key = f"{key.rpartition('.')[0]}.type"
        if key == type_key or type_key not in found:
            told = ", ".join(f"{value} ({run.path})" for value, run in zip(values, runs, strict=True))
            yield f"{key}: {told}: figures of different data cannot be compared"


def _advice(groups: Sequence[Sequence[Run]]) -> str:
    """How to go on. Where only places differ, it may be the same data."""
    facts = [dict(_facts(group[0])) for group in groups]
    contents = [{key: v for key, v in each.items() if key.rpartition(".")[2] not in PLACES} for each in facts]
    same = all(each == contents[0] for each in contents)
    known = "; if it is the same data, --data same" if same else ""
    return f"--data mixed makes a table for each of the {len(groups)} data sets{known}"


def title(runs: Sequence[Run]) -> str:
    """What the data is, in a few words: image_folder (birds, size = 64)."""
    table = runs[0].data["data"]
    places = [os.path.basename(str(table[key]).rstrip("/")) for key in PLACES[:2] if table.get(key)]
    shown = [place for place in places if place != table["type"]]
    shown += [f"size = {show(table['size'])}"] if "size" in table else []
    return str(table.get("type", "data")) + (f" ({', '.join(shown)})" if shown else "")
