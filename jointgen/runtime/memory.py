"""The memory of this machine, and a limit on what is made of it before it is."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

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


class AllocationLimit(TorchDispatchMode):
    """While it is entered, refuses to make tensors that take more than so many bytes in all.

    It looks at the sizes that are asked for, so what is refused has not been allocated, nor has it made the machine
    swap. Tensors that do not live long count, too.

    Args:
        limit: The number of bytes.
        problem: What to say of what takes more.
    """

    def __init__(self, limit: int, problem: str):
        super().__init__()
        self.limit, self.problem, self.made = limit, problem, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count what a function that makes a tensor is asked for, and run it."""
        kwargs = kwargs or {}
        asked = _bytes_asked(func, args, kwargs)
        if self.made + asked > self.limit:
            raise ConfigError(self.problem)
        self.made += asked
        return func(*args, **kwargs)


_MAKERS = {f"aten::{name}" for name in ("empty", "empty_strided", "zeros", "ones", "full", "rand", "randn", "randint")}
_MAKERS |= {f"aten::new_{name}" for name in ("empty", "empty_strided", "zeros", "ones", "full")}


def _bytes_asked(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return the bytes of the tensor that a function makes by its argument `size`; 0 if it makes none in this way."""
    if func._schema.name not in _MAKERS:
        return 0
    names = [argument.name for argument in func._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    like: Any = given.get("self")
    dtype: torch.dtype = given.get("dtype") or (torch.get_default_dtype() if like is None else like.dtype)
    return math.prod(given["size"]) * dtype.itemsize
