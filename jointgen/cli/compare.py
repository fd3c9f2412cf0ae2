"""`jointgen compare`: runs side by side in one table. Loads torch only where pictures are drawn."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from jointgen.cli.arguments import Arguments, load
from jointgen.cli.output_files import check_output, writing_output
from jointgen.errors import ConfigError, suggest
from jointgen.registry.discovery import load_plugins
from jointgen.reports.comparison import data_sets, published
from jointgen.reports.comparison.columns import choose_columns, unequal_protocols
from jointgen.reports.comparison.formats import Picture, Pictures, csv_of, markdown_of, page_of, print_tables
from jointgen.reports.comparison.rows import group_rows
from jointgen.reports.comparison.runs import Run, read_runs
from jointgen.reports.comparison.table import Row, Table, make_table
from jointgen.runtime.atomic_files import replace_bytes, replace_text
from jointgen.runtime.console import log_once

ENDINGS = (".md", ".csv", ".html")


def compare_command(arguments: Arguments) -> None:
    """Compares runs in tables, with pictures of their models where they are wanted."""
    tables = compare(arguments)
    drawn = [_drawn(table, arguments) for table in tables]
    log_once(*(line for each in drawn for line in each.remarks))
    files = _write_pictures(drawn, arguments)
    if arguments.output is None:
        print_tables(tables)
    else:
        _write_tables(Path(arguments.output), tables, drawn, files)
    for path in ([arguments.output] if arguments.output else []) + [path for each in files for path in each]:
        print(path)


def compare(arguments: Arguments) -> list[Table]:
    """A table for each data set. Raises ConfigError with every problem of options and runs at once."""
    problems: list[str] = []
    runs: list[Run] = []
    for check in (
        _check_output,
        _check_figures,
        _check_published,
        lambda given: runs.extend(read_runs(given.runs)),
    ):
        try:
            check(arguments)
        except ConfigError as error:
            problems += error.lines
    if problems:
        raise ConfigError(problems)
    return [_table(members, arguments) for members in data_sets.split_by_data(runs, arguments.data)]


def _check_output(arguments: Arguments) -> None:
    if arguments.output is not None:
        check_output(arguments.output, *ENDINGS)


def _check_figures(arguments: Arguments) -> None:
    if arguments.figures is not None and Path(arguments.figures).is_file():
        raise ConfigError(f"{arguments.figures}: is a file; expected a folder", "--figures")


def _check_published(arguments: Arguments) -> None:
    name, known = arguments.published, published.table_names()
    if name is not None and name not in known:
        raise ConfigError(f"unknown table {name!r}{suggest(name, known)}", "--published")


def _table(runs: Sequence[Run], arguments: Arguments) -> Table:
    name = arguments.published or published.table_for(str(runs[0].recipe.get("data", {}).get("type")))
    quoted = published.published_table(name) if name and not arguments.no_published else None
    columns = choose_columns(runs, quoted.columns() if quoted else (), arguments.metrics)
    metrics = [component.name for component in load_plugins().registry.components("metric")]
    if problems := unequal_protocols(columns, runs, metrics):
        raise ConfigError(problems)
    rows = group_rows(runs, aggregate=not arguments.no_aggregate, same_data=arguments.data == "same")
    return make_table(data_sets.title_of(runs), columns, rows, quoted)


# --- what is written -------------------------------------------------------------------------------------------------


def _drawn(table: Table, arguments: Arguments) -> Pictures:
    """Draws pictures of the model of each row, of its first seed. Only this needs torch."""
    if arguments.no_figures or (arguments.output is None and arguments.figures is None):
        return Pictures()
    draw: Callable[..., Pictures] = load("jointgen.cli.models:pictures_of")
    return draw([(_shown_as(row), row.runs[0].path) for row in table.rows], arguments.device)


def _shown_as(row: Row) -> str:
    return f"{row.name}, seed {row.runs[0].seed}" if len(row.runs) > 1 else row.name


def _write_pictures(drawn: Sequence[Pictures], arguments: Arguments) -> list[list[Path]]:
    """As files, of each table; none where they stand in a page alone."""
    start = _start_of_names(arguments)
    ends = [f"-{i}" if len(drawn) > 1 else "" for i in range(1, len(drawn) + 1)]
    if start is None:
        return [[] for _ in drawn]
    return [
        [_write(Path(f"{start}{picture.name}{end}.png"), picture) for picture in each.pictures]
        for each, end in zip(drawn, ends, strict=True)
    ]


def _start_of_names(arguments: Arguments) -> str | None:
    """Of the pictures' files: DIR/, or FILE- without its ending."""
    if arguments.figures is not None:
        return os.path.join(arguments.figures, "")
    table = Path(arguments.output or "page.html")
    return None if table.suffix.lower() == ".html" else f"{table.with_suffix('')}-"


def _write(path: Path, picture: Picture) -> Path:
    with writing_output(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(path, picture.png)
    return path


def _write_tables(path: Path, tables: Sequence[Table], drawn: Sequence[Pictures], files: Sequence[list[Path]]) -> None:
    if path.suffix.lower() == ".html":
        text = page_of(list(zip(tables, drawn, strict=True)))
    elif path.suffix.lower() == ".csv":
        text = csv_of(tables)
    else:
        captions = [[picture.caption for picture in each.pictures] for each in drawn]
        linked = [[Path(os.path.relpath(file, path.parent)).as_posix() for file in each] for each in files]
        parts = zip(tables, captions, linked, strict=True)
        text = "\n".join(markdown_of(table, list(zip(words, links, strict=True))) for table, words, links in parts)
    with writing_output(path):
        replace_text(path, text)
