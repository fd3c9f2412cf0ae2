"""Summands of an update that are one number for the whole batch, beside expectations, which are means over its rows.

A divergence compares draws of two distributions, a statistic describes those of one, and a log-mean-exp is the second
half of Donsker and Varadhan's bound. They see the rows of the whole batch, those of other processes included.
Torch-free.

>>> from jointgen.objectives import E, elbo, p, q
>>> print(elbo(q, p) - 10 * divergence("mmd", q.z, p.z))
E[q(x,z)](log p(x|z) + log p(z) - log q(z|x)) - 10*mmd(q(z) : p(z))
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import attrs

from jointgen.errors import ConfigError
from jointgen.objectives.algebra import Expr, check_size
from jointgen.objectives.components import Slot, as_component, name_of
from jointgen.objectives.distributions import Distribution, Marginal, Mixture, Product, as_distribution, as_product
from jointgen.objectives.values import Argument, Value, as_argument


class BatchTerm(Expr):
    """One number for a whole batch of rows. It is a summand of an update, and stands inside nothing else."""

    __slots__ = ()
    is_summand: ClassVar[bool] = True
    sees_batch: ClassVar[bool] = True

    @property
    def over(self) -> tuple[Distribution, ...]:
        """The distributions that it draws from."""
        raise NotImplementedError

    @property
    def components(self) -> tuple[tuple[float, Any], ...]:
        """Itself, whole: unlike an expectation it is no sum over the components of a mixture."""
        return ((1.0, self),)


@attrs.frozen(cache_hash=True)
class Divergence(BatchTerm):
    """A registered divergence of two distributions, or a statistic of one, estimated from the rows of the batch.

    Args:
        measure: A registered divergence, its name, or a function of the draws of each side; see
            `jointgen.plugin.Divergence`.
        sides: The distributions, one or two.
        values: What is compared of a draw; without any, all variables of the sides, which must then be the same.

    Raises:
        ConfigError: The sides are over different variables, or a value is of a variable that a side does not draw.
    """

    measure: Any = attrs.field(converter=as_component, hash=False)
    sides: tuple[Distribution, ...]
    values: tuple[Argument, ...] = ()
    component_slots: ClassVar[tuple[Slot, ...]] = (Slot("measure", "divergence"),)

    def __attrs_post_init__(self) -> None:
        assert 1 <= len(self.sides) <= 2
        for side in self.sides:
            if isinstance(side, Mixture):
                raise ConfigError(f"{self}: a divergence compares products of marginals, {side} is a mixture")
        if not self.values and len({frozenset(side.variables) for side in self.sides}) > 1:
            raise ConfigError(f"{self}: the two sides are over different variables")
        wanted = getattr(self.component, "sides", None)
        if isinstance(wanted, int) and wanted != len(self.sides):
            of = "the draws of one distribution, as in PT(p(x))" if wanted == 1 else "two, as in MMD(q(z) : p(z))"
            raise ConfigError(f"{self}: {type(self.component).__name__} takes {of}")

    @property
    def component(self) -> Any:
        """The divergence itself; None where only its name is known."""
        return None if isinstance(self.measure, str) else getattr(self.measure, "component", self.measure)

    @property
    def over(self) -> tuple[Distribution, ...]:
        """The distributions that it draws from."""
        return self.sides

    @property
    def children(self) -> tuple[Argument, ...]:
        """The values that are compared."""
        return self.values

    @property
    def compared(self) -> tuple[Argument, ...]:
        """What is compared of a draw."""
        return self.values or tuple(Value(v) for v in sorted(self.sides[0].variables))

    def __str__(self) -> str:
        seen = f"; {', '.join(map(str, self.values))}" if self.values else ""
        return f"{name_of(self.measure)}({' : '.join(map(str, self.sides))}{seen})"


def divergence(
    measure: Any, a: Marginal | Product, b: Marginal | Product, *, of: Iterable[Argument | str] = ()
) -> Divergence:
    """Return a divergence of two distributions, estimated from the rows of a batch.

    Args:
        measure: A registered divergence or its name, such as "mmd", or a function of two samples.
        a: A joint, a marginal or a product of marginals.
        b: The other, over the same variables unless `of` says what is compared.
        of: The values that are compared: variables, readings of them, features of a network.

    >>> from jointgen.objectives import p, q
    >>> print(divergence("mmd", q.x, p.x, of=[Value("x", "mean")]))
    mmd(q(x) : p(x); mean x)
    """
    return Divergence(measure, (as_product(a), as_product(b)), _values(of))


def statistic(measure: Any, over: Marginal | Product, *, of: Iterable[Argument | str] = ()) -> Divergence:
    """Return a statistic of the draws of one distribution in a batch. The arguments are those of `divergence`.

    >>> from jointgen.objectives import q
    >>> print(statistic("covariance", q.z))
    covariance(q(z))
    """
    return Divergence(measure, (as_product(over),), _values(of))


def _values(of: Iterable[Argument | str]) -> tuple[Argument, ...]:
    return tuple(as_argument(one) for one in of)


@attrs.frozen(cache_hash=True)
class LogMeanExp(BatchTerm):
    """log E[exp(term)], with the mean over the rows of the whole batch inside the logarithm.

    With an expectation it makes the bound of Donsker and Varadhan, KL(a : b) >= E_a[f] - log E_b[exp f], which MINE
    maximises (Belghazi et al. 2018, eq. 5). Its gradient is that of the logarithm of this batch's mean, which is biased
    in a small batch; the value is too.

    Raises:
        ConfigError: An expectation stands inside it.
    """

    drawn: Distribution = attrs.field(converter=as_distribution)
    term: Expr

    def __attrs_post_init__(self) -> None:
        check_size(self.term)
        if any(inner.is_summand for inner in self.term.walk()):
            raise ConfigError(f"{self}: an expectation stands inside it")

    @property
    def children(self) -> tuple[Expr, ...]:
        """The term."""
        return (self.term,)

    @property
    def over(self) -> tuple[Distribution, ...]:
        """The distribution that it draws from."""
        return (self.drawn,)

    def __str__(self) -> str:
        return f"logmeanexp[{self.drawn}]({self.term})"


def log_mean_exp(over: Marginal | Product | Mixture, term: Expr) -> LogMeanExp:
    """Return log E[exp(term)] over the rows of the whole batch.

    >>> from jointgen.objectives import E, log_ratio, q
    >>> t = log_ratio(q.xz, q.x * q.z, name="t")
    >>> print(E(q.xz, t) - log_mean_exp(q.x * q.z, t))
    E[q(x,z)](t) - logmeanexp[q(x)q(z)](t)
    """
    return LogMeanExp(over, term)
