"""Mean and variance of many numbers at once, merged over batches and processes."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor


@attrs.frozen(eq=False)
class Moments:
    """`n` rows of D numbers: their means, and `m2`, the sums of squared deviations from them, (D,) float64 each.

    Merged as `jointgen.contracts.statistics.Mean` is (Chan, Golub and LeVeque 1983, eq. 2.1).
    """

    n: int
    mean: Tensor
    m2: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """From (B, D)."""
        values = values.detach().double().cpu()
        mean = values.mean(0)
        return cls(len(values), mean, (values - mean).square().sum(0))

    @property
    def variance(self) -> Tensor | None:
        """(D,), divided by n - 1. None below two rows."""
        return self.m2 / (self.n - 1) if self.n > 1 else None

    def merge(self, other: Moments) -> Moments:
        n = self.n + other.n
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        return Moments(n, mean, self.m2 + other.m2 + delta.square() * (self.n * other.n / n))

    def tensors(self) -> dict[str, Tensor]:
        return {"n": torch.tensor(self.n), "mean": self.mean, "m2": self.m2}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Moments:
        return cls(int(tensors["n"]), tensors["mean"], tensors["m2"])
