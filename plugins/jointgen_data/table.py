"""Tables with mixed columns: numbers become one standardised vector, each column of categories a label."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from functools import cached_property
from typing import Literal

import attrs
import numpy as np
import torch
from torch import Tensor

from jointgen.plugin import (
    LOCATION,
    Column,
    ConfigError,
    Space,
    listed,
    placing,
    suggest,
    user_path,
    valid_share,
)
from jointgen_data.common import HowSplit, TensorRows, held_out_rows, is_train, label_space
from jointgen_data.table_files import BUNDLED, Bundled, FileColumn, bundled_table, read_table

FileColumns = dict[str, FileColumn]
MAX_CLASSES, FEW_CLASSES = 1000, 20
MAX_ROWS_NAMED = 5


@attrs.frozen
class Table:
    """Rows of a table: x, a vector of its numeric columns, and a label for each column of categories.

    A column whose values are all numbers is numeric. Numeric columns are standardised: each has mean 0 and standard
    deviation 1 over the training rows. The run records these moments and the names of columns and classes, so
    `jointgen sample RUN -o draws.csv` writes a table like the one that was read.

    Args:
        path: A .csv or .tsv file whose first line names the columns, or .parquet (`jointgen[tables]`).
        bundled: In place of a path, a table that comes with scikit-learn: "wine" (13 numbers and the cultivar of 178
            wines), "iris", "breast_cancer" or "diabetes".
        test_path: A file with the test split and the same columns. Without it, some rows are held out.
        test_fraction: The share of rows that is held out.
        split: Which rows are held out: those that a hash of their number chooses, or the last ones.
        variables: The columns of each variable, such as { x = ["age", "height"], y = ["colour"] }; columns that are in
            none are left out. By default x has every numeric column, and each column of categories is a variable of its
            own name, in small letters and with "_" for what a name cannot have.
        categorical: Columns of numbers that are categories, such as post codes.
        leave_out: Columns that are not read.
        missing: What is done with rows in which a value is missing: "refuse" them, or "drop" them, which is said.
        standardise: Whether numeric columns are standardised.
    """

    path: str | None = attrs.field(default=None, metadata=LOCATION)
    bundled: Bundled | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.in_(BUNDLED))
    )
    test_path: str | None = attrs.field(default=None, metadata=LOCATION)
    test_fraction: float = attrs.field(default=0.1, validator=valid_share)
    split: HowSplit = attrs.field(default="hash", validator=attrs.validators.in_(("hash", "last")))
    variables: dict[str, list[str]] | None = None
    categorical: list[str] = attrs.field(factory=list)
    leave_out: list[str] = attrs.field(factory=list)
    missing: Literal["refuse", "drop"] = attrs.field(
        default="refuse", validator=attrs.validators.in_(("refuse", "drop"))
    )
    standardise: bool = True

    def spaces(self) -> dict[str, Space]:
        """Return the Spaces from the file's columns; raise ConfigError for a file or columns that cannot be used."""
        self._kept["train"]  # there are some
        return {
            name: label_space(len(self._classes[name])) if name in self._classes else Space((len(columns),))
            for name, columns in self._columns.items()
        }

    def class_names(self) -> dict[str, list[str]]:
        """Return the names of the classes of each label, in order."""
        return self._classes

    def columns(self) -> dict[str, list[Column]]:
        """Return the names and moments of the columns of each variable, in order."""
        return {
            name: [Column(column, *self._moments.get(column, ())) for column in columns]
            for name, columns in self._columns.items()
        }

    def count_rows(self, split: str) -> int:
        """Return the number of rows of the split; raise ConfigError as `open` does."""
        is_train(split)
        return len(self._kept[split])

    def open(self, split: str) -> TableRows:
        """Open the split "train" or "test"; raise ConfigError for missing values, and as `spaces` does."""
        train, rows, table = is_train(split), self._kept[split], self._tables[split]
        values = {
            name: _numbered(table[columns[0]], rows, self._classes[name], self._key_of(split))
            if name in self._classes
            else torch.from_numpy(np.stack([self._scaled(table[column], rows) for column in columns], 1))
            for name, columns in self._columns.items()
        }
        return TableRows(values, torch.from_numpy(rows), list(self._remarks()) if train else [])

    def _scaled(self, column: FileColumn, rows: np.ndarray) -> np.ndarray:
        mean, sd = self._moments[column.name]
        assert column.numbers is not None, "checked when the roles of columns were"
        return ((column.numbers[rows] - mean) / sd).astype(np.float32)

    # --- what is in the files ----------------------------------------------------------------------------------------

    @cached_property
    def _tables(self) -> dict[str, FileColumns]:
        """The columns of the file of each split."""
        if (self.path is None) == (self.bundled is None):
            raise ConfigError(
                "give either path, a .csv, .tsv or .parquet file, or bundled, a table of scikit-learn", "path"
            )
        train = bundled_table(self.bundled) if self.bundled is not None else self._read("path")
        return {"train": train, "test": train if self.test_path is None else self._read("test_path")}

    def _read(self, key: str) -> FileColumns:
        with placing(key):
            return read_table(user_path(getattr(self, key)))

    def _key_of(self, split: str) -> str:
        return "test_path" if split == "test" and self.test_path is not None else "path"

    @cached_property
    def _columns(self) -> dict[str, list[str]]:
        """The columns of each variable; raises ConfigError for those that are not there, or do not fit together."""
        table = self._tables["train"]
        for key, named in (("categorical", self.categorical), ("leave_out", self.leave_out)):
            for column in named:
                _check_is_there(column, table, key)
        if self.variables is None:
            kept = [column for column in table.values() if column.name not in self.leave_out]
            numbers = [column.name for column in kept if self._is_numeric(column)]
            categories = [column.name for column in kept if not self._is_numeric(column)]
            found = ({"x": numbers} if numbers else {}) | {_variable(name): [name] for name in categories}
            if len(found) < len(categories) + bool(numbers):
                raise ConfigError(
                    "columns of the same name but for signs, or one called x; name the variables", "variables"
                )
        else:
            found = self.variables
            for name, columns in found.items():
                for column in columns:
                    _check_is_there(column, table, "variables", name)
                if not columns:
                    raise ConfigError("has no columns", "variables", name)
                if len(columns) > 1 and (bad := [c for c in columns if not self._is_numeric(table[c])]):
                    raise ConfigError(
                        f"{bad[0]!r} is of categories, and takes a variable of its own", "variables", name
                    )
        if missing := [c for columns in found.values() for c in columns if c not in self._tables["test"]]:
            raise ConfigError(f"{self.test_path!r} has no column {missing[0]!r}", "test_path")
        return found

    def _is_numeric(self, column: FileColumn) -> bool:
        return column.numbers is not None and column.name not in self.categorical

    @cached_property
    def _classes(self) -> dict[str, list[str]]:
        """The classes of each label, in order: numbers by size, and texts by their letters."""
        table, found = self._tables["train"], dict[str, list[str]]()
        for name, (first, *_) in self._columns.items():
            column = table[first]
            if self._is_numeric(column):
                continue
            texts = {text for text in column.texts if text is not None}
            most = min(MAX_CLASSES, max(FEW_CLASSES, len(column.texts) // 2), len(column.texts) - 1)
            if len(texts) > most:
                raise ConfigError(
                    f"{first!r} has {len(texts):,} different values in {len(column.texts):,} rows, which are no "
                    "categories; name it in leave_out",
                    "leave_out",
                )
            is_number = column.numbers is not None
            found[name] = sorted(texts, key=(lambda text: (float(text), text)) if is_number else None)
            if len(texts) < 2:
                raise ConfigError(f"{first!r} has the one value {found[name]} alone; name it in leave_out", "leave_out")
        return found

    @cached_property
    def _kept(self) -> dict[str, np.ndarray]:
        """The rows of the file that make each split, in order, (n,) int64, without those that are dropped.

        Raises ConfigError for values that are missing.
        """
        found = {}
        for split in ("train", "test"):
            complete = self._complete(split)
            rows = np.flatnonzero(complete)
            if self.test_path is None:
                held_out = held_out_rows(len(complete), self.test_fraction, self.split)
                rows = rows[held_out[rows] == (split == "test")]
            found[split] = rows
            if not len(found[split]):
                raise ConfigError(f"no row of the {split} split has a value in every column", "missing")
        return found

    def _complete(self, split: str) -> np.ndarray:
        """Which rows of the file of a split have a finite value in every column, (N,) bool."""
        table, key = self._tables[split], self._key_of(split)
        lacking = {}
        for column in (table[name] for columns in self._columns.values() for name in columns):
            if column.numbers is not None and np.isinf(column.numbers).any():
                rows = np.flatnonzero(np.isinf(column.numbers)).tolist()
                raise ConfigError(f"{column.name!r} is not finite in row {listed(rows, most=MAX_ROWS_NAMED)}", key)
            lacking[column.name] = column.missing
        without: np.ndarray = np.logical_or.reduce(list(lacking.values()))
        if without.any() and self.missing == "refuse":
            named = ", ".join(f"{name!r} in {int(rows.sum()):,}" for name, rows in lacking.items() if rows.any())
            rows = np.flatnonzero(without).tolist()
            raise ConfigError(
                f"'refuse', but values are missing in {len(rows):,} of {len(without):,} rows ({named}; row "
                f"{listed(rows, most=MAX_ROWS_NAMED)}, counted from 0 below the names); missing = 'drop' leaves these "
                "rows out, leave_out a column",
                "missing",
            )
        return np.logical_not(without)

    @cached_property
    def _moments(self) -> dict[str, tuple[float, float]]:
        """The mean and standard deviation of each numeric column over the training rows; (0, 1) as they are."""
        table, rows, found = self._tables["train"], self._kept["train"], dict[str, tuple[float, float]]()
        for name in (
            name for variable, columns in self._columns.items() if variable not in self._classes for name in columns
        ):
            values = table[name].numbers
            assert values is not None, "a column of a vector is numeric"
            mean, sd = float(values[rows].mean()), float(values[rows].std())
            if not sd > 1e-12 * abs(mean):
                raise ConfigError(f"{name!r} is constant in the training rows; name it in leave_out", "leave_out")
            found[name] = (mean, sd) if self.standardise else (0.0, 1.0)
        return found

    def _remarks(self) -> Iterable[str]:
        """Yield what the user should know of the training rows."""
        rows, where = {split: self._kept[split] for split in ("train", "test")}, self.path or self.bundled
        total = len(next(iter(self._tables["train"].values())).texts)
        if self.test_path is None:
            how = "the last ones" if self.split == "last" else "by a hash of their number"
            yield f"{len(rows['test']):,} of the {total:,} rows of {where!r} are held out for tests, {how}"
        for split in ("train", "test") if self.test_path is not None else ("train",):
            if dropped := int((~self._complete(split)).sum()):
                file = getattr(self, self._key_of(split)) or where
                yield f"{dropped:,} rows of {file!r} are left out: values are missing"
        for name, columns in self._columns.items():
            if name in self._classes:
                classes = self._classes[name]
                yield f"{name}: {columns[0]!r}, {len(classes)} classes ({listed(classes, most=5)})"
            else:
                scaled = ", standardised by the training rows" if self.standardise else ""
                yield f"{name}: {len(columns)} columns ({listed(columns, most=5)}){scaled}"


class TableRows(TensorRows):
    """Rows of a table, with what the user should know of them."""

    def __init__(self, values: dict[str, Tensor], places: Tensor, remarks: list[str]):
        super().__init__(values, places=places)
        self.remarks = remarks


def _numbered(column: FileColumn, rows: np.ndarray, classes: list[str], key: str) -> Tensor:
    """The number of each row's class, (n,) int64."""
    number = {name: index for index, name in enumerate(classes)}
    texts = [column.texts[row] for row in rows]
    if unknown := [row for row, text in zip(rows.tolist(), texts, strict=True) if text not in number]:
        raise ConfigError(
            f"{column.name!r} has {column.texts[unknown[0]]!r} in row {unknown[0]}, which the training rows have not",
            key,
        )
    return torch.tensor([number[text] for text in texts if text is not None])


def _check_is_there(column: str, table: FileColumns, *keys: str) -> None:
    if column not in table:
        raise ConfigError(f"no column {column!r}{suggest(column, table)}", *keys)


def _variable(column: str) -> str:
    """The name of a variable for a column: small letters, digits and "_"."""
    name = re.sub(r"\W+", "_", column.lower()).strip("_") or "y"
    return f"{name}_" if keyword.iskeyword(name) else f"c_{name}" if name[0].isdigit() else name
