"""Estimators: terms that run parts of the model themselves, for objectives that no expression says.

`E[q(x,z)](NAME(x, stop(z); q(z|x), p(x|z), p(z)))` hands the estimator NAME the values before the semicolon and the
laws after it. What it returns is one number for each row, which is maximised like any other term.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from jointgen.contracts.distributions import Distribution
from jointgen.contracts.noise import NoiseSource


class Law(Protocol):
    """A part as an estimator is handed it. It can be run any number of times, at any values."""

    def __call__(self, *given: Tensor, k: int = 1) -> Distribution:
        """Return the distributions given some variables, or those of a prior, which is given nothing.

        Args:
            given: The variables after the bar in their order, (N, *shape) each, where N is a multiple of the rows.
            k: How often each distribution is repeated.

        Returns:
            N * k distributions; of a prior as many for each row as there are values of the estimator.
        """


class Estimator(Protocol):
    """A function of values and laws whose gradient is an estimate that no expression says, such as REINFORCE's.

    It is also called without gradients, for figures. An optional attribute `needs` says what the families of laws must
    be able to do, by role: {"posterior": ("foreign density",)}; see `jointgen.compiler.estimators.ABILITIES`.

    Attributes:
        trains: The roles of the laws that it gives a gradient to, which are live. It must reach each of them.
        reads: The roles of the laws that it only reads. Those are twins without gradients on the same memory.
    """

    trains: tuple[str, ...]
    reads: tuple[str, ...]

    def __call__(self, *values: Tensor, noise: NoiseSource, **laws: Law) -> Tensor:
        """Return one number for each row, to be maximised, (B,). Rows must not mix.

        Args:
            values: The values, (B, *shape) each. A draw has its path unless the equation stops it; under k draws for
                each row of the batch, B is k times as many.
            noise: The only source of randomness that it may use, with B rows.
            laws: The laws by role, those of `trains` and of `reads`.
        """
