"""Turns the docstrings' plain text into the markup that autodoc reads: `code`, and signs that are no markup."""

import re
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(``[^`]+``|`[^`]+`|\*\*[^*]+\*\*)")
MARKUP = re.compile(r"[\\*|]|(?<=\w)_(?!\w)")


def escape(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Escape the lines of a docstring in place, but for examples and literal blocks."""
    if what in ("attribute", "data", "property"):
        lines.insert(0, "")  # napoleon takes what stands before a colon in the first line for a type
    example, literal = False, None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if literal is not None and line.strip() and indent <= literal:
            literal = None
        if not example and literal is None:
            lines[number] = "".join(map(escaped, CODE.split(line)))
            if line.rstrip().endswith("::"):
                literal = indent


def escaped(piece: str) -> str:
    """Write a piece of a line: `code` as reStructuredText has it, and signs without a meaning."""
    if piece.startswith(("``", "**")):
        return piece
    return f"``{piece[1:-1]}``" if piece.startswith("`") else MARKUP.sub(r"\\\g<0>", piece)


def setup(app: Sphinx) -> dict[str, Any]:
    """Have docstrings escaped before their sections are read."""
    app.connect("autodoc-process-docstring", escape, priority=100)
    return {"parallel_read_safe": True}
