"""Shows `metrics.jsonl` as curves: which values share a plot, and how it is drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from jointgen.contracts.figures import Display, Estimate
from jointgen.runs.log_file import CLOCKS, LogEvent

MAX_POINTS = 1500
"""A curve has at most so many points. Of longer ones, evenly spaced events are shown, and the last."""
MIN_FRAMED_POINTS = 50
"""A plot of fewer points shows all of them."""


@attrs.frozen
class PlotKind:
    """A kind of plot, and the logged values that it shows.

    Args:
        section: The section of the page.
        title: The plot's title, to be filled from the groups of the pattern.
        pattern: It matches the names of values in `metrics.jsonl`; its group `curve` is the name in the legend.
        log: Whether the axis is logarithmic if values span a decade.
        unit: The unit.
    """

    section: str
    title: str
    pattern: re.Pattern[str]
    log: bool = False
    unit: str = ""


PLOT_KINDS = [
    PlotKind("Evaluations", "{figure}", re.compile(r"eval/(?P<figure>(?P<curve>.+))")),
    PlotKind("Losses and terms", "{update}: loss", re.compile(r"(?P<update>[^/]+)/(?P<curve>loss)")),
    PlotKind("Losses and terms", "{update}: terms", re.compile(r"(?P<update>[^/]+)/(?P<curve>.*[(\[].*)")),
    PlotKind("Optimisation", "gradient norms", re.compile(r"(?P<curve>[^/]+)/grad_norm"), log=True),
    PlotKind("Optimisation", "learning rates", re.compile(r"lr/(?P<curve>.+)"), log=True),
    PlotKind("Optimisation", "speed", re.compile(r"(?P<curve>images_per_s)"), unit="images per second"),
    PlotKind(
        "Critics",
        "{critic}: {statistic}",
        re.compile(r"(?P<critic>[^/]+)/(?P<curve>(?:positive|negative)_(?P<statistic>.+))"),
    ),
    PlotKind("Critics", "{critic}: {curve}", re.compile(r"(?P<critic>[^/]+)/(?P<curve>.+)")),
    PlotKind("Others", "{curve}", re.compile(r"(?P<curve>.+)")),
]
"""A value is shown by the first kind that matches it."""

SECTIONS = ["Evaluations", "Losses and terms", "Critics", "Optimisation", "Others"]


def curves(events: Sequence[LogEvent], figures: Mapping[str, Estimate], quick_rows: int) -> dict[str, Any]:
    """Arranges logged values in plots for the page's script.

    Args:
        events: The events of `metrics.jsonl`.
        figures: The final figures by name, whose titles, units and values the plots of evaluations show.
        quick_rows: At most so many rows are in an evaluation between steps.

    Returns:
        {"clocks": what curves are plotted over, "sections": the plots by section}.
    """
    clocks: list[dict[str, list[Any]]] = []
    plots: dict[tuple[str, str], dict[str, Any]] = {}
    for name in dict.fromkeys(key for event in events for key in event.values):
        kind, match = next((kind, match) for kind in PLOT_KINDS if (match := kind.pattern.fullmatch(name)))
        title = kind.title.format(**match.groupdict())
        plot = plots.setdefault(
            (kind.section, title), {"title": title, "unit": kind.unit, "log": kind.log, "lines": []}
        )

        # Curves that were logged at the same events share a clock, which is written once.
        shown = thinned([event for event in events if name in event.values])
        clock = {key: [getattr(event, key) for event in shown] for key in CLOCKS}
        if clock not in clocks:
            clocks.append(clock)
        values = [rounded(event.values[name]) for event in shown]
        plot["lines"].append({"name": match["curve"], "clock": clocks.index(clock), "y": values})

        if kind.section == "Evaluations":
            plot["lines"][0]["name"] = f"between steps, at most {quick_rows:,} rows"
            figure = figures.get(match["figure"])
            plot["title"] = (figure.display if figure else Display()).heading(match["figure"])
            plot["unit"] = figure.unit if figure else ""
            if figure is not None and figure.value is not None:
                plot["final"] = {key: rounded(getattr(figure, key)) for key in ("value", "standard_error", "n")}
    for plot in plots.values():
        finite = sorted(y for line in plot["lines"] for y in line["y"] if y is not None)
        plot["log"] = plot["log"] and bool(finite) and finite[0] > 0 and finite[-1] >= 10 * finite[0]
        plot["frame"] = None if plot["log"] else frame(finite)

    # Plots of one update or critic stand side by side, owners in the order in which they were logged first.
    sections = []
    for section in SECTIONS:
        if found := [plot for (within, _), plot in plots.items() if within == section]:
            owners = list(dict.fromkeys(plot["title"].partition(":")[0] for plot in found))
            found.sort(key=lambda plot: (owners.index(plot["title"].partition(":")[0]), plot["title"]))
            sections.append({"title": section, "plots": found})
    return {"clocks": clocks, "sections": sections}


def thinned(events: Sequence[LogEvent], most: int = MAX_POINTS) -> Sequence[LogEvent]:
    """Select evenly spaced events, at most `most` of them, and the last one."""
    every = -(-len(events) // most)
    return events if every <= 1 else [*events[:-1:every], events[-1]]


def rounded(value: Any) -> float | None:
    """Round a number to the seven digits that a plot can show; what is not a finite number becomes a gap."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(f"{value:.7g}") if is_number else None


def frame(values: Sequence[float]) -> dict[str, Any] | None:
    """Find the range that a plot shows at first, where a few values are far from all others.

    Args:
        values: The values, sorted.

    Returns:
        {"range": all but 2 % of the values at either end, with a margin, "outside": how many values are not in it}, or
        None where all values are shown.
    """
    if len(values) < MIN_FRAMED_POINTS:
        return None
    cut = len(values) // 50
    low, high = values[cut], values[-1 - cut]
    if values[-1] - values[0] <= 4 * (high - low) or low == high:
        return None
    margin = (high - low) / 10
    low, high = low - margin, high + margin
    return {"range": [low, high], "outside": sum(not low <= value <= high for value in values)}
