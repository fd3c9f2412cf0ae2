"""Losses of critics: what is maximised under a ratio's numerator a and under its denominator b.

f is the critic's output, s the sigmoid. See `jointgen.plugin.CriticLoss`.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from jointgen.objectives import Expr, log_sigmoid, relu, square


@attrs.frozen
class Logistic:
    """The logistic loss E_a log s(f) + E_b log s(-f) (Goodfellow et al. 2014).

    It is a proper score: at its optimum f = log a/b (AS-VAE, Pu et al. 2017, eqs 5 to 7).
    """

    is_ratio: ClassVar[bool] = True

    def positive(self, f: Expr) -> Expr:
        """Return what is maximised under the numerator."""
        return log_sigmoid(f)

    def negative(self, f: Expr) -> Expr:
        """Return what is maximised under the denominator."""
        return log_sigmoid(-f)


@attrs.frozen
class Wasserstein:
    """The Wasserstein loss E_a f - E_b f (Arjovsky et al. 2017), a score.

    It needs a bound on the slope of f, such as the gradient penalty.
    """

    is_ratio: ClassVar[bool] = False

    def positive(self, f: Expr) -> Expr:
        """Return what is maximised under the numerator."""
        return f

    def negative(self, f: Expr) -> Expr:
        """Return what is maximised under the denominator."""
        return -f


@attrs.frozen
class Hinge:
    """The hinge loss -E_a max(0, 1 - f) - E_b max(0, 1 + f) (Lim & Ye 2017), a score."""

    is_ratio: ClassVar[bool] = False
    boundary: ClassVar[float] = 0.0

    def positive(self, f: Expr) -> Expr:
        """Return what is maximised under the numerator."""
        return -relu(1 - f)

    def negative(self, f: Expr) -> Expr:
        """Return what is maximised under the denominator."""
        return -relu(1 + f)


@attrs.frozen
class LeastSquares:
    """The least-squares loss -E_a (f - 1)^2 - E_b f^2 (Mao et al. 2017), a score."""

    is_ratio: ClassVar[bool] = False
    boundary: ClassVar[float] = 0.5

    def positive(self, f: Expr) -> Expr:
        """Return what is maximised under the numerator."""
        return -square(f - 1)

    def negative(self, f: Expr) -> Expr:
        """Return what is maximised under the denominator."""
        return -square(f)
