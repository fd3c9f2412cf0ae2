"""Makes a table: figures of runs become cells, and caveats become footnotes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from jointgen.contracts.figures import BOUND_WORDS, Better
from jointgen.reports.comparison.columns import Column, place_of
from jointgen.reports.comparison.published import PublishedTable
from jointgen.reports.comparison.runs import ComparedRun, Figure
from jointgen.text import listed

_ARROWS: Mapping[Better | None, str] = {"higher": "↑", "lower": "↓", None: ""}


@attrs.frozen
class Cell:
    """A cell of a table.

    Args:
        value: The figure of one run, or the mean over several; None where there is none, and the notes say why.
        spread: The standard deviation over several runs, or the standard error over rows of one run's figure.
        runs: How many runs the value is of.
        notes: The numbers of footnotes.
        best: Whether it is the best of its column.
        number: The value as it is printed.
        error: The spread as it is printed.
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
        """The value and its spread as they are printed."""
        return f"{self.number} {self.error}".strip()


@attrs.frozen
class Row:
    """A row of a table: the runs of one model, or a published model without runs."""

    name: str
    cells: tuple[Cell, ...]
    notes: tuple[int, ...] = ()
    runs: tuple[ComparedRun, ...] = ()

    @property
    def label(self) -> str:
        """The name, and the number of seeds where there are several."""
        return f"{self.name} ({len(self.runs)} seeds)" if len(self.runs) > 1 else self.name


@attrs.frozen
class Table:
    """A table of runs of one data set.

    Args:
        title: The data.
        columns: The columns.
        better: For each column, which way is better.
        rows: The rows.
        published_title: The source of the published rows; empty where there are none.
        published: The published rows.
        footnotes: The texts of the footnotes, from number 1 on.
        meanings: For each column, what its figures are; empty where all of them are published ones.
        left_out: (figure, reason) of the figures that no run has.
    """

    title: str
    columns: tuple[Column, ...]
    better: tuple[Better | None, ...]
    rows: tuple[Row, ...]
    published_title: str
    published: tuple[Row, ...]
    footnotes: tuple[str, ...]
    meanings: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]

    def heads(self) -> list[tuple[str, str]]:
        """Make the heads of the columns.

        Returns:
            For each column its title, with an arrow in the better direction, and its unit and kind, with what tells it
            from other columns of the same figure.
        """
        heads = []
        for column, better in zip(self.columns, self.better, strict=True):
            alike = [other for other in self.columns if other.name == column.name]
            details = [column.kind]
            details += [column.observed] if len({other.observed for other in alike}) > 1 else []
            details += [column.split] if len({other.split for other in alike}) > 1 else []
            heads.append((f"{column.title} {_ARROWS[better]}".strip(), ", ".join(filter(None, details))))
        return heads

    def legend(self, best: str) -> str:
        """Explains ± and the mark of the best, which is called `best`."""
        cells = [cell for row in self.rows for cell in row.cells]
        over_runs = any(cell.runs > 1 and cell.spread is not None for cell in cells)
        over_rows = any(cell.runs == 1 and cell.spread is not None for cell in cells)
        sentences = []
        meanings = ["the standard deviation over seeds" + (" where a row has several" if over_rows else "")] * over_runs
        meanings += ["the standard error over rows"] * over_rows
        if meanings:
            sentences.append(f"± is {', otherwise '.join(meanings)}.")
        if any(cell.best for cell in cells):
            sentences.append(f"{best}: the best of a column, whatever its spread.")
        return " ".join(sentences) or "No figure has a spread."

    def remarks(self) -> list[str]:
        """List what stands below the table besides the footnotes: each column's meaning, each row's runs."""
        heads = [f"{title} ({kind})" if kind else title for title, kind in self.heads()]
        lines = [f"{head}: {meaning}." for head, meaning in zip(heads, self.meanings, strict=True) if meaning]
        for row in self.rows:
            seeds = f"seed{'s' if len(row.runs) > 1 else ''} {listed(run.seed for run in row.runs)}"
            lines.append(f"{row.label}: {listed(run.path for run in row.runs)} ({seeds}).")
        lines += [f"No run has {name}" + (f" ({reason})." if reason else ".") for name, reason in self.left_out]
        return lines


