"""The user's own arrays: images, vectors and labels from .npy, .npz and .safetensors files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs
from einops import rearrange
from torch import Tensor, isfinite, uint8

from jointgen.plugin import LOCATION, READING, ConfigError, Space, suggest
from jointgen_data.array_files import READERS, Header, read_headers, read_rows
from jointgen_data.common import Observed, TensorRows, image_space, is_train, label_space

INTEGERS = ("uint8", "int8", "int16", "int32", "int64")
FLOATS = ("float16", "bfloat16", "float32", "float64")
CHANNELS = (1, 3, 4)
CHUNK_ROWS = 4096  # rows checked at a time, so that checking a file does not double its memory

optional = attrs.validators.optional
fraction = [attrs.validators.gt(0.0), attrs.validators.lt(1.0)]
is_observed = optional(attrs.validators.in_(("none", "dequantise", "binarise")))


@attrs.frozen
class Arrays:
    """The user's arrays, with rows along the first axis. The type and the axes of an array decide what it is.

    - uint8, two axes or more: levels 0..levels-1, dequantised on [0, 1), or binarised, or left as they are.
    - floats: as they are, and finite; (N,) becomes (N, 1).
    - whole numbers (N,): labels 0..classes-1.
    - uint8 (N, H, W) becomes (N, 1, H, W).
    - (N, H, W, C) becomes (N, C, H, W) where C is 1, 3 or 4 and the second axis is none of these: where either
      could be the channels, the second axis is taken for them.

    Args:
        path: A .npy, .npz or .safetensors file.
        test_path: A file with the test split and the same arrays. Without it, the last `test_fraction` of the rows.
        test_fraction: The share of rows that is held out.
        variables: The key in the file for each variable; by default x is the key "x", or the only array.
        observe: How uint8 is observed; "dequantise" by default.
        levels: The number of levels of uint8; 2 for zeros and ones.
        classes: The number of classes of labels, which a header does not tell.
    """

    path: str = attrs.field(metadata=LOCATION)
    test_path: str | None = attrs.field(default=None, metadata=LOCATION)
    test_fraction: float = attrs.field(default=0.1, validator=fraction)
    variables: dict[str, str] | None = None
    observe: Literal["none", "dequantise", "binarise"] | None = attrs.field(
        default=None, validator=is_observed, metadata=READING
    )
    levels: int = attrs.field(default=256, validator=[attrs.validators.ge(2), attrs.validators.le(256)])
    classes: int | None = attrs.field(default=None, validator=optional(attrs.validators.gt(0)))

    def spaces(self) -> dict[str, Space]:
        """Return the Spaces from the file's header; raise ConfigError for a file, key or type that cannot be used."""
        arrays = self._arrays("path", self.path)
        if self.observe in ("dequantise", "binarise") and all(array.role != "levels" for array in arrays.values()):
            found = ", ".join(f"{array.key!r} is {array.header.dtype}" for array in arrays.values())
            raise ConfigError(f"{self.observe!r} is for images or vectors of uint8 levels, but {found}", "observe")
        return {name: self._space(array) for name, array in arrays.items()}

    def count_rows(self, split: str) -> int:
        """Return the number of rows of the split, from the file's header; raise ConfigError as `spaces` does."""
        train = is_train(split)
        option = "path" if self.test_path is None or train else "test_path"
        path = self.path if option == "path" else self.test_path
        rows = next(iter(self._arrays(option, path or "").values())).header.shape[0]
        return rows if option == "test_path" else len(range(rows)[self._rows(rows, train)])

    def open(self, split: str) -> TensorRows:
        """Open a split; raise ConfigError as `spaces` does, and for values that do not fit their Space."""
        spaces, train = self.spaces(), is_train(split)
        if self.test_path is None or train:
            arrays = self._arrays("path", self.path)
            rows = self._rows(next(iter(arrays.values())).header.shape[0], train)
        else:
            arrays, rows = self._arrays("test_path", self.test_path), slice(None)
            self._check_same(spaces, arrays)
        return TensorRows({name: self._values(array, rows, spaces[name]) for name, array in arrays.items()})

    def _arrays(self, option: str, path: str) -> dict[str, _Array]:
        """Return the array of each variable in the file that this option names, from headers only."""
        file = _file(option, path)
        headers = _headers(option, file)
        keys = self.variables or _default_keys(headers, file)
        for name, key in keys.items():
            if key not in headers:
                raise ConfigError(f"{str(file)!r} has no array {key!r}{suggest(key, headers)}", "variables", name)
        arrays = {name: _Array(option, file, key, headers[key]) for name, key in keys.items()}
        _check_rows(list(arrays.values()))
        return arrays

    def _space(self, array: _Array) -> Space:
        if array.role == "label":
            if self.classes is None:
                raise ConfigError(f"{array} holds labels; give classes = how many classes there are", "classes")
            return label_space(self.classes)
        if array.role == "real" or self.observe == "none":
            return Space(array.row_shape)
        observed: Observed = "binarise" if self.observe == "binarise" else "dequantise"
        return image_space(array.row_shape, observed, self.levels)

    def _rows(self, rows: int, train: bool) -> slice:
        """Return the rows of `path` that make the split."""
        if self.test_path is not None:
            return slice(0, rows)
        start = rows - max(1, round(rows * self.test_fraction))
        if start < 1:
            raise ConfigError(f"{self.test_fraction} of {rows} rows leaves none to train on", "test_fraction")
        return slice(0, start) if train else slice(start, rows)

    def _check_same(self, spaces: dict[str, Space], arrays: dict[str, _Array]) -> None:
        for name, array in arrays.items():
            there = self._space(array)
            if there != spaces[name]:
                raise ConfigError(f"{name!r} is {there} in {array}, but {spaces[name]} in {self.path!r}", "test_path")

    def _values(self, array: _Array, rows: slice, space: Space) -> Tensor:
        """Return the values, (N, *shape), each checked against its Space."""
        values = array.read(rows)
        if array.role == "label":
            values = values.long()
            _check_whole(array, values, "classes", space.shape[0])
        elif array.role == "real":
            _check_finite(array, values)
        elif space.bins is not None:
            _check_whole(array, values, "levels", space.bins)
            _check_not_bits(array, values, space.bins)
        return values


