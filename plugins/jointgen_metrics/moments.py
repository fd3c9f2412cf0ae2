"""Mean and variance of vectors, merged over batches and processes."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor


@attrs.frozen(eq=False)
class Moments:
    """The statistic of rows of D numbers; see `Mean`, which is merged in the same way.

    Args:
        n: The number of rows.
        mean: (D,) float64 means.
        m2: (D,) float64 sums of squared deviations from the means.
    """

    n: int
    mean: Tensor
    m2: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """The statistic of a batch, (B, D)."""
        values = values.detach().cpu().double()
        mean = values.mean(0)
        return cls(len(values), mean, (values - mean).square().sum(0))

    @property
    def variance(self) -> Tensor | None:
        """The (D,) variances, divided by n - 1; None below two rows."""
        return self.m2 / (self.n - 1) if self.n > 1 else None

    def merge(self, other: Moments) -> Moments:
        """The statistic of both sets of rows together (Chan, Golub & LeVeque 1983, eq. 2.1)."""
        n = self.n + other.n
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        return Moments(n, mean, self.m2 + other.m2 + delta.square() * (self.n * other.n / n))

    def tensors(self) -> dict[str, Tensor]:
        """See `Statistic.tensors`."""
        return {"n": torch.tensor(self.n), "mean": self.mean, "m2": self.m2}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Moments:
        """See `Statistic.from_tensors`."""
        return cls(int(tensors["n"]), tensors["mean"], tensors["m2"])
