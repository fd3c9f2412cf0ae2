"""Writes Markdown: text that is no markup, tables, and lists of keys."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

MARKUP = re.compile(r"[\\*_\[\]<>$|#{}~]")


def plain(text: str) -> str:
    r"""Write a docstring's text so that none of its signs is markup; what stands in backticks stays code.

    >>> print(plain("the law `q(z|x)` of a_b, [0, 1)"))
    the law `q(z|x)` of a\_b, \[0, 1)
    """
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(piece if piece.startswith("`") else MARKUP.sub(r"\\\g<0>", piece) for piece in pieces)


def definitions(entries: Iterable[tuple[str, str]]) -> str:
    """Write a list of terms, each with what it means."""
    return "".join(f"{term}\n: {meaning}\n\n" for term, meaning in entries)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table of cells whose signs are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def write(page: Path, text: str) -> None:
    """Write a page, unless it is there already: what has not changed is not read again."""
    page.parent.mkdir(parents=True, exist_ok=True)
    if not page.is_file() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")
