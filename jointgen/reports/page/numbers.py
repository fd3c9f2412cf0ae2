"""The figures of a run with their meaning, and the facts about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

HIGHLIGHTS = 6
FIRST = ("elbo", "iwae_*", "elbo_*", "bits_per_dim", "rmse", "fid/*", "is/*", "precision/*", "recall/*")
BOUNDS = {
    "lower": "lower bound: the true value is at least this",
    "upper": "upper bound: the true value is at most this",
    "exact": "exact, but for the rows it is taken over",
    "estimate": "estimate, no bound: may err either way",
}
SHORT_BOUNDS = {"lower": "lower bound", "upper": "upper bound", "exact": "exact", "estimate": "estimate"}

Figures = dict[str, dict[str, Any]]


def read_figures(summary: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Figures:
    """The summary's final figures, and over them what `jointgen eval` found of the newest checkpoint it was given.

    `origin` names that checkpoint. An evaluation of an earlier step than the summary's does not replace its figures.
    """
    figures: Figures = {name: {**figure, "origin": ""} for name, figure in summary.get("metrics", {}).items()}
    if not evaluation:
        return figures
    newest = max(evaluation, key=_step_of)
    found = {name: {**figure, "origin": newest} for name, figure in evaluation[newest].get("metrics", {}).items()}
    is_older = _step_of(newest) < summary.get("step", 0)
    return {**found, **figures} if is_older else {**figures, **found}


def _step_of(checkpoint: str) -> int:
    digits = checkpoint.removeprefix("step-")
    return int(digits) if digits.isdecimal() else -1


def rows(figures: Figures) -> list[dict[str, Any]]:
    """One for each figure that there is, ready to be shown."""
    return [_row(name, figure) for name, figure in figures.items() if figure["value"] is not None]


def absent(figures: Figures) -> list[tuple[str, str]]:
    """(name, why) of those that do not exist for this model."""
    return [(name, figure.get("note", "")) for name, figure in figures.items() if figure["value"] is None]


def highlights(shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first few: of likelihood, reconstruction and samples; then what is bounded, and single critics' last."""

    def rank(row: dict[str, Any]) -> tuple[int, bool, bool]:
        asked_first = (i for i, pattern in enumerate(FIRST) if fnmatchcase(row["name"], pattern))
        return next(asked_first, len(FIRST)), not row["bound"], "/" in row["name"]

    return sorted(shown, key=rank)[:HIGHLIGHTS]


def _row(name: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    value, error, bound = figure["value"], figure.get("standard_error"), figure.get("bound") or ""
    return {
        **dict.fromkeys(("unit", "estimator", "split", "note", "protocol"), ""),
        **figure,
        "name": name,
        "exact": repr(value),
        "value": in_digits(value, error),
        "error": in_digits(error, error) if error is not None else "",
        "bound": SHORT_BOUNDS.get(bound, bound),
        "meaning": BOUNDS.get(bound, ""),
    }


def in_digits(value: float, error: float | None) -> str:
    """A number to the digits that its standard error leaves: two of the error's own. Without one, five digits.

    >>> in_digits(-100.0087, 0.2847), in_digits(0.5, 0.0), in_digits(12.5, None), in_digits(4000.0, 250.0)
    ('-100.01', '0.5', '12.5', '4000')
    """
    if not error or not math.isfinite(error):
        return f"{value:.5g}"
    return f"{value:.{max(0, 1 - math.floor(math.log10(error)))}f}"


def facts(summary: Mapping[str, Any], total_steps: int) -> Iterator[tuple[str, str]]:
    """What stands under the run's name."""
    if "step" in summary:
        yield "steps", f"{summary['step']:,} of {total_steps:,}"
    if "images_seen" in summary:
        yield "rows seen", f"{summary['images_seen']:,}"
    if "wall_s" in summary:
        yield "training took", str(timedelta(seconds=round(summary["wall_s"])))
    if "seed" in summary:
        yield "seed", str(summary["seed"])
    if best := summary.get("best"):
        yield "best checkpoint", f"{best['checkpoint']} ({best['metric']})"
    if device := summary.get("environment", {}).get("device"):
        yield "device", device


def health(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each critic what the run found, and the words where it is not to be trusted."""
    found = {}
    for name, critic in summary.get("critics", {}).items():
        rows = [(key.removeprefix("figures."), value) for key, value in flat(critic) if key != "note"]
        found[name] = {"note": critic.get("note", ""), "rows": [(key.replace("_", " "), value) for key, value in rows]}
    return found


def flat(table: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Every value of nested tables by its dotted name."""
    if isinstance(table, Mapping):
        for key, value in table.items():
            yield from flat(value, f"{at}.{key}" if at else str(key))
    elif isinstance(table, list | tuple):
        yield at, ", ".join(map(str, table))
    else:
        yield at, _plain(table)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.5g}" if isinstance(value, float) else "none" if value is None else str(value)
