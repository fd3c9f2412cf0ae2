"""Checks of families that know the mean and the (co)variance of their draws."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from jointgen.testing.check import Promises, expect, expect_close, expect_finite, expect_shape, gradients, promise
from jointgen.testing.densities import MANY, ROWS
from jointgen.testing.laws import Law, leaves
from jointgen.testing.randomness import noise

MOMENTS: Promises = []
MAX_ERRORS = 6.0  # a mean of draws may be so far from the truth


def has_moments(law: Law) -> bool:
    """Return whether the law knows its moments."""
    return law.can.moments


def matched(law: Law, row: Tensor, rows: int) -> Any:
    """Return the matched Gaussian of one row of params, repeated."""
    with torch.no_grad():
        return law.at(law.built(), row.expand(rows, *row.shape)).moments()


@promise(MOMENTS, has_moments)
def moments_are_numbers_without_a_gradient(law: Law) -> None:
    module, params = law.built(), law.params(5).requires_grad_()
    reached = leaves(module, params)
    distribution = law.at(module, params)
    value = distribution.draw(noise(5, "value")).read("sample").detach().requires_grad_()
    gaussian = distribution.moments()
    draw = gaussian.draw(noise(5))
    parts = {
        "draw(noise).read('sample')": (draw.read("sample"), value.shape),
        "draw(noise).read('mean')": (draw.read("mean"), value.shape),
        "standardize(value)": (gaussian.standardize(value), value.shape),
        "log_prob(value)": (gaussian.log_prob(value), (5,)),
    }
    for name, (found, shape) in parts.items():
        what = f"moments().{name} of 5 rows"
        expect_shape(what, found, shape)
        expect_finite(what, found)
        for of, gradient in gradients(found, reached).items():
            expect(not gradient.any(), f"{what} has a gradient to {of}; moments are numbers, without one")
        if found.ndim > 1 and name.startswith("standardize"):
            expect(bool(gradients(found, {"value": value})["value"].any()), f"{what} has no gradient to the value")


@promise(MOMENTS, has_moments)
def moments_are_those_of_many_draws(law: Law) -> None:
    """The mean and the variances agree, and the correlations if the Gaussian has some."""
    for row in law.params(ROWS):
        module, gaussian = law.built(), matched(law, row, MANY)
        samples = law.draws(module, row, MANY, "moments")
        mean = gaussian.draw(noise(MANY)).read("mean")
        expect_mean_of(f"mean of {MANY} draws and of their moments()", samples - mean, 0.0)
        unit = gaussian.standardize(samples).flatten(1)
        what = f"of {MANY} draws in the units of their moments()"
        slopes = _slopes_of_units(law, row)
        if not torch.equal(slopes, torch.diag(slopes.diagonal())):
            expect_mean_of(f"covariance {what}", _products(unit), 0.0)
        expect_mean_of(f"variance {what}", unit**2, 1.0)


@promise(MOMENTS, has_moments)
def moments_are_a_gaussian_in_its_own_units(law: Law) -> None:
    """With u = standardize(v): log_prob(v) = log N(u; 0, I) + log|det du/dv|, and u ~ N(0, I) for its own draws."""
    for row in law.params(ROWS):
        gaussian = matched(law, row, MANY)
        with torch.no_grad():
            draw = gaussian.draw(noise(MANY, "matched"))
            value = draw.read("sample")
            unit = gaussian.standardize(value).flatten(1)
            at_mean = gaussian.standardize(draw.read("mean"))
        volume = torch.linalg.slogdet(_slopes_of_units(law, row)).logabsdet
        wanted = -0.5 * (unit**2 + math.log(2 * math.pi)).sum(1) + volume
        expect_close(
            "log_prob of moments(), and log N(u; 0, I) + log|det du/dv|", gaussian.log_prob(value), wanted, 1e-6
        )
        expect_close("moments().standardize(mean)", at_mean, torch.zeros(()), 1e-9)
        what = f"{MANY} draws of moments() in its own units"
        expect_mean_of(f"mean of {what}", unit, 0.0)
        expect_mean_of(f"variance of {what}", unit**2, 1.0)
        expect_mean_of(f"covariance of {what}", _products(unit), 0.0)


def expect_mean_of(what: str, each: Tensor, wanted: float) -> None:
    """Expect the mean of (N, ...) numbers within so many of its standard errors that chance does not explain more."""
    flat = each.flatten(1)
    for column in flat.T:
        expect_close(what, column.mean(), wanted, MAX_ERRORS * column.std().item() / math.sqrt(len(column)) + 1e-9)


def _products(unit: Tensor) -> Tensor:
    """Return the products of every two numbers of a row, (N, D) -> (N, D (D - 1) / 2)."""
    first, second = torch.triu_indices(unit.shape[1], unit.shape[1], offset=1)
    return unit[:, first] * unit[:, second]


def _slopes_of_units(law: Law, row: Tensor) -> Tensor:
    """Return du/dv, which is the same at every v, (D, D)."""
    gaussian = matched(law, row, 1)

    def unit(flat: Tensor) -> Tensor:
        return gaussian.standardize(flat.reshape(1, *law.space.shape)).flatten()

    slopes: Tensor = torch.autograd.functional.jacobian(unit, torch.zeros(law.space.size, dtype=torch.float64))
    return slopes
