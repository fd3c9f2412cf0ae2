"""Images of a Hugging Face data set: from the hub, or from local files in any form that `datasets` reads."""

from __future__ import annotations

import io
import sys
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch
from torch import Tensor

from jointgen.plugin import (
    LOADING,
    LOCATION,
    SIZE,
    ConfigError,
    Space,
    between,
    error_text,
    non_negative,
    quiet_pillow,
    read_image,
    suggest,
    too_many_broken,
    valid_side,
    valid_size,
)
from jointgen_data.common import Flipping, image_space, is_train, label_space

try:
    import datasets
except ImportError:  # it comes with an extra
    datasets = None

UNSAFE = ("pandas", "pickle")
"""Forms of files of `datasets` that execute what they read (its versions before 5 read pickles)."""
BATCH_SIZE = 64  # images decoded, and written to the cache, at a time


@attrs.frozen
class HuggingFace:
    """Images x (channels, size, size), dequantised on [0, 1); with ``labels = true`` also the class y.

    Images are decoded once, into the cache of `datasets`, and mapped from there, so that memory holds only a batch.

    Args:
        path: A name on the hub, a folder that `save_to_disk` wrote, or a form of local files, such as "imagefolder",
            "parquet" or "webdataset", with `data_dir` or `data_files`.
        config: The configuration of a data set on the hub.
        data_dir: The folder of local files.
        data_files: Patterns of local files by split.
        revision: The revision of a data set on the hub.
        image: The name of the column of images.
        label: The name of the column of labels.
        train_split: The name of the training split, or a slice such as "train[:90%]".
        test_split: The name of the test split, or a slice such as "train[90%:]".
        size: The side in pixels. The short side is resized to it with antialiasing, then the centre is cropped.
        channels: 1 for grey and 3 for colour.
        flip: Whether training images are mirrored left to right with probability 1/2.
        labels: Whether the labels are further variables, y.
        classes: The number of classes of the labels.
        max_broken: How many images may be unreadable; each is skipped.
        workers: The number of processes that decode.
    """

    path: str = attrs.field(metadata=LOCATION)
    config: str | None = None
    data_dir: str | None = attrs.field(default=None, metadata=LOCATION)
    data_files: dict[str, str] | None = None
    revision: str | None = None
    image: str = "image"
    label: str = "label"
    train_split: str = "train"
    test_split: str = "test"
    size: int = attrs.field(default=64, validator=valid_side, metadata=SIZE)
    channels: Literal[1, 3] = attrs.field(default=3, validator=attrs.validators.in_((1, 3)))
    flip: bool = attrs.field(default=False, metadata=LOADING)
    labels: bool = attrs.field(default=False, metadata=LOADING)
    classes: int | None = attrs.field(default=None, validator=valid_size)
    max_broken: int = attrs.field(default=10, validator=non_negative, metadata=LOADING)
    workers: int = attrs.field(default=1, validator=between(1, 1024), metadata=LOADING)

    def spaces(self) -> dict[str, Space]:
        """Return the Spaces; raise ConfigError if `datasets` is not installed, and for labels without `classes`."""
        if datasets is None:
            raise ConfigError(
                "'huggingface' needs the package 'datasets': uv sync --extra datasets, or pip install "
                "'jointgen[datasets]'",
                "type",
            )
        spaces = {"x": image_space((self.channels, self.size, self.size), "dequantise")}
        if not self.labels:
            return spaces
        if self.classes is None:
            raise ConfigError("labels need it: give classes = how many classes there are", "classes")
        return spaces | {"y": label_space(self.classes)}

    def open(self, split: str) -> ArrowRows:
        """Open a split; raise ConfigError for missing data, columns and splits, and for too many broken images."""
        self.spaces()
        train = is_train(split)
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        found = self._load("train_split" if train else "test_split")
        self._names.update({"y": names} if (names := getattr(found.features.get(self.label), "names", None)) else {})
        decoded = self._decode(found)
        kept = self._kept(decoded, split)
        shape = (self.channels, self.size, self.size)
        rows = (FlippedArrowRows if self.flip and train else ArrowRows)(decoded, kept, shape)
        if self.labels:
            self._check_labels(rows.labels())
        return rows

    def class_names(self) -> dict[str, list[str]]:
        """Return the names of the classes, where the data set that was opened has any."""
        return {name: list(names) for name, names in self._names.items()}

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        return {}

    def _load(self, key: str) -> Any:
        split = getattr(self, key)
        folder = Path(self.path).expanduser()
        if self.path in UNSAFE or folder.suffix == ".py":
            raise ConfigError(
                f"{self.path!r} would execute code of the data; expected data without code, such as 'imagefolder', "
                "'parquet', 'arrow' or 'webdataset'",
                "path",
            )
        try:
            if (folder / "dataset_dict.json").is_file():
                held = datasets.load_from_disk(folder)
                return held[split] if split in held else self._no_split(key, split, held)
            files = {"data_dir": self.data_dir, "data_files": self.data_files}
            return datasets.load_dataset(self.path, self.config, split=split, revision=self.revision, **files)
        except ConfigError:
            raise
        except Exception as error:  # anything from ValueError to a dead network
            asked = f"{self.path!r}" + (f" of {self.data_dir or self.data_files}" if self._is_local else "")
            if isinstance(error, ValueError) and "split" in str(error):
                raise ConfigError(f"{split!r} of {asked} cannot be read: {error_text(error)}", key) from error
            raise ConfigError(f"{asked} cannot be loaded: {error_text(error)}", "path") from error

    @property
    def _is_local(self) -> bool:
        return self.data_dir is not None or self.data_files is not None

    def _no_split(self, key: str, split: str, held: Any) -> Any:
        raise ConfigError(f"{self.path!r} has no split {split!r}{suggest(split, held)}", key)

    def _decode(self, found: Any) -> Any:
        """Return a data set of x, the bytes of an image (none if it is broken), of the reason why, and of y."""
        self._check_columns(found)
        found = found.select_columns([self.image, *([self.label] if self.labels else [])])
        kinds = {"x": datasets.Value("binary"), "why": datasets.Value("string")}
        kinds |= {"y": datasets.Value("int64")} if self.labels else {}
        decode = partial(_decode_batch, self.image, self.label if self.labels else None, self.size, self.channels)
        try:
            return found.cast_column(self.image, datasets.Image(decode=False)).map(
                decode,
                batched=True,
                batch_size=BATCH_SIZE,
                writer_batch_size=BATCH_SIZE,
                remove_columns=found.column_names,
                features=datasets.Features(kinds),
                num_proc=self.workers if self.workers > 1 else None,
                desc="Reading images",
            )
        except Exception as error:  # columns of other kinds fail in pyarrow, and a full disk in either
            raise ConfigError(
                f"the columns of {self.path!r} cannot be read as images: {error_text(error)}", "image"
            ) from error

    def _check_columns(self, found: Any) -> None:
        for key in ["image", *(["label"] if self.labels else [])]:
            name = getattr(self, key)
            if name not in found.column_names:
                raise ConfigError(f"{self.path!r} has no column {name!r}{suggest(name, found.column_names)}", key)

    def _kept(self, decoded: Any, split: str) -> np.ndarray:
        """Return the numbers of the rows whose image could be read, (M,) int64."""
        why = decoded.with_format("arrow").select_columns(["why"])[:]["why"].to_pylist()
        broken = [(f"row {row} of {split}", text) for row, text in enumerate(why) if text]
        if problem := too_many_broken(broken, self.max_broken, "max_broken"):
            raise ConfigError(problem, "max_broken")
        kept = np.array([row for row, text in enumerate(why) if not text], np.int64)
        if not len(kept):
            raise ConfigError(f"{self.path!r} has no image that can be read in the {split} split", "path")
        return kept

    def _check_labels(self, labels: np.ndarray) -> None:
        assert self.classes is not None
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.classes:
            worst = low if low < 0 else high
            raise ConfigError(
                f"{self.label!r} holds {worst}, but classes = {self.classes} allows 0 to {self.classes - 1}", "classes"
            )


