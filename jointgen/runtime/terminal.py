"""Rich's console: bars that move, and tables. The only place that makes one, so that all of them are safe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.console
import rich.segment
import rich.text

from jointgen.text import visible


class Terminal(rich.console.Console):
    """A console that shows control characters in what it is given, and sends those that move its own bars."""

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[rich.segment.Segment]:
        """Render to segments, in whose text control characters are shown."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield rich.segment.Segment(visible(segment.text, keep="\n"), segment.style)


def terminal(*, stderr: bool = False, quiet: bool = False, width: int | None = None) -> Terminal:
    """Make a console on stdout or stderr that colours nothing by itself."""
    return Terminal(stderr=stderr, quiet=quiet, width=width, highlight=False)


def styled(text: object, style: Any = "") -> rich.text.Text:
    """Make a text for a table or a bar, which is as wide as it will be shown. Brackets are no markup in it."""
    return rich.text.Text(visible(text, keep="\n"), style=style)
