"""Data sources, and the rows that they open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import attrs
from torch import Tensor

from jointgen.config.fields import non_negative
from jointgen.contracts.noise import NoiseSource
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError

Source = TypeVar("Source", bound="DataSource")


class Rows(Protocol):
    """The rows of one split of a data source, held in memory or read on demand."""

    def __len__(self) -> int:
        """The number of rows."""

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Return raw rows by variable.

        Args:
            index: Row numbers, (B,) int64, in any order and with repetitions.

        Returns:
            One tensor for each variable, as its Space says: levels (uint8 for up to 256 of them) or floats,
            (B, *shape); labels, (B,) int64.
        """


@runtime_checkable
class StoredRows(Protocol):
    """Rows that keep more than `Rows.take` shows, such as larger images from which training cuts random crops."""

    def stored(self, index: Tensor) -> dict[str, Tensor]:
        """Return rows as they are stored, before `AugmentedRows.augment`; index as in `Rows.take`."""


@runtime_checkable
class AugmentedRows(Protocol):
    """Rows of a training split that are augmented, for example mirrored or cropped, in each step that takes them."""

    def augment(self, values: dict[str, Tensor], noise: NoiseSource) -> dict[str, Tensor]:
        """Return raw rows that fit their Spaces, from stored ones.

        Called where the model trains: the rows may lie on an accelerator, and the method should not wait for it.

        Args:
            values: The rows as they are stored, by variable.
            noise: The only source of randomness that an augmentation may use; it has as many rows.
        """


@runtime_checkable
class PlacedRows(Protocol):
    """Rows of a split that know where they are in the data as the user has it."""

    def places(self, index: Tensor) -> Tensor:
        """Return the numbers of rows in the user's data, counted from 0, (B,) int64; index as in `Rows.take`."""


@runtime_checkable
class RemarkedRows(Protocol):
    """Rows of which the user should know something, such as how a test split was chosen."""

    @property
    def remarks(self) -> list[str]:
        """The remarks, a line each, which a run prints once."""


Reader = Callable[[Tensor], dict[str, Tensor]]
"""A function from row numbers, (B,) int64, to rows by variable."""
Augmentation = Callable[[dict[str, Tensor], NoiseSource], dict[str, Tensor]]
"""A function from stored rows and noise to raw rows."""


def reader_of(rows: Rows) -> Reader:
    """Return the function that reads rows as they are stored. Ask once: the check takes 10 us."""
    return rows.stored if isinstance(rows, StoredRows) else rows.take


def augmentation_of(rows: Rows) -> Augmentation:
    """Return the function that augments stored rows, or one that leaves them. Ask once: the check takes 10 us."""
    return rows.augment if isinstance(rows, AugmentedRows) else lambda values, noise: values


@runtime_checkable
class DataSource(Protocol):
    """A source of named variables, whose Spaces are known without reading the data."""

    def spaces(self) -> dict[str, Space]:
        """Return the Space of each variable by its name.

        Raises:
            ConfigError: A setting is wrong, or the file that tells the Spaces is not there.
        """

    def open(self, split: str) -> Rows:
        """Open a split.

        Args:
            split: "train" or "test".

        Raises:
            ConfigError: The data is not there or is damaged. The message names the key and the path.
        """


@runtime_checkable
class OptionalLabels(Protocol):
    """A data source whose labels are further variables of the same rows, if its key ``labels`` asks for them."""

    @property
    def labels(self) -> bool:
        """Whether the labels are asked for; False by default."""


@attrs.frozen
class Column:
    """A column of the user's table; mean + sd * value is the number that the table has for a value of the model.

    Args:
        name: The name of the column.
        mean: What was taken from it.
        sd: What it was divided by.
    """

    name: str
    mean: float = 0.0
    sd: float = attrs.field(default=1.0, validator=attrs.validators.gt(0.0))


@runtime_checkable
class NamedColumns(Protocol):
    """A data source whose vectors and labels are columns with names, which may have been standardised."""

    def columns(self) -> dict[str, list[Column]]:
        """Return the columns of each variable, in order; a label is one column. Called once the data is open."""


@runtime_checkable
class HoldsData(Protocol):
    """A class of data sources that hold what was given in Python: arrays, or a data set of some library."""

    @classmethod
    def holding(cls, data: object) -> DataSource | None:
        """Return a source of this data; None for what it does not know.

        The settings of the source are written into the recipe, so they say which data it is: by a hash of its rows.

        Raises:
            ConfigError: It knows such data, and this cannot be used.
        """


@runtime_checkable
class CountedSource(Protocol):
    """A data source that knows how many rows a split has without reading them: from a setting, a header, a manifest.

    So a run whose batch is larger than that, or whose files are not there, is refused before anything is read.
    """

    def count_rows(self, split: str) -> int:
        """Return the number of rows of a split.

        Args:
            split: "train" or "test".

        Raises:
            ConfigError: The data is not there, as `DataSource.open` says it.
        """


@runtime_checkable
class NamedClasses(Protocol):
    """A data source that knows the names of the classes of its labels."""

    def class_names(self) -> dict[str, list[str]]:
        """Return the names of the classes in order by label variable; none where the data has no names.

        Called once the data is open. Labels that are not asked for may be named too.
        """


@attrs.frozen
class SplitIdentity:
    """What tells the rows of a split of a data source from others (`jointgen.data.identity`).

    Args:
        rows: How many rows the split has.
        compared: Of how many of them, evenly apart, the fingerprint is.
        fingerprint: The hash of these raw rows.
    """

    rows: int = attrs.field(validator=non_negative)
    compared: int = attrs.field(validator=non_negative)
    fingerprint: str


@attrs.frozen
class RecordedData:
    """What a run has recorded of its data sources, by the part of the recipe that a source is.

    Args:
        file: The file that it is recorded in.
        spaces: The Space of each of a source's variables.
        splits: What tells the rows of each split from others; records of earlier versions lack it.
        class_names: The names of the classes of each label, where a source has any.
        columns: The columns of each variable, where a source is a table.
    """

    file: Path
    spaces: Mapping[str, Mapping[str, Space]]
    splits: Mapping[str, Mapping[str, SplitIdentity]] = attrs.field(factory=dict)
    class_names: Mapping[str, Mapping[str, list[str]]] = attrs.field(factory=dict)
    columns: Mapping[str, Mapping[str, list[Column]]] = attrs.field(factory=dict)


def labelled(source: Source) -> Source:
    """Return the data source with its labels where it can give any, and as it is otherwise."""
    if not isinstance(source, OptionalLabels) or source.labels:
        return source
    asked = attrs.evolve(source, labels=True)
    try:
        asked.spaces()
    except ConfigError:  # this data has no labels
        return source
    return asked
