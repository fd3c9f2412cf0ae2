"""Writes the tables of a comparison: in the terminal, as Markdown, as CSV and as a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

import attrs
import rich.box
import rich.console
import rich.markup
import rich.table
import rich.text

from jointgen.reports.comparison.table import Cell, Row, Table
from jointgen.reports.html import fill_template

_SUPERSCRIPTS = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹·")
WIDE = 10_000


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


def raised(notes: Iterable[int]) -> str:
    """Footnotes' numbers as superscripts: ¹·²"""
    return ",".join(map(str, notes)).translate(_SUPERSCRIPTS)


def remarks(table: Table) -> list[str]:
    """What stands below a table but for the footnotes, a line each."""
    heads = [f"{title} ({kind})" if kind else title for title, kind in table.heads()]
    found = [f"{head}: {meaning}." for head, meaning in zip(heads, table.meanings, strict=True) if meaning]
    found += [f"{row.label}: {', '.join(run.path for run in row.runs)}{_seeds(row)}." for row in table.rows]
    found += [f"No run has {name}" + (f" ({why})." if why else ".") for name, why in table.left_out]
    return found


def _seeds(row: Row) -> str:
    return f" (seed{'s' * (len(row.runs) > 1)} {', '.join(str(run.seed) for run in row.runs)})"


# --- terminal --------------------------------------------------------------------------------------------------------


def print_tables(tables: Sequence[Table]) -> None:
    """Wide tables are folded: columns that do not fit go into a further table. A log file has lines of any length."""
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:
        console = rich.console.Console(highlight=False, width=WIDE)
    for table in tables:
        _print_table(table, console)


def _print_table(table: Table, console: rich.console.Console) -> None:
    console.print(rich.text.Text(table.title, style="bold"), soft_wrap=True)
    for columns in _folded(table, console.width):
        console.print(_rich_table(table, columns, starred=not console.is_terminal))
    for line in [table.signs("Bold" if console.is_terminal else "*"), *_numbered(table), *remarks(table)]:
        console.print(rich.text.Text(line, style="dim" if console.is_terminal else ""), soft_wrap=True)


def _numbered(table: Table) -> list[str]:
    return [f"{raised([i])} {text}" for i, text in enumerate(table.footnotes, 1)]


def _rich_table(table: Table, columns: Sequence[int], starred: bool) -> rich.table.Table:
    shown = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    shown.add_column("")
    heads = table.heads()
    for i in columns:
        title, kind = heads[i]
        shown.add_column(rich.text.Text(f"{title}\n{kind}"), justify="right", no_wrap=True)
    for row in table.rows:
        shown.add_row(_label(row), *(_shown(row.cells[i], starred) for i in columns))
    if quoted := [row for row in table.published if any(row.cells[i].value is not None for i in columns)]:
        shown.add_section()
        shown.add_row(rich.text.Text(table.published_title, style="italic"))
        for row in quoted:
            shown.add_row(_label(row), *(_shown(row.cells[i], starred) for i in columns), style="dim")
    return shown


def _label(row: Row) -> rich.text.Text:
    return rich.text.Text(f"{row.label}{raised(row.notes)}")


def _shown(cell: Cell, starred: bool) -> rich.text.Text:
    text = f"*{cell.text}" if cell.best and starred else cell.text
    return rich.text.Text(f"{text}{raised(cell.notes)}", style="bold" if cell.best else "")


def _folded(table: Table, width: int) -> list[list[int]]:
    """Columns for each of as many tables as it takes to keep to the width."""
    rows = [*table.rows, *table.published]
    heads = table.heads()
    label = max(len(_label(row).plain) for row in rows) + 3
    blocks: list[list[int]] = [[]]
    used = label
    for i, head in enumerate(heads):
        wide = max(*map(len, head), *(len(_shown(row.cells[i], True).plain) for row in rows)) + 2
        if used + wide > width and blocks[-1]:
            blocks.append([])
            used = label
        blocks[-1].append(i)
        used += wide
    return blocks


# --- Markdown --------------------------------------------------------------------------------------------------------


def markdown_of(table: Table, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """pictures: (title, path) of each."""
    heads = [f"{_escaped(title)}<br>{_escaped(kind)}" if kind else _escaped(title) for title, kind in table.heads()]
    lines = [f"**{_escaped(table.title)}**", "", _line(["model", *heads]), _line(["---", *("---:" for _ in heads)])]
    lines += [_line([_escaped(row.label) + raised(row.notes), *map(_marked, row.cells)]) for row in table.rows]
    if table.published:
        lines.append(_line([f"*{_escaped(table.published_title)}*", *("" for _ in heads)]))
        lines += [_line([_escaped(row.label), *map(_marked, row.cells)]) for row in table.published]
    lines += ["", table.signs("Bold"), ""]
    lines += [f"{_escaped(line)}  " for line in _numbered(table)]
    lines += ["", *(f"- {_escaped(line)}" for line in remarks(table))]
    lines += [part for title, path in pictures for part in ("", f"![{_escaped(title)}]({path})")]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _marked(cell: Cell) -> str:
    return (f"**{cell.text}**" if cell.best else cell.text) + raised(cell.notes)


def _escaped(text: str) -> str:
    for character in ("\\", "|", "*", "_", "<", "`", "["):
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


# --- CSV -------------------------------------------------------------------------------------------------------------


def csv_of(tables: Sequence[Table]) -> str:
    """One line for each row of each table; a column for each value, its spread, the runs it is of, and its footnotes.

    Numbers are whole, not rounded. Columns of several tables stand side by side.
    """
    columns = list(dict.fromkeys(column for table in tables for column in table.columns))
    fields = ["data", "source", "model", "runs", "seeds", "notes"]
    fields += [f"{column.identity}{what}" for column in columns for what in ("", " ±", " notes")]
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for source, rows in (("run", table.rows), (table.published_title, table.published)):
            for row in rows:
                writer.writerow(_record(table, source, row))
    return out.getvalue()


def _record(table: Table, source: str, row: Row) -> dict[str, object]:
    record: dict[str, object] = {
        "data": table.title,
        "source": source,
        "model": row.label,
        "runs": " ".join(run.path for run in row.runs),
        "seeds": " ".join(str(run.seed) for run in row.runs),
        "notes": _texts(table, row.notes),
    }
    for column, cell in zip(table.columns, row.cells, strict=True):
        name = column.identity
        record[name] = "" if cell.value is None else repr(cell.value)
        record[f"{name} ±"] = "" if cell.spread is None else repr(cell.spread)
        record[f"{name} notes"] = _texts(table, cell.notes)
    return record


def _texts(table: Table, notes: Iterable[int]) -> str:
    return "; ".join(table.footnotes[i - 1] for i in notes)


# --- page ------------------------------------------------------------------------------------------------------------


def page_of(tables: Sequence[tuple[Table, Pictures]]) -> str:
    """Writes the tables and their pictures as one HTML page."""
    return fill_template("compare.html", tables=tables, remarks=remarks)
