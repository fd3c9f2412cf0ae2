"""Critics of log-ratios and scores: what trains them, what penalises them, and terms of values."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from jointgen.contracts.noise import NoiseSource


class CriticLoss(Protocol):
    """How a critic is trained: two pointwise expressions of the objective language.

    `is_ratio`: whether the critic's output estimates a log ratio (logistic) or is only a score (Wasserstein, hinge).
    Optional, for scores: ``boundary``, the output above which a critic takes a row for one of the numerator's.
    """

    @property
    def is_ratio(self) -> bool: ...

    def positive(self, f: Any) -> Any:
        """Expr maximised under the ratio's numerator, for example log_sigmoid(f)."""

    def negative(self, f: Any) -> Any:
        """Expr maximised under the ratio's denominator, for example log_sigmoid(-f)."""


class Penalty(Protocol):
    """Subtracted from a critic's objective in its own update.

    Optional: ``weight``, a number or a jointgen.objectives.WeightTable, by which the engine multiplies what the penalty
    returns at each step; 1 where there is none.
    """

    @property
    def every(self) -> int:
        """Computed at every such step (and multiplied by it, so that the average weight is unchanged)."""

    def __call__(
        self, critic: Any, positive: tuple[Tensor, ...], negative: tuple[Tensor, ...], noise: NoiseSource
    ) -> Tensor:
        """(B,), without the weight, from a callable critic(*values) -> (B,) and the values on both sides."""


class PointwiseTerm(Protocol):
    """A registered function of values at a point, such as an l1 distance."""

    def __call__(self, *values: Tensor) -> Tensor:
        """(B, *shape) each -> (B,)."""
