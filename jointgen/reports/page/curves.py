"""metrics.jsonl as curves: which figures share a plot, and how it is drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

MOST_POINTS = 1500
"""Of one curve. Longer ones are shown at evenly spaced events, and the last."""

Event = Mapping[str, Any]
CLOCKS = ("step", "images_seen", "wall_s")


@attrs.frozen
class Kind:
    """Which figures a plot shows. `pattern` matches their names in metrics.jsonl; {0}, {1} in `title` and the group
    `curve`, which is what the legend calls one, come from it."""

    section: str
    title: str
    pattern: re.Pattern[str]
    log: bool = False
    unit: str = ""


KINDS = [
    Kind("Evaluations", "{what}", re.compile(r"eval/(?P<what>(?P<curve>.+))")),
    Kind("Losses and terms", "{what}: loss", re.compile(r"(?P<what>[^/]+)/(?P<curve>loss)")),
    Kind("Losses and terms", "{what}: terms", re.compile(r"(?P<what>[^/]+)/(?P<curve>.*[(\[].*)")),
    Kind("Optimisation", "gradient norms", re.compile(r"(?P<curve>[^/]+)/grad_norm"), log=True),
    Kind("Optimisation", "learning rates", re.compile(r"lr/(?P<curve>.+)"), log=True),
    Kind("Optimisation", "speed", re.compile(r"(?P<curve>images_per_s)"), unit="images per second"),
    Kind("Critics", "{what}: {how}", re.compile(r"(?P<what>[^/]+)/(?P<curve>(?:positive|negative)_(?P<how>.+))")),
    Kind("Critics", "{what}: {curve}", re.compile(r"(?P<what>[^/]+)/(?P<curve>.+)")),
    Kind("Others", "{what}", re.compile(r"(?P<what>(?P<curve>.+))")),
]
"""The first that matches has the figure."""

SECTIONS = ["Evaluations", "Losses and terms", "Critics", "Optimisation", "Others"]


def curves(events: Sequence[Event], figures: Mapping[str, Mapping[str, Any]], quick_rows: int) -> dict[str, Any]:
    """{"clocks": what curves are plotted over, "sections": plots by section}, for the page's script.

    figures: the final ones by name, whose units and values the plots of evaluations show.  quick_rows: how many rows
    evaluations between steps see at most.
    """
    clocks: list[dict[str, list[Any]]] = []
    plots: dict[tuple[str, str], dict[str, Any]] = {}
    for name in dict.fromkeys(key for event in events for key in event if key not in CLOCKS):
        kind, match = _kind_of(name)
        title = kind.title.format(**match.groupdict())
        plot = plots.setdefault(
            (kind.section, title), {"title": title, "unit": kind.unit, "log": kind.log, "lines": []}
        )
        plot["lines"].append(_line(name, match["curve"], events, clocks))
        if name.startswith("eval/"):
            plot["lines"][0]["name"] = f"between steps, at most {quick_rows:,} rows"
            plot |= _final(figures.get(match["what"], {}))
    for plot in plots.values():
        values = sorted(y for line in plot["lines"] for y in line["y"] if y is not None)
        plot["log"] = plot["log"] and _spans_a_decade(values)
        plot["frame"] = None if plot["log"] else frame(values)
    found = [(section, _ordered([p for (within, _), p in plots.items() if within == section])) for section in SECTIONS]
    return {"clocks": clocks, "sections": [{"title": t, "plots": p} for t, p in found if p]}


def _ordered(plots: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of one update or critic side by side, in the order in which they came up, by their titles."""
    owners = list(dict.fromkeys(plot["title"].partition(":")[0] for plot in plots))
    return sorted(plots, key=lambda p: (owners.index(p["title"].partition(":")[0]), p["title"]))


def _kind_of(name: str) -> tuple[Kind, re.Match[str]]:
    return next((kind, match) for kind in KINDS if (match := kind.pattern.fullmatch(name)))


def _line(name: str, called: str, events: Sequence[Event], clocks: list[dict[str, list[Any]]]) -> dict[str, Any]:
    """One curve; `clock` says at which of the `clocks`, each written once, its values stand."""
    shown = thinned([event for event in events if name in event])
    clock = {key: [event.get(key) for event in shown] for key in CLOCKS}
    if clock not in clocks:
        clocks.append(clock)
    return {"name": called, "clock": clocks.index(clock), "y": [rounded(event[name]) for event in shown]}


def thinned(events: Sequence[Event], most: int = MOST_POINTS) -> Sequence[Event]:
    """Every so many events, and the last one."""
    every = -(-len(events) // most)
    return events if every <= 1 else [*events[:-1:every], events[-1]]


def rounded(value: Any) -> float | None:
    """To what a plot can show: seven digits. What is no finite number is a gap."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(f"{value:.7g}") if is_number else None


def _final(figure: Mapping[str, Any]) -> dict[str, Any]:
    """The unit of an evaluated figure, and where it ended on all rows."""
    if figure.get("value") is None:
        return {"unit": figure.get("unit", "")}
    return {"unit": figure["unit"], "final": {key: rounded(figure[key]) for key in ("value", "standard_error", "n")}}


def _spans_a_decade(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis shows more: all are positive, and the largest is 10 times the smallest."""
    return bool(values) and values[0] > 0 and values[-1] >= 10 * values[0]


def frame(values: Sequence[float]) -> dict[str, Any] | None:
    """Where a plot begins by showing only part of what it has: a few of the sorted values are far from all others.

    `range` holds all but 2% at either end, with a margin; `outside` is how many are not in it.
    """
    if len(values) < 50:
        return None
    cut = len(values) // 50
    low, high = values[cut], values[-1 - cut]
    if values[-1] - values[0] <= 4 * (high - low) or low == high:
        return None
    margin = (high - low) / 10
    low, high = low - margin, high + margin
    return {"range": [low, high], "outside": sum(not low <= value <= high for value in values)}
