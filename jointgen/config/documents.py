"""JSON files of a run or of a data set, read strictly into attrs classes. Torch-free.

Whatever is wrong with such a file is one `FileError` of one line, which names the file, the key in it and what to do.
Nothing is coerced, left out or replaced.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jointgen.config.structure import structure
from jointgen.errors import ConfigError, FileError
from jointgen.registry.components import Registry
from jointgen.runtime.regular_files import SMALL, read_regular

T = TypeVar("T")

_NO_COMPONENTS = Registry()


def read_document(path: Path, cls: type[T], remedy: str, limit: int = SMALL) -> T:
    """Read a JSON file into a class.

    Args:
        path: The file.
        cls: An attrs class, or a dict or list of such, for `jointgen.config.structure.structure`.
        remedy: What the user can do if the file is damaged, such as "remove it and run `jointgen eval` again".
        limit: Its largest size in bytes.

    Raises:
        MissingFileError: There is none.
        FileError: It cannot be read, is not JSON, or does not hold what the class describes.
    """
    data = read_regular(path, limit)
    try:
        return parse_document(data, cls)
    except ValueError as error:
        raise FileError(path, f"is damaged ({error}); {remedy}") from None


def parse_document(data: bytes, cls: type[T]) -> T:
    """Read JSON text into a class. Raises ValueError with the first problem, in one line."""
    try:
        held = json.loads(data, parse_constant=_refuse, parse_int=_integer, object_pairs_hook=_table)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    try:
        return structure(held, cls, _NO_COMPONENTS)
    except ConfigError as error:
        more = f", and {len(error.problems) - 1:,} more" if len(error.problems) > 1 else ""
        raise ValueError(error.lines[0] + more) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise ValueError(f"{digits[:20]}... has more than 64 bits")
    return int(digits)


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key stands twice")
    return table
