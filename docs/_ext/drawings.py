"""Draws the graphs that pages write as Mermaid, which code hosts draw, as pictures that need no script."""

import re
from collections import defaultdict
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

ARROW = re.compile(r"^ *(\w+) --> (\w+)$", re.MULTILINE)
WIDTH, HEIGHT, ACROSS, DOWN = 96, 26, 128, 58
"""The size of a box, and the distances of boxes in pixels."""


def places(arrows: list[tuple[str, str]]) -> dict[str, tuple[float, int]]:
    """Place each box (x, row): below all that point to it, and where it can be in the middle of these.

    >>> places([("a", "c"), ("b", "c")])
    {'a': (0.0, 0), 'b': (1.0, 0), 'c': (0.5, 1)}
    """
    above = defaultdict(list, {name: [] for name in dict.fromkeys(name for arrow in arrows for name in arrow)})
    for start, end in arrows:
        above[end].append(start)

    def row_of(name: str) -> int:
        return max((row_of(start) + 1 for start in above[name]), default=0)

    rows = defaultdict(list)
    for name in above:
        rows[row_of(name)].append(name)
    placed = dict[str, tuple[float, int]]()
    for row, names in sorted(rows.items()):
        wished = {name: [placed[start][0] for start in above[name]] or [number] for number, name in enumerate(names)}
        middles = {name: sum(xs) / len(xs) for name, xs in wished.items()}
        first = sum(middles.values()) / len(names) - (len(names) - 1) / 2
        placed |= {name: (first + number, row) for number, name in enumerate(sorted(names, key=middles.__getitem__))}
    return placed


def drawing(text: str) -> str:
    """Return the picture of a graph as SVG."""
    arrows = ARROW.findall(text)
    placed = places(arrows)
    left = min(x for x, _ in placed.values())
    at = {name: ((x - left) * ACROSS + WIDTH / 2 + 2, row * DOWN + HEIGHT / 2 + 2) for name, (x, row) in placed.items()}
    width, height = max(x for x, _ in at.values()) + WIDTH / 2 + 2, max(y for _, y in at.values()) + HEIGHT / 2 + 2
    below, above = HEIGHT / 2, HEIGHT / 2 + 2
    lines = [
        f'<line x1="{at[start][0]}" y1="{at[start][1] + below}" x2="{at[end][0]}" y2="{at[end][1] - above}" '
        'marker-end="url(#tip)"/>'
        for start, end in arrows
    ]
    boxes = [
        f'<rect x="{x - WIDTH / 2}" y="{y - HEIGHT / 2}" width="{WIDTH}" height="{HEIGHT}" rx="4"/>'
        f'<text x="{x}" y="{y}">{name}</text>'
        for name, (x, y) in at.items()
    ]
    tip = '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
    tip += '<path d="M0,0 L6,3 L0,6 z"/></marker></defs>'
    said = ", ".join(f"{start} to {end}" for start, end in arrows)
    return (
        f'<svg class="drawing" role="img" aria-label="A graph with arrows from {said}" viewBox="0 0 {width} {height}" '
        f'width="{width}">{tip}{"".join(lines)}{"".join(boxes)}</svg>'
    )


class Mermaid(Directive):
    """A graph of `A --> B` lines."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return it as a picture."""
        return [nodes.raw("", drawing("\n".join(self.content)), format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("mermaid", Mermaid)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
