"""Critics: the loss that trains a critic, the penalties on it, and pointwise terms of an objective.

A critic f estimates the log-ratio log a/b of two distributions, or only a score. In a ratio ``a : b`` the draws of the
numerator a are its positives and those of the denominator b its negatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from jointgen.contracts.noise import NoiseSource

if TYPE_CHECKING:
    from jointgen.objectives.algebra import Expr
    from jointgen.objectives.tables import WeightTable


class CriticLoss(Protocol):
    """The loss of a critic, as two expressions of its output. The critic's update maximises E_a[...] + E_b[...]."""

    @property
    def is_ratio(self) -> bool:
        """Whether the trained critic estimates log a/b (logistic) or is only a score (Wasserstein, hinge)."""

    def positive(self, f: Expr) -> Expr:
        """Return the expression to maximise under the numerator, such as ``log_sigmoid(f)``."""

    def negative(self, f: Expr) -> Expr:
        """Return the expression to maximise under the denominator, such as ``log_sigmoid(-f)``."""


class HasBoundary(Protocol):
    """The loss of a score with a decision boundary, for which jointgen then reports an accuracy."""

    @property
    def boundary(self) -> float:
        """The output above which the critic takes a row for a draw of the numerator."""


def decision_boundary(loss: CriticLoss) -> float | None:
    """Return the output above which a critic takes a row for a draw of the numerator, or None where none is known.

    A log-ratio is 0 where both densities are equal.
    """
    # not isinstance(loss, HasBoundary): that takes 10 us in every step
    known: float | None = 0.0 if loss.is_ratio else getattr(loss, "boundary", None)
    return known


class CriticCall(Protocol):
    """A critic as a penalty calls it."""

    def __call__(self, *values: Tensor) -> Tensor:
        """Return the network's outputs, (B,), without the ratio's `known`, at a (B, *shape) tensor per variable."""


class Penalty(Protocol):
    """A penalty, which is subtracted from a critic's objective in the critic's own update."""

    @property
    def weight(self) -> float | WeightTable:
        """The factor by which the engine multiplies the penalty: a number, or a table that follows a schedule."""

    @property
    def every(self) -> int:
        """The penalty is computed in one of so many of the steps at which the critic's update runs.

        The engine multiplies it by the same number, so that its average weight does not depend on it.
        """

    def __call__(
        self, critic: CriticCall, positive: tuple[Tensor, ...], negative: tuple[Tensor, ...], noise: NoiseSource
    ) -> Tensor:
        """Return the penalty of each row, before it is multiplied by `weight`.

        Args:
            critic: The critic.
            positive: The numerator's draws, one (B, *shape) tensor for each variable of the critic.
            negative: The denominator's draws, likewise.
            noise: The only source of randomness that the penalty may use.

        Returns:
            (B,), not negative.
        """


class PointwiseTerm(Protocol):
    """A function of values that an objective can name, such as an l1 distance."""

    def __call__(self, *values: Tensor) -> Tensor:
        """Return the term of each row, (B, *shape) each -> (B,)."""
