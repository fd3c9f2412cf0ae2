"""Text on its way to people: control characters are shown instead of sent, and long values and lists are cut.

Whatever is printed, drawn in a table or written to a page may hold text out of files that somebody else made: names of
files, of arrays and of metrics, statuses, keys. `jointgen.runtime.console` sends everything through `visible`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_LISTED = 20
"""So many items of a list are written out, at the most."""
MAX_SHOWN = 200
"""So many characters of a single value are written out, at the most."""

# C0 and C1 controls, the marks that turn the direction of writing, line and paragraph separators, and half of a
# surrogate pair, as Python has it for a byte of a file's name that is not UTF-8
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = re.compile(r"[\s]*[=+\-@]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def visible(text: object, keep: str = "") -> str:
    r"""Write control characters as Python escapes them, so that a terminal shows them instead of obeying.

    Args:
        text: The text, or a value whose `str` is taken.
        keep: Characters that are left as they are: "\n" for a text of several lines.

    >>> visible("\x1b[31mred")
    '\\x1b[31mred'
    """

    def escape(found: re.Match[str]) -> str:
        character = found[0]
        return character if character in keep else character.encode("unicode_escape", "surrogatepass").decode("ascii")

    return _CONTROL.sub(escape, str(text))


def shortened(text: object, most: int = MAX_SHOWN) -> str:
    """Write a value in at most `most` characters, on one line.

    >>> shortened("x" * 300, 20)
    'xxxxxxxxxxxxxxxxx...'
    """
    shown = visible(text)
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def listed(items: Iterable[object], between: str = ", ", most: int = MAX_LISTED) -> str:
    """Write a list, and how many items were left out where there are more than `most`.

    >>> listed(range(10_000), most=3)
    '0, 1, 2, ... and 9,997 more'
    """
    items = [*items]
    texts = [shortened(item) for item in items[:most]]
    return between.join([*texts, f"... and {len(items) - most:,} more"] if len(items) > most else texts)


def spreadsheet_cell(text: object) -> str:
    """Write the cell of a CSV file, with an apostrophe before what a spreadsheet would take for a formula.

    >>> spreadsheet_cell("=cmd|x!A0"), spreadsheet_cell("-1.5e-3")
    ("'=cmd|x!A0", '-1.5e-3')
    """
    shown = visible(text)
    return f"'{shown}" if _FORMULA.match(shown) and not _NUMBER.fullmatch(shown) else shown
