"""Data that was given in Python: arrays, or a map-style data set of torch. The recipe holds its hash, not its place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from weakref import WeakValueDictionary

import attrs
import numpy as np
import torch
from torch import Tensor

from jointgen.plugin import READING, SIZE, ConfigError, Space, between, listed, valid_share, valid_size
from jointgen_data.array_files import Header
from jointgen_data.arrays import Array, ArrayRows, Arrays, is_observed, rising
from jointgen_data.common import HowSplit, is_train

WHOLE_BYTES = 2**28
"""Arrays of up to so many bytes are hashed whole; of larger ones, some rows."""
HASHED_ROWS = 1024
HASHED_ITEMS = 64
"""So many items of a data set are hashed, evenly apart: each may be a file to decode."""
NAME = Path("the data given in Python")


@attrs.frozen(eq=False)
class Held:
    """What was given: arrays by variable, or a data set with what a row of it is like."""

    arrays: dict[str, Tensor] | None
    items: Any
    headers: dict[str, Header]
    content_hash: str
    class_names: list[str]


_HELD: WeakValueDictionary[str, Held] = WeakValueDictionary()  # by hash; sources that are in use hold them


@attrs.frozen
class Given:
    """Data that was given to `jointgen.run(data=...)`; what an array is, its type and axes decide, as in "arrays".

    The process that trains has it, and so has one that is given the same again: a run goes on only with the same rows.

    Args:
        content_hash: The SHA-256 of its rows: of all, or of some evenly apart where it is large.
        row_count: How many rows it has.
        test_fraction: The share of rows that is held out.
        split: Which rows are held out: those that a hash of their number chooses, so that their share is near
            `test_fraction`, or the last ones.
        observe: How uint8 is observed; "dequantise" by default.
        levels: The number of levels of uint8; 2 for zeros and ones.
        classes: The number of classes of labels.
        ranges: The ends of the range of floats by variable, such as { x = [0.0, 1.0] }.
        channels: Where arrays of four axes have their channels: "first", (N, C, H, W), or "last", (N, H, W, C).
    """

    content_hash: str
    row_count: int = attrs.field(validator=valid_size, metadata=SIZE)
    test_fraction: float = attrs.field(default=0.1, validator=valid_share)
    split: HowSplit = attrs.field(default="hash", validator=attrs.validators.in_(("hash", "last")))
    observe: Literal["none", "dequantise", "binarise"] | None = attrs.field(
        default=None, validator=is_observed, metadata=READING
    )
    levels: int = attrs.field(default=256, validator=between(2, 256))
    classes: int | None = attrs.field(default=None, validator=valid_size)
    ranges: dict[str, tuple[float, float]] = attrs.field(factory=dict, validator=rising)
    channels: Literal["first", "last"] | None = None
    _held: Held | None = attrs.field(init=False, default=None, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(
            self, "_held", _HELD.get(self.content_hash)
        )  # as long as this source is there, so is the data

    @classmethod
    def holding(cls, data: Any) -> Self | None:
        """Return a source of data that is given in Python; None for what is no data.

        Args:
            data: An array or a tensor, (N, ...), which is x; a dict of such by variable; or a data set of torch, whose
                items are a value (x), a pair (x and y), or a dict by variable.

        Raises:
            ConfigError: Its rows do not fit together, or a data set gives other rows at each call.
        """
        if isinstance(data, Tensor | np.ndarray):
            data = {"x": data}
        if isinstance(data, Mapping):
            if not data or not all(isinstance(one, Tensor | np.ndarray) for one in data.values()):
                return None
            held = _held_arrays({str(name): _tensor(name, one) for name, one in data.items()})
        elif callable(getattr(data, "__getitem__", None)) and hasattr(data, "__len__") and not isinstance(data, str):
            held = _held_items(data)
        else:
            return None
        held = _HELD.setdefault(held.content_hash, held)
        total = next(iter(held.headers.values())).shape[0]
        return cls(held.content_hash, total, classes=_classes(held))

    def spaces(self) -> dict[str, Space]:
        """Return the Spaces; raise ConfigError where this process does not have the data, or it cannot be used."""
        return self._arrays().spaces()

    def class_names(self) -> dict[str, list[str]]:
        """Return the names of the classes of labels, where the data set has them."""
        names = self._there().class_names
        return {name: names for name, space in self.spaces().items() if space.kind == "label" and names}

    def count_rows(self, split: str) -> int:
        """Return the number of rows of a split."""
        return self._arrays().count_rows(split)

    def open(self, split: str) -> ArrayRows | ItemRows:
        """Open a split; raise ConfigError as `spaces` does, and for values that do not fit their Space."""
        source, held = self._arrays(), self._there()
        if held.arrays is not None:
            return source.open(split)
        source.spaces()
        places = source.places_of(self.row_count, is_train(split))
        return ItemRows(held.items, source.given(), places)

    def _there(self) -> Held:
        if self._held is None:
            raise ConfigError(
                f"the data was given in Python, to jointgen.run(data=...), and is not here: {self.row_count:,} rows, "
                f"sha256 {self.content_hash[:8]}...; give it again"
            )
        return self._held

    def _arrays(self) -> HeldArrays:
        settings = {f.name: getattr(self, f.name) for f in attrs.fields(Arrays) if hasattr(self, f.name)}
        return HeldArrays(str(NAME), **settings, held=self._there())


@attrs.frozen
class HeldArrays(Arrays):
    """The source "arrays" of what is held in memory, in place of a file."""

    held: Any = None

    def given(self) -> dict[str, HeldArray]:
        """Return what is held, by variable."""
        arrays, headers = self.held.arrays or {}, self.held.headers
        return {
            name: HeldArray("data", NAME, name, header, self.channels, arrays.get(name))
            for name, header in headers.items()
        }

    def arrays_of(self, option: str, path: str) -> dict[str, Array]:
        """Return what is held; there is no file."""
        return {**self.given()}


@attrs.frozen
class HeldArray(Array):
    """An array, or the like values of a data set's items."""

    values: Tensor | None = attrs.field(default=None, eq=False, repr=False)

    def load(self) -> Tensor:
        """Return the values."""
        assert self.values is not None, "items are read one by one"
        return self.values

    def as_rows(self, items: list[Any]) -> Tensor:
        """Return the values of some items as rows, (B, *shape)."""
        return attrs.evolve(
            self,
            header=Header(self.header.dtype, (len(items), *self.header.shape[1:])),
            values=_stacked(items, self.key),
        ).read()


