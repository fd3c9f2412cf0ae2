"""How a critic f is trained: what is maximised under its ratio's numerator and under its denominator."""

from __future__ import annotations

from typing import ClassVar

import attrs

from jointgen.objectives import Expr, log_sigmoid, relu, square


@attrs.frozen
class Logistic:
    """E_a log s(f) + E_b log s(-f), a proper score: at its optimum f = log a/b (AS-VAE eqs 5 to 7)."""

    is_ratio: ClassVar[bool] = True

    def positive(self, f: Expr) -> Expr:
        return log_sigmoid(f)

    def negative(self, f: Expr) -> Expr:
        return log_sigmoid(-f)


@attrs.frozen
class Wasserstein:
    """E_a f - E_b f; a score that needs a bound on its slope, such as the gradient penalty."""

    is_ratio: ClassVar[bool] = False

    def positive(self, f: Expr) -> Expr:
        return f

    def negative(self, f: Expr) -> Expr:
        return -f


@attrs.frozen
class Hinge:
    """-E_a max(0, 1 - f) - E_b max(0, 1 + f)."""

    is_ratio: ClassVar[bool] = False
    boundary: ClassVar[float] = 0.0

    def positive(self, f: Expr) -> Expr:
        return -relu(1 - f)

    def negative(self, f: Expr) -> Expr:
        return -relu(1 + f)


@attrs.frozen
class LeastSquares:
    """-E_a (f - 1)^2 - E_b f^2."""

    is_ratio: ClassVar[bool] = False
    boundary: ClassVar[float] = 0.5

    def positive(self, f: Expr) -> Expr:
        return -square(f - 1)

    def negative(self, f: Expr) -> Expr:
        return -square(f)