def _decode_batch(
    image: str, label: str | None, size: int, channels: int, rows: dict[str, list[Any]]
) -> dict[str, list[Any]]:
    """Decode a batch of images; `datasets.map` calls it in its own processes."""
    with quiet_pillow():
        decoded = [_decode_one(one, size, channels) for one in rows[image]]
    columns: dict[str, list[Any]] = {"x": [x for x, _ in decoded], "why": [why for _, why in decoded]}
    return columns if label is None else columns | {"y": rows[label]}


def _decode_one(held: dict[str, Any] | None, size: int, channels: int) -> tuple[bytes, str]:
    """Return the pixels, or no bytes and the reason."""
    if held is None:
        return b"", "there is no image in it"
    try:
        file = io.BytesIO(held["bytes"]) if held["bytes"] is not None else held["path"]
        return read_image(file, size, size, channels).tobytes(), ""
    except Exception as error:  # damaged files make decoders raise anything from SyntaxError to struct.error
        return b"", error_text(error)


class ArrowRows:
    """Rows of a data set of bytes `x` and labels `y`, mapped from the cache of `datasets`, read when taken."""

    def __init__(self, decoded: Any, kept: np.ndarray, shape: tuple[int, ...]):
        self._table, self._kept, self._shape = decoded.with_format("arrow"), kept, shape

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Return the rows with these numbers, (B,) int64, (B, *shape) each."""
        held = self._table[self._kept[index.numpy()].tolist()]
        pixels = bytearray(b"".join(held["x"].to_pylist()))  # torch wants memory that it may write to
        values = {"x": torch.frombuffer(pixels, dtype=torch.uint8).view(len(index), *self._shape)}
        return values | ({"y": torch.tensor(held["y"].to_pylist())} if "y" in held.column_names else {})

    def labels(self) -> np.ndarray:
        """Return all labels, (N,) int64."""
        return self._table.select_columns(["y"])[:]["y"].to_numpy()[self._kept]


class FlippedArrowRows(Flipping, ArrowRows):
    """Mapped rows that are mirrored in training."""
