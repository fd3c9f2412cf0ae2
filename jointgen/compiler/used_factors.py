"""Which conditionals of the joints an objective uses: the others are neither asked of a recipe nor built. Torch-free.

A GAN is E[p(x)](..) with a critic of q(x) : p(x). Its joint q has the encoder q(z|x), of which nothing is drawn and
nothing is scored: no update could train it, and a figure of it would be one of random weights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import attrs

from jointgen.objectives.aggregates import AggregateDensity
from jointgen.objectives.algebra import Expr
from jointgen.objectives.distributions import Conditional, Joint, Marginal
from jointgen.objectives.expressions import Ratio, Value

READINGS_OF_DATA = ("sample", "mean")
"""The readings that data have by themselves; any other one is made by the family that models the variable."""


def used_joints(
    joints: Mapping[str, Joint], expressions: Iterable[Expr], parts: Collection[str] = ()
) -> dict[str, Joint]:
    """Return the joints without the conditionals that no expectation draws, no term scores and no part goes through.

    Roots stay: they say what a variable looks like, and evaluation draws from them.

    Args:
        joints: The joints of all stages, by name.
        expressions: What updates maximise and what is reported, of all stages.
        parts: Parts that are used besides, such as those that a prior goes through.

    >>> from jointgen.objectives import E, log_ratio, log_sigmoid, p, q
    >>> gan = E(p.x, log_sigmoid(log_ratio(q.x, p.x, name="f")))
    >>> print(used_joints({"q": q, "p": p}, [gan])["q"])
    q(x) = q(x)
    """
    used: set[Conditional] = set()
    read: set[str] = set()  # variables in a reading that only the family of their likelihood has
    for value in _inside(tuple(expressions)):
        if isinstance(value, Marginal):
            used.update(value.joint.ancestors(value.drawn))
        elif isinstance(value, Conditional):
            used.add(value)
        elif isinstance(value, AggregateDensity):
            used.add(value.factor)
        elif isinstance(value, Value) and value.factor is None and value.reading not in READINGS_OF_DATA:
            read.add(value.variable)
        elif isinstance(value, Ratio):
            read.update(v for v, seen in value.view if isinstance(seen, str) and seen not in READINGS_OF_DATA)
    # a factor that another joint takes over is the same factor
    own = {attrs.evolve(factor, of="") for factor in used}

    def is_used(factor: Conditional) -> bool:
        named = factor.part in parts or not read.isdisjoint(factor.out)
        return factor.is_root or named or attrs.evolve(factor, of="") in own

    found = {}
    for name, joint in joints.items():
        drawn = [v for factor in joint.factors if is_used(factor) for v in factor.out]
        found[name] = attrs.evolve(joint, factors=joint.ancestors(drawn))
    return found


def _inside(value: Any) -> Iterator[Any]:
    """Yield everything that a declaration is made of, but not what a joint is made of: it says no use of a factor."""
    yield value
    if isinstance(value, Marginal | Joint):
        return
    if isinstance(value, tuple | list | frozenset):
        for item in value:
            yield from _inside(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _inside(item)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _inside(getattr(value, field.name))
