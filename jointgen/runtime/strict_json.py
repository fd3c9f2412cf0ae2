"""JSON as the standard has it, in numbers of 64 bits: what Python's reader takes besides is refused."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from jointgen.text import shortened


def read_json(data: bytes, *, non_finite: bool = False) -> Any:
    """Read JSON text strictly. Raises ValueError, in one line, also for numbers that JSON or 64 bits do not have.

    Args:
        data: The text.
        non_finite: Whether NaN, Infinity and -Infinity may stand in it, as Python writes them.
    """
    constant = float if non_finite else _refuse
    try:
        return json.loads(
            data, parse_constant=constant, parse_int=_integer, parse_float=_finite, object_pairs_hook=_table
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise ValueError(f"{digits[:20]}... has more than 64 bits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{shortened(digits, 20)} is too large for a number")
    return value


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key stands twice")
    return table
