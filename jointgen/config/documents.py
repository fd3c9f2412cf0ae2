"""JSON files of a run or of a data set, read strictly into attrs classes. Torch-free.

Whatever is wrong with such a file is one `FileError` of one line, which names the file, the key in it and what to do.
Nothing is coerced, left out or replaced.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from jointgen.config.structure import structure
from jointgen.errors import ConfigError, FileError
from jointgen.registry.components import Registry
from jointgen.runtime.regular_files import SMALL, read_regular
from jointgen.runtime.strict_json import read_json

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
    return as_document(read_json(data), cls)


def as_document(held: Any, cls: type[T]) -> T:
    """Build a class from what `read_json` has read. Raises ValueError with the first problem, in one line."""
    try:
        return structure(held, cls, _NO_COMPONENTS)
    except ConfigError as error:
        first, more = error.lines[0], len(error.problems) - 1
        if error.problems[0].message.startswith("unknown key"):
            first += f"; jointgen {metadata.version('jointgen')} writes no such key, a later version may"
        raise ValueError(first + (f", and {more:,} more" if more else "")) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
