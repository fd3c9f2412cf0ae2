"""Statistics of rows that merge over batches and processes.

A batch gives a statistic, and statistics merge in any grouping to the one that a single pass over all rows would have
given. So nothing is averaged twice, and a last batch with fewer rows counts by its rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Protocol, Self

import attrs
import torch
from safetensors.torch import load, save
from torch import Tensor

from jointgen.runtime.devices import in_float64


class Statistic(Protocol):
    """A summary of rows that can be merged, exchanged between processes, and stored as named tensors."""

    @property
    def n(self) -> int:
        """The number of rows."""

    def merge(self, other: Self) -> Self:
        """The statistic of both sets of rows together."""

    def tensors(self) -> dict[str, Tensor]:
        """The statistic as named tensors."""

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of `tensors`."""


@attrs.frozen
class Mean:
    """The statistic of scalars: their mean and spread, in double precision.

    >>> Mean(1, 4.0).merge(Mean(1, 6.0))
    Mean(n=2, mean=5.0, m2=2.0)

    Args:
        n: How many scalars there are.
        mean: Their mean.
        m2: The sum of their squared deviations from the mean.
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @classmethod
    def of(cls, values: Tensor) -> Mean:
        """The statistic of (B,) values, one per row."""
        assert values.ndim == 1, f"one value per row is (B,), not {tuple(values.shape)}"
        if len(values) == 0:
            return cls()
        doubles = in_float64(values)
        mean = doubles.mean()
        m2 = (doubles - mean).square().sum()
        return cls(len(values), *torch.stack([mean, m2]).tolist())

    def merge(self, other: Mean) -> Mean:
        """The statistic of both sets of values together.

        Chan, Golub & LeVeque, "Algorithms for computing the sample variance", 1983, eq. 2.1, which does not cancel as a
        difference of sums would.
        """
        if self.n == 0 or other.n == 0:
            return self if self.n else other
        n = self.n + other.n
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        return Mean(n, mean, self.m2 + other.m2 + delta * delta * (self.n * other.n / n))

    @property
    def value(self) -> float | None:
        """The mean, or None without values."""
        return self.mean if self.n else None

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean, sqrt(sample variance / n); None below two values."""
        return math.sqrt(self.m2 / (self.n - 1) / self.n) if self.n > 1 else None

    def tensors(self) -> dict[str, Tensor]:
        """The statistic as (3,) float64, in which the count is exact up to 2^53."""
        return {"n_mean_m2": torch.tensor([self.n, self.mean, self.m2], dtype=torch.float64)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Mean:
        """The inverse of `tensors`. Raises ValueError where they are none."""
        n, mean, m2 = tensors["n_mean_m2"].tolist()
        if not (isinstance(n, float) and n.is_integer() and n >= 0):
            raise ValueError(f"{n} is no number of values")
        return cls(int(n), mean, m2)


@attrs.frozen(eq=False)
class KeptRows:
    """The statistic that keeps rows as they are, for a figure that has to see all of them at once.

    Args:
        index: (n,) int64, the numbers of the rows.
        values: (n, ...) values by name.
    """

    index: Tensor
    values: Mapping[str, Tensor]

    @classmethod
    def of(cls, index: Tensor, **values: Tensor) -> KeptRows:
        """Keep the values of some rows, (B, ...) each, on the CPU."""
        assert all(len(value) == len(index) for value in values.values()), "one row of each value for each index"
        return cls(index.cpu(), {name: value.detach().cpu() for name, value in values.items()})

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.index)

    def merge(self, other: KeptRows) -> KeptRows:
        """The rows of both."""
        values = {name: torch.cat([value, other.values[name]]) for name, value in self.values.items()}
        return KeptRows(torch.cat([self.index, other.index]), values)

    def in_order(self) -> dict[str, Tensor]:
        """The values by row number, however the rows were shared out."""
        order = self.index.argsort()
        return {name: value[order] for name, value in self.values.items()}

    def tensors(self) -> dict[str, Tensor]:
        """The index and the values as named tensors."""
        return {"index": self.index, **{f"values.{name}": value for name, value in self.values.items()}}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> KeptRows:
        """The inverse of `tensors`. Raises ValueError where they are none."""
        index = tensors["index"]
        values = {name.removeprefix("values."): value for name, value in tensors.items() if name != "index"}
        if index.ndim != 1 or any(value.shape[:1] != index.shape for value in values.values()):
            raise ValueError("the values have not one row for each index")
        return cls(index, values)


# --- several by name --------------------------------------------------------------------------------------------------

SEPARATOR = "/"
"""Stands between the number of a statistic and the name of its tensor."""


def merge_into(merged: dict[str, Statistic], more: Mapping[str, Statistic]) -> None:
    """Merge statistics by name into those of a dictionary."""
    for name, statistic in more.items():
        merged[name] = merged[name].merge(statistic) if name in merged else statistic


def pack(statistics: Mapping[str, Statistic], **more: Tensor) -> bytes:
    """Write statistics by name as the bytes of a safetensors file, along with `more` tensors."""
    names = list(statistics)
    tensors = {
        f"{i}{SEPARATOR}{key}": t for i, name in enumerate(names) for key, t in statistics[name].tensors().items()
    }
    whole = {name: tensor.contiguous().clone() for name, tensor in {**tensors, **more}.items()}
    return save(whole, {str(i): name for i, name in enumerate(names)} or None)  # an empty dictionary is no valid JSON


def unpack(data: bytes, kinds: Mapping[str, type[Statistic]]) -> dict[str, Statistic]:
    """Read the statistics that `pack` has written.

    Args:
        data: The bytes.
        kinds: The class of each statistic, by name; others are left out.
    """
    length = int.from_bytes(data[:8], "little")
    names = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    tensors = load(data)
    found = {}
    for i, name in names.items():
        if name not in kinds:
            continue
        prefix = f"{i}{SEPARATOR}"
        own_tensors = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        found[name] = kinds[name].from_tensors(own_tensors)
    return found
