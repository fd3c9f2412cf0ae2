"""Checks of reductions: of their figure, and of the gradient that some of them make themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jointgen.contracts.reductions import ChecksDraws, GradientReduction, TermDraws, WeightedReduction
from jointgen.errors import ConfigError
from jointgen.testing.check import Promises, expect, expect_close, expect_finite, expect_shape, gradients, promise
from jointgen.testing.critics import Subject
from jointgen.testing.randomness import no_global_randomness, normal_like

REDUCTIONS: Promises = []

ROWS, SIZE = 4, 3
ALL_ROWS = slice(None)


def draws_of(reduction: Any) -> int:
    """Return a number of draws that the reduction takes."""
    for k in (8, 5, 12, 2, 1):
        try:
            if isinstance(reduction, ChecksDraws):
                reduction.check_draws(k)
        except ConfigError:
            continue
        return k
    raise AssertionError("it takes neither 8 draws, nor 5, 12, 2 or 1")


def values(reduction: Any) -> Tensor:
    """Return fixed values of a term, (4, K)."""
    return 3 * normal_like("terms", ROWS, draws_of(reduction))


def is_gradient_reduction(subject: Subject) -> bool:
    """Return whether the reduction makes its gradient itself."""
    return isinstance(subject.config, GradientReduction)


@promise(REDUCTIONS)
def figure_is_one_number_per_row(subject: Subject) -> None:
    with no_global_randomness("the reduction"):
        found = subject.config(values(subject.config))
    expect_shape("the figure of 4 rows", found, (ROWS,))
    expect_finite("the figure", found)
    expect_finite("the figure of values of 500 nats", subject.config(500 * values(subject.config).sign()))


@promise(REDUCTIONS)
def figure_does_not_mix_rows(subject: Subject) -> None:
    terms = values(subject.config)
    alone = subject.config(terms[2:3])
    expect_close("the figure of a row alone is not its figure among others", alone, subject.config(terms)[2:3], 1e-9)


@promise(REDUCTIONS, lambda subject: isinstance(subject.config, WeightedReduction))
def weights_are_repetitions(subject: Subject) -> None:
    """Equal weights are none, and a value of weight 2/(K + 1) counts as if it stood there twice."""
    terms = values(subject.config)
    k = terms.shape[1]
    equal = torch.full_like(terms, 1 / k).log()
    expect_close("the figure with equal weights", subject.config.weighted(terms, equal), subject.config(terms), 1e-9)
    twice = torch.cat([terms, terms[:, :1]], 1)
    weights = torch.full_like(terms, 1 / (k + 1))
    weights[:, 0] *= 2
    found = subject.config.weighted(terms, weights.log())
    expect_close("the figure with a value of twice the weight", found, subject.config(twice), 1e-9)


@promise(REDUCTIONS, lambda subject: not is_gradient_reduction(subject))
def figure_has_a_finite_gradient(subject: Subject) -> None:
    terms = values(subject.config).requires_grad_()
    found = gradients(subject.config(terms), {"terms": terms})["terms"]
    expect_finite("the gradient in the values", found)
    expect(bool((found != 0).any()), "the figure has no gradient in the values")


# --- gradients of their own ------------------------------------------------------------------------------------------


def surrogate_gradients(subject: Subject, rows: slice = ALL_ROWS) -> dict[str, Tensor]:
    """Return the gradient of the surrogate, summed over rows, in the draws, their paths, densities and a parameter."""
    reduction, k = subject.config, draws_of(subject.config)

    def drawn(name: str, *shape: int) -> Tensor:
        return normal_like(name, ROWS, k, *shape)[rows]

    point = drawn("draws", SIZE).flatten(0, 1).requires_grad_()
    path = point.detach().clone().requires_grad_()
    parameter, density = torch.ones((), dtype=point.dtype, requires_grad=True), drawn("density").requires_grad_()
    terms = parameter * drawn("terms") - (point - 0.5).square().sum(1).unflatten(0, (-1, k))
    paths = {"z": path} if reduction.needs_path else {}
    draws = TermDraws(terms, {"z": point}, paths, density if reduction.needs_density else None)
    found = reduction.surrogate(draws)
    expect_shape(f"the surrogate of {len(terms)} rows", found, (len(terms),))
    return gradients(found, {"path": path, "density": density, "parameter": parameter})


@promise(REDUCTIONS, is_gradient_reduction)
def surrogate_reaches_what_it_declares(subject: Subject) -> None:
    reduction = subject.config
    for name in ("needs_path", "needs_density", "holds_draws"):
        expect(isinstance(getattr(reduction, name), bool), f"{name} is no bool")
    expect(isinstance(reduction.gradient, str) and reduction.gradient, "gradient does not say what the gradient is")
    found = surrogate_gradients(subject)
    for name, value in found.items():
        expect_finite(f"the surrogate's gradient to the {name}", value)
    expect(bool(found["parameter"] != 0), "what is no draw, such as a decoder, gets no gradient through the term")
    for name, declared in (("path", reduction.needs_path), ("density", reduction.needs_density)):
        expect(
            bool((found[name] != 0).any()) == declared, f"needs_{name} is {declared}, and the gradient says otherwise"
        )


@promise(REDUCTIONS, is_gradient_reduction)
def surrogate_does_not_mix_rows(subject: Subject) -> None:
    whole, alone = surrogate_gradients(subject), surrogate_gradients(subject, slice(2, 3))
    k = draws_of(subject.config)
    for name, rows in (("path", slice(2 * k, 3 * k)), ("density", slice(2, 3))):
        expect_close(
            f"the {name}'s gradient in a row alone is not that among others", alone[name], whole[name][rows], 1e-9
        )
