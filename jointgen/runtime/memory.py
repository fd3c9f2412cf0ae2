"""The memory of this machine, and a limit on what is made of it before it is."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from jointgen.errors import ConfigError

GIB = 1 << 30
"""A gibibyte in bytes."""
_CONTAINER = Path("/sys/fs/cgroup/memory.max")


def machine_memory() -> int:
    """Return the bytes of memory that this process may have; where the system does not say, 64 GiB."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 64 * GIB
    try:
        container = int(_CONTAINER.read_text())
    except (OSError, ValueError):  # no container, or one without a limit, which says "max"
        return machine
    return min(machine, container)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception is the allocator's refusal: Python's, numpy's, or torch's, which has no class for it."""
    said = str(error)
    refused = "DefaultCPUAllocator" in said or "Storage size calculation overflowed" in said
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and refused)


class AllocationLimit(TorchFunctionMode):
    """While it is entered, refuses to make tensors that take more than so many bytes together.

    It looks at the sizes that are asked for, so what is refused has not been allocated, nor has it made the machine
    swap. It sees torch's functions that make a tensor of a size; a dispatch mode would see more, but makes torch import
    its compiler, which takes seconds.

    Args:
        limit: The number of bytes.
        problem: Says what is wrong with so many bytes.
    """

    def __init__(self, limit: int, problem: Callable[[int], str]):
        super().__init__()
        self.limit, self.problem = limit, problem
        self._made: list[tuple[StorageWeakRef, int]] = []
        self._held = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count what a function that makes a tensor is asked for, and run it."""
        kwargs = kwargs or {}
        if func not in _MAKERS:
            return func(*args, **kwargs)
        asked = _bytes_asked(args, kwargs)
        if self._held + asked > self.limit and (held := self.count_held()) + asked > self.limit:
            raise ConfigError(self.problem(held + asked))
        tensor = func(*args, **kwargs)
        storage = tensor.untyped_storage()
        self._made.append((StorageWeakRef(storage), storage.nbytes()))
        self._held += storage.nbytes()
        return tensor

    def count_held(self) -> int:
        """Count the bytes of what was made and is still there; an initialiser's own tensors are not."""
        self._made = [(storage, size) for storage, size in self._made if not storage.expired()]
        self._held = sum(size for _, size in self._made)
        return self._held


_MAKERS = {
    getattr(torch, name)
    for name in ("empty", "empty_strided", "zeros", "ones", "full", "rand", "randn", "randint", "eye")
}
_MAKERS |= {getattr(torch, f"{name}_like") for name in ("empty", "zeros", "ones", "full", "rand", "randn", "randint")}
_MAKERS |= {getattr(Tensor, f"new_{name}") for name in ("empty", "empty_strided", "zeros", "ones", "full")}


_PYTHON_TYPES: dict[Any, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float64}
"""What torch takes the types of Python for."""


def _bytes_asked(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return the bytes of the tensor that a function makes of a size, or like a tensor."""
    like = next((value for value in (*args[:1], kwargs.get("input")) if isinstance(value, Tensor)), None)
    numbers = args if like is None else args[1:]
    size = kwargs.get("size") or next((value for value in numbers if isinstance(value, tuple | list)), numbers)
    if like is not None and not size:
        size = like.shape
    dtype: Any = kwargs.get("dtype") or (torch.get_default_dtype() if like is None else like.dtype)
    dtype = _PYTHON_TYPES.get(dtype, dtype)
    try:
        return math.prod(map(operator.index, size)) * dtype.itemsize
    except TypeError:  # no size; torch says what is wrong with it, or it is the value of `full_like`
        return 0 if like is None else like.numel() * dtype.itemsize
