"""Figures that papers published, as data: published.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import attrs

from jointgen.reports.comparison.columns import Column
from jointgen.reports.comparison.runs import DENSITIES


@attrs.frozen
class Published:
    """A figure as it was printed, and what is to be known about it."""

    column: Column
    value: float
    notes: tuple[str, ...]


@attrs.frozen
class PublishedTable:
    """A paper's table: its rows' names and figures."""

    title: str
    rows: tuple[tuple[str, tuple[Published, ...]], ...]

    def columns(self) -> list[Column]:
        return [figure.column for _, figures in self.rows for figure in figures]


def names() -> list[str]:
    return [key for key, value in _file().items() if "rows" in value]


def published_table(name: str) -> PublishedTable:
    table = _file()[name]
    rows = ((row["name"], tuple(_figures(row, table["observe"]))) for row in table["rows"])
    return PublishedTable(table["title"], tuple(rows))


def table_for(data_type: str) -> str | None:
    """The name of the table that is of a recipe's data.type, where one is."""
    return next((name for name in names() if _file()[name].get("type") == data_type), None)


def _figures(row: dict[str, Any], observe: str) -> Iterator[Published]:
    shared = _file()["notes"]
    for key in (key for key in row if key != "name"):
        value, *notes = row[key]
        column = Column(**_file()["columns"][key])
        if column.unit in DENSITIES:
            column = attrs.evolve(column, observed=observe)
        yield Published(column, value, tuple(shared.get(note, note) for note in notes))


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads(
        resources.files("jointgen.reports.comparison").joinpath("published.toml").read_text(encoding="utf-8")
    )
