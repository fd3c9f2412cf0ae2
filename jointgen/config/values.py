"""The values of a recipe's tables, whatever they mean: which of them can be worked with at all. Torch-free."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

from jointgen.errors import ConfigError, KeyPath, Problems

MAX_DEPTH = 64
"""So many tables and lists may stand in one another."""
MIN_FLOAT, MAX_FLOAT = 1.2e-38, 3.4e38
"""The range in which 32 bits hold a number to full precision."""


def show(value: object) -> str:
    """Write a value for a message: short, and as TOML would write it.

    >>> show(True), show({"type": "mlp"})
    ('true', 'a table')
    """
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date | datetime.time):
        return str(value)
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_values(tables: Mapping[str, Any]) -> None:
    """Check that all values can be worked with, whatever they mean. Without recursion, before anything else walks them.

    Raises:
        ConfigError: Whole numbers of more than 64 bits, numbers that 32 bits cannot hold, text that is not Unicode, or
            tables and lists that are nested too deeply; all of them, except that nothing more is said of such nesting.
    """
    problems = Problems()
    left: list[tuple[Any, KeyPath]] = [(tables, ())]
    while left:
        value, path = left.pop()
        if len(path) > MAX_DEPTH:
            raise ConfigError(f"tables or lists are nested more than {MAX_DEPTH} deep", path[0])
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str) or _wrong_with(key):
                    raise ConfigError(f"a key must be text that a file of TOML can hold, got {key!r}", *path)
            left += [(inner, (*path, key)) for key, inner in reversed([*value.items()])]
        elif isinstance(value, list | tuple):
            left += [(inner, (*path, n)) for n, inner in reversed(list(enumerate(value)))]
        elif wrong := _wrong_with(value):
            problems.add(wrong, *path)
    problems.raise_any()


def _wrong_with(value: object) -> str:
    """Say what is wrong with a scalar, or nothing. What is infinite or no number at all is told with its type."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "has more than 64 bits"
    if isinstance(value, float) and not (value == 0 or MIN_FLOAT <= abs(value) <= MAX_FLOAT or value in _INFINITE):
        return f"must be 0 or of a size from {MIN_FLOAT} to {MAX_FLOAT}, got {value}" if value == value else ""
    if isinstance(value, str) and not value.isascii() and re.search("[\ud800-\udfff]", value):
        return f"is no text that a file of TOML can hold, got {value!r}"
    return ""


_INFINITE = (float("inf"), float("-inf"))