class Footnotes:
    """Numbers texts in the order in which they come; equal texts share a number."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}

    def numbers(self, texts: Iterable[str]) -> tuple[int, ...]:
        """Give each text its number; empty texts have none."""
        return tuple(dict.fromkeys(self.texts.setdefault(text, len(self.texts) + 1) for text in texts if text))


def make_table(
    title: str, columns: Sequence[Column], rows: Mapping[str, Sequence[ComparedRun]], published: PublishedTable | None
) -> Table:
    """Make a table.

    Args:
        title: The data.
        columns: The columns, as `choose_columns` gives them.
        rows: The runs of each row by its label, as `group_rows` gives them.
        published: The published table to stand below, if any.
    """
    footnotes = Footnotes()
    runs = [run for members in rows.values() for run in members]
    figures = [[figure for _, figure in column.figures(runs)] for column in columns]
    better = [next((f.better for f in found if f.better), None) for found in figures]

    # Footnotes are numbered row by row; what is best and how many digits are shown depend on whole columns.
    notes, cells = [], []
    for members in rows.values():
        doubts = [doubt if len(members) == 1 else f"{run.path}: {doubt}" for run in members for doubt in run.doubts]
        notes.append(footnotes.numbers(doubts))
        cells.append([_cell(*pair, members, footnotes) for pair in zip(columns, figures, strict=True)])
    done = [_with_digits(_with_best(column, way)) for column, way in zip(zip(*cells, strict=True), better, strict=True)]
    made = [
        Row(label, tuple(column[i] for column in done), notes[i], tuple(members))
        for i, (label, members) in enumerate(rows.items())
    ]
    quoted = list(_published_rows(published, columns, footnotes)) if published else []
    return Table(
        title=title,
        columns=tuple(columns),
        better=tuple(better),
        rows=tuple(made),
        published_title=published.title if published and quoted else "",
        published=tuple(quoted),
        footnotes=tuple(footnotes.texts),
        meanings=tuple(map(_meaning, figures)),
        left_out=tuple(_left_out(runs)),
    )


# --- cells -----------------------------------------------------------------------------------------------------------


def _cell(column: Column, everyone: Sequence[Figure], runs: Sequence[ComparedRun], footnotes: Footnotes) -> Cell:
    """Make a cell of one row's runs; `everyone` are the figures of the whole column."""
    figures = [figure for _, figure in column.figures(runs)]
    if not everyone:
        return Cell(number="")  # only published figures are in this column
    if not figures:
        return Cell(notes=footnotes.numbers(dict.fromkeys(_reason_absent(column, run) for run in runs)))
    values = [figure.value for figure in figures if figure.value is not None]
    spread = statistics.stdev(values) if len(values) > 1 else figures[0].standard_error
    remarks = [f"{len(figures)} of {len(runs)} seeds have it"] if len(figures) < len(runs) else []
    for figure in figures:  # what differs from what is said of the column
        remarks += [f"by {figure.estimator}"] if figure.estimator != _usual("estimator", everyone) else []
        remarks += [figure.note] if figure.note != _usual("note", everyone) else []
    return Cell(statistics.fmean(values), spread, len(values), footnotes.numbers(remarks))


def _usual(field: str, figures: Sequence[Figure]) -> str:
    """Find the value that a field has in most figures of a column; the first one among equally frequent values."""
    return statistics.mode(getattr(figure, field) for figure in figures)


def _reason_absent(column: Column, run: ComparedRun) -> str:
    figure = run.figures.get(column.name)
    if figure is None:
        return "not among this model's figures"
    if figure.value is None:
        return figure.note or "does not exist for this model"
    other = Column.of(figure)
    return f"in another column: {', '.join(filter(None, (other.kind, other.observed, other.split)))}"


def _with_best(cells: Sequence[Cell], better: Better | None) -> list[Cell]:
    """Mark the best cells of a column in which there is a choice. Published figures take no part."""
    values = [cell.value for cell in cells if cell.value is not None]
    if better is None or len(values) < 2:
        return list(cells)
    best = max(values) if better == "higher" else min(values)
    return [attrs.evolve(cell, best=cell.value == best) for cell in cells]


def _with_digits(cells: Sequence[Cell]) -> list[Cell]:
    """Print the numbers of a column.

    The smallest spread of the column has two digits; without spreads, its largest figure has four. No number has more
    than six digits, and a small number beside large ones has two that are not 0.
    """
    values = [abs(cell.value) for cell in cells if cell.value is not None]
    if spreads := [cell.spread for cell in cells if cell.spread]:
        wanted = 1 - math.floor(math.log10(min(spreads)))
    elif all(value == int(value) for value in values):
        wanted = 0
    else:
        wanted = 4 - _digits_before_point(max(values))
    printed = []
    for cell in cells:
        if cell.value is not None:
            before = _digits_before_point(max(abs(cell.value), cell.spread or 0.0))
            least = 0 if cell.spread is not None or cell.value == int(cell.value) else 2 - before
            decimals = max(0, min(max(wanted, least), 6 - before))
            number = f"{cell.value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
            error = f"± {cell.spread:.{decimals}f}" if cell.spread is not None else ""
            cell = attrs.evolve(cell, number=number, error=error)
        printed.append(cell)
    return printed


def _digits_before_point(value: float) -> int:
    """Count the digits before the point; numbers below 0.1 have less than none."""
    return 1 + math.floor(math.log10(abs(value) or 1.0))


# --- published figures, and what is said below the table -------------------------------------------------------------


def _published_rows(published: PublishedTable, columns: Sequence[Column], footnotes: Footnotes) -> Iterator[Row]:
    """Yield the published rows that have a figure in one of the columns."""
    for name, figures in published.rows:
        cells = [Cell(number="") for _ in columns]
        for figure in figures:
            if (place := place_of(figure.column, columns)) is not None:
                notes = footnotes.numbers(["; ".join(figure.notes)])
                cells[place] = Cell(figure.value, None, 1, notes, number=f"{figure.value:g}")
        if any(cell.value is not None for cell in cells):
            yield Row(name, tuple(cells))


def _meaning(figures: Sequence[Figure]) -> str:
    """Describe the figures of a column, but for what footnotes say of single ones."""
    if not figures:
        return ""
    first = figures[0]
    details = [
        BOUND_WORDS[first.bound],
        _usual("estimator", figures),
        _usual("note", figures),
        f"{first.split}, n = {first.n}" if first.n else "",
        first.protocol,
    ]
    return "; ".join([f"−{first.name}" if first.nll else first.name, *filter(None, details)])


def _left_out(runs: Sequence[ComparedRun]) -> Iterator[tuple[str, str]]:
    """Yield the figures that no run has, with the reasons."""
    figures = [figure for run in runs for figure in run.figures.values()]
    known = {figure.name for figure in figures if figure.value is not None}
    for name in dict.fromkeys(figure.name for figure in figures if figure.name not in known):
        yield name, "; ".join(dict.fromkeys(figure.note for figure in figures if figure.name == name and figure.note))
