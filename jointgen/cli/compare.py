"""`jointgen compare`: runs side by side in one table. Loads torch only where pictures are drawn."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from jointgen.cli.arguments import Arguments, load
from jointgen.cli.output_files import check_output, writing_output
from jointgen.errors import ConfigError, Problems, suggest
from jointgen.registry.discovery import load_plugins
from jointgen.reports.comparison import data_sets, published
from jointgen.reports.comparison.columns import choose_columns, unequal_protocols
from jointgen.reports.comparison.formats import Pictures, csv_of, json_of, markdown_of, page_of, print_tables
from jointgen.reports.comparison.rows import group_rows
from jointgen.reports.comparison.runs import ComparedRun, read_runs
from jointgen.reports.comparison.table import Table, make_table
from jointgen.runtime.atomic_files import replace_bytes, replace_text
from jointgen.runtime.console import log_once, say, say_text

ENDINGS = (".md", ".csv", ".html")


def compare_command(arguments: Arguments) -> None:
    """Compare runs in tables, with pictures of their models where they are wanted."""
    tables = compare(arguments)

    # pictures of each row's first seed; only they need torch
    wanted = not arguments.no_figures and (arguments.output is not None or arguments.figures is not None)
    drawn = [draw_pictures(table, arguments.device) if wanted else Pictures() for table in tables]
    log_once(*(line for pictures in drawn for line in pictures.remarks))
    files = _write_pictures(drawn, arguments)

    if arguments.json:
        say_text(json.dumps(json_of(tables), indent=2))
    elif arguments.output is None:
        print_tables(tables)
    else:
        _write_tables(Path(arguments.output), tables, drawn, files)
        say(arguments.output)
    if not arguments.json:
        say(*(str(path) for paths in files for path in paths))


def compare(arguments: Arguments) -> list[Table]:
    """Make a table for each data set.

    Raises:
        ConfigError: With every problem of the options and the runs.
    """
    problems, runs = Problems(), list[ComparedRun]()
    with problems.collect():
        if arguments.output is not None:
            check_output(arguments.output, *ENDINGS)
    if arguments.figures is not None and Path(arguments.figures).is_file():
        problems.add(f"{arguments.figures}: is a file; expected a folder", "--figures")
    if arguments.published not in (None, *(known := published.table_names())):
        problems.add(f"unknown table {arguments.published!r}{suggest(arguments.published, known)}", "--published")
    with problems.collect():
        runs = read_runs(arguments.runs)
    problems.raise_any()
    return [_table(members, arguments) for members in data_sets.split_by_data(runs, arguments.data)]


def _table(runs: Sequence[ComparedRun], arguments: Arguments) -> Table:
    name = arguments.published or published.table_for(str(runs[0].recipe.get("data", {}).get("type")))
    quoted = published.published_table(name) if name and not arguments.no_published else None
    columns = choose_columns(runs, quoted.columns() if quoted else (), arguments.metrics)
    metrics = [component.name for component in load_plugins().registry.components("metric")]
    if problems := unequal_protocols(columns, runs, metrics):
        raise ConfigError(problems)
    rows = group_rows(runs, aggregate=not arguments.no_aggregate, same_data=arguments.data == "same")
    return make_table(data_sets.title_of(runs), columns, rows, quoted)


# --- the files that are written --------------------------------------------------------------------------------------


def draw_pictures(table: Table, device: str) -> Pictures:
    """Draw the pictures of the first seed of each row."""
    draw: Callable[..., Pictures] = load("jointgen.cli.compare_pictures:pictures_of")
    labels = [f"{row.name}, seed {row.runs[0].seed}" if len(row.runs) > 1 else row.name for row in table.rows]
    return draw([(label, row.runs[0].path) for label, row in zip(labels, table.rows, strict=True)], device)


def _write_pictures(drawn: Sequence[Pictures], arguments: Arguments) -> list[list[Path]]:
    """Write the pictures of each table as DIR/NAME.png or beside the table as FILE-NAME.png; a page holds its own."""
    table = Path(arguments.output or "page.html")
    if arguments.figures is not None:
        start = os.path.join(arguments.figures, "")
    elif table.suffix.lower() == ".html":
        return [[] for _ in drawn]
    else:
        start = f"{table.with_suffix('')}-"
    files: list[list[Path]] = []
    for number, pictures in enumerate(drawn, 1):
        end = f"-{number}" if len(drawn) > 1 else ""
        files.append([Path(f"{start}{picture.name}{end}.png") for picture in pictures.pictures])
        for path, picture in zip(files[-1], pictures.pictures, strict=True):
            with writing_output(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_bytes(path, picture.png)
    return files


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
