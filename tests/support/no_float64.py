"""A device that has no float64, as Apple's GPU: tensors that say they are on "mps" and are computed on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

DEVICE = torch.device("mps")


class Elsewhere(Tensor):
    """A tensor on the device; `held` has its values on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        if held.dtype == torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Elsewhere({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


def run(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation of torch: tensors of the device with one another, and with single numbers of the CPU."""
    tensors: list[Tensor] = []
    tree_map_only(Tensor, tensors.append, (args, kwargs))
    target = kwargs.get("device")
    moves = function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    if not moves and any(not isinstance(value, Elsewhere) and value.ndim for value in tensors):
        raise RuntimeError("Expected all tensors to be on the same device, but found mps and cpu, two devices!")
    is_there = target is None or torch.device(target).type == DEVICE.type
    kwargs = kwargs if target is None else {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map_only(Elsewhere, lambda value: value.held, (args, kwargs))
    found = function(*args, **kwargs)
    return tree_map_only(Tensor, Elsewhere, found) if is_there else found


class _Mode(TorchFunctionMode):
    """Moves tensors to the device, and makes those that functions such as `torch.zeros` are asked for there."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is Tensor.to:
            value, (device, dtype, *_) = args[0], torch._C._nn._parse_to(*args[1:], **kwargs)
            held = value.held if isinstance(value, Elsewhere) else value
            target = value.device if device is None else device
            held = held.to(dtype or held.dtype)
            return Elsewhere(held) if target.type == DEVICE.type else held.to(target)
        if function is Tensor.__setitem__:  # torch's own asks for the device's guard, which is not there
            return function(*tree_map_only(Elsewhere, lambda value: value.held, args))
        if (target := kwargs.get("device")) is not None and torch.device(target).type == DEVICE.type:
            return Elsewhere(function(*args, **{**kwargs, "device": "cpu"}))
        return function(*args, **kwargs)


@contextmanager
def device_without_float64() -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield a function that sends a tensor to the device, which is there within."""
    with _Mode():
        yield Elsewhere
