"""Checks of draws: declared capabilities, shapes, noise, gradient paths, start and views."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jointgen.contracts.distributions import (
    ClosedFormKL,
    HasBinMass,
    HasCodebook,
    HasDensity,
    HasMoments,
    HasValues,
    ScoredDraw,
    StartsAtMean,
    ViewsData,
    log_prob_of_draw,
)
from jointgen.contracts.observation import observe
from jointgen.testing.check import (
    Promises,
    expect,
    expect_close,
    expect_equal,
    expect_finite,
    expect_shape,
    gradients,
    promise,
)
from jointgen.testing.densities import Wave, can_integrate, density, integrable, scored, tolerance_of, waves
from jointgen.testing.laws import Law, has_bins, leaves, scores_any, scores_own
from jointgen.testing.randomness import Recorded, no_global_randomness, noise, normal_like

DRAWS: Promises = []
PATHS, PATHS_AT_ONCE = 6_000, 500  # number of draws whose gradients are averaged, and how many at a time

# --- what is declared ------------------------------------------------------------------------------------------------


@promise(DRAWS)
def capabilities_are_true(law: Law) -> None:
    can, distribution = law.can, law.at(law.built(), law.params(2))
    expect("sample" in can.paths, f"the readings {sorted(can.paths)} lack 'sample', which every draw has")
    expect(
        can.own_density != "none" or can.foreign_density == "none", "a foreign density without an own one is declared"
    )
    draw = distribution.draw(noise(2))
    scored = isinstance(distribution, HasDensity) or isinstance(draw, ScoredDraw)
    if can.own_density == "none":
        expect(not scored, "no density is declared, but there is a log_prob")
    else:
        expect(scored, f"own density {can.own_density!r} is declared, but there is no log_prob")
    if can.foreign_density != "none":
        expect(
            isinstance(distribution, HasDensity),
            f"foreign density {can.foreign_density!r} is declared without log_prob",
        )
    expect(
        not can.kl_to or isinstance(distribution, ClosedFormKL),
        f"KL to {', '.join(can.kl_to)} is declared without kl_to",
    )
    expect(not can.bin_mass or isinstance(distribution, HasBinMass), "bin_mass is declared without log_prob_bins")
    expect(not can.values or isinstance(distribution, HasValues), "values are declared, but there is no values()")
    if can.codes:
        expect(isinstance(distribution, HasCodebook), "codes are declared, but there is no nearest()")
        found = distribution.nearest()
        is_row = found.ndim == 2 and len(found) == 2 and not found.is_floating_point()
        expect(is_row, f"nearest() of 2 rows is {found.dtype} of shape {tuple(found.shape)}, not int64 (2, P)")
        expect(bool(((found >= 0) & (found < can.codes)).all()), f"nearest() is not within 0 to {can.codes - 1}")
    expect(not can.moments or isinstance(distribution, HasMoments), "moments are declared, but there is no moments()")
    if law.is_prior:
        learned = any(True for _ in law.built().parameters())
        held = "parameters" if learned else "no parameters"
        expect(can.trainable == learned, f"trainable is {can.trainable}, but its module has {held}")
    expect(can.noise_input >= 0, f"noise_input is {can.noise_input}, it must be a size or 0")


@promise(DRAWS)
def readings_have_the_shape_of_the_variable(law: Law) -> None:
    draw = law.at(law.built(), law.params(5)).draw(noise(5))
    for reading in law.can.paths:
        value = draw.read(reading)
        expect_shape(f"reading {reading!r} of 5 rows of {law.space}", value, (5, *law.space.shape))
        expect(value.dtype == torch.float64, f"reading {reading!r} of float64 params and noise is {value.dtype}")
        expect_finite(f"reading {reading!r}", value)


@promise(DRAWS)
def draws_lie_in_the_space(law: Law) -> None:
    if law.space.kind == "binary" and scores_own(law):
        bits = law.at(law.built(), law.params(50)).draw(noise(50)).read("sample")
        expect(
            set(bits.unique().tolist()) <= {0.0, 1.0}, f"draws of a binary variable have the values {bits.unique()[:4]}"
        )
    if law.space.kind == "label" and scores_own(law):
        labels = law.at(law.built(), law.params(50)).draw(noise(50)).read("sample")
        hard = (labels == 0).sum(1) == law.space.size - 1
        expect(bool(hard.all()) and bool((labels.sum(1) == 1).all()), f"draws of a label are no one-hot: {labels[:1]}")


@promise(DRAWS)
def declared_paths_are_the_gradients_there_are(law: Law) -> None:
    module, params = law.built(), law.params(3).requires_grad_()
    reached = leaves(module, params)
    draw = law.at(module, params).draw(noise(3))
    for reading, path in law.can.paths.items():
        value = draw.read(reading)
        if path == "none" or not reached:
            expect(not value.requires_grad, f"reading {reading!r} has a gradient, its declared path is {path!r}")
            continue
        expect(value.requires_grad, f"reading {reading!r} has no gradient, its declared path is {path!r}")
        weighted = (value * normal_like("slopes", *value.shape)).sum()
        expect(
            any(bool((g != 0).any()) for g in gradients(weighted, reached).values()),
            f"reading {reading!r} gives every parameter a gradient of zero, its declared path is {path!r}",
        )


@promise(DRAWS)
def gradients_reach_every_parameter_and_every_output_of_the_trunk(law: Law) -> None:
    module, params = law.built(), law.params(6).requires_grad_()
    reached = leaves(module, params)
    total = {name: torch.zeros_like(value) for name, value in reached.items()}
    for value in _everything(law, law.at(module, params)):
        weighted = (value * normal_like("slopes", *value.shape)).sum()
        for name, gradient in gradients(weighted, reached).items():
            total[name] = total[name] + gradient.abs()
    for name, gradient in total.items():
        expect(bool((gradient != 0).any()), f"no gradient of a draw or a density reaches {name!r}")
    if params.numel():
        unused = (total["params"].sum(0) == 0).nonzero()
        expect(not len(unused), f"the trunk's outputs {law.outputs} are not all used, such as {unused[:1].tolist()}")


def _everything(law: Law, distribution: Any) -> Iterator[Tensor]:
    draw = distribution.draw(noise(6))
    yield from (draw.read(reading) for reading in law.can.paths)
    if scores_own(law):
        yield log_prob_of_draw(distribution, draw)
    if scores_any(law):
        yield distribution.log_prob(draw.read("sample").detach())
    if has_bins(law):
        yield distribution.log_prob_bins(draw.read("sample").detach())


@promise(DRAWS, lambda law: can_integrate(law) and law.can.paths.get("sample") == "exact" and not law.is_prior)
def exact_path_is_unbiased(law: Law) -> None:
    """The slope of E[g(sample)] along params is the same through the path and by the integrated density."""
    module, studied = law.built(), integrable(law)[0]
    direction, step = normal_like("direction", *studied.row.shape), 1e-3
    ahead, behind = (density(law, module, studied.row + s * direction, studied.grid.points) for s in (step, -step))
    tried = waves(scored(law)[0][0])[3:]
    slopes = _path_slopes(law, module, studied.row, direction, tried)
    for i, g in enumerate(tried):
        wanted = studied.grid.integral((ahead - behind) * g(studied.grid.points)) / (2 * step)
        limit = 6 * slopes[i].std().item() / math.sqrt(PATHS) + 2 * tolerance_of(law)
        what = f"d E[{g.__doc__}] through the path declared exact, and by the density"
        expect_close(what, slopes[i].mean(), wanted, limit)


def _path_slopes(law: Law, module: nn.Module, row: Tensor, direction: Tensor, tried: Sequence[Wave]) -> Tensor:
    """Return the slopes of g(sample) along a direction of params, each through its own path, (waves, PATHS)."""
    found = []
    for part in range(PATHS // PATHS_AT_ONCE):
        params = row.expand(PATHS_AT_ONCE, *row.shape).clone().requires_grad_()
        sample = law.at(module, params).draw(noise(PATHS_AT_ONCE, f"path {part}")).read("sample")
        each = [gradients(g(sample), {"params": params})["params"] for g in tried]
        found.append((torch.stack(each) * direction).flatten(2).sum(2))
    return torch.cat(found, 1)


# --- noise -----------------------------------------------------------------------------------------------------------


@promise(DRAWS)
def the_same_noise_gives_the_same_draw(law: Law) -> None:
    module, params = law.built(), law.params(4)
    with no_global_randomness("a draw"):
        draws = [law.at(module, params).draw(noise(4, name)) for name in "aab"]
    first, again, other = (draw.read("sample") for draw in draws)
    expect_equal("two draws of the same noise differ", again, first)
    if scores_own(law):
        expect(not torch.equal(first, other), "other noise gives the same draw, though there is a density")


@promise(DRAWS)
def draws_do_not_mix_rows(law: Law) -> None:
    module, params, order = law.built(), law.params(4), torch.tensor([2, 0, 3, 1])
    source = Recorded(noise(4))
    draw = law.at(module, params).draw(source)
    for _, value in source.calls:
        expect(len(value) == 4, f"noise of shape {tuple(value.shape)} has not the 4 rows of the draw")
    permuted = law.at(module, params[order]).draw(source.of_rows(order))
    alone = law.at(module, params[2:3]).draw(source.of_rows(slice(2, 3)))
    for reading in law.can.paths:
        what = f"reading {reading!r} of permuted rows is not the permuted reading"
        expect_close(what, permuted.read(reading), draw.read(reading)[order], 1e-9)
        what = f"reading {reading!r} of a row alone is not its reading among others"
        expect_close(what, alone.read(reading), draw.read(reading)[2:3], 1e-9)


@promise(DRAWS)
def a_draw_stays_when_parameters_move(law: Law) -> None:
    module, params = law.built(), law.params(4)
    draw = law.at(module, params).draw(noise(4))
    before = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    wanted = law.at(before, params).draw(noise(4)).read("sample")
    expect_equal("the sample of a draw changed with its parameters, after it was drawn", draw.read("sample"), wanted)


# --- optional methods of the module ----------------------------------------------------------------------------------


@promise(DRAWS, lambda law: not law.is_prior and isinstance(law.built(), StartsAtMean))
def start_at_brings_the_mean_to_the_datas(law: Law) -> None:
    low, high = law.space.range or (0.0, 1.0)
    target = low + (high - low) * (0.2 + 0.6 * noise(1).uniform(*law.space.shape)[0])
    target = target / target.sum() if law.space.kind == "label" else target  # shares of the classes
    module: Any = law.config.build(law.space).double()
    zero = torch.zeros(1, *law.outputs, dtype=torch.float64)
    reading = "mean" if "mean" in law.can.paths else "sample"

    def apart() -> float:
        return (law.at(module, zero).draw(noise(1)).read(reading)[0] - target).abs().max().item()

    before = apart()
    module.start_at(target)
    expect(
        apart() < max(0.5 * before, 0.01 * (high - low)),
        f"after start_at(mean) the reading {reading!r} of zeros is {apart():.3g} from it, before it was {before:.3g}",
    )


@promise(DRAWS, lambda law: not law.is_prior and isinstance(law.built(), ViewsData))
def views_of_data_match_the_readings(law: Law) -> None:
    module: Any = law.built()
    bins = law.space.bins or 2
    for reading in set(law.can.paths) - {"sample", "mean"}:
        levels = (noise(5).uniform(*law.space.shape) * bins).floor()
        if law.space.kind == "label":
            levels = (noise(5).uniform() * law.space.size).long()
        raw = levels if law.space.kind != "real" or law.space.bins else noise(5).normal(*law.space.shape)
        data = observe(law.space, raw, noise(5, "observe"))
        value = module.view(reading, data, noise(5, "view"))
        expect_shape(f"view({reading!r}) of 5 rows of data", value, (5, *law.space.shape))
        expect_finite(f"view({reading!r}) of data", value)
