"""`jointgen runs`: the runs of a folder, what each trains, how far it is and what it reached. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import rich.box
import rich.filesize
import rich.table

from jointgen.cli.arguments import Arguments
from jointgen.reports.run_list import FIELDS, ListedRun, chosen, find_runs, in_order
from jointgen.runtime.console import log, say_text
from jointgen.runtime.terminal import on_stdout, styled
from jointgen.text import shortened

FILE_WIDTH = 200
"""The width of the table where stdout is no terminal."""


def runs_command(arguments: Arguments) -> None:
    """List runs as a table, or as JSON."""
    everything = find_runs(Path(arguments.folder))
    runs = in_order(chosen(everything, arguments.where), arguments.sort)
    if arguments.json:
        say_text(json.dumps([run.as_dict() for run in runs], indent=2))
    else:
        print_table(runs, arguments.sort)
    if not runs:
        log(f"{arguments.folder} holds no run" + (" that fulfils --where" if everything else ""))
    if not arguments.json:
        log(*(f"{run.path}: {run.problem}" for run in runs if run.problem))


def print_table(runs: Sequence[ListedRun], sorted_by: str | None = None) -> None:
    """Print runs as a table, with a column for what they are sorted by."""
    if not runs:
        return
    own = sorted_by if sorted_by not in (None, *FIELDS) else None
    with on_stdout(FILE_WIDTH) as console:
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        heads = ["run", "objective", "data", "status", "step", "time", *([own] if own else []), "best figure", "size"]
        for head in heads:
            table.add_column(styled(head), justify="right" if head in ("step", "time", "size", own) else "left")
        for run in runs:
            cells = [
                *(run.path if run.name == Path(run.path).name else f"{run.path} ({run.name})", run.objective, run.data),
                run.status,
                f"{_or_dash(run.step)}/{_or_dash(run.steps)}",
                "-" if run.time_s is None else duration(run.time_s),
                *([_value(run.value(own))] if own else []),
                f"{run.best} {_value(run.figures[run.best].value)}" if run.best else "-",
                rich.filesize.decimal(run.bytes),
            ]
            table.add_row(*(styled(shortened(cell)) for cell in cells))
        console.print(table)


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


def _value(value: object) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Write seconds in the largest unit of which there is one.

    >>> duration(7.2), duration(75), duration(3725), duration(200_000)
    ('7 s', '1:15 min', '1:02 h', '2 d 7 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    hours = whole // 3600
    return f"{hours}:{whole % 3600 // 60:02d} h" if hours < 48 else f"{hours // 24} d {hours % 24} h"
