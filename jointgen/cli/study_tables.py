"""The results of a study: tables by `jointgen compare`, each run beside the one of its seed, and points of a curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from jointgen.cli.arguments import load, parse
from jointgen.cli.study_file import Row
from jointgen.cli.study_runs import Work
from jointgen.reports.comparison.columns import Column
from jointgen.reports.comparison.runs import ComparedRun, Figure, read_runs
from jointgen.runtime.atomic_files import replace_text, writing
from jointgen.runtime.console import say


def write_results(work: Work, done: Sequence[tuple[Row, int]]) -> list[Point]:
    """Write the tables of the finished runs, in the order of `done`: table.md (.html, .csv), beside.md, curve.md.

    Returns:
        The points of the study's curve; none where it has no axes.

    Raises:
        ConfigError: Figures of the runs cannot stand beside each other.
    """
    study = work.study
    published = ["--published", study.published] if study.published else []
    tabled = [str(work.folder(row, seed)) for row, seed in done if row.table]
    if tabled:
        for ending in ("md", "html", "csv"):
            _compare(tabled, work.out / f"table.{ending}", study.columns, *published)
    if not study.axes:
        return []
    every = points_of(read_runs([str(work.folder(row, seed)) for row, seed in done]), study.axes) if done else []
    if study.beside and (text := beside(every, study.beside)):
        path = work.out / "beside.md"
        with writing(path):
            replace_text(path, text)
        say(str(path))
    paths = [str(work.folder(row, seed)) for row, seed in done if row.curve]
    points = [point for point in every if point.run.path in paths]
    if points:
        _compare(paths, work.out / "curve.md", study.columns, "--no-published")
    return points


def _compare(runs: Sequence[str], path: Path, columns: str, *options: str) -> None:
    """Write a table with `jointgen compare`, without the columns that no run has a figure for."""
    have = {name for run in read_runs(runs) for name, figure in run.figures.items() if figure.value is not None}
    shown = [name.strip() for name in columns.split(",") if name.strip() in have]
    metrics = ["--metrics", ",".join(shown)] if shown else []
    compare = load("jointgen.cli.compare:compare_command")
    compare(parse(["compare", *runs, "-o", str(path), "--data", "mixed", *metrics, *options]))


@attrs.frozen(eq=False)
class Point:
    """The two figures of a run that are the axes of a study, and their titles."""

    run: ComparedRun
    across: float
    up: float
    titles: tuple[str, str]


def points_of(runs: Sequence[ComparedRun], axes: tuple[str, str]) -> list[Point]:
    """Return a point for each run that has both figures."""
    found = []
    for run in runs:
        across, up = (run.figures.get(axis) for axis in axes)
        if across and up and across.value is not None and up.value is not None:
            found.append(Point(run, across.value, up.value, (_title(across), _title(up))))
    return found


def _title(figure: Figure) -> str:
    column = Column.of(figure)
    return f"{column.title} ({column.kind})"


def beside(points: Sequence[Point], name: str) -> str:
    """Make a Markdown table that compares each run with the run of the row `name` that has the same seed.

    A cell has the quotient of the second figures and the difference of the first. The text is empty if that row has no
    run.
    """
    found: dict[str, dict[int, Point]] = {}
    for point in points:
        found.setdefault(point.run.name, {})[point.run.seed] = point
    ground = found.pop(name, {})
    if not ground:
        return ""
    across, up = points[0].titles
    lines = [f"{up} as a share of the {name}'s; {across} less the {name}'s", ""]
    lines += [f"| model | {' | '.join(f'seed {seed}' for seed in ground)} |", f"|---|{'---|' * len(ground)}"]
    for other, of in found.items():
        pairs = ((of.get(seed), least) for seed, least in ground.items())
        cells = [f"{one.up / least.up:.3f}; {one.across - least.across:+.3f}" if one else "" for one, least in pairs]
        lines.append(f"| {other} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
