"""Takes trees of plain values and tensors apart into JSON and a safetensors file, and joins them. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from jointgen.runtime.strict_json import read_json
from jointgen.text import shortened

Chunks = tuple[bytes | memoryview, ...]
"""The contents of a file in pieces, so that weights are not copied to join them."""

# the types that a safetensors file can hold; others (complex128, quantised) are refused before anything is written
_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2}
_INTEGERS = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8}
_DTYPES = {*_FLOATS, *_INTEGERS, torch.bool, torch.complex64}


def split(value: Any, tensors: dict[str, Tensor], at: str) -> Any:
    """Return the tree as JSON, with a reference in place of each tensor.

    Dicts become lists of pairs, because JSON would turn the integer keys of an optimizer's state into text.

    Args:
        value: Nested dicts, lists, tuples, plain values and tensors.
        tensors: Receives the tensors, by the names that stand in their places.
        at: The path to `value`, for messages.

    Raises:
        TypeError: The tree has something else in it, or a tensor that a safetensors file cannot hold.
    """
    if isinstance(value, Tensor):
        name = f"{len(tensors):05d} {at}"  # the number keeps {1: ...} and {"1": ...} apart
        tensors[name] = plain_tensor(value, at)
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[_scalar(k, f"{at}: key {k!r}"), split(v, tensors, f"{at}/{k}")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        items = [split(item, tensors, f"{at}/{i}") for i, item in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    return _scalar(value, at)


def parse(data: bytes, tensors: Mapping[str, Tensor]) -> Any:
    """Read the tree that `split` took apart. Raises ValueError where the JSON is that of no such tree."""
    try:
        return _join(read_json(data, non_finite=True), tensors)  # early stopping keeps NaN of a loss that was absent
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind, inner = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else (None, value)
    if kind == "tensor" and isinstance(inner, str) and inner in tensors:
        return tensors[inner]
    if kind == "dict" and isinstance(inner, list) and all(map(_is_entry, inner)):
        table = {key: _join(item, tensors) for key, item in inner}
        if len(table) < len(inner):
            raise ValueError("a key stands twice")
        return table
    if kind in ("list", "tuple") and isinstance(inner, list):
        items = [_join(item, tensors) for item in inner]
        return items if kind == "list" else tuple(items)
    raise ValueError(f"{shortened(value, 60)} is no part of one")


def _is_entry(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and not isinstance(pair[0], list | dict)


def _scalar(value: Any, at: str) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise TypeError(f"{at}: a checkpoint holds integers of 64 bits")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{at}: a checkpoint holds tensors and plain values, not {type(value).__qualname__}")


def plain_tensor(tensor: Tensor, at: str) -> Tensor:
    """Copy a tensor to memory of its own on the CPU: tied weights share theirs, which safetensors refuses."""
    if tensor.layout != torch.strided or tensor.dtype not in _DTYPES:
        raise TypeError(f"{at}: a checkpoint cannot hold a {tensor.layout} tensor of {tensor.dtype}")
    return tensor.detach().to("cpu", copy=True).resolve_conj().resolve_neg().contiguous()


def serialize(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Chunks:
    """Return a safetensors file with a sorted header, so that equal runs write equal files.

    The library's own header is in random order.
    """
    data = safetensors.torch.save(tensors, metadata)
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # the library lets tensors begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header, memoryview(data)[start:]
