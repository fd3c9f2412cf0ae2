"""Prepares a run's figures and the facts about it for the page: what each number means, and its digits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import attrs

from jointgen.contracts.figures import BOUND_WORDS
from jointgen.reports.run_figures import RunFigures
from jointgen.runs.records import Summary

MAX_HIGHLIGHTS = 6
BOUND_MEANINGS = {
    "lower": "the true value is at least this",
    "upper": "the true value is at most this",
    "exact": "only the choice of rows makes it uncertain",
    "estimate": "no bound, it may err either way",
}


def figure_rows(run: RunFigures) -> list[dict[str, Any]]:
    """Make a row of the page's table for each figure that has a value, in the order in which figures are displayed."""
    rows = []
    for name, figure in run.figures.items():
        value, error, bound = figure.value, figure.standard_error, figure.bound
        if value is not None:
            row = {
                "name": name,
                "title": figure.display.heading(name),
                "exact": repr(value),
                "value": in_digits(value, error),
                "error": in_digits(error, error) if error is not None else "",
                "bound": BOUND_WORDS[bound],
                "meaning": f"{BOUND_WORDS[bound]}: {BOUND_MEANINGS[bound]}" if bound else "",
                "from_eval": name in run.from_eval,
            }
            rows.append({**attrs.asdict(figure, recurse=False), **row})
    return sorted(rows, key=lambda row: row["display"].sort_key(row["name"]))


def absent_figures(run: RunFigures) -> list[tuple[str, str]]:
    """List the figures that do not exist for this model, as (name, reason)."""
    return [(name, figure.note) for name, figure in run.figures.items() if figure.value is None]


def highlights(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose the figures for the top of the page: the headlines of their metrics, then the first of the others."""
    return sorted(rows, key=lambda row: not row["display"].headline)[:MAX_HIGHLIGHTS]


def in_digits(value: float, error: float | None) -> str:
    """Write a number with the digits that its standard error leaves, or with five where it has none.

    The last digit written is the second digit of the error.

    >>> in_digits(-100.0087, 0.2847), in_digits(0.5, 0.0), in_digits(12.5, None), in_digits(4000.0, 250.0)
    ('-100.01', '0.5', '12.5', '4000')
    """
    if not error or not math.isfinite(error):
        return f"{value:.5g}"
    return f"{value:.{max(0, 1 - math.floor(math.log10(error)))}f}"


def facts_of(summary: Summary, total_steps: int) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of the facts that stand under the run's name, as far as the summary has them."""
    yield "steps", f"{summary.step:,} of {total_steps:,}"
    if summary.images_seen is not None:
        yield "rows seen", f"{summary.images_seen:,}"
    if summary.wall_s is not None:
        yield "training took", str(timedelta(seconds=round(summary.wall_s)))
    if summary.seed is not None:
        yield "seed", str(summary.seed)
    if best := summary.best:
        yield "best checkpoint", f"{best.checkpoint} ({best.metric})"
    if device := summary.environment.device:
        yield "device", device


def critic_rows(summary: Summary) -> dict[str, dict[str, Any]]:
    """List, for each critic, the figures that the run found and the warning where the critic cannot be trusted."""
    found = {}
    for name, critic in summary.critics.items():
        whole = flattened(attrs.asdict(critic))
        rows = [(key.removeprefix("figures."), value) for key, value in whole if key != "note"]
        found[name] = {"note": critic.note, "rows": [(key.replace("_", " "), value) for key, value in rows]}
    return found


def flattened(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every value of nested tables as (dotted key, text).

    >>> list(flattened({"a": {"b": True, "c": [1, 2]}, "d": 0.25}))
    [('a.b', 'yes'), ('a.c', '1, 2'), ('d', '0.25')]
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flattened(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, bool):
        yield prefix, "yes" if value else "no"
    elif isinstance(value, list | tuple):
        yield prefix, ", ".join(map(str, value))
    else:
        yield prefix, f"{value:.5g}" if isinstance(value, float) else "none" if value is None else str(value)
