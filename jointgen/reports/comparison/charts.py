"""Draws the trade-off between two figures of models as a chart of a page, in SVG. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs

WIDTH, HEIGHT = 960, 560
LEFT, RIGHT, TOP, BOTTOM = 80, 170, 16, 56  # RIGHT has room for names
LINE, LETTER = 13, 6.4
"""The height of a name in pixels, and the width of its letters."""


@attrs.frozen
class Series:
    """A model of a chart.

    Args:
        name: Its name.
        places: The (x, y) of each of its runs, in pixels.
        mean: Their mean.
        label: Where its name stands.
    """

    name: str
    places: tuple[tuple[float, float], ...]
    mean: tuple[float, float]
    label: tuple[float, float]


@attrs.frozen
class Chart:
    """A chart as its template draws it.

    Args:
        titles: Those of the axes, across and up.
        series: The models.
        across: (pixel, text) of each tick of the axis across.
        up: The same of the axis up.
        line: The places that a line joins.
    """

    titles: tuple[str, str]
    series: tuple[Series, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    line: tuple[tuple[float, float], ...]


def make_chart(
    titles: tuple[str, str], models: Mapping[str, Sequence[tuple[float, float]]], joined: Sequence[str] = ()
) -> Chart:
    """Make a chart of models.

    Args:
        titles: The titles of the axes, across and up.
        models: The two figures of each run, by model; at least one.
        joined: The models whose means a line joins.
    """
    across = _Axis([x for of in models.values() for x, _ in of], LEFT, WIDTH - RIGHT)
    up = _Axis([y for of in models.values() for _, y in of], HEIGHT - BOTTOM, TOP)
    places = {name: [(across.place(x), up.place(y)) for x, y in of] for name, of in models.items()}
    means = {name: tuple(sum(each) / len(of) for each in zip(*of, strict=True)) for name, of in places.items()}
    labels = _labels(means)
    series = [Series(name, tuple(of), means[name], labels[name]) for name, of in places.items()]
    line = sorted((means[name] for name in joined if name in means), key=lambda place: place[1])
    return Chart(titles, tuple(series), across.ticks(), up.ticks(), tuple(line) if len(line) > 1 else ())


class _Axis:
    """Numbers along an axis between two pixels, with a margin."""

    def __init__(self, values: Sequence[float], start: float, end: float):
        low, high = min(values), max(values)
        margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
        self.low, self.high, self.start, self.end = low - margin, high + margin, start, end

    def place(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Put four to ten ticks at multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / 8
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough)
        numbers = [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return tuple((self.place(number), f"{number:.6g}".replace("-", "\N{MINUS SIGN}")) for number in numbers)


def _labels(means: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Find a place for each name near its mean, within the chart, where no name is yet: the nearest to its right."""
    taken: list[tuple[float, float, float]] = []
    found = {}
    for name, (x, y) in sorted(means.items(), key=lambda item: item[1][1]):
        width = LETTER * len(name)
        rows = [y + 4 + LINE * i for i in range(-HEIGHT // LINE, HEIGHT // LINE)]
        places = [
            (x + 7 + right, row) for right in range(0, WIDTH, 20) for row in rows if _fits(x + right + width, row)
        ]
        places.sort(key=lambda place: math.hypot(place[0] - x, place[1] - y))
        free = (
            (left, row)
            for left, row in places
            if all(left + width < a or left > b or abs(row - other) >= LINE for a, b, other in taken)
        )
        left, at = next(free, (x + 7, y + 4))  # in a chart that is full, over others
        taken.append((left, left + width, at))
        found[name] = (round(left, 1), round(at, 1))
    return found


def _fits(right: float, row: float) -> bool:
    return right + 7 <= WIDTH and TOP + LINE <= row <= HEIGHT - BOTTOM
