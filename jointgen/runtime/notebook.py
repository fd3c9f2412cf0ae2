"""Output of a notebook that is written anew in its place. Needs no IPython: it is asked only where it is running."""

from __future__ import annotations

import base64
import html
import importlib
import sys
from pathlib import Path
from typing import Any


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, which shows HTML."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class Place:
    """A place in the output of a cell. What is shown there replaces what was shown before."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str, page: str) -> None:
        """Show something.

        Args:
            text: What it is without HTML, as in a notebook that is converted to text.
            page: The HTML.
        """
        bundle = {"text/plain": text, "text/html": page}
        if self._handle is None:
            self._handle = importlib.import_module("IPython.display").display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def bar_in_html(done: int, total: int, line: str, notes: list[str], picture: Path | None) -> str:
    """Write a bar of progress with a line of figures, the last notes and a picture as HTML."""
    parts = [f'<progress value="{done}" max="{total}" style="width:20em"></progress> {html.escape(line)}']
    parts += [f"<small>{html.escape(note)}</small>" for note in notes]
    if picture is not None and picture.is_file():
        address = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
        parts.append(f'<img src="{address}" alt="{html.escape(picture.name)}" style="max-width:20em">')
    return "<div>" + "<br>".join(parts) + "</div>"
