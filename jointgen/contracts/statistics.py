"""Statistics that merge over batches and processes, and the record that every reported number becomes.

A batch gives a statistic, statistics merge in any grouping, and what they merge to is what one pass over all the
rows would have given. Nothing is averaged twice, and a ragged last batch counts by its rows.
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


class Statistic(Protocol):
    """What processes can exchange and files can hold: named tensors, and a merge."""

    @property
    def n(self) -> int:
        """How many rows it is of."""

    def merge(self, other: Self) -> Self:
        """The statistic of both sets of rows together."""

    def tensors(self) -> dict[str, Tensor]: ...

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self: ...


@attrs.frozen
class Mean:
    """Mean and spread of scalars: `n` of them, their mean, and `m2`, the sum of squared deviations from it.

    KeptRows in double precision. Merging follows Chan, Golub and LeVeque, "Algorithms for computing the sample
    variance" (1983), eq. 2.1, which does not cancel as a difference of sums would.
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @classmethod
    def of(cls, values: Tensor) -> Mean:
        """From (B,) values, one per row."""
        assert values.ndim == 1, f"one value per row is (B,), not {tuple(values.shape)}"
        if len(values) == 0:
            return cls()
        mean = values.double().mean()
        m2 = (values.double() - mean).square().sum()
        return cls(len(values), *torch.stack([mean, m2]).tolist())

    def merge(self, other: Mean) -> Mean:
        if self.n == 0 or other.n == 0:
            return self if self.n else other
        n = self.n + other.n
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        return Mean(n, mean, self.m2 + other.m2 + delta * delta * (self.n * other.n / n))

    @property
    def value(self) -> float | None:
        """The mean, or None when there was nothing to average."""
        return self.mean if self.n else None

    @property
    def standard_error(self) -> float | None:
        """Of the mean: sqrt(sample variance / n). None below two values, which say nothing about spread."""
        return math.sqrt(self.m2 / (self.n - 1) / self.n) if self.n > 1 else None

    def tensors(self) -> dict[str, Tensor]:
        """(3,) float64. The count is exact in it up to 2^53."""
        return {"n_mean_m2": torch.tensor([self.n, self.mean, self.m2], dtype=torch.float64)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Mean:
        n, mean, m2 = tensors["n_mean_m2"].tolist()
        return cls(int(n), mean, m2)


@attrs.frozen(eq=False)
class KeptRows:
    """Rows kept as they are, for what has to see them all at once: `index` (n,) says which, `values` (n, ...) each."""

    index: Tensor
    values: Mapping[str, Tensor]

    @classmethod
    def of(cls, index: Tensor, **values: Tensor) -> KeptRows:
        assert all(len(value) == len(index) for value in values.values()), "one row of each value for each index"
        return cls(index.cpu(), {name: value.detach().cpu() for name, value in values.items()})

    @property
    def n(self) -> int:
        return len(self.index)

    def merge(self, other: KeptRows) -> KeptRows:
        values = {name: torch.cat([value, other.values[name]]) for name, value in self.values.items()}
        return KeptRows(torch.cat([self.index, other.index]), values)

    def in_order(self) -> dict[str, Tensor]:
        """The values by row number, however the rows were shared out."""
        order = self.index.argsort()
        return {name: value[order] for name, value in self.values.items()}

    def tensors(self) -> dict[str, Tensor]:
        return {"index": self.index, **{f"values.{name}": value for name, value in self.values.items()}}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> KeptRows:
        held = {name.removeprefix("values."): value for name, value in tensors.items() if name != "index"}
        return cls(tensors["index"], held)


# --- several by name --------------------------------------------------------------------------------------------------

_IN = "/"  # between a statistic's name and its tensor's


def merge_into(merged: dict[str, Statistic], more: Mapping[str, Statistic]) -> None:
    for name, statistic in more.items():
        merged[name] = merged[name].merge(statistic) if name in merged else statistic


def packed(statistics: Mapping[str, Statistic], **more: Tensor) -> bytes:
    """As the bytes of a safetensors file; `more` tensors go along."""
    names = list(statistics)
    tensors = {f"{i}{_IN}{key}": t for i, name in enumerate(names) for key, t in statistics[name].tensors().items()}
    whole = {name: tensor.contiguous().clone() for name, tensor in {**tensors, **more}.items()}
    return save(whole, {str(i): name for i, name in enumerate(names)} or None)  # of {} it makes no JSON


def unpacked(data: bytes, kinds: Mapping[str, type[Statistic]]) -> dict[str, Statistic]:
    """What `packed` was given, without `more`."""
    length = int.from_bytes(data[:8], "little")
    names = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    tensors = load(data)
    found = {}
    for i, name in names.items():
        own = {key.removeprefix(f"{i}{_IN}"): t for key, t in tensors.items() if key.startswith(f"{i}{_IN}")}
        found[name] = kinds[name].from_tensors(own)
    return found
