"""Statistics that merge over batches and processes, and the record that every reported number becomes.

A batch gives a statistic, statistics merge in any grouping, and what they merge to is what one pass over all the
rows would have given. Nothing is averaged twice, and a ragged last batch counts by its rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol, Self

import attrs
import torch
from torch import Tensor

Bound = Literal["lower", "upper", "exact", "estimate"]


class Statistic(Protocol):
    """What processes can exchange: tensors of the same shapes on each of them, and a merge."""

    def merge(self, other: Self) -> Self:
        """The statistic of both sets of rows together."""

    def tensors(self) -> dict[str, Tensor]: ...

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self: ...


@attrs.frozen
class Mean:
    """Mean and spread of scalars: `n` of them, their mean, and `m2`, the sum of squared deviations from it.

    Kept in double precision. Merging follows Chan, Golub and LeVeque, "Algorithms for computing the sample
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


@attrs.frozen
class Estimate:
    """A number as reported: never without its unit, how it was estimated, on which split and over how many rows.

    `bound` says how it stands to the quantity it is named for; None where that is not a question (an FID, say).
    `value` is None when the number does not exist for this model; `note` then says why.
    """

    value: float | None
    unit: str
    estimator: str
    split: str
    n: int
    standard_error: float | None = None
    bound: Bound | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        return attrs.asdict(self)

    def describe(self, name: str) -> str:
        """One line for people: elbo -101.3 nats +- 0.4 (lower bound; ...; test, n = 10000)."""
        if self.value is None:
            return f"{name}: none ({self.note})"
        error = f" +- {self.standard_error:.2g}" if self.standard_error is not None else ""
        kind = f"{_KINDS[self.bound]}; " if self.bound else ""
        return f"{name}: {self.value:.4f} {self.unit}{error} ({kind}{self.estimator}; {self.split}, n = {self.n})"


_KINDS = {"lower": "lower bound", "upper": "upper bound", "exact": "exact", "estimate": "estimate, no bound"}


def table_of(estimates: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for each estimate, as it stands in summary.json."""
    return "\n".join(Estimate(**fields).describe(name) for name, fields in estimates.items())
