"""Writes the tables of a comparison: to the terminal, as Markdown, as CSV and as an HTML page."""

from __future__ import annotations

import csv
import io
import os
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import rich.box
import rich.table
import rich.text

from jointgen.reports.comparison.columns import Column
from jointgen.reports.comparison.table import Cell, Row, Table
from jointgen.reports.html import fill_template
from jointgen.runtime.terminal import on_stdout, styled
from jointgen.text import spreadsheet_cell, visible

_SUPERSCRIPTS = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹·")
_FILE_WIDTH = 10_000
"""The width of tables that do not go to a terminal: a log file has lines of any length."""


@attrs.frozen
class Picture:
    """A picture beside a table.

    Args:
        name: The start of its file's name.
        caption: What it shows.
        png: The bytes of the PNG.
    """

    name: str
    caption: str
    png: bytes


@attrs.frozen
class Pictures:
    """The pictures beside one table, and remarks on what could not be drawn."""

    pictures: tuple[Picture, ...] = ()
    remarks: tuple[str, ...] = ()


def superscripts(notes: Iterable[int]) -> str:
    """Write the numbers of footnotes as superscripts.

    >>> superscripts([1, 12])
    '¹·¹²'
    """
    return ",".join(map(str, notes)).translate(_SUPERSCRIPTS)


def _footnotes(table: Table) -> list[str]:
    return [f"{superscripts([i])} {text}" for i, text in enumerate(table.footnotes, 1)]


# --- terminal --------------------------------------------------------------------------------------------------------


def print_tables(tables: Sequence[Table]) -> None:
    """Print tables to stdout. In a terminal, columns that do not fit go into a further table below."""
    with on_stdout(_FILE_WIDTH) as console:
        is_terminal = console.is_terminal
        for table in tables:
            console.print(styled(table.title, style="bold"), soft_wrap=True)
            for columns in _fold(table, console.width):
                console.print(_rich_table(table, columns, starred=not is_terminal))
            for line in [table.legend("Bold" if is_terminal else "*"), *_footnotes(table), *table.remarks()]:
                console.print(styled(line, style="dim" if is_terminal else ""), soft_wrap=True)


def _fold(table: Table, width: int) -> list[list[int]]:
    """Shares the columns out to as few tables as keep to the width."""
    rows = [*table.rows, *table.published]
    label_width = max(len(_label(row).plain) for row in rows) + 3
    blocks: list[list[int]] = [[]]
    used = label_width
    for i, head in enumerate(table.heads()):
        column_width = max(*map(len, head), *(len(_cell_text(row.cells[i], True).plain) for row in rows)) + 2
        if used + column_width > width and blocks[-1]:
            blocks.append([])
            used = label_width
        blocks[-1].append(i)
        used += column_width
    return blocks


def _rich_table(table: Table, columns: Sequence[int], starred: bool) -> rich.table.Table:
    """Make a table of some of the columns; `starred` marks the best with a star, for where there is no bold print."""
    shown = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    shown.add_column("")
    heads = table.heads()
    for i in columns:
        shown.add_column(styled(*heads[i]), justify="right", no_wrap=True)
    for row in table.rows:
        shown.add_row(_label(row), *(_cell_text(row.cells[i], starred) for i in columns))
    if quoted := [row for row in table.published if any(row.cells[i].value is not None for i in columns)]:
        shown.add_section()
        shown.add_row(styled(table.published_title, style="italic"))
        for row in quoted:
            shown.add_row(_label(row), *(_cell_text(row.cells[i], starred) for i in columns), style="dim")
    return shown


def _label(row: Row) -> rich.text.Text:
    return styled(f"{row.label}{superscripts(row.notes)}")


def _cell_text(cell: Cell, starred: bool) -> rich.text.Text:
    star = "*" if cell.best and starred else ""
    return styled(f"{star}{cell.text}{superscripts(cell.notes)}", style="bold" if cell.best else "")


# --- Markdown --------------------------------------------------------------------------------------------------------


