"""Read .npy, .npz and .safetensors: headers first, then the arrays that are wanted. Never a pickle."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import attrs
import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from jointgen.plugin import machine_memory

# numpy's names for the types of safetensors; a type that is not here keeps its own name and is refused later
DTYPE_NAMES = {"U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64"}
DTYPE_NAMES |= {"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"}
DTYPE_NAMES |= {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "BOOL": "bool"}


@attrs.frozen
class Header:
    """The type and shape of an array, known without reading its values.

    Args:
        dtype: The type by numpy's name.
        shape: The shape.
    """

    dtype: str
    shape: tuple[int, ...]


def read_headers(path: Path) -> dict[str, Header]:
    """Return the headers of a file's arrays by key; the one array of a .npy file has the key "x".

    Raises whatever the format's reader raises, and ValueError where a header does not fit the size of the file.
    """
    return READERS[path.suffix.lower()][0](path)


def read_array(path: Path, key: str) -> Tensor:
    """Return an array, (N, *shape).

    A .npy or .safetensors file is mapped, so that the processes of a machine share its pages; an array of a .npz file
    is read into memory.
    """
    return READERS[path.suffix.lower()][1](path, key)


def _npy_header(file: IO[bytes], size: int) -> Header:
    """Read the header of an array that is stored in so many bytes."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    wanted, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if any(axis < 0 for axis in shape) or (wanted != held and not dtype.hasobject):
        raise ValueError(f"its header promises {wanted:,} bytes, shape {shape}, and {held:,} follow")
    return Header(dtype.name, shape)


def _npy_headers(path: Path) -> dict[str, Header]:
    with path.open("rb") as file:
        return {"x": _npy_header(file, path.stat().st_size)}


def _npy_array(path: Path, key: str) -> Tensor:
    # not mode "c" (copy on write): Linux refuses to map a file so that is larger than the machine's memory
    return _to_torch(np.load(path, mmap_mode="r", allow_pickle=False))


def _npz_headers(path: Path) -> dict[str, Header]:
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as file:
                    headers[member.filename.removesuffix(".npy")] = _npy_header(file, member.file_size)
    return headers


def _npz_array(path: Path, key: str) -> Tensor:
    with zipfile.ZipFile(path) as archive:
        wanted, memory = archive.getinfo(f"{key}.npy").file_size, machine_memory()
    if wanted > memory:
        sizes = f"{wanted / 2**30:,.1f} GiB of memory, and this machine has {memory / 2**30:,.1f}"
        raise ValueError(f"it takes {sizes}; save it as .npy, which is not read whole")
    with np.load(path, allow_pickle=False) as archive:
        return _to_torch(archive[key])


def _safetensors_headers(path: Path) -> dict[str, Header]:
    with safe_open(path, framework="pt") as file:
        parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
        return {key: _safetensors_header(part) for key, part in parts.items()}


def _safetensors_header(part: Any) -> Header:
    dtype = part.get_dtype()
    return Header(DTYPE_NAMES.get(dtype, dtype), tuple(part.get_shape()))


def _safetensors_array(path: Path, key: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(key)


def _to_torch(array: np.ndarray) -> Tensor:
    """Convert to torch, which has no big-endian numbers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes here
        return torch.from_numpy(np.asarray(array, dtype=array.dtype.newbyteorder("=")))


READERS: dict[str, tuple[Callable[[Path], dict[str, Header]], Callable[[Path, str], Tensor]]] = {
    ".npy": (_npy_headers, _npy_array),
    ".npz": (_npz_headers, _npz_array),
    ".safetensors": (_safetensors_headers, _safetensors_array),
}
