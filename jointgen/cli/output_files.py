"""Files that commands write for the user: checked before anything is computed, and written whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from jointgen.errors import ConfigError
from jointgen.runtime.atomic_files import replace_bytes, writing


def check_output(path: str, *endings: str) -> Path:
    """The path. Raises ConfigError for an ending that the command does not write and for a folder that is not there."""
    file, expected = Path(path), f"expected a file name that ends in {' or '.join(endings)}"
    if file.suffix.lower() not in endings:
        raise ConfigError(f"{path}: {expected}", "-o")
    if file.is_dir():
        raise ConfigError(f"{path}: is a folder; {expected}", "-o")
    if not file.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {str(file.parent)!r}", "-o")
    return file


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


def writing_output(path: Path) -> AbstractContextManager[None]:
    """Turn an OSError within into a ConfigError of -o that names the file."""
    return writing(path, lambda message: ConfigError(message, "-o"))
