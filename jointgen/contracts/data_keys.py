"""Says what the keys of a data source mean for comparisons of runs. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from jointgen.errors import KeyPath, Problem, for_caller

KeyRole = Literal["location", "loading", "reading", "size"]
"""What a key of a data source means for comparisons of runs; a key without a role decides what the data is.

- "location": says where the data lies. Runs whose sources differ in nothing else may have the same data.
- "loading": changes nothing about the held-out values (training augmentation, labels, workers, downloads).
- "reading": says how held-out values are read ("binarise"): densities of values that are read in different ways cannot
  be compared, other figures can.
- "size": decides what the data is, and is named beside the data set in titles.
"""
_ROLE = "jointgen.role"
LOCATION: Mapping[str, KeyRole] = {_ROLE: "location"}
"""Metadata of an attrs field: ``root: str = attrs.field(metadata=LOCATION)``; see `KeyRole`."""
LOADING: Mapping[str, KeyRole] = {_ROLE: "loading"}
"""Metadata of a key that changes nothing about the held-out values."""
READING: Mapping[str, KeyRole] = {_ROLE: "reading"}
"""Metadata of a key that says how held-out values are read."""
SIZE: Mapping[str, KeyRole] = {_ROLE: "size"}
"""Metadata of a key that decides what the data is and stands in titles."""


def key_roles(source: type) -> dict[str, KeyRole]:
    """The roles of a data source's keys, by key; keys without a role are left out.

    Args:
        source: The attrs class of the data source.
    """
    fields = attrs.fields(source)
    return {field.name: field.metadata[_ROLE] for field in fields if _ROLE in field.metadata}


def asking() -> str:
    """Return the end of a problem with the place of a run's data, which whoever reads rows can be told."""
    return f"; {for_caller('--data', 'data=')} says where it is now"


def asking_where(problem: Problem, sources: Mapping[KeyPath, object]) -> Problem:
    """Name the option that says where a run's data is now, in a problem with a key of a source that said where it was.

    Args:
        problem: The problem.
        sources: The run's data sources, by the keys of their tables.
    """
    source = sources.get(problem.path[:-1])
    if source is None or key_roles(type(source)).get(str(problem.path[-1])) != "location":
        return problem
    return Problem(f"{problem.message}{asking()}", *problem.path)
