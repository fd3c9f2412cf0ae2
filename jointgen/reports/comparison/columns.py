"""Chooses the columns of a table: which figures may stand below each other, in which order, under which heading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import attrs

from jointgen.contracts.figures import BOUND_WORDS, Bound, Display
from jointgen.errors import Problems, suggest
from jointgen.reports.comparison.runs import ComparedRun, Figure


@attrs.frozen
class Column:
    """The properties that the figures of a column share, so that they may be compared; see `Figure` for the fields.

    A critic's estimate is never in a bound's column, nor are nats of bits beside nats of grey levels. How a figure is
    displayed makes no difference.
    """

    name: str
    unit: str = ""
    bound: Bound | None = None
    split: str = ""
    nll: bool = False
    observed: str = ""
    display: Display = attrs.field(default=Display(), eq=False)

    @classmethod
    def of(cls, figure: Figure) -> Column:
        """Make the column that a figure belongs in."""
        return cls(**{field.name: getattr(figure, field.name) for field in attrs.fields(cls)})

    @property
    def title(self) -> str:
        """The heading, such as "NLL (ELBO)"."""
        heading = self.display.heading(self.name)
        return f"NLL ({heading})" if self.nll else heading

    @property
    def kind(self) -> str:
        """The unit, and how figures stand to what they are named for: "nats, upper bound"."""
        return ", ".join(filter(None, (self.unit, BOUND_WORDS[self.bound])))

    @property
    def identity(self) -> str:
        """All of it: "NLL elbo [nats, upper bound, test, observe = binarise]"."""
        about = ", ".join(filter(None, (self.kind, self.split, self.observed)))
        return f"{'NLL ' if self.nll else ''}{self.name} [{about}]"

    def holds(self, figure: Figure | None) -> bool:
        """Whether a figure has a value and belongs in this column."""
        return figure is not None and figure.value is not None and Column.of(figure) == self

    def figures(self, runs: Iterable[ComparedRun]) -> list[tuple[ComparedRun, Figure]]:
        """Collect the figures of runs that belong in this column."""
        return [(run, run.figures[self.name]) for run in runs if self.holds(run.figures.get(self.name))]


def choose_columns(runs: Sequence[ComparedRun], published: Iterable[Column], names: str | None) -> list[Column]:
    """Choose the columns: figures that have a value in some run, and published figures.

    Args:
        runs: The runs.
        published: The columns of published figures.
        names: The figures that are wanted, in this order, such as "rmse, iwae" (all of iwae_K) or "*fid*"; None for
            all but those of cost and those of single critics, which differ from model to model.

    Raises:
        ConfigError: It names every one of `names` that no run has a figure of.
    """
    ours = dict.fromkeys(Column.of(f) for run in runs for f in run.figures.values() if f.value is not None)
    added = dict.fromkeys(column for column in published if place_of(column, list(ours)) is None)
    found = sorted([*ours, *added], key=lambda column: column.display.sort_key(column.name))
    if names is None:
        return [column for column in found if column.display.group not in ("cost", "critics")]
    chosen: dict[Column, None] = {}
    problems = Problems()
    for wanted in (name.strip() for name in names.split(",")):
        exact = [column for column in found if column.name == wanted]
        begin = (f"{wanted}_", f"{wanted}/")
        if alike := exact or [c for c in found if c.name.startswith(begin) or fnmatchcase(c.name, wanted)]:
            chosen.update(dict.fromkeys(alike))
        else:
            problems.add(f"no run has a figure {wanted!r}{suggest(wanted, {c.name for c in found})}", "--metrics")
    problems.raise_any()
    return list(chosen)


def place_of(published: Column, columns: Sequence[Column]) -> int | None:
    """Find the column that a published figure belongs in, whose split may have any name."""
    alike = [attrs.evolve(column, split=published.split) for column in columns]
    return alike.index(published) if published in alike else None


def unequal_protocols(columns: Iterable[Column], runs: Sequence[ComparedRun], metrics: Iterable[str]) -> list[str]:
    """List, in a line each, the columns whose figures were made in ways that must not be compared.

    Args:
        columns: The columns.
        runs: The runs.
        metrics: The names of all metrics, of which the advice names one.
    """
    lines = []
    for column in columns:
        held = column.figures(runs)
        for aspect, ways in (
            ("protocol", [(run, repr(figure.protocol)) for run, figure in held]),
            ("number of rows", [(run, f"n = {figure.n}") for run, figure in held]),
        ):
            by_way: dict[str, list[str]] = {}
            for run, way in ways:
                by_way.setdefault(way, []).append(run.path)
            if len(by_way) > 1:
                listed = "; ".join(f"{way} ({', '.join(paths)})" for way, paths in by_way.items())
                lines.append(f"{column.name}: unequal {aspect}: {listed}. {_advice(column.name, metrics)}")
    return lines


def _advice(figure: str, metrics: Iterable[str]) -> str:
    giving = [metric for metric in metrics if figure == metric or figure.startswith((f"{metric}_", f"{metric}/"))]
    command = "jointgen eval RUN" + (f" --metrics {max(giving, key=len)}" if giving else "")
    return f"Make them equal with `{command}` and the same settings on each run, or leave the column out with --metrics"
