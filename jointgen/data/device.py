"""Rows on the device that trains: all of them copied once, where they fit, or read batch by batch.

A batch holds the same numbers either way: rows are taken as they are stored (uint8), then augmented and observed on
the device with the step's noise. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Literal, TypeVar

import attrs
import torch
from torch import Tensor

from jointgen.contracts.sources import Rows, reader_of
from jointgen.errors import ConfigError
from jointgen.runtime.devices import for_device, free_memory

Residence = Literal["auto", "always", "never"]
Values = dict[str, Tensor]
T = TypeVar("T")

MAX_MEMORY_SHARE = 0.5  # of the device's free memory, for data where resident = "auto"; the model takes its own later
ROWS_PER_COPY = 4096


# --- where they stay -------------------------------------------------------------------------------------------------


def resides(wanted: Residence, sources: Iterable[Rows], device: torch.device) -> bool:
    """Whether to copy every row of these sources to the device; on the CPU they stay where they are.

    Args:
        wanted: The recipe's `train.resident`.
        sources: The training rows of each data source.
        device: The device that trains.

    Raises:
        ConfigError: "always" is asked for, and the rows do not fit.
    """
    if device.type == "cpu" or wanted == "never":
        return False
    needed, free = sum(size_of(rows) for rows in sources), free_memory(device)
    if wanted == "always" and needed > free:
        has, wants = (f"{size / 2**30:.1f} GiB" for size in (free, needed))
        raise ConfigError(
            f"'always', but the training split has {wants} and {device} has {has} free", "train", "resident"
        )
    return wanted == "always" or needed <= MAX_MEMORY_SHARE * free


def size_of(rows: Rows) -> int:
    """The bytes of all rows as they are stored, computed from the size of one row."""
    return len(rows) * sum(value.nbytes for value in reader_of(rows)(torch.zeros(1, dtype=torch.int64)).values())


@attrs.frozen(eq=False)
class ResidentRows:
    """Every stored row on a device, indexed there.

    Args:
        values: (N, ...) stored values of all rows, by variable.
        device: Where they lie.
    """

    values: Values
    device: torch.device

    def stored(self, index: Tensor) -> Values:
        """Take rows by (B,) int64 index on the CPU; they lie on the device."""
        there = send(index, self.device)
        return {name: value.index_select(0, there) for name, value in self.values.items()}


def copy_to_device(rows: Rows, device: torch.device) -> ResidentRows:
    """Copy every stored row to a device, block by block, so that the host never holds all of them."""
    read = reader_of(rows)
    first = read(torch.zeros(1, dtype=torch.int64))
    values = {
        name: torch.empty(len(rows), *value.shape[1:], dtype=for_device(value, device).dtype, device=device)
        for name, value in first.items()
    }
    for index in torch.arange(len(rows)).split(ROWS_PER_COPY):
        for name, value in read(index).items():
            values[name][int(index[0]) : int(index[-1]) + 1] = for_device(value, device).to(device)
    return ResidentRows(values, device)


def send(value: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without waiting for it (CUDA copies from pinned memory); no copy if it lies there."""
    from_host = value.device.type == "cpu" and device.type == "cuda"
    value = for_device(value, device)
    return (value.pin_memory() if from_host else value).to(device, non_blocking=from_host)


# --- batch by batch --------------------------------------------------------------------------------------------------


class DeviceRows:
    """The stored rows of each batch, on the device; called with the number of a batch.

    An accelerator does not wait for the disk: while it computes, a thread reads the next batch.

    Args:
        rows: The opened rows of a source.
        rows_of: The number of a batch -> (B,) int64 row numbers on the CPU.
        device: Where the batches go.
        resident: Whether all rows are copied to the device first.
    """

    def __init__(self, rows: Rows, rows_of: Callable[[int], Tensor], device: torch.device, *, resident: bool):
        self._device = device
        read = copy_to_device(rows, device).stored if resident else reader_of(rows)
        self._read: Callable[[int], Values] = lambda number: read(rows_of(number))
        if device.type != "cpu" and not resident:
            self._read = Prefetcher(self._read)

    def __call__(self, number: int) -> Values:
        """Read the batch of this number, (B, ...) by variable."""
        values = self._read(number)
        return {name: send(value, self._device) for name, value in values.items()}


class Prefetcher(Generic[T]):
    """Calls a pure function of a number and, in a thread, already computes it for the number expected next.

    The next number is expected as far from this one as this one was from the last: a step may skip numbers, but always
    in the same way.
    """

    def __init__(self, function: Callable[[int], T]):
        self._function = function
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jointgen-read")
        self._last: int | None = None
        self._next = dict[int, Future[T]]()

    def __call__(self, number: int) -> T:
        """Return the function's value, which may have been computed already."""
        value = (self._next.get(number) or self._submit(number)).result()
        expected = number + (1 if self._last is None else number - self._last)
        self._last, self._next = number, {expected: self._submit(expected)}
        return value

    def _submit(self, number: int) -> Future[T]:
        return self._pool.submit(self._function, number)
