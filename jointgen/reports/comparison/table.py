"""The table: runs that differ in nothing but their seed become one row, figures become cells, caveats footnotes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence

import attrs

from jointgen.reports.comparison.columns import KINDS, Column, where
from jointgen.reports.comparison.published import PublishedTable
from jointgen.reports.comparison.runs import Figure, Run


@attrs.frozen
class Cell:
    """value: the figure of one run, or the mean over `runs` of them; None: there is none, and the notes say why.

    spread: the standard deviation over runs, or of one run the standard error over rows. number, error: as printed.
    notes: numbers of footnotes.
    """

    value: float | None = None
    spread: float | None = None
    runs: int = 0
    notes: tuple[int, ...] = ()
    best: bool = False
    number: str = "–"
    error: str = ""

    @property
    def text(self) -> str:
        return f"{self.number} {self.error}".strip()


@attrs.frozen
class Row:
    name: str
    cells: tuple[Cell, ...]
    notes: tuple[int, ...] = ()
    runs: tuple[Run, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.name} ({len(self.runs)} seeds)" if len(self.runs) > 1 else self.name


@attrs.frozen
class Table:
    """better, meanings: of each column, which way is better and what it is. left_out: (figure, why no run has it)."""

    title: str
    columns: tuple[Column, ...]
    better: tuple[str | None, ...]
    rows: tuple[Row, ...]
    published_title: str
    published: tuple[Row, ...]
    footnotes: tuple[str, ...]
    meanings: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]

    def heads(self) -> list[tuple[str, str]]:
        """(title with an arrow to what is better, unit and kind) of each column, and what tells it from its like."""
        return [
            (f"{column.title} {_ARROWS[better]}".strip(), ", ".join(filter(None, (column.kind, *self._apart(column)))))
            for column, better in zip(self.columns, self.better, strict=True)
        ]

    def _apart(self, column: Column) -> list[str]:
        like = [other for other in self.columns if other.name == column.name]
        observed = [column.observation] if len({other.observed for other in like}) > 1 else []
        return observed + ([column.split] if len({other.split for other in like}) > 1 else [])

    def signs(self, best: str) -> str:
        """What the arrows, ± and the mark of the best mean."""
        marked = any(cell.best for row in self.rows for cell in row.cells)
        found = [self._spread(), f"{best}: the best of a column, whatever its spread." if marked else ""]
        return " ".join(filter(None, found)) or "No figure has a spread."

    def _spread(self) -> str:
        cells = [cell for row in self.rows for cell in row.cells if cell.spread is not None]
        several, one = any(cell.runs > 1 for cell in cells), any(cell.runs == 1 for cell in cells)
        over_runs = "the standard deviation over seeds" + (" where a row has several" if one else "")
        parts = [*([over_runs] if several else []), *(["the standard error over rows"] if one else [])]
        return f"± is {', otherwise '.join(parts)}." if parts else ""


_ARROWS = {"higher": "↑", "lower": "↓", None: ""}


class Footnotes:
    """Numbers texts as they come; the same text has one number."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts) + 1)

    def numbers(self, texts: Iterable[str]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self.number(text) for text in texts if text))


# --- cells -----------------------------------------------------------------------------------------------------------


def make_table(
    title: str, columns: Sequence[Column], rows: dict[str, list[Run]], published: PublishedTable | None
) -> Table:
    """columns: see `columns.choose`."""
    footnotes = Footnotes()
    runs = [run for members in rows.values() for run in members]
    better = [next((f.better for f in _held(column, runs) if f.better), None) for column in columns]
    made = [_row(label, members, columns, runs, footnotes) for label, members in rows.items()]
    made = _with_best(made, better)
    wanted = [_decimals([row.cells[i] for row in made]) for i in range(len(columns))]
    made = [attrs.evolve(row, cells=tuple(map(_with_text, row.cells, wanted))) for row in made]
    quoted = list(_published_rows(published, columns, footnotes)) if published else []
    return Table(
        title,
        tuple(columns),
        tuple(better),
        tuple(made),
        published.title if published and quoted else "",
        tuple(quoted),
        tuple(footnotes.texts),
        tuple(_meaning(_held(column, runs)) for column in columns),
        tuple(_left_out(runs)),
    )


def _held(column: Column, runs: Iterable[Run]) -> list[Figure]:
    return [run.figures[column.name] for run in runs if column.holds(run.figures.get(column.name))]


def _row(label: str, runs: list[Run], columns: Sequence[Column], everyone: list[Run], footnotes: Footnotes) -> Row:
    doubts = [doubt if len(runs) == 1 else f"{run.path}: {doubt}" for run in runs for doubt in run.doubts]
    notes = footnotes.numbers(doubts)
    cells = tuple(_cell(column, runs, _held(column, everyone), footnotes) for column in columns)
    return Row(label, cells, notes, tuple(runs))