def markdown_of(table: Table, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """Write a table as Markdown, with pictures below it, each a title and a path."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    def marked(cell: Cell) -> str:
        return (f"**{cell.text}**" if cell.best else cell.text) + superscripts(cell.notes)

    heads = [f"{_escape(title)}<br>{_escape(kind)}" if kind else _escape(title) for title, kind in table.heads()]
    lines = [f"**{_escape(table.title)}**", "", line(["model", *heads]), line(["---", *("---:" for _ in heads)])]
    lines += [line([_escape(row.label) + superscripts(row.notes), *map(marked, row.cells)]) for row in table.rows]
    if table.published:
        lines.append(line([f"*{_escape(table.published_title)}*", *("" for _ in heads)]))
        lines += [line([_escape(row.label), *map(marked, row.cells)]) for row in table.published]
    lines += ["", table.legend("Bold"), ""]
    lines += [f"{_escape(footnote)}  " for footnote in _footnotes(table)]
    lines += ["", *(f"- {_escape(remark)}" for remark in table.remarks())]
    for title, path in pictures:
        lines += ["", f"![{_escape(title)}]({_address(path)})"]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    """Write text so that Markdown and the HTML within it have nothing to read in it."""
    return re.sub(r"[\\|*_<>`\[\]&~$]", lambda found: f"\\{found[0]}", " ".join(visible(text).split()))


def _address(path: str) -> str:
    """Write the path of a file as the address of a link."""
    return urllib.parse.quote(os.fsencode(path))


# --- CSV -------------------------------------------------------------------------------------------------------------


def csv_of(tables: Sequence[Table]) -> str:
    """Write tables as CSV, a line for each row, with numbers that are not rounded.

    Each column of a table has three in the CSV: the value, its spread, and its footnotes. Columns of several tables
    stand side by side.
    """
    columns = list(dict.fromkeys(column for table in tables for column in table.columns))
    fields = ["data", "source", "model", "runs", "seeds", "notes"]
    fields += [f"{column.identity}{suffix}" for column in columns for suffix in ("", " ±", " notes")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(spreadsheet_cell, fields))
    for table in tables:
        rows = [("run", row) for row in table.rows] + [(table.published_title, row) for row in table.published]
        for source, row in rows:
            record: dict[str, object] = {
                "data": table.title,
                "source": source,
                "model": row.label,
                "runs": " ".join(run.path for run in row.runs),
                "seeds": " ".join(str(run.seed) for run in row.runs),
                "notes": "; ".join(table.footnotes[i - 1] for i in row.notes),
            }
            for column, cell in zip(table.columns, row.cells, strict=True):
                record[column.identity] = "" if cell.value is None else repr(cell.value)
                record[f"{column.identity} ±"] = "" if cell.spread is None else repr(cell.spread)
                record[f"{column.identity} notes"] = "; ".join(table.footnotes[i - 1] for i in cell.notes)
            writer.writerow(spreadsheet_cell(record.get(field, "")) for field in fields)
    return out.getvalue()


# --- JSON ------------------------------------------------------------------------------------------------------------


def json_of(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Return tables as JSON values: for each its data, its columns, and its rows with numbers that are not rounded.

    A cell stands under its column's identity and has value, spread (null where there is none), runs, best and notes.
    """

    def row_of(table: Table, row: Row) -> dict[str, Any]:
        cells = {
            column.identity: {
                "value": cell.value,
                "spread": cell.spread,
                "runs": cell.runs,
                "best": cell.best,
                "notes": [table.footnotes[i - 1] for i in cell.notes],
            }
            for column, cell in zip(table.columns, row.cells, strict=True)
        }
        return {
            "model": row.name,
            "runs": [run.path for run in row.runs],
            "seeds": [run.seed for run in row.runs],
            "notes": [table.footnotes[i - 1] for i in row.notes],
            "cells": cells,
        }

    def column_of(column: Column, better: str | None) -> dict[str, Any]:
        shared = attrs.asdict(column, filter=attrs.filters.exclude("display"))
        return {"identity": column.identity, "title": column.title, **shared, "better": better}

    return [
        {
            "data": table.title,
            "columns": list(map(column_of, table.columns, table.better)),
            "rows": [row_of(table, row) for row in table.rows],
            "published_title": table.published_title,
            "published": [row_of(table, row) for row in table.published],
        }
        for table in tables
    ]


# --- page ------------------------------------------------------------------------------------------------------------


def page_of(tables: Sequence[tuple[Table, Pictures]]) -> str:
    """Write tables and their pictures as one HTML page."""
    return fill_template("compare.html", tables=tables)
