"""The user's own arrays: images, vectors and labels from .npy, .npz and .safetensors files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from jointgen.plugin import (
    LOCATION,
    READING,
    ConfigError,
    FileError,
    MissingFileError,
    Space,
    between,
    check_regular,
    listed,
    log,
    suggest,
    user_path,
    valid_share,
    valid_size,
)
from jointgen_data.array_files import READERS, Header, read_array, read_headers
from jointgen_data.common import (
    BLOCK_NUMBERS,
    HowSplit,
    Observed,
    TensorRows,
    check_leaves_rows,
    held_out_rows,
    image_space,
    is_train,
    label_space,
)

INTEGERS = ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64")
FLOATS = ("float16", "bfloat16", "float32", "float64")
CHANNELS = (1, 3, 4)
LARGE_BYTES = 2**32  # of values that are checked: reading them takes so long that it is said
MAX_ROWS_NAMED = 5
LARGEST = float(np.finfo(np.float32).max)  # what a model computes with

optional = attrs.validators.optional
is_observed = optional(attrs.validators.in_(("none", "dequantise", "binarise")))


def rising(source: Any, field: Any, ranges: dict[str, tuple[float, float]]) -> None:
    for name, (low, high) in ranges.items():
        if not low < high:
            raise ValueError(f"'ranges' must rise, {name} = [{low:g}, {high:g}] does not")


@attrs.frozen
class Arrays:
    """The user's arrays, with rows along the first axis. The type and the axes of an array decide what it is.

    The test split is chosen by a hash of the number of each row: the same rows in each run, from all over the file, and
    still held out when rows are appended.

    - uint8, two axes or more: levels 0..levels-1, dequantised on [0, 1), or binarised, or left as they are.
    - floats: as they are, and finite; (N,) becomes (N, 1). Where their range is known, `ranges` says it, so that
      `mean = "sigmoid"`, pictures and `--images` fit them.
    - whole numbers (N,): labels 0..classes-1.
    - uint8 (N, H, W) becomes (N, 1, H, W).
    - (N, H, W, C) becomes (N, C, H, W) where C is 1, 3 or 4 and the second axis is none of these: where either
      could be the channels, the second axis is taken for them, unless `channels` says where they are.

    Args:
        path: A .npy, .npz or .safetensors file.
        test_path: A file with the test split and the same arrays. Without it, some rows of `path` are held out.
        test_fraction: The share of rows that is held out.
        split: Which rows are held out: those that a hash of their number chooses, so that their share is near
            `test_fraction`, or the last ones of the file.
        variables: The key in the file for each variable; by default x is the key "x", or the only array.
        observe: How uint8 is observed; "dequantise" by default.
        levels: The number of levels of uint8; 2 for zeros and ones.
        classes: The number of classes of labels, which a header does not tell.
        ranges: The ends of the range of floats by variable, such as { x = [0.0, 1.0] }; every value must lie in it.
        channels: Where arrays of four axes have their channels: "first", (N, C, H, W), or "last", (N, H, W, C).
    """

    path: str = attrs.field(metadata=LOCATION)
    test_path: str | None = attrs.field(default=None, metadata=LOCATION)
    test_fraction: float = attrs.field(default=0.1, validator=valid_share)
    split: HowSplit = attrs.field(default="hash", validator=attrs.validators.in_(("hash", "last")))
    variables: dict[str, str] | None = None
    observe: Literal["none", "dequantise", "binarise"] | None = attrs.field(
        default=None, validator=is_observed, metadata=READING
    )
    levels: int = attrs.field(default=256, validator=between(2, 256))
    classes: int | None = attrs.field(default=None, validator=valid_size)
    ranges: dict[str, tuple[float, float]] = attrs.field(factory=dict, validator=rising)
    channels: Literal["first", "last"] | None = attrs.field(
        default=None, validator=optional(attrs.validators.in_(("first", "last")))
    )

    def spaces(self) -> dict[str, Space]:
        """Return the Spaces from the file's header; raise ConfigError for a file, key or type that cannot be used."""
        arrays = self.arrays_of("path", self.path)
        if self.test_path is None:
            check_leaves_rows(next(iter(arrays.values())).header.shape[0], self.test_fraction, self.split)
        if self.observe in ("dequantise", "binarise") and all(array.role != "levels" for array in arrays.values()):
            found = ", ".join(f"{array.key!r} is {array.header.dtype}" for array in arrays.values())
            raise ConfigError(f"{self.observe!r} is for images or vectors of uint8 levels, but {found}", "observe")
        if self.classes is not None and all(array.role != "label" for array in arrays.values()):
            found = ", ".join(
                f"{array.key!r} is {array.header.dtype} {array.header.shape}" for array in arrays.values()
            )
            raise ConfigError(f"is for labels, whole numbers (N,), but {found}", "classes")
        self._check_ranges(arrays)
        if self.channels is not None and all(len(array.header.shape) != 4 for array in arrays.values()):
            found = ", ".join(f"{array.key!r} is {array.header.shape}" for array in arrays.values())
            raise ConfigError(f"is for images, of four axes, but {found}", "channels")
        return {name: self._space(array, name) for name, array in arrays.items()}

    def _check_ranges(self, arrays: dict[str, Array]) -> None:
        for name in self.ranges:
            if name not in arrays:
                raise ConfigError(f"no variable of these arrays{suggest(name, arrays)}", "ranges", name)
            if arrays[name].role != "real":
                raise ConfigError(f"is for floats, but {arrays[name]} is {arrays[name].header.dtype}", "ranges", name)

    def count_rows(self, split: str) -> int:
        """Return the number of rows of the split, from the file's header; raise ConfigError as `spaces` does."""
        train = is_train(split)
        rows = next(iter(self.arrays_of(*self._file_of(train)).values())).header.shape[0]
        return rows if self.test_path is not None else len(self.places_of(rows, train))

    def open(self, split: str) -> ArrayRows:
        """Open a split; raise ConfigError as `spaces` does, and for values that do not fit their Space."""
        spaces, train = self.spaces(), is_train(split)
        arrays = self.arrays_of(*self._file_of(train))
        if self.test_path is not None and not train:
            self._check_same(spaces, arrays)
        count = next(iter(arrays.values())).header.shape[0]
        places = self.places_of(count, train) if self.test_path is None else None
        rows = ArrayRows({name: array.read() for name, array in arrays.items()}, places)
        for name, array in arrays.items():
            self._check_values(array, spaces[name], rows, name)
        if train:
            rows.remarks += self._remarks(arrays, spaces, rows)
        return rows

    def _file_of(self, train: bool) -> tuple[str, str]:
        """Return the key and the path of the file with the rows of a split."""
        return ("path", self.path) if self.test_path is None or train else ("test_path", self.test_path)

    def arrays_of(self, option: str, path: str) -> dict[str, Array]:
        """Return the array of each variable in the file that this option names, from headers only."""
        file = _file(option, path)
        headers = _headers(option, file)
        keys = self.variables or _default_keys(headers, file)
        for name, key in keys.items():
            if key not in headers:
                raise ConfigError(f"{str(file)!r} has no array {key!r}{suggest(key, headers)}", "variables", name)
        arrays = {name: Array(option, file, key, headers[key], self.channels) for name, key in keys.items()}
        _check_rows(list(arrays.values()))
        return arrays

    def _space(self, array: Array, name: str) -> Space:
        if array.role == "label":
            if self.classes is None:
                raise ConfigError(f"{array} holds labels; give classes = how many classes there are", "classes")
            return label_space(self.classes)
        if array.role == "real" or self.observe == "none":
            low, high = self.ranges.get(name, (None, None))
            return Space(array.row_shape, low=low, high=high)
        observed: Observed = "binarise" if self.observe == "binarise" else "dequantise"
        return image_space(array.row_shape, observed, self.levels)

    def places_of(self, rows: int, train: bool) -> Tensor:
        """Return the numbers of the rows of `path` that make the split, in order, (n,) int64."""
        test = held_out_rows(rows, self.test_fraction, self.split)
        return torch.from_numpy(np.flatnonzero(~test if train else test))

    def _remarks(self, arrays: dict[str, Array], spaces: dict[str, Space], rows: ArrayRows) -> Iterator[str]:
        """Yield what the user should know of the training rows."""
        if self.test_path is None:
            held, how = rows.total - len(rows), "the last ones" if self.split == "last" else "by a hash of their number"
            yield f"{held:,} of the {rows.total:,} rows of {self.path!r} are held out for tests, {how}"
        for name, array in arrays.items():
            space = spaces[name]
            if space.kind == "label":
                seen = torch.cat([block for _, block in rows.blocks(name)]).unique()
                if absent := sorted(set(range(space.shape[0])) - set(seen.tolist())):
                    yield f"{array} has no row to train on of the classes {listed(absent, most=MAX_ROWS_NAMED)}"
            elif space.bins is None and (constant := _constant(rows, name)):
                yield (
                    f"{array} is constant in {len(constant):,} of its {space.size:,} columns "
                    f"({listed(constant, most=MAX_ROWS_NAMED)}): a density there has no upper limit but the smallest "
                    "scale that the family allows (min_log_scale); leave them out"
                )

    def _check_same(self, spaces: dict[str, Space], arrays: dict[str, Array]) -> None:
        for name, array in arrays.items():
            there = self._space(array, name)
            if there != spaces[name]:
                raise ConfigError(f"{name!r} is {there} in {array}, but {spaces[name]} in {self.path!r}", "test_path")

    def _check_values(self, array: Array, space: Space, rows: ArrayRows, name: str) -> None:
        """Raise ConfigError for values that do not fit their Space; names the rows by their numbers in the file."""
        if array.role == "label":
            _check_whole(array, rows, name, "classes", space.shape[0])
        elif array.role == "real":
            _check_finite(array, rows, name)
            if name in self.ranges:
                _check_in_range(array, rows, name, *self.ranges[name])
        elif space.bins is not None:
            _check_whole(array, rows, name, "levels", space.bins)
            _check_not_bits(array, rows, name, space.bins)


