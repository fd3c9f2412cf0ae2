"""Balanced weights of a plan: which two gradients each compares, and where.

Torch-free. `jointgen.engine.balance_meter` measures.

lambda = r E|d log p(x|z) / d y| / E|d T / d y| for `lambda*T` balanced against log p(x|z), where y is what the network
of one conditional puts out (a decoder: the parameters of p(x|z), pixel by pixel), each norm is that of a row of the
batch, and each mean is over the rows of the term's own expectation.

Why there. All that a decoder's network learns, it learns through y, and both terms reach y by whatever reading of a
draw they look at; so the quotient is the pull of one against the other, and free of scale: multiplying T leaves
lambda*T as it is, and so does any change of the units of x or y. For a Gaussian p(x|z) with a linear mean,
|d log p(x|z) / d y| is about sqrt(D) / sigma in a row of D numbers, and lambda = r sqrt(D) / (sigma |dT/dx|), the rule
of docs/concepts/as-vae-on-photographs.md. What else was tried, on finished runs with the lambdas that the
studies recommend:

- with respect to x (for the likelihood, its mean or logits): r 2.7 on MNIST (lambda 10), 0.7 on CIFAR-10 (300), where
  with respect to y it is 0.4 and 0.6. The likelihood of bits or of bins has no gradient in x that means the same, and a
  relaxed bit passes on only y (1 - y) / temperature of the critic's;
- the weights of the last layer (VQGAN: Esser et al. 2021, eq 7): r 0.5 and 0.9; single batches of 64 images of
  CIFAR-10 differ by 20 % (with respect to y, by 3 to 4 %), because rows cancel in them, which also makes the quotient
  depend on the size of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import attrs

from jointgen.compiler.nodes import ForwardNode
from jointgen.errors import ConfigError, Problems, suggest
from jointgen.objectives.algebra import Weight, Weighted
from jointgen.objectives.distributions import LogDensity
from jointgen.objectives.objective import Objective

if TYPE_CHECKING:
    from jointgen.compiler.plan import Plan, Summand, UpdatePlan

STEPS_BETWEEN = 16
"""Steps from one measurement of a balanced weight to the next, once so many steps are done."""
Terms = list[tuple["UpdatePlan", "Summand"]]


@attrs.frozen
class Balance:
    """`weight` holds the gradient of `term` against that of `against`, both at the outputs of the network of `part`."""

    weight: Weight
    update: UpdatePlan
    term: Summand
    against: Summand
    part: str


def balances_of(plan: Plan) -> tuple[Balance, ...]:
    """Find, for each balanced weight of a plan, the two terms whose gradients are compared, and where.

    Returns:
        A balance per balanced weight, in the order of `balanced_weights`.

    Raises:
        ConfigError: A weight cannot be balanced as it says; there is a problem for each such weight.
    """
    found, problems = [], Problems()
    for weight in balanced_weights(plan.objective):
        try:
            found.append(_balance(weight, plan))
        except ConfigError as error:
            for problem in error.problems:
                problems.add(f"weight {weight.name!r}: {problem.message}", *problem.path)
    problems.raise_any()
    return tuple(found)


def balanced_weights(objective: Objective) -> list[Weight]:
    """Return the weights of an objective that are balanced against a likelihood."""
    return [weight for weight in objective.weights.values() if weight.is_balanced]


def measured_weights(objective: Objective) -> list[Weight]:
    """Return the weights of an objective whose value comes from what a run measures: balanced and driven ones."""
    return [weight for weight in objective.weights.values() if weight.is_measured]


def _balance(weight: Weight, plan: Plan) -> Balance:
    update, term = _weighed(weight, plan)
    against = _named(weight.against, term, update)
    return Balance(weight, update, term, against, _place(term, against, update))


def _weighed(weight: Weight, plan: Plan) -> tuple[UpdatePlan, Summand]:
    """The one term that the weight stands before."""
    for name, report in plan.objective.reports:
        if any(_bears(weight, expr) for expr in report.walk()):
            raise ConfigError(f"it stands in the report {name!r}; a balanced weight has a value while it trains only")
    found: Terms = [(u, s) for u in plan.updates for s in u.summands if weight in s.weights]
    written = sum(_bears(weight, expr) for u in plan.updates for expr in u.update.maximize.walk())
    if not found or written > 1 or len(found) > 1 or found[0][1].penalty:
        terms = f", not {_listed(s for _, s in found)}" if found else ""
        raise ConfigError(f"a balanced weight stands before one term of one expectation, and not inside it{terms}")
    return found[0]


def _bears(weight: Weight, expr: object) -> bool:
    return isinstance(expr, Weighted) and expr.weight == weight


def _named(text: str, term: Summand, update: UpdatePlan) -> Summand:
    """The term of the update that prints so, alone or with its expectation: "E[q(x,z)] log p(x|z)"."""
    others = [s for s in update.summands if s is not term and not s.penalty]
    found = [summand for summand in others if _bare(text) in (_bare(str(summand.term)), _bare(_titled(summand)))]
    if not found:
        names = [str(summand.term) for summand in others]
        raise ConfigError(
            f"against {text!r}, which is no other term of update {update.name!r}{suggest(text, names) if names else ''}"
        )
    if len(found) > 1:
        is_told_apart = len(set(map(_titled, found))) == len(found)
        remedy = "; write one of these" if is_told_apart else ""
        raise ConfigError(f"against {text!r}, which stands in several expectations: {_listed(found)}{remedy}")
    return found[0]


def _bare(text: str) -> str:
    return "".join(text.split())


def _listed(summands: Iterable[Summand]) -> str:
    return ", ".join(map(_titled, summands))


def _titled(summand: Summand) -> str:
    """The term with its expectation: "E[q(x,z)] log p(x|z)"."""
    return summand.label.split("/", 1)[1]


def _place(term: Summand, against: Summand, update: UpdatePlan) -> str:
    """The conditional whose outputs both gradients reach: that of the density to balance against, or the only one."""
    theirs = list(_reached(against, update))
    both = [part for part in _reached(term, update) if part in theirs]
    own = against.term.factor.part if isinstance(against.term, LogDensity) else ""
    if own in both:
        return own
    if len(both) == 1:
        return both[0]
    if both:
        raise ConfigError(f"its term and {against.term} both reach {' and '.join(both)}; balance against a log-density")
    reached = " and ".join(theirs) or "no network"
    raise ConfigError(f"{against.term} trains {reached}, which no gradient of {term.term} reaches")


def _reached(summand: Summand, update: UpdatePlan) -> Iterator[str]:
    """The conditionals that the update trains and the term has a gradient to, by runs of their own networks."""
    run = {node.part for node in summand.nodes if isinstance(node, ForwardNode) and node.mode == "live"}
    return (part for part in update.trains if part in run and part in summand.gradient_paths)
