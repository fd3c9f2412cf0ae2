"""Checks of estimators, which are handed stand-ins for parts: Gaussians whose mean is linear in what they are given."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from jointgen.compiler.estimators import ABILITIES
from jointgen.contracts.noise import NoiseSource
from jointgen.testing.check import Promises, expect, expect_close, expect_finite, expect_shape, gradients, promise
from jointgen.testing.critics import Subject
from jointgen.testing.randomness import Recorded, no_global_randomness, noise, normal_like
from jointgen.testing.standin import StandInLaw

ESTIMATORS: Promises = []
ROWS, SIZE = 5, 3
ALL = list(range(ROWS))


class LinearLaw:
    """A law N(weight * (1 + the sum of what it is given), 1/4) over variables of shape (3,); `weight` is (3,)."""

    def __init__(self, weight: Tensor, rows: int):
        self.weight, self.rows = weight, rows

    def __call__(self, *given: Tensor, k: int = 1) -> StandInLaw:
        """Return the distributions, as `jointgen.plugin.Law` says."""
        seen = sum((x.flatten(1).sum(1) for x in given), torch.ones(len(given[0]) if given else self.rows))
        mean = torch.as_tensor(seen).to(self.weight.dtype)[:, None] * self.weight
        return StandInLaw(mean.repeat_interleave(k, 0))


def values_of(estimator: Any) -> list[Tensor]:
    """Return fixed values, (5, 3) each, as many as the estimator takes; two where it takes any number."""
    kinds = [p.kind for p in inspect.signature(estimator.__call__).parameters.values()]
    count = sum(k in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for k in kinds)
    return [normal_like(f"value{i}", ROWS, SIZE) for i in range(count or 2)]


def run(subject: Subject, rows: list[int] = ALL, source: NoiseSource | None = None) -> tuple[dict[str, Tensor], Tensor]:
    """Return the weights of the laws by role, and the estimator's term of some rows, with the noise of the source."""
    estimator = subject.config
    weights = {
        role: normal_like(role, SIZE).requires_grad_(role in estimator.trains)
        for role in (*estimator.trains, *estimator.reads)
    }
    laws = {role: LinearLaw(weight, len(rows)) for role, weight in weights.items()}
    values = [value[rows] for value in values_of(estimator)]
    found: Tensor = estimator(*values, noise=source or noise(ROWS), **laws)
    return weights, found


@promise(ESTIMATORS)
def it_says_what_it_trains_and_reads(subject: Subject) -> None:
    trains, reads = subject.config.trains, subject.config.reads
    for name, roles in (("trains", trains), ("reads", reads)):
        expect(isinstance(roles, tuple) and all(isinstance(r, str) for r in roles), f"{name} is no tuple of names")
    roles = [*trains, *reads]
    expect(bool(roles), "it trains and reads nothing; such a term is of the kind 'term'")
    expect(len(set(roles)) == len(roles), f"a name stands twice among {', '.join(roles)}")
    for role, abilities in getattr(subject.config, "needs", {}).items():
        expect(role in roles, f"needs speaks of {role!r}, which it neither trains nor reads")
        expect(set(abilities) <= set(ABILITIES), f"needs {', '.join(abilities)} of {role}; expected {[*ABILITIES]}")


@promise(ESTIMATORS)
def it_is_one_finite_number_per_row(subject: Subject) -> None:
    with no_global_randomness("the estimator"):
        _, found = run(subject)
    expect_shape("the term of 5 rows", found, (ROWS,))
    expect_finite("the term", found)
    expect_close("the term with the same noise again", run(subject)[1], found, 1e-12)
    with torch.no_grad():
        expect_close("the term without gradients", run(subject)[1], found, 1e-12)


@promise(ESTIMATORS)
def it_does_not_mix_rows(subject: Subject) -> None:
    order = [3, 0, 4, 1, 2]
    recorded = Recorded(noise(ROWS))
    weights, whole = run(subject, ALL, recorded)
    _, permuted = run(subject, order, recorded.of_rows(torch.tensor(order)))
    own, alone = run(subject, [2], recorded.of_rows(torch.tensor([2])))
    expect_close("the term of permuted rows is not the permuted term", permuted, whole[order], 1e-9)
    expect_close("the term of a row alone is not its term among others", alone, whole[2:3], 1e-9)
    trained = {role: weights[role] for role in subject.config.trains}
    among, by_itself = gradients(whole[2], trained), gradients(alone[0], {role: own[role] for role in trained})
    for role in trained:
        expect_close(f"the gradient of a row alone to {role}", by_itself[role], among[role], 1e-9)


@promise(ESTIMATORS)
def its_gradient_reaches_what_it_trains(subject: Subject) -> None:
    weights, found = run(subject)
    trained = {role: weights[role] for role in subject.config.trains}
    for role, slope in gradients(found.sum(), trained).items():
        expect_finite(f"the gradient to {role}", slope)
        expect(bool((slope != 0).any()), f"it trains {role!r} and gives it no gradient")