@attrs.frozen
class _Array:
    """One array of a file; `option` is the recipe's key for that file."""

    option: str
    file: Path
    key: str
    header: Header

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
        hint = "; save it as uint8 and give levels = 2" if dtype == "bool" else ""
        allowed = f"uint8, {', '.join(FLOATS)}, or whole numbers (N,) for labels"
        raise ConfigError(f"{self} is {dtype} {self.header.shape}; allowed are {allowed}{hint}", self.option)

    @property
    def channels_last(self) -> bool:
        shape = self.header.shape
        return len(shape) == 4 and shape[3] in CHANNELS and shape[1] not in CHANNELS

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row as `read` returns it; () for labels."""
        shape = self.header.shape[1:]
        if self.channels_last:
            return shape[2], *shape[:2]
        if (self.role == "levels" and len(shape) == 2) or (self.role == "real" and not shape):
            return 1, *shape
        return shape

    def read(self, rows: slice) -> Tensor:
        """Return the values of these rows, (N, *row_shape)."""
        try:
            values = read_rows(self.file, self.key, rows)
        except Exception as error:  # an array can be torn behind a header that is whole
            raise ConfigError(f"{self} cannot be read: {error}", self.option) from error
        if self.channels_last:
            return rearrange(values, "n h w c -> n c h w")
        return values.reshape(len(values), *self.row_shape)


def _file(option: str, path: str) -> Path:
    file = Path(path).expanduser()
    if file.suffix.lower() not in READERS:
        raise ConfigError(f"{path!r} is none of {', '.join(READERS)}", option)
    if not file.is_file():
        where = "" if file.is_absolute() else f" in {str(Path.cwd())!r}"
        raise ConfigError(f"no file {str(file)!r}{where}", option)
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
    held = ", ".join(sorted(headers)) or "none"
    raise ConfigError(f"which array of {str(file)!r} is x? It holds {held}; give variables.x = its key", "variables")


def _check_rows(arrays: list[_Array]) -> None:
    """Raise ConfigError unless every array has rows, and as many as the others."""
    for array in arrays:
        if not array.header.shape or 0 in array.header.shape:
            raise ConfigError(f"{array} has shape {array.header.shape}, which holds no rows", array.option)
    rows = {array.key: array.header.shape[0] for array in arrays}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{key!r} has {count}" for key, count in rows.items())
        raise ConfigError(f"the arrays of {str(arrays[0].file)!r} differ in rows: {counts}", arrays[0].option)


def _check_whole(array: _Array, values: Tensor, option: str, count: int) -> None:
    """Raise ConfigError for whole numbers outside 0..count-1."""
    if values.dtype == uint8 and count == 256:
        return  # it cannot fail, and a mapped file of many GB would be read for it
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= count:
        worst = low if low < 0 else high
        raise ConfigError(f"{array} holds {worst}, but {option} = {count} allows 0 to {count - 1}", option)


def _check_not_bits(array: _Array, values: Tensor, levels: int) -> None:
    """Raise ConfigError for zeros and ones as levels of many, which would silently be almost black images."""
    if levels > 2 and all(int(part.max()) <= 1 for part in values.split(CHUNK_ROWS)):
        raise ConfigError(f"{array} holds nothing but 0 and 1, with levels = {levels}; give levels = 2", "levels")


def _check_finite(array: _Array, values: Tensor) -> None:
    for start, part in zip(range(0, len(values), CHUNK_ROWS), values.split(CHUNK_ROWS), strict=True):
        bad = ~isfinite(part.flatten(1)).all(1)  # (N,)
        if bad.any():
            raise ConfigError(
                f"{array} is not finite in row {start + int(bad.nonzero()[0])} of the split", array.option
            )