class ItemRows:
    """The rows of a split of a data set, whose items are read when they are taken.

    Args:
        items: The data set.
        variables: What its items hold.
        places: The numbers of the items that make the split, (N,) int64.
    """

    def __init__(self, items: Any, variables: Mapping[str, HeldArray], places: Tensor):
        self.items, self.variables, self._places = items, variables, places
        self.remarks = [f"{len(items) - len(places):,} of the {len(items):,} rows are in the other split"]

    def __len__(self) -> int:
        return len(self._places)

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Return the rows with these numbers, (B,) int64, (B, *shape) each."""
        rows = [_by_variable(item) for item in _read(self.items, self._places[index].tolist())]
        return {name: array.as_rows([row[name] for row in rows]) for name, array in self.variables.items()}

    def places(self, index: Tensor) -> Tensor:
        """Return the numbers of these rows in the data set, (B,) int64."""
        return self._places[index]


def _read(items: Any, numbers: list[int]) -> list[Any]:
    if callable(many := getattr(items, "__getitems__", None)):
        return list(many(numbers))
    return [items[number] for number in numbers]


def _by_variable(item: Any) -> dict[str, Any]:
    if isinstance(item, Mapping):
        return {str(name): value for name, value in item.items()}
    if isinstance(item, tuple | list) and len(item) in (1, 2):
        return dict(zip(("x", "y"), item, strict=False))
    if isinstance(item, tuple | list):
        raise ConfigError(f"its items are {len(item)} values; give them names, as a dict by variable", "data")
    return {"x": item}


def _tensor(name: Any, value: Any) -> Tensor:
    """Return a value as a tensor, images with their channels last as their arrays have them."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"{name!r} is {array.dtype}; allowed are numbers", "data")
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def _stacked(items: list[Any], name: str) -> Tensor:
    values = [_tensor(name, item) for item in items]
    shapes = list(dict.fromkeys(tuple(value.shape) for value in values))
    if len(shapes) > 1:
        raise ConfigError(f"{name!r} has items of the shapes {listed(map(str, shapes))}; make them equal", "data")
    return torch.stack(values)


