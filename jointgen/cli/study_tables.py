"""The results of a study: tables as `jointgen compare` makes them, runs beside those of their seed, and one page."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import attrs

from jointgen.cli.arguments import load
from jointgen.cli.study_file import Row, Study
from jointgen.cli.study_runs import Work
from jointgen.reports.comparison import published
from jointgen.reports.comparison.charts import Chart, make_chart
from jointgen.reports.comparison.columns import Column, choose_columns
from jointgen.reports.comparison.data_sets import split_by_data, title_of
from jointgen.reports.comparison.formats import Pictures, csv_of, markdown_of
from jointgen.reports.comparison.runs import ComparedRun, Figure, read_runs
from jointgen.reports.comparison.table import Table, make_table
from jointgen.reports.html import fill_template
from jointgen.runs.folder import RunFolder
from jointgen.runtime.atomic_files import replace_text, writing
from jointgen.runtime.console import log_once, say

COSTS = ("train_s", "parameters")
"""The figures that every table of a study has."""


def write_results(work: Work, done: Sequence[tuple[Row, int]], failed: Sequence[tuple[Row, int]], total: int) -> None:
    """Write the results of the finished runs, in the order of `done`: table.md, table.csv, index.html and beside.md.

    Args:
        work: The runs.
        done: Those that are finished.
        failed: Those that failed, which the page names.
        total: The number of runs that there are to be.

    Raises:
        ConfigError: A run's files are damaged, or are no run's.
    """
    study = work.study
    every = read_runs([str(work.folder(row, seed)) for row, seed in done]) if done else []
    tabled = {str(work.folder(row, seed)) for row, seed in done if row.table}
    curved = {row.name for row, _ in done if row.curve}
    tables = _tables([run for run in every if run.path in tabled], study)
    points = {axes: points_of(every, axes) for axes in study.axes}

    files = {"table.md": "\n".join(map(markdown_of, tables)), "table.csv": csv_of(tables)} if tables else {}
    if study.beside and study.axes and (text := beside(points[study.axes[0]], study.beside)):
        files["beside.md"] = text
    draw_pictures = load("jointgen.cli.compare:draw_pictures")
    drawn: list[Pictures] = [draw_pictures(table, "cpu") for table in tables]
    log_once(*(line for pictures in drawn for line in pictures.remarks))
    files["index.html"] = fill_template(
        "study.html",
        name=study.name,
        tables=list(zip(tables, drawn, strict=True)),
        charts=[chart for of in points.values() for chart in _charts(of, curved)],
        failed=[(row.name, seed, work.failure(row, seed)) for row, seed in failed],
        done=len(done),
        total=total,
        protocol=list(_protocol(work, every)),
    )
    for name, text in files.items():
        with writing(work.out / name):
            replace_text(work.out / name, text)
        say(str(work.out / name))


def _tables(runs: Sequence[ComparedRun], study: Study) -> list[Table]:
    """Make a table for each data set, with the columns that a run has a figure for."""
    tables = []
    for members in split_by_data(runs, "mixed"):
        name = study.published or published.table_for(str(members[0].recipe.get("data", {}).get("type")))
        quoted = published.published_table(name) if name else None
        have = {name for run in members for name, figure in run.figures.items() if figure.value is not None}
        named = [name.strip() for name in study.columns.split(",") if name.strip() in have]
        columns = choose_columns(members, quoted.columns() if quoted else (), ",".join(named) or None)
        if costs := [name for name in COSTS if name in have]:
            columns += choose_columns(members, (), ",".join(costs))
        members = _of_one_protocol(members, columns)
        tables.append(make_table(title_of(members), columns, _rows(members), quoted))
    return tables


def _rows(runs: Sequence[ComparedRun]) -> dict[str, list[ComparedRun]]:
    """Group the seeds of each row, whose name its runs have."""
    rows: dict[str, list[ComparedRun]] = {}
    for run in runs:
        rows.setdefault(run.name, []).append(run)
    return rows


def _of_one_protocol(runs: Sequence[ComparedRun], columns: Sequence[Column]) -> list[ComparedRun]:
    """Leave figures out that were made in another way than most of their column; their cells say so.

    `jointgen compare` refuses them, but after long trainings of many models a table without a few cells is better.
    """
    kept = {run.path: dict(run.figures) for run in runs}
    for column in columns:
        held = column.figures(runs)
        usual = statistics.mode((figure.protocol, figure.n) for _, figure in held) if held else None
        for run, figure in held:
            if (figure.protocol, figure.n) != usual:
                way = f"{figure.protocol}, " if figure.protocol else ""
                note = f"left out, since it is not made as most of its column are: {way}n = {figure.n}"
                kept[run.path][column.name] = attrs.evolve(figure, value=None, note=note)
    return [attrs.evolve(run, figures=kept[run.path]) for run in runs]


def _charts(points: Sequence[Point], curved: set[str]) -> Iterator[Chart]:
    """Yield a chart for each pair of columns: nats of bits and of grey levels are not drawn over each other."""
    kinds: dict[tuple[Column, Column], dict[str, list[tuple[float, float]]]] = {}
    titles = {}
    for point in points:
        titles[point.columns] = point.titles
        kinds.setdefault(point.columns, {}).setdefault(point.run.name, []).append((point.across, point.up))
    for columns, models in kinds.items():
        if len(models) == 1 and len(kinds) > 1:
            continue  # one model among others has nothing to be compared with
        across, up = titles[columns]
        observed = f"; {columns[0].observed}" if columns[0].observed and len(kinds) > 1 else ""
        yield make_chart((f"{across}{observed}", up), models, [name for name in models if name in curved])


def _protocol(work: Work, runs: Sequence[ComparedRun]) -> Iterator[str]:
    """Say how the runs were trained and scored, and by what."""
    study = work.study
    yield f"Seeds: {', '.join(map(str, sorted({run.seed for run in runs}))) or 'none yet'}."
    yield f"Settings of every run: {', '.join((*study.set, *work.settings)) or 'those of its recipe'}."
    budgets: dict[str, list[str]] = {}
    splits: dict[str, list[str]] = {}
    for run in runs:
        train, data = run.recipe.get("train", {}), run.recipe.get("data", {})
        budget = f"{train.get('steps') or train.get('images')} {'steps' if train.get('steps') else 'images'}"
        budgets.setdefault(f"{budget}, batches of {train.get('batch', 128)}", []).append(run.name)
        held = f", {data['validation']} training rows held out" if data.get("validation") else ""
        seen = sorted({figure.split for figure in run.figures.values()} - {"draws", ""})
        splits.setdefault(f"{' and '.join(seen) or 'none'}{held}", []).append(run.name)
    for what, found in (("Budget", budgets), ("Rows that figures are of", splits)):
        for way, names in found.items():
            yield f"{what}: {way} ({'; '.join(dict.fromkeys(names)) if len(found) > 1 else 'all'})."
    if study.metrics:
        yield f"Metrics: {study.metrics}."
    machines, versions = dict[str, None](), dict[str, None]()
    for run in runs:
        folder = RunFolder(run.path)
        if (summary := folder.read_summary()) is not None:
            place = summary.environment
            machines[f"{place.platform}, {place.device}"] = None
            versions[", ".join(f"{name} {version}" for name, version in place.versions.items() if version)] = None
    yield f"Machine: {'; or '.join(machines) or 'not recorded'}. Times are wall times, also of runs beside each other."
    yield f"Versions: {'; or '.join(versions) or 'not recorded'}. Each run's environment.json lists every package."


@attrs.frozen(eq=False)
class Point:
    """The two figures of a run that are the axes of a study, and their titles."""

    run: ComparedRun
    across: float
    up: float
    titles: tuple[str, str]
    columns: tuple[Column, Column]


def points_of(runs: Sequence[ComparedRun], axes: tuple[str, str]) -> list[Point]:
    """Return a point for each run that has both figures."""
    found = []
    for run in runs:
        across, up = (run.figures.get(axis) for axis in axes)
        if across and up and across.value is not None and up.value is not None:
            found.append(
                Point(run, across.value, up.value, (_title(across), _title(up)), (Column.of(across), Column.of(up)))
            )
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
