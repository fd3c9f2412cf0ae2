"""What devices can do: float64, memory, and random generators of their own.

jointgen is tested on CPUs and on CUDA. Apple's GPUs ("mps") and Intel's ("xpu") are run by the same code, and untested.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

UNTESTED = ("mps", "xpu")
"""Devices on which nobody has tried jointgen yet."""
ACCELERATORS = ("cuda", *UNTESTED)


@functools.cache
def has_float64(device: torch.device) -> bool:
    """Return whether a device computes in float64; Apple's GPUs and some of Intel's do not."""
    try:
        torch.ones(1, dtype=torch.float64, device=device).sum()
    except (TypeError, RuntimeError):
        return False
    return True


def in_float64(values: Tensor) -> Tensor:
    """Return values in float64: on the CPU, where their device has no such numbers.

    What is computed from them goes back to a device with ``.to(other)``, which takes the type as well.
    """
    if values.device.type in ("cpu", "cuda"):  # decided without a call, which torch.compile would have to trace
        return values.double()
    return values.double() if has_float64(values.device) else values.cpu().double()


def for_device(values: Tensor, device: torch.device) -> Tensor:
    """Return values that a device can hold: float64 becomes float32 where there is no float64."""
    is_lost = values.dtype == torch.float64 and device.type != "cpu" and not has_float64(device)
    return values.float() if is_lost else values


def module_of(device: torch.device) -> Any:
    """Return torch's module for a kind of accelerator, such as `torch.cuda`."""
    return torch.get_device_module(device)


def count_of(device: torch.device) -> int:
    """Return how many accelerators of a kind torch sees."""
    return int(module_of(device).device_count())


def free_memory(device: torch.device) -> int:
    """Return the free bytes of an accelerator."""
    if device.type == "mps":  # it shares the machine's memory
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    free: int = module_of(device).mem_get_info(device)[0]
    return free


def name_of(device: torch.device, processor: str) -> str:
    """Return what a device is called; a CPU or Apple's GPU by the processor."""
    if device.type in ("cuda", "xpu"):
        return str(module_of(device).get_device_name(device))
    return f"{device.type} ({processor})"


# --- global generators ------------------------------------------------------------------------------------------------


def seed_device(device: torch.device, number: int) -> None:
    """Seed an accelerator's own generator."""
    module_of(device).manual_seed(number)


def generator_state(device: torch.device) -> Tensor:
    """Return the state of an accelerator's own generator."""
    state: Tensor = module_of(device).get_rng_state(*_which(device))
    return state


def set_generator_state(device: torch.device, state: Tensor) -> None:
    """Restore it."""
    module_of(device).set_rng_state(state, *_which(device))


def _which(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is one such GPU, and its functions take no device
