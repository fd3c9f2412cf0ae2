"""Data that is given to `jointgen.run` in Python, as a data source that the recipe names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from jointgen.config.structure import component_table
from jointgen.config.values import show
from jointgen.contracts.sources import HoldsData
from jointgen.errors import ConfigError
from jointgen.registry.components import Registry


def are_data_paths(data: Any) -> bool:
    """Whether the argument `data` says where data lies, and is not the data itself."""
    if isinstance(data, Mapping):
        return all(isinstance(one, str | os.PathLike) for one in data.values())
    texts = isinstance(data, list | tuple) and all(isinstance(one, str | os.PathLike) for one in data)
    return data is None or isinstance(data, str | os.PathLike) or texts


def given_source(data: Any, registry: Registry) -> Any:
    """Return the data source of data that is given in Python, or of a source that is given as an object.

    Raises:
        ConfigError: No registered source knows such data, or it cannot be used.
    """
    if attrs.has(type(data)):
        return data
    holders = [cls for _, cls in registry.loadable("data") if isinstance(cls, HoldsData)]
    source = next((one for cls in holders if (one := cls.holding(data)) is not None), None)
    if source is None:
        raise ConfigError(
            f"expected a path, arrays, a data set of torch or a data source, got {show(data)}; a dict holds an array "
            "for each variable",
            "data",
        )
    return source


def with_data(tables: Mapping[str, Any], source: Any, registry: Registry) -> dict[str, Any]:
    """Return a recipe's tables with this data source in the place of the recipe's."""
    return {**tables, "data": component_table("data", source, registry)}
