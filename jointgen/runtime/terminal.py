"""Rich's console: bars that move, and tables. The only place that makes one, so that all of them are safe."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import rich.console
import rich.segment
import rich.text

from jointgen.runtime.console import send
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


@contextmanager
def on_stdout(file_width: int) -> Iterator[Terminal]:
    """Yield a console whose output is sent to stdout at the end. Raises as `jointgen.runtime.console.send` does.

    Args:
        file_width: The width where stdout is no terminal.
    """
    stdout, out = terminal(), io.StringIO()
    width = stdout.width if stdout.is_terminal else file_width
    yield Terminal(file=out, force_terminal=stdout.is_terminal, width=width, highlight=False)
    send(out.getvalue())


def styled(*lines: str, style: str = "") -> rich.text.Text:
    """Make a text for a table or a bar, which is as wide as it will be shown. Brackets are no markup in it."""
    return rich.text.Text("\n".join(map(visible, lines)), style=style)