def _cell(column: Column, runs: list[Run], everyone: list[Figure], footnotes: Footnotes) -> Cell:
    figures = _held(column, runs)
    if not everyone:
        return Cell(number="")  # only published figures are in this column
    if not figures:
        return Cell(notes=footnotes.numbers(dict.fromkeys(_why_absent(column, run) for run in runs)))
    values = [figure.value for figure in figures if figure.value is not None]
    spread = statistics.stdev(values) if len(values) > 1 else figures[0].standard_error
    remarks = [f"{len(figures)} of {len(runs)} seeds have it"] if len(figures) < len(runs) else []
    remarks += [note for figure in figures for note in _remarks(figure, everyone)]
    return Cell(statistics.fmean(values), spread, len(values), footnotes.numbers(remarks))


def _remarks(figure: Figure, everyone: Sequence[Figure]) -> Iterator[str]:
    """What is not as it is said of the column."""
    if figure.estimator != _usual("estimator", everyone):
        yield f"by {figure.estimator}"
    if figure.note != _usual("note", everyone):
        yield figure.note


def _usual(key: str, figures: Sequence[Figure]) -> str:
    """What most figures of a column have there; of as many, the first."""
    return statistics.mode(getattr(figure, key) for figure in figures)


def _why_absent(column: Column, run: Run) -> str:
    figure = run.figures.get(column.name)
    if figure is None:
        return "not among this model's figures"
    if figure.value is None:
        return figure.note or "not to be had"
    other = Column.of(figure)
    return f"in another column: {', '.join(filter(None, (other.kind, other.observation, other.split)))}"


def _with_best(rows: Sequence[Row], better: Sequence[str | None]) -> list[Row]:
    """Marks the best of each column in which there is something to choose. Published figures take no part."""
    found = [list(row.cells) for row in rows]
    for i, way in enumerate(better):
        values = [value for cells in found if (value := cells[i].value) is not None]
        if way is None or len(values) < 2:
            continue
        best = max(values) if way == "higher" else min(values)
        for cells in found:
            cells[i] = attrs.evolve(cells[i], best=cells[i].value == best)
    return [attrs.evolve(row, cells=tuple(cells)) for row, cells in zip(rows, found, strict=True)]


def _decimals(cells: Sequence[Cell]) -> int:
    """So many that the smallest spread of a column has two digits; without spreads, its largest figure four."""
    values = [abs(cell.value) for cell in cells if cell.value is not None]
    spreads = [cell.spread for cell in cells if cell.spread]
    if spreads:
        return 1 - math.floor(math.log10(min(spreads)))
    return 0 if all(value == int(value) for value in values) else 4 - _before(max(values))


def _before(value: float) -> int:
    """Digits before the point; of numbers below 0.1, less than none."""
    return 1 + math.floor(math.log10(abs(value) or 1.0))


def _with_text(cell: Cell, wanted: int) -> Cell:
    """Not more than six digits, and of a small number beside large ones two that are not 0."""
    if cell.value is None:
        return cell
    before = _before(max(abs(cell.value), cell.spread or 0.0))
    least = 0 if cell.spread is not None or cell.value == int(cell.value) else 2 - before
    decimals = max(0, min(max(wanted, least), 6 - before))
    error = f"± {cell.spread:.{decimals}f}" if cell.spread is not None else ""
    return attrs.evolve(cell, number=_minus(f"{cell.value:.{decimals}f}"), error=error)


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


# --- published figures -----------------------------------------------------------------------------------------------


def _published_rows(published: PublishedTable, columns: Sequence[Column], footnotes: Footnotes) -> Iterator[Row]:
    """Those that have a figure in one of the columns."""
    for name, figures in published.rows:
        cells = [Cell(number="") for _ in columns]
        for figure in figures:
            if (at := where(figure.column, columns)) is not None:
                notes = footnotes.numbers(["; ".join(figure.notes)])
                cells[at] = Cell(figure.value, None, 1, notes, number=f"{figure.value:g}")
        if any(cell.value is not None for cell in cells):
            yield Row(name, tuple(cells))


# --- what is said below ----------------------------------------------------------------------------------------------


def _meaning(figures: Sequence[Figure]) -> str:
    """What a column's figures are, but for those with a footnote; nothing where only published ones are in it."""
    if not figures:
        return ""
    first = figures[0]
    common = [
        KINDS.get(first.bound or "", ""),
        *(_usual(key, figures) for key in ("estimator", "note")),
        f"{first.split}, n = {first.n}",
        first.protocol,
    ]
    return "; ".join([f"−{first.name}" if first.nll else first.name, *filter(None, common)])


def _left_out(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """Figures that no run has, with why."""
    figures = [figure for run in runs for figure in run.figures.values()]
    have = {figure.name for figure in figures if figure.value is not None}
    for name in dict.fromkeys(figure.name for figure in figures if figure.name not in have):
        yield name, "; ".join(dict.fromkeys(figure.note for figure in figures if figure.name == name and figure.note))
