"""Checks of densities: one number per row, an integral of 1, agreement with the draws, and right gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from jointgen.contracts.distributions import Distribution, ScoredDraw, log_prob_of_draw
from jointgen.testing.check import Promises, expect, expect_close, expect_finite, expect_shape, gradients, promise, skip
from jointgen.testing.laws import Law, can_integrate, has_grid, is_line, leaves, scores_any, scores_own
from jointgen.testing.quadrature import Grid, grid_of, panel_masses
from jointgen.testing.randomness import Recorded, Replayed, noise

DENSITIES: Promises = []
MANY = 8_000  # number of draws
KOLMOGOROV_LIMIT = 2.7
"""sqrt(n) times a Kolmogorov-Smirnov distance exceeds it with probability 2 exp(-2 x 2.7^2) = 9e-7."""
Wave = Callable[[Tensor], Tensor]
ROWS = 2  # number of rows of params that are integrated


def density(law: Law, module: nn.Module, row: Tensor, points: Tensor) -> Tensor:
    """Return the densities of points, (N, *shape) -> (N,), under the distribution of one row of params."""
    with torch.no_grad():  # in parts: some families take K x K numbers for each point
        parts = [law.at(module, row.expand(len(part), *row.shape)).log_prob(part) for part in points.split(2_000)]
        return torch.cat(parts).exp()


@attrs.frozen
class Studied:
    """A grid and the density on it, for the distribution of one row of params.

    Args:
        row: The row of params.
        grid: The grid.
        values: The densities at the grid's points.
    """

    row: Tensor
    grid: Grid
    values: Tensor


def integrable(law: Law) -> list[Studied]:
    """Return the density on a grid for each of ROWS distributions, computed once."""

    def study() -> list[Studied]:
        module = law.built()
        grids = [(row, grid_of(law, module, row)) for row in law.params(ROWS)]
        return [Studied(row, grid, density(law, module, row, grid.points)) for row, grid in grids]

    return law.remembered("grids", study)


def scored(law: Law) -> list[tuple[Tensor, Tensor]]:
    """Return samples, (MANY, *shape), and their log-densities, (MANY,), of the same distributions, computed once."""

    def draw() -> list[tuple[Tensor, Tensor]]:
        module = law.built()
        return [_scored(law.at(module, row.expand(MANY, *row.shape))) for row in law.params(ROWS)]

    return law.remembered("draws", draw)


@torch.no_grad()
def _scored(distribution: Distribution) -> tuple[Tensor, Tensor]:
    draw = distribution.draw(noise(MANY, "many"))
    return draw.read("sample"), log_prob_of_draw(distribution, draw)


def tolerance_of(law: Law) -> float:
    """Return the error that the grid may have."""
    return 1e-3 if law.space.size == 1 or law.space.kind != "real" else 5e-3


# --- what a density is -----------------------------------------------------------------------------------------------


@promise(DENSITIES, scores_own)
def log_prob_is_one_number_per_row(law: Law) -> None:
    distribution = law.at(law.built(), law.params(5))
    found = log_prob_of_draw(distribution, distribution.draw(noise(5)))
    expect_shape("log_prob of 5 rows", found, (5,))
    expect_finite("log_prob of the distribution's own draws", found)


@promise(DENSITIES, scores_any)
def log_prob_does_not_mix_rows(law: Law) -> None:
    module, params, order = law.built(), law.params(5), torch.tensor([3, 0, 4, 1, 2])
    value = law.at(module, params.flip(0)).draw(noise(5)).read("sample").detach()
    found = law.at(module, params).log_prob(value)
    permuted = law.at(module, params[order]).log_prob(value[order])
    expect_close("log_prob of permuted rows is not the permuted log_prob", permuted, found[order], 1e-9)
    alone = law.at(module, params[2:3]).log_prob(value[2:3])
    expect_close("log_prob of a row alone is not its log_prob among others", alone, found[2:3], 1e-9)


@promise(DENSITIES, lambda law: bool(law.can.each_density))
def densities_of_dimensions_are_independent_and_sum_to_the_density(law: Law) -> None:
    module, params = law.built(), law.params(5)
    value, other = (law.at(module, params).draw(noise(5, name)).read("sample").detach() for name in ("one", "other"))
    laws = law.at(module, params)
    each = laws.log_prob_each(value)
    expect_shape("log_prob_each of 5 rows", each, (5, *law.space.shape))
    expect_close("the sum of log_prob_each over dimensions", each.flatten(1).sum(1), laws.log_prob(value), 1e-9)
    changed = torch.cat([other.flatten(1)[:, :1], value.flatten(1)[:, 1:]], 1).view_as(value)
    rest = laws.log_prob_each(changed).flatten(1)[:, 1:]
    expect_close("log_prob_each of a dimension where another one changes", rest, each.flatten(1)[:, 1:], 1e-12)


@promise(DENSITIES, can_integrate)
def density_integrates_to_one(law: Law) -> None:
    for one in integrable(law):
        is_finite = law.space.kind in ("binary", "label")
        what = "sum of exp(log_prob) over all values" if is_finite else "integral of exp(log_prob)"
        expect_close(what, one.grid.integral(one.values), 1.0, tolerance_of(law))


@promise(DENSITIES, lambda law: can_integrate(law) and is_line(law))
def draws_have_the_distribution_function_of_the_density(law: Law) -> None:
    for one, (samples, _) in zip(integrable(law), scored(law), strict=True):
        below = panel_masses(one.grid, one.values).cumsum(0)
        counted = torch.searchsorted(samples.flatten().sort().values, one.grid.edges[1:], right=True) / MANY
        apart = (counted - below).abs().max().item()
        limit = KOLMOGOROV_LIMIT / math.sqrt(MANY) + tolerance_of(law)
        expect(
            apart < limit,
            f"the distribution function of {MANY} draws is {apart:.4f} from the density's (at most {limit:.4f})",
        )


@promise(DENSITIES, can_integrate)
def expectations_under_draws_are_those_under_the_density(law: Law) -> None:
    for one, (samples, _) in zip(integrable(law), scored(law), strict=True):
        for g in waves(samples):
            found, wanted = g(samples), one.grid.integral(one.values * g(one.grid.points))
            limit = 6 * found.std().item() / math.sqrt(MANY) + tolerance_of(law)
            expect_close(f"E[{g.__doc__}] over {MANY} draws and by the density", found.mean(), wanted, limit)


def waves(samples: Tensor) -> list[Wave]:
    """Return bounded smooth functions, (N, *shape) -> (N,), on the scale of the samples."""
    flat = samples.flatten(1)
    centre, spread = flat.mean(0), flat.std(0) + 1e-3

    def wave(frequency: float, phase: float) -> Wave:
        signs = torch.where(torch.arange(flat.shape[1]) % 2 == 0, 1.0, phase)

        def g(z: Tensor) -> Tensor:
            return torch.cos(((z.flatten(1) - centre) / spread * signs).sum(1) * frequency + phase)

        g.__doc__ = f"cos({frequency:g} u + {phase:g})"
        return g

    return [wave(frequency, phase) for frequency in (0.5, 1.0, 2.0) for phase in (0.0, 1.2)]


@promise(DENSITIES, lambda law: scores_own(law) and law.space.kind == "real" and law.space.size <= 2)
def own_densities_weigh_draws_rightly(law: Law) -> None:
    """E_q[h(z) / q(z)] = 1 for a density h inside the support of q, so that q is normalised at its own draws."""
    for z, log_q in scored(law):
        weights = bump(z.flatten(1)) / log_q.exp()
        limit = 6 * weights.std().item() / math.sqrt(MANY) + 1e-3
        expect_close(f"E[h(z) / q(z)] over {MANY} draws of q, h a density", weights.mean(), 1.0, limit)


def bump(z: Tensor) -> Tensor:
    """Return a product of raised cosines between the 20 % and 80 % quantiles, which integrates to 1, (N, D) -> (N,)."""
    low, high = torch.quantile(z, torch.tensor([0.2, 0.8], dtype=z.dtype), dim=0)
    centre, half = (low + high) / 2, (high - low) / 2
    u = (z - centre) / half
    return torch.where(u.abs() < 1, (1 + torch.cos(math.pi * u)) / (2 * half), 0.0).prod(1)


@promise(DENSITIES, lambda law: bool(law.can.values))
def values_are_all_that_the_variable_can_take(law: Law) -> None:
    module = law.built()
    for row in law.params(ROWS):
        values = law.at(module, row[None]).values()
        expect_shape("values()", values, (law.can.values, *law.space.shape))
        expect(len(values.unique(dim=0)) == len(values), "values() lists a value twice")
        total = density(law, module, row, values).sum()
        expect_close("the sum of exp(log_prob) over values()", total, 1.0, 1e-9)


# --- what else a distribution may offer ------------------------------------------------------------------------------


def scores_itself(law: Law) -> bool:
    """Return whether the draws of a law know their own density."""
    return scores_own(law) and isinstance(law.at(law.built(), law.params(1)).draw(noise(1)), ScoredDraw)


@promise(DENSITIES, lambda law: scores_any(law) and scores_itself(law))
def a_draws_own_log_prob_is_that_of_its_distribution(law: Law) -> None:
    module, params = law.built(), law.params(5).requires_grad_()
    distribution = law.at(module, params)
    draw = distribution.draw(noise(5))
    own, other = draw.log_prob(), distribution.log_prob(draw.read("sample"))
    expect_close("draw.log_prob() and log_prob(draw.read('sample'))", own, other, 1e-5)
    reached = leaves(module, params)
    wanted = gradients(other, reached)
    for name, gradient in gradients(own, reached).items():
        what = f"the total gradient to {name} of draw.log_prob() and of log_prob(draw.read('sample'))"
        expect_close(what, gradient, wanted[name], 1e-4)


@promise(DENSITIES, lambda law: scores_own(law) and law.space.kind == "real" and law.can.paths.get("sample") == "exact")
def log_prob_has_the_log_determinant_of_the_draw(law: Law) -> None:
    """The density satisfies log q(z) + log|det dz/deps| = log N(eps; 0, I), or 0 for uniform eps of the size of z."""
    module, params = law.built(), law.params(3)
    source = Recorded(noise(3))
    distribution = law.at(module, params)
    draw = distribution.draw(source)
    if [value[0].numel() for _, value in source.calls] != [law.space.size]:
        skip("the noise of a draw is not one number for each of its dimensions")
    ((kind, eps),) = source.calls
    log_det = torch.stack([log_det_of_row(law, module, params[i : i + 1], eps[i : i + 1]) for i in range(3)])
    wanted = -0.5 * (eps**2 + math.log(2 * math.pi)).flatten(1).sum(1) if kind == "normal" else torch.zeros(3)
    found = log_prob_of_draw(distribution, draw) + log_det
    expect_close(f"log_prob + log|det d draw / d noise|, against the {kind} noise's log density", found, wanted, 1e-5)


def log_det_of_row(law: Law, module: nn.Module, params: Tensor, eps: Tensor) -> Tensor:
    """Return log|det d draw / d noise| for one row of params, by autograd."""

    def sample(flat: Tensor) -> Tensor:
        source = Replayed([flat.reshape(eps.shape)])
        return law.at(module, params).draw(source).read("sample").flatten()

    jacobian: Any = torch.autograd.functional.jacobian(sample, eps.flatten())
    return torch.linalg.slogdet(jacobian).logabsdet


# --- gradients -------------------------------------------------------------------------------------------------------


def expect_gradients(what: str, f: Callable[..., Tensor], inputs: dict[str, Tensor]) -> None:
    """Expect gradients to agree with finite differences, in float64."""
    values = [value.detach().clone().requires_grad_() for value in inputs.values()]
    try:
        torch.autograd.gradcheck(f, values, eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True, nondet_tol=1e-9)
    except RuntimeError as error:  # torch.autograd.gradcheck.GradcheckError
        raise AssertionError(
            f"the gradient of {what} to {', '.join(inputs)} is not its slope by finite differences: {error}"
        ) from error


def parametrised(law: Law, method: str, module: nn.Module, names: list[str]) -> Callable[..., Tensor]:
    """Return a method of the distribution as a function (params, value, *own parameters) -> (B,)."""

    def f(params: Tensor, value: Tensor, *own: Tensor) -> Tensor:
        call = _Calling(law, module, method)
        given = {f"module.{name}": tensor for name, tensor in zip(names, own, strict=True)}
        return torch.func.functional_call(call, given, (params, value))

    return f


class _Calling(nn.Module):
    """A module that calls a method of the distribution, so that functional_call can replace the parameters."""

    def __init__(self, law: Law, module: nn.Module, method: str):
        super().__init__()
        self.law, self.module, self.method = law, module, method

    def forward(self, params: Tensor, value: Tensor) -> Tensor:
        return getattr(self.law.at(self.module, params), self.method)(value)


def expect_slopes(law: Law, method: str) -> None:
    """Expect the gradients of a method of the distribution to agree with finite differences."""
    module, params = law.built(), law.params(2)
    value = law.at(module, params.flip(0)).draw(noise(2, "gradients")).read("sample").detach()
    own = dict(module.named_parameters())
    inputs = {"params": params, "the value": value, **own}
    expect_gradients(method, parametrised(law, method, module, list(own)), inputs)


@promise(DENSITIES, scores_any)
def gradients_of_log_prob_are_its_slopes(law: Law) -> None:
    expect_slopes(law, "log_prob")


@promise(DENSITIES, lambda law: scores_own(law) and has_grid(law))
def own_densities_of_many_draws_are_finite(law: Law) -> None:
    for _, log_q in scored(law):
        expect_finite("log_prob of the distribution's own draws", log_q)
