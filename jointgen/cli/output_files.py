"""Files that commands write for the user: checked before anything is computed, and written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import safetensors.numpy

from jointgen.cli.arguments import FOLDER
from jointgen.errors import ConfigError
from jointgen.runtime.atomic_files import replace_bytes, replace_text, writing

DIGITS = 6
"""The digits of the numbers by which images in a folder are named."""


@attrs.frozen
class Output:
    """What -o names: a file, or a folder of images.

    Args:
        path: Where it is.
        ending: The ending of the file, in small letters; `FOLDER` for a folder.
        is_replaced: Whether a file was there already.
    """

    path: Path
    ending: str
    is_replaced: bool = False

    def __str__(self) -> str:
        """The name that the user knows it by, and whether something was there."""
        return f"{self.path}{os.sep * (self.ending == FOLDER)}{' (replaced)' * self.is_replaced}"

    def image(self, number: int) -> Path:
        """The file of an image in the folder."""
        return self.path / f"{number:0{DIGITS}d}.png"

    def check_free(self, first: int, n: int, remedy: str = "expected a folder without it") -> None:
        """Raise ConfigError if one of n images, numbered from `first`, is in the folder already."""
        if self.ending == FOLDER:
            for number in range(first, first + n):
                if os.path.lexists(self.image(number)):
                    raise ConfigError(f"{self.image(number)} is there already; {remedy}", "-o")


def check_output(path: str, *endings: str, inputs: Iterable[str | None] = ()) -> Output:
    """Look at what -o names before anything is computed.

    Args:
        path: The name.
        endings: The endings of files that the command writes; `FOLDER` if it writes images into a folder, too.
        inputs: Files and folders that the command reads, which are not to be written over.

    Raises:
        ConfigError: It has another ending, lies in a folder that is not there, or is one of the inputs.
    """
    file, files = Path(path), [ending for ending in endings if ending != FOLDER]
    expected = f"expected a file name that ends in {' or '.join(files)}" + f", or a folder, {FOLDER}" * (
        FOLDER in endings
    )
    names_folder = path.endswith(("/", os.sep))
    if FOLDER in endings and (names_folder or file.is_dir()):
        if os.path.lexists(file) and not file.is_dir():
            raise ConfigError(f"{path}: is a file, not a folder", "-o")
        output = Output(file, FOLDER)
    elif file.suffix.lower() not in files:
        raise ConfigError(f"{path}: {expected}", "-o")
    elif names_folder or file.is_dir():
        raise ConfigError(f"{path}: is a folder; {expected}", "-o")
    else:
        output = Output(file, file.suffix.lower(), os.path.lexists(file))
    if not file.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {str(file.parent)!r}", "-o")
    for read in inputs:
        if read is not None and file.exists() and os.path.exists(read) and os.path.samefile(file, read):
            raise ConfigError(f"{path}: the command reads it, so it cannot be written", "-o")
    return output


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, Sequence[str]]) -> None:
    """Write arrays as .npz or .safetensors, by the ending; `texts` become string arrays, or JSON in the metadata."""
    if path.suffix.lower() == ".safetensors":
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        data = safetensors.numpy.save(whole, {name: json.dumps(list(text)) for name, text in texts.items()})
    else:
        buffer = io.BytesIO()
        everything: dict[str, Any] = {**arrays, **{name: np.array(list(text)) for name, text in texts.items()}}
        np.savez_compressed(buffer, **everything)
        data = buffer.getvalue()
    with writing_output(path):
        replace_bytes(path, data)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    with writing_output(path):
        replace_text(path, text.getvalue())


def writing_output(path: Path) -> AbstractContextManager[None]:
    """Turn an OSError within into a ConfigError of -o that names the file."""
    return writing(path, lambda message: ConfigError(message, "-o"))
