"""Data sources and their opened rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import attrs
from torch import Tensor

from jointgen.contracts.space import Space
from jointgen.errors import ConfigError


class Rows(Protocol):
    """An opened split of a data source, held in memory or read on demand.

    Optional, for training splits: ``augment(values, noise)``, stored rows on any device -> raw rows that fit the Spaces
    (flips, crops); and ``stored(index)``, what it takes where that is more than `take` shows. A step takes rows as
    they are stored, on the CPU or from a copy of all of them on the accelerator, and augments them where it trains.
    """

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Rows by (B,) int64 index: raw tensors by variable (uint8 levels, float vectors, int64 labels)."""


@runtime_checkable
class DataSource(Protocol):
    """Named variables with their Spaces, known without reading data.

    A source that has labels which not every model wants has a field ``labels: bool = False`` that asks for them; they
    are then further variables of the same rows.
    """

    def spaces(self) -> dict[str, Space]: ...

    def open(self, split: str) -> Rows:
        """`split` is "train" or "test". Raises ConfigError naming the path when the data is not there."""


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
READING: Mapping[str, KeyRole] = {_ROLE: "reading"}
SIZE: Mapping[str, KeyRole] = {_ROLE: "size"}


def key_roles(source: type) -> dict[str, KeyRole]:
    """The roles of a data source's keys, by key; keys without a role are left out.

    Args:
        source: The attrs class of the data source.
    """
    fields = attrs.fields(source)
    return {field.name: field.metadata[_ROLE] for field in fields if _ROLE in field.metadata}


def labelled(source: Any) -> Any:
    """The source with its labels, where it can give any; otherwise as it is."""
    if getattr(source, "labels", None) is not False:
        return source
    asked = attrs.evolve(source, labels=True)
    try:
        asked.spaces()
    except ConfigError:  # this data has none
        return source
    return asked