@attrs.frozen
class Array:
    """One array of a file; `option` is the recipe's key for that file."""

    option: str
    file: Path
    key: str
    header: Header
    channels: Literal["first", "last"] | None = None

    def __str__(self) -> str:
        return f"{self.key!r} of {str(self.file)!r}"

    @property
    def role(self) -> Literal["label", "levels", "real"]:
        """The role of the array; raises ConfigError for a type that has none."""
        dtype, axes = self.header.dtype, len(self.header.shape)
        if dtype in INTEGERS and axes == 1:
            return "label"
        if dtype == "uint8":
            return "levels"
        if dtype in FLOATS:
            return "real"
        allowed = f"uint8, {', '.join(FLOATS)}, or whole numbers (N,) for labels"
        raise ConfigError(f"{self} is {dtype} {self.header.shape}; allowed are {allowed}{self._hint}", self.option)

    @property
    def _hint(self) -> str:
        """How an array of a type that has no role could be saved."""
        dtype, shape = self.header.dtype, self.header.shape
        if dtype == "bool":
            return "; save it as uint8" + ("" if len(shape) == 1 else " and give levels = 2")
        if dtype.startswith("str") and len(shape) == 1:
            return "; number the classes: np.unique(y, return_inverse=True)[1]"
        if dtype in INTEGERS and len(shape) == 2:
            return "; labels have one axis: save y[:, 0]" if shape[1] == 1 else "; of one-hot labels save y.argmax(1)"
        return ""

    @property
    def channels_last(self) -> bool:
        shape = self.header.shape
        if len(shape) != 4 or self.channels is not None:
            return len(shape) == 4 and self.channels == "last"
        return shape[3] in CHANNELS and shape[1] not in CHANNELS

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row as `read` returns it; () for labels."""
        shape = self.header.shape[1:]
        if self.channels_last:
            return shape[2], *shape[:2]
        if (self.role == "levels" and len(shape) == 2) or (self.role == "real" and not shape):
            return 1, *shape
        return shape

    def load(self) -> Tensor:
        """Read the values as the file has them."""
        return read_array(self.file, self.key)

    def read(self) -> Tensor:
        """Return the values, (N, *row_shape), mapped where the format allows it."""
        try:
            values = self.load()
            assert tuple(values.shape) == self.header.shape, "it changed after its header was read"
        except Exception as error:  # an array can be torn behind a header that is whole
            raise ConfigError(f"{self} cannot be read: {error}", self.option) from error
        if self.role == "label":
            return values.long()
        if self.channels_last:
            return rearrange(values, "n h w c -> n c h w")
        return values.reshape(len(values), *self.row_shape)


def _file(option: str, path: str) -> Path:
    file = user_path(path)
    if file.suffix.lower() not in READERS:
        raise ConfigError(f"{path!r} is none of {', '.join(READERS)}", option)
    try:
        check_regular(file)
    except MissingFileError:
        where = "" if file.is_absolute() else f" in {str(Path.cwd())!r}"
        raise ConfigError(f"no file {str(file)!r}{where}", option) from None
    except FileError as error:
        raise ConfigError(f"{str(file)!r} {error.reason}", option) from None
    return file


def _headers(option: str, file: Path) -> dict[str, Header]:
    try:
        return read_headers(file)
    except Exception as error:  # each format has its own exceptions for a file that is not what it says
        raise ConfigError(f"{str(file)!r} cannot be read as {file.suffix}: {error}", option) from error


def _default_keys(headers: dict[str, Header], file: Path) -> dict[str, str]:
    if "x" in headers:
        return {"x": "x"}
    if len(headers) == 1:
        return {"x": next(iter(headers))}
    held = listed(sorted(headers)) or "none"
    raise ConfigError(f"which array of {str(file)!r} is x? It holds {held}; give variables.x = its key", "variables")


def _check_rows(arrays: list[Array]) -> None:
    """Raise ConfigError unless every array has rows, and as many as the others."""
    for array in arrays:
        if not array.header.shape or 0 in array.header.shape:
            raise ConfigError(f"{array} has shape {array.header.shape}, which holds no rows", array.option)
    rows = {array.key: array.header.shape[0] for array in arrays}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{key!r} has {count}" for key, count in rows.items())
        raise ConfigError(f"the arrays of {str(arrays[0].file)!r} differ in rows: {counts}", arrays[0].option)


# --- values ----------------------------------------------------------------------------------------------------------


class ArrayRows(TensorRows):
    """Rows of whole arrays, which may be mapped: a split holds the numbers of its rows, and copies none.

    Args:
        values: The arrays by variable, (total, *shape).
        places: The numbers of the rows that make the split, (N,) int64; None: all.

    Attributes:
        total: The number of rows of the file.
        remarks: What the user should know of the rows.
    """

    def __init__(self, values: dict[str, Tensor], places: Tensor | None):
        super().__init__(values, places=places)
        self._has_all = places is None
        self.total, self.remarks = super().__len__(), list[str]()

    def __len__(self) -> int:
        return len(self._places)

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Return the rows with these numbers, (B,) int64, (B, *shape) each."""
        return super().take(index if self._has_all else self._places[index])

    def blocks(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the numbers of some rows in the file, (n,) int64, and their values of a variable, (n, D)."""
        values = self.values[name]
        for places in self._places.split(max(1, BLOCK_NUMBERS // max(1, values[0].numel()))):
            yield places, values[places].flatten(1) if values.ndim > 1 else values[places][:, None]


def _check_whole(array: Array, rows: ArrayRows, name: str, option: str, count: int) -> None:
    """Raise ConfigError for whole numbers outside 0..count-1."""
    if array.header.dtype == "uint8" and count == 256:
        return  # it cannot fail, and a mapped file of many GB would be read for it
    if wrong := _rows_where(lambda block: (block < 0) | (block >= count), rows, name):
        ends = [(int(block.min()), int(block.max())) for _, block in rows.blocks(name)]
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        worst = low if low < 0 else high
        raise ConfigError(
            f"{array} holds {worst}, but {option} = {count} allows 0 to {count - 1} (see {_named(wrong)})", option
        )


def _check_not_bits(array: Array, rows: ArrayRows, name: str, levels: int) -> None:
    """Raise ConfigError for zeros and ones as levels of many, which would silently be almost black images."""
    if levels > 2 and all(int(block.max()) <= 1 for _, block in rows.blocks(name)):
        one_hot = "; of one-hot labels save y.argmax(1)" if len(array.header.shape) == 2 else ""
        raise ConfigError(
            f"{array} holds nothing but 0 and 1, with levels = {levels}; give levels = 2{one_hot}", "levels"
        )


def _check_finite(array: Array, rows: ArrayRows, name: str) -> None:
    size = len(rows) * rows.values[name][0].nbytes
    if size > LARGE_BYTES:
        log(f"reading {size / 2**30:,.1f} GiB of {array}, to see that every number is finite")
    if wrong := _rows_where(lambda block: ~(block.abs() <= LARGEST), rows, name):
        raise ConfigError(f"{array} is not finite, or too large for float32, in {_named(wrong)}", array.option)


def _check_in_range(array: Array, rows: ArrayRows, name: str, low: float, high: float) -> None:
    if wrong := _rows_where(lambda block: (block < low) | (block > high), rows, name):
        ends = [(float(block.min()), float(block.max())) for _, block in rows.blocks(name)]
        found = f"{min(end for end, _ in ends):g} to {max(end for _, end in ends):g}"
        raise ConfigError(f"[{low:g}, {high:g}], but {array} holds {found} (see {_named(wrong)})", "ranges", name)


def _rows_where(is_wrong: Callable[[Tensor], Tensor], rows: ArrayRows, name: str) -> list[int]:
    """Return the numbers in the file of the rows with a wrong value."""
    return [row for places, block in rows.blocks(name) for row in places[is_wrong(block).any(1)].tolist()]


def _named(rows: list[int]) -> str:
    return f"row{'s' if len(rows) > 1 else ''} {listed(rows, most=MAX_ROWS_NAMED)}"


def _constant(rows: ArrayRows, name: str) -> list[int]:
    """Return the columns, of D, in which every row has the same value."""
    first = rows.take(torch.zeros(1, dtype=torch.int64))[name].flatten(1)
    constant = torch.ones(first.shape[1], dtype=torch.bool)
    for _, block in rows.blocks(name):
        constant &= (block == first).all(0)
        if not constant.any():
            break
    return constant.nonzero().flatten().tolist()
