"""Checks of the modules that families and priors build: state, precision, extremes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor, nn

from jointgen.contracts.distributions import log_prob_of_draw
from jointgen.errors import JointgenError
from jointgen.testing.check import Promises, expect, expect_close, expect_equal, expect_finite, gradients, promise
from jointgen.testing.laws import Law, has_bins, leaves, scores_any, scores_own
from jointgen.testing.randomness import noise

MODULES: Promises = []

# --- state -----------------------------------------------------------------------------------------------------------


def results(law: Law, module: nn.Module, params: Tensor) -> list[Tensor]:
    """Return everything that a module computes from fixed params and noise."""
    distribution = law.at(module, params)
    draw = distribution.draw(noise(len(params), dtype=params.dtype))
    found = [draw.read(reading) for reading in law.can.paths]
    if scores_own(law):
        found.append(log_prob_of_draw(distribution, draw))
    if scores_any(law):
        found.append(distribution.log_prob(draw.read("sample").detach()))
    return found


@promise(MODULES)
def state_survives_a_round_trip_and_a_copy(law: Law) -> None:
    module, params = law.built(), law.params(4)
    wanted = results(law, module, params)
    other = law.fresh().double()
    other.load_state_dict(module.state_dict())
    for name, again in (("loaded from its state_dict", other), ("deep-copied", copy.deepcopy(module))):
        for one, two in zip(results(law, again, params), wanted, strict=True):
            expect_equal(f"a module {name} computes something else", one, two)


@promise(MODULES)
def training_and_evaluation_agree(law: Law) -> None:
    module, params = law.built(), law.params(4)
    wanted = results(law, module.train(), params)
    for one, two in zip(results(law, module.eval(), params), wanted, strict=True):
        expect_equal("train() and eval() give different results", one, two)


# --- precision and extremes ------------------------------------------------------------------------------------------


@promise(MODULES)
def float32_is_near_float64_and_bfloat16_is_finite(law: Law) -> None:
    exact = results(law, law.built(), law.params(8).to(torch.bfloat16).double())
    module = law.built(torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        params = law.params(8).to(torch.bfloat16).to(dtype)
        distribution = law.at(module, params)
        draw = distribution.draw(noise(8, dtype=torch.float32))
        for reading in law.can.paths:
            value = draw.read(reading)
            allowed = {torch.float32, dtype}
            expect(value.dtype in allowed, f"reading {reading!r} of {dtype} params is {value.dtype}")
            expect_finite(f"reading {reading!r} of {dtype} params", value)
        if scores_own(law):
            expect_finite(f"log_prob of {dtype} params", log_prob_of_draw(distribution, draw))
    if scores_any(law):
        sample = exact[list(law.can.paths).index("sample")].detach()
        params = law.params(8).to(torch.bfloat16)
        wanted = law.at(law.built(), params.double()).log_prob(sample)
        found = law.at(module, params.float()).log_prob(sample.float())
        expect(found.dtype == torch.float32, f"log_prob of float32 params and values is {found.dtype}")
        expect_close("log_prob in float32 and in float64", found, wanted, 1e-3)


SIZES = (0.0, 1e-6, 1.0, 30.0, 1e4)  # of extreme params


def extreme_params(law: Law) -> Tensor:
    """Return huge, tiny and zero params, of one sign and of both, (N, *outputs) float32."""
    signs = [1.0, -1.0]
    rows = [torch.full(law.outputs, sign * size) for size, sign in product(SIZES, signs)]
    alternating = torch.ones(math.prod(law.outputs))
    alternating[1::2] = -1.0
    rows += [size * sign * alternating.reshape(law.outputs) for size, sign in product(SIZES[1:], signs)]
    return torch.stack(rows)


def extreme_values(law: Law, rows: int) -> list[Tensor]:
    """Return the ends of the variable's range, or values far out if it has none, (rows, *shape) each."""
    space = law.space
    if space.kind == "binary" or space.kind == "label":
        ends = [0.0, 1.0]
    elif space.range is not None:
        low, high = space.range
        ends = [low, (low + high) / 2, high]
    else:
        ends = [-1e4, -1e-6, 0.0, 1e4]
    return [torch.full((rows, *space.shape), end) for end in ends]


@promise(MODULES)
def extremes_are_finite(law: Law) -> None:
    """Huge, tiny or saturated params and values give finite results and gradients in float32, or an error."""
    module, params = law.built(torch.float32), extreme_params(law).requires_grad_()
    reached = leaves(module, params)
    try:
        for what, value in _extremes(law, module, params):
            expect_finite(f"{what} at params of sizes {SIZES}", value)
            for name, gradient in gradients(value, reached).items():
                expect(
                    not gradient.isnan().any(), f"the gradient of {what} to {name} is NaN at params of sizes {SIZES}"
                )
    except (JointgenError, ValueError):  # a clear refusal will do
        return


def _extremes(law: Law, module: nn.Module, params: Tensor) -> Iterator[tuple[str, Tensor]]:
    rows = len(params)
    distribution = law.at(module, params)
    draw = distribution.draw(noise(rows, dtype=torch.float32))
    yield from ((f"reading {reading!r}", draw.read(reading)) for reading in law.can.paths)
    if scores_own(law):
        yield "log_prob of own draws", log_prob_of_draw(distribution, draw)
    for value in extreme_values(law, rows) if scores_any(law) else ():
        yield f"log_prob({value.flatten()[0].item():g})", distribution.log_prob(value)
    for value in extreme_values(law, rows) if has_bins(law) else ():
        yield f"log_prob_bins({value.flatten()[0].item():g})", distribution.log_prob_bins(value)