def _header(values: Tensor, rows: int) -> Header:
    return Header(str(values.dtype).removeprefix("torch."), (rows, *values.shape[1:]))


def _held_arrays(arrays: dict[str, Tensor]) -> Held:
    counts = {name: len(one) if one.ndim else 0 for name, one in arrays.items()}
    if len({*counts.values()}) > 1 or 0 in counts.values():
        found = listed(f"{name} has {count:,}" for name, count in counts.items())
        raise ConfigError(f"arrays need rows, and the same number of them: {found}", "data")
    rows = next(iter(counts.values()))
    size = sum(one.numel() * one.element_size() for one in arrays.values())
    index = torch.arange(rows) if size <= WHOLE_BYTES else torch.arange(HASHED_ROWS) * rows // HASHED_ROWS
    digest = _hash_of(rows, {name: one[index] if len(index) < rows else one for name, one in arrays.items()})
    return Held(arrays, None, {name: _header(one, rows) for name, one in arrays.items()}, digest, [])


def _held_items(items: Any) -> Held:
    rows = len(items)
    if not rows:
        raise ConfigError("the data set has no items", "data")
    numbers = [n * rows // min(rows, HASHED_ITEMS) for n in range(min(rows, HASHED_ITEMS))]
    found = _first_rows(items, numbers)
    digest = _hash_of(rows, found)
    if _hash_of(rows, _first_rows(items, numbers)) != digest:
        raise ConfigError(
            "the data set gives other items each time, by a random transform; a run could not be repeated: give it "
            "without one (key `flip` or an augmentation does it from the run's own noise)",
            "data",
        )
    headers = {name: _header(one, rows) for name, one in found.items()}
    names = getattr(items, "classes", None)
    known = [str(name) for name in names] if isinstance(names, Iterable) and not isinstance(names, str) else []
    return Held(None, items, headers, digest, known)


def _first_rows(items: Any, numbers: list[int]) -> dict[str, Tensor]:
    try:
        read = [_by_variable(item) for item in _read(items, numbers)]
    except ConfigError:
        raise
    except Exception as error:  # whatever a data set raises; a DataFrame, whose numbers name columns, a KeyError
        raise ConfigError(
            f"its items cannot be read by number: {type(error).__name__}: {error}; give arrays (of a DataFrame, "
            ".to_numpy()) or a data set of torch",
            "data",
        ) from error
    if any(row.keys() != read[0].keys() for row in read):
        raise ConfigError("its items hold different variables", "data")
    return {name: _stacked([row[name] for row in read], name) for name in read[0]}


def _hash_of(rows: int, arrays: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(f"{rows}".encode())
    for name, one in sorted(arrays.items()):
        digest.update(f"/{name} {one.dtype} {tuple(one.shape[1:])}".encode())
        digest.update(one.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _classes(held: Held) -> int | None:
    """Return how many classes the labels have, where that can be known."""
    labels = [name for name, one in held.headers.items() if len(one.shape) == 1 and not one.dtype.startswith("float")]
    if not labels:
        return None
    if held.arrays is not None:
        return max(int(held.arrays[name].long().max()) for name in labels) + 1
    return len(held.class_names) or None
