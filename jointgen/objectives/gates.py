"""Gates: conditions on figures under which an update runs in a step. Torch-free.

A gate compares expectations of terms that the updates compute, as they were in the last step, with numbers: the margins
between which VAE/GAN's critic and decoder run (Larsen et al. 2016) are

>>> from jointgen.objectives import E, log_ratio, log_sigmoid, p, q
>>> f = log_ratio(q.x, p.x, name="f")
>>> print(above(E(q.x, -log_sigmoid(f)), 0.33) & above(E(p.x, -log_sigmoid(-f)), 0.33))
E[q(x)](-log s(f)) > 0.33 and E[p(x)](-log s(-f)) > 0.33
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import attrs

from jointgen.objectives.algebra import Expr, Weight, Weighted, as_expr, check_size

STEP = "step"
"""The figure that is the number of the step, counted from 0."""


@attrs.frozen(cache_hash=True)
class Figure(Expr):
    """A figure of the last step by its name in the log, "f/positive_accuracy", or the number of the step, "step"."""

    name: str

    def __str__(self) -> str:
        return self.name


def weights_in(expr: Expr) -> list[Weight]:
    """Return the named weights of an expression."""
    found = (inner.weight for inner in expr.walk() if isinstance(inner, Weighted))
    return [weight for weight in found if isinstance(weight, Weight)]


class Gate:
    """A condition on figures. Gates are joined with ``&`` and ``|`` and turned round with ``~``."""

    __slots__ = ()

    def __and__(self, other: Gate) -> Gate:
        return AllOf((*_parts(self, AllOf), *_parts(other, AllOf)))

    def __or__(self, other: Gate) -> Gate:
        return AnyOf((*_parts(self, AnyOf), *_parts(other, AnyOf)))

    def __invert__(self) -> Gate:
        return self.gate if isinstance(self, Not) else Not(self)

    def comparisons(self) -> Iterator[Comparison]:
        """Yield what is compared."""
        raise NotImplementedError

    def rewritten(self, rewrite: Callable[[Expr], Expr]) -> Gate:
        """Return the condition with `rewrite` applied to both sides of each comparison."""
        raise NotImplementedError

    def holds(self, compare: Callable[[Comparison], bool]) -> bool:
        """Whether the condition holds, where `compare` says so of each comparison."""
        raise NotImplementedError


@attrs.frozen(cache_hash=True)
class Comparison(Gate):
    """One side above or below the other; both are weighted sums of expectations, figures and numbers."""

    left: Expr
    sign: Literal["<", ">"]
    right: Expr

    def __attrs_post_init__(self) -> None:
        for side in self.sides:
            check_size(side)

    @property
    def sides(self) -> tuple[Expr, Expr]:
        """Both sides."""
        return self.left, self.right

    def comparisons(self) -> Iterator[Comparison]:
        """Yield itself."""
        yield self

    def holds(self, compare: Callable[[Comparison], bool]) -> bool:
        """What `compare` says of it."""
        return compare(self)

    def rewritten(self, rewrite: Callable[[Expr], Expr]) -> Gate:
        """Return the comparison with `rewrite` applied to both sides."""
        return Comparison(rewrite(self.left), self.sign, rewrite(self.right))

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right}"


@attrs.frozen(cache_hash=True)
class AllOf(Gate):
    """All of several conditions."""

    gates: tuple[Gate, ...]

    def comparisons(self) -> Iterator[Comparison]:
        """Yield what each compares."""
        for gate in self.gates:
            yield from gate.comparisons()

    def holds(self, compare: Callable[[Comparison], bool]) -> bool:
        """Whether all hold."""
        return all(gate.holds(compare) for gate in self.gates)

    def rewritten(self, rewrite: Callable[[Expr], Expr]) -> Gate:
        """Return the conditions with `rewrite` applied to each."""
        return AllOf(tuple(gate.rewritten(rewrite) for gate in self.gates))

    def __str__(self) -> str:
        return " and ".join(f"({gate})" if isinstance(gate, AnyOf) else str(gate) for gate in self.gates)


@attrs.frozen(cache_hash=True)
class AnyOf(Gate):
    """At least one of several conditions."""

    gates: tuple[Gate, ...]

    def comparisons(self) -> Iterator[Comparison]:
        """Yield what each compares."""
        for gate in self.gates:
            yield from gate.comparisons()

    def holds(self, compare: Callable[[Comparison], bool]) -> bool:
        """Whether one holds."""
        return any(gate.holds(compare) for gate in self.gates)

    def rewritten(self, rewrite: Callable[[Expr], Expr]) -> Gate:
        """Return the conditions with `rewrite` applied to each."""
        return AnyOf(tuple(gate.rewritten(rewrite) for gate in self.gates))

    def __str__(self) -> str:
        return " or ".join(map(str, self.gates))


@attrs.frozen(cache_hash=True)
class Not(Gate):
    """The opposite of a condition."""

    gate: Gate

    def comparisons(self) -> Iterator[Comparison]:
        """Yield what is compared."""
        return self.gate.comparisons()

    def holds(self, compare: Callable[[Comparison], bool]) -> bool:
        """Whether the condition does not hold."""
        return not self.gate.holds(compare)

    def rewritten(self, rewrite: Callable[[Expr], Expr]) -> Gate:
        """Return the opposite of the rewritten condition."""
        return Not(self.gate.rewritten(rewrite))

    def __str__(self) -> str:
        return f"not ({self.gate})"


def _parts(gate: Gate, of: type[AllOf | AnyOf]) -> tuple[Gate, ...]:
    return gate.gates if isinstance(gate, of) else (gate,)


def above(figure: Expr, bound: Expr | float) -> Gate:
    """Return the condition that a figure is above a bound."""
    return Comparison(figure, ">", as_expr(bound))


def below(figure: Expr, bound: Expr | float) -> Gate:
    """Return the condition that a figure is below a bound.

    >>> print(~below(Figure("f/positive_accuracy"), 0.8))
    not (f/positive_accuracy < 0.8)
    """
    return Comparison(figure, "<", as_expr(bound))
