"""Reads the figures that papers published from `published.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

import attrs

from jointgen.contracts.figures import Display
from jointgen.reports.comparison.columns import Column
from jointgen.reports.comparison.runs import DENSITY_UNITS


@attrs.frozen
class PublishedFigure:
    """A figure as it was printed, and notes on what a reader should know about it."""

    column: Column
    value: float
    notes: tuple[str, ...]


@attrs.frozen
class PublishedTable:
    """A table of a paper: its title, and the name and the figures of each row."""

    title: str
    rows: tuple[tuple[str, tuple[PublishedFigure, ...]], ...]

    def columns(self) -> list[Column]:
        """List the column of every figure."""
        return [figure.column for _, figures in self.rows for figure in figures]


def table_names() -> list[str]:
    """List the names of all published tables."""
    return [key for key, value in _read_file().items() if "rows" in value]


def published_table(name: str) -> PublishedTable:
    """Read a published table by its name."""
    file = _read_file()
    columns = {
        key: Column(**{**fields, "display": Display(**fields["display"])}) for key, fields in file["columns"].items()
    }
    rows = []
    for row in file[name]["rows"]:
        figures = []
        for key, (value, *notes) in ((key, row[key]) for key in row if key != "name"):
            column = columns[key]
            if column.unit in DENSITY_UNITS:
                column = attrs.evolve(column, observed=file[name]["observed"])
            figures.append(PublishedFigure(column, value, tuple(file["notes"].get(note, note) for note in notes)))
        rows.append((row["name"], tuple(figures)))
    return PublishedTable(file[name]["title"], tuple(rows))


def table_for(data_type: str) -> str | None:
    """Find the name of the published table on a data set, by the `type` of the data source."""
    return next((name for name in table_names() if _read_file()[name].get("type") == data_type), None)


@cache
def _read_file() -> dict[str, Any]:
    file = resources.files("jointgen.reports.comparison").joinpath("published.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))
