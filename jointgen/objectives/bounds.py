"""The evidence lower bound of any pair of joints."""

from __future__ import annotations

from collections.abc import Callable

from jointgen.errors import ConfigError
from jointgen.objectives.algebra import Expr
from jointgen.objectives.distributions import Conditional, Joint
from jointgen.objectives.expressions import E


def elbo(
    q: Joint,
    p: Joint,
    is_data: Callable[[Conditional], bool] = lambda factor: factor.part == "data",
    mass: Callable[[str], bool] = lambda variable: False,
) -> Expr:
    """Return the evidence lower bound E_q[log p(x,z) - log q(z|x)], in nats (Kingma & Welling 2014, eq. 3).

    The joints may have any factors. Data has no known density and drops out, so that a model p(y) p(z) p(x|z,y) with
    y from the data has a bound on log p(x|y).

    Args:
        q: The inference joint, which draws every variable of `p`.
        p: The generative joint.
        is_data: Whether a root is a data source rather than a prior.
        mass: Whether a variable is scored by the exact probability of its quantisation bin.

    Raises:
        ConfigError: q does not draw a variable of p, or infers one that p takes from data (an empirical prior).

    >>> from jointgen.objectives import p, q
    >>> print(elbo(q, p))
    E[q(x,z)](log p(x|z) + log p(z) - log q(z|x))
    """
    absent = sorted(set(p.variables) - set(q.variables))
    if absent:
        raise ConfigError(f"{q.name} does not draw {absent[0]!r}, so there is no bound")
    for factor in p.factors:
        if is_data(factor) and not all(is_data(q.drawn_by(v)) for v in factor.out):
            raise ConfigError(f"{p.name}({factor}) is data, whose density is not known, so there is no bound")
    scored = sorted((f for f in p.factors if not is_data(f)), key=lambda f: f.is_root)  # log p(x|z) before log p(z)
    if not scored:
        raise ConfigError(f"{p} models nothing: all its factors are data")
    first, *others = (p.log(str(f), mass=mass(f.out[0])) for f in scored)
    total: Expr = sum(others, start=first)
    for factor in q.factors:
        if not is_data(factor):
            total = total - q.log(str(factor))
    return E(q.everything, total)
