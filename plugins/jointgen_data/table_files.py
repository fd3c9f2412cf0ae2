"""Read tables: CSV by Python's own reader, parquet by pyarrow, and those that come with scikit-learn."""

from __future__ import annotations

import csv
import importlib
import io
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import attrs
import numpy as np

from jointgen.plugin import ConfigError, FileError, read_regular

try:
    from pyarrow import parquet
except ImportError:  # the extra "tables" is not installed
    parquet = None

MAX_BYTES = 4 << 30
"""The largest file that is read, since a table is held in memory."""
MISSING = {"", "?", "na", "n/a", "nan", "null", "none"}
"""What stands in a cell without a value, in small letters."""
Bundled = Literal["breast_cancer", "diabetes", "iris", "wine"]
BUNDLED = get_args(Bundled)
CLASS_COLUMNS = {"breast_cancer": "diagnosis", "iris": "species", "wine": "cultivar"}
"""How the column of classes is called here, which scikit-learn calls the target."""


@attrs.frozen(eq=False)
class FileColumn:
    """A column of a table.

    Args:
        name: Its name.
        numbers: Its values where all of them are numbers, (N,) float64 with NaN for a missing one; otherwise None.
        texts: Its values as texts, N of them, None for a missing one.
    """

    name: str
    numbers: np.ndarray | None
    texts: list[str | None]

    @cached_property
    def missing(self) -> np.ndarray:
        """Which rows have no value, (N,) bool."""
        return np.array([text is None for text in self.texts], bool)


def read_table(path: Path) -> dict[str, FileColumn]:
    """Read a table by its name's ending.

    Raises:
        FileError: It is no file, or not what its ending says.
        ConfigError: The ending is none of those that are read, or pyarrow is not installed.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{str(path)!r} is none of {', '.join(READERS)}")
    found = reader(path)
    if not found or not len(next(iter(found.values())).texts):
        raise FileError(path, "has no rows")
    return found


def bundled_table(name: str) -> dict[str, FileColumn]:
    """Return a table that comes with scikit-learn: its numbers, and its classes where it has any."""
    held: Any = getattr(importlib.import_module("sklearn.datasets"), f"load_{name}")()
    names = [str(column).removesuffix(" (cm)").replace(" ", "_") for column in held.feature_names]
    columns = {column: held.data[:, index] for index, column in enumerate(names)}
    found = {column: FileColumn(column, values, list(map(repr, values.tolist()))) for column, values in columns.items()}
    if name not in CLASS_COLUMNS:
        return found | {"progression": FileColumn("progression", held.target, list(map(repr, held.target.tolist())))}
    title = CLASS_COLUMNS[name]
    return found | {title: FileColumn(title, None, [str(held.target_names[number]) for number in held.target])}


def _read_csv(path: Path, delimiter: str) -> dict[str, FileColumn]:
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8-sig")
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileError(path, f"cannot be read as CSV in UTF-8: {error}") from None
    if not lines:
        raise FileError(path, "is empty; its first line has to name the columns")
    names = [name.strip() for name in lines[0]]
    if "" in names or len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1 or not name})
        raise FileError(path, f"has columns without a name of their own in its first line: {twice}")
    if numbered := [name for name in names if _number(name) is not None]:
        raise FileError(path, f"has numbers in its first line ({numbered[0]}), where the columns are named")
    for number, line in enumerate(lines[1:]):
        if len(line) != len(names):
            raise FileError(path, f"has {len(line)} cells in row {number} below the names, and {len(names)} columns")
    cells = zip(*lines[1:], strict=True) if len(lines) > 1 else [() for _ in names]
    return {name: _column(name, values) for name, values in zip(names, cells, strict=True)}


def _column(name: str, cells: tuple[str, ...]) -> FileColumn:
    texts = [None if cell.strip().lower() in MISSING else cell.strip() for cell in cells]
    numbers = [math.nan if text is None else _number(text) for text in texts]
    known = [number for number in numbers if number is not None]
    all_numbers = len(known) == len(numbers) and any(text is not None for text in texts)
    return FileColumn(name, np.array(known, np.float64) if all_numbers else None, texts)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read_parquet(path: Path) -> dict[str, FileColumn]:
    if parquet is None:
        raise ConfigError("parquet needs pyarrow: uv sync --extra tables, or pip install 'jointgen[tables]'")
    data = read_regular(path, MAX_BYTES)
    try:
        held = parquet.read_table(io.BytesIO(data))
        return {name: _parquet_column(name, held.column(name)) for name in held.column_names}
    except Exception as error:  # pyarrow's errors have no common class that it exports
        raise FileError(path, f"cannot be read as parquet: {' '.join(str(error).split())}") from error


def _parquet_column(name: str, column: Any) -> FileColumn:
    values = column.to_pylist()
    texts = [None if value is None or value != value else str(value) for value in values]
    is_number = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values if value is not None
    )
    numbers = np.array([math.nan if value is None else value for value in values], np.float64) if is_number else None
    return FileColumn(name, numbers if any(text is not None for text in texts) else None, texts)


def _csv_reader(delimiter: str) -> Callable[[Path], dict[str, FileColumn]]:
    return lambda path: _read_csv(path, delimiter)


READERS: dict[str, Callable[[Path], dict[str, FileColumn]]] = {
    ".csv": _csv_reader(","),
    ".tsv": _csv_reader("\t"),
    ".parquet": _read_parquet,
}
