"""Divergences of two samples and statistics of one, which an objective estimates from the rows of a whole batch."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from jointgen.contracts.noise import NoiseSource


class Divergence(Protocol):
    """A number from the draws of two distributions, or of one, such as the MMD of codes and draws of the prior.

    It is called once for a step, on the rows of all processes, and minimised or maximised like any summand. It need not
    be the mean of anything over rows, and it must not be clipped where it is an estimate that may be negative.

    Attributes:
        sides: How many distributions it takes, 1 or 2.
        vanishes: Where it is zero: "on average" for two samples of one distribution, as an unbiased estimate is;
            "at equal samples"; or "nowhere", which promises nothing.
    """

    sides: int
    vanishes: Literal["on average", "at equal samples", "nowhere"]

    def __call__(self, *samples: Tensor, noise: NoiseSource) -> Tensor:
        """Return the divergence, ().

        Args:
            samples: For each side the rows of the batch, (n, *shape). Where several values are compared they are
                flattened and joined, (n, D).
            noise: The only source of randomness that it may use; it has one row, and every process has the same.
        """
