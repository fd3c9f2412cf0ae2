"""Balanced weights: their value by hand, what they do to a step, what they leave alone, and mistakes."""

from __future__ import annotations

import itertools
import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from jointgen_asvae.objective import ASVAE
from jointgen_critics.penalties import R1
from jointgen_families.bernoulli import Bernoulli
from jointgen_families.gaussian import Gaussian
from support.models import assemble, make_step, small_model
from support.networks import GaussianDraw, StandardNormal
from support.noise import WrittenNoise
from support.paths import QUICKSTART
from support.runs import stop_after, train_small
from torch import Tensor, nn

from jointgen.compiler.balanced_weights import balances_of
from jointgen.compiler.compiled_recipe import compile_recipe as compiled
from jointgen.compiler.gradient_paths import PartTraits
from jointgen.compiler.parts import ConditionalPart
from jointgen.config.recipe import read_recipe, write_recipe
from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.data.step_inputs import StepInputs
from jointgen.engine import balance_meter
from jointgen.engine.balance_scales import BalanceScales
from jointgen.engine.step import Step
from jointgen.errors import ConfigError, StoppedError
from jointgen.objectives import (
    BalanceTable,
    CriticTable,
    E,
    Expr,
    Objective,
    Weight,
    WeightTable,
    elbo,
    exp,
    log_ratio,
    p,
    q,
    stop,
    table_of,
    weight_of,
)
from jointgen.registry.components import Registry
from jointgen.reports.explain.explain import explain
from jointgen.runs import checkpoint
from jointgen.runtime.workers import Workers

DOUBLE = torch.float64

d = log_ratio(p.x, q.x, name="d")


def half(r: float = 0.5, **more: Any) -> Weight:
    return Weight("lambda", r, against=p.log_x_given_z, **more)


def objective(weight: float | Weight, critic: Expr = d) -> Objective:
    return Objective.of(elbo(q, p) - E(p.xz, weight * critic))


# --- closed forms: a linear decoder, a linear critic -----------------------------------------------------------------

Z = torch.tensor([[0.3], [-1.2], [0.8], [2.0]], dtype=DOUBLE)  # eps of q(z|x), whose mean is 0 and scale 1: z itself
X = 5 + Z.roll(1, 0)  # above every mean below


class Linear(nn.Module):
    """slope * z + offset in each of `size` dimensions."""

    def __init__(self, slope: float, offset: float, size: int):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=DOUBLE))
        self.offset = nn.Parameter(torch.full((size,), offset, dtype=DOUBLE))

    def forward(self, z: Tensor) -> Tensor:
        return self.slope * z + self.offset


class Code(nn.Module):
    """q(z|x) = N(0, 1) whatever x is."""

    def forward(self, x: Tensor, k: int = 1) -> GaussianDraw:
        return GaussianDraw(x.new_zeros(len(x) * k, 1), x.new_zeros(()))


class Plane(nn.Module):
    """slope * the sum of the inputs' entries."""

    def __init__(self, slope: float):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=DOUBLE))

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * x.sum(1)


@attrs.frozen
class Toy:
    """x in `size` equal dimensions, p(x|z) = N(0.7 z - 0.4, scale^2), d(x) = slope * sum(x), q(z|x) = N(0, 1)."""

    size: int = 1
    scale: float = 0.5
    slope: float = 1.3

    def __call__(self, made: Objective, moments: int = 1, **more: Any) -> tuple[Any, dict[str, Tensor]]:
        """(the decoder's network with the gradients of the last step, its figures)."""
        family = Gaussian(scale="fixed", init_scale=self.scale).build(Space((self.size,)))
        decoder = ConditionalPart(Linear(0.7, -0.4, self.size), family)
        modules = {"encoder": Code(), "prior": StandardNormal()}
        modules |= {"decoder": decoder, "d": Plane(self.slope)}
        plan, parts = assemble(made, modules, spaces={"x": Space((self.size,))})
        step = make_step(plan, parts, 0.0, **more)
        eps = {"q(z|x)": Z, "p(z)": Z.flip(0), "p(x|z)": Z.expand(-1, self.size)}
        rows = {"data": {"x": X.expand(-1, self.size)}}
        for number in range(moments):
            moment = StepInputs(rows, WrittenNoise(eps), len(X), number)
            figures = step(lambda r, moment=moment: moment)
        return decoder.trunk, figures


@pytest.fixture
def toy() -> Toy:
    return Toy()


def residuals() -> Tensor:
    return X - (0.7 * Z - 0.4)


@pytest.mark.parametrize("size", [1, 9])
def test_the_weight_of_a_linear_model(size: int, toy: Toy) -> None:
    """|d log p(x|z) / d mean| = sqrt(D) |x - mean| / scale^2 and |d d(x) / d mean| = sqrt(D) slope in every row, so
    lambda = 0.5 E|x - mean| / (scale^2 slope)."""
    _, figures = attrs.evolve(toy, size=size)(objective(half()))
    wanted = 0.5 * residuals().abs().mean() / (0.5**2 * 1.3)
    assert float(figures["weight/lambda"]) == pytest.approx(float(wanted), rel=1e-12)


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize("scale", [0.01, 3.0])
@pytest.mark.parametrize("slope", [1e-4, 7.0])
def test_one_r_is_one_pull_at_any_scale(size: int, scale: float, slope: float, toy: Toy) -> None:
    """The likelihood's gradient of an offset is E(x - mean) / scale^2 > 0; the critic's goes the other way and is r of
    it, whatever the critic's slope, the likelihood's scale and the number of dimensions."""
    made = attrs.evolve(toy, size=size, scale=scale, slope=slope)
    trunk, _ = made(objective(half(0.25)))
    wanted = -(1 - 0.25) * residuals().mean() / scale**2  # of the loss that is minimised
    torch.testing.assert_close(trunk.offset.grad, wanted.expand(size), rtol=1e-10, atol=0)


def test_what_it_multiplies_may_be_multiplied(toy: Toy) -> None:
    """Seven times the logit: a seventh of the weight and the same gradient. A plain weight is told apart by it."""
    trunks, figures = zip(*(attrs.evolve(toy, slope=s)(objective(half())) for s in (1.3, 7 * 1.3)), strict=True)
    torch.testing.assert_close(trunks[0].offset.grad, trunks[1].offset.grad, rtol=1e-12, atol=0)
    torch.testing.assert_close(trunks[0].slope.grad, trunks[1].slope.grad, rtol=1e-12, atol=0)
    assert float(figures[0]["weight/lambda"]) == pytest.approx(7 * float(figures[1]["weight/lambda"]))
    plain = [attrs.evolve(toy, slope=s)(objective(2.0))[0].offset.grad for s in (1.3, 7 * 1.3)]
    assert not torch.allclose(*plain)


def test_bits_are_balanced_at_their_logits() -> None:
    """log p(x|z) of a bit has the slope x - s(l) in its logit l; a critic that sees y = s((l + noise) / t) and has the
    slope a, a y (1 - y) / t. Here l = -0.4 in every row, and noise = logit(u)."""
    bits = torch.tensor([[1], [0], [0], [1]], dtype=torch.uint8)
    u = torch.tensor([[0.2], [0.5], [0.7], [0.9]], dtype=DOUBLE)
    space = Space((1,), kind="binary", bins=2)
    decoder = ConditionalPart(Linear(0.0, -0.4, 1), Bernoulli(temperature=0.5).build(space)).double()
    modules = {"encoder": Code(), "prior": StandardNormal(), "decoder": decoder, "d": Plane(1.3)}
    seen = log_ratio(p.x, q.x, name="d", view={"x": "relaxed"})
    paths = {"decoder": PartTraits("conditional", {"relaxed": "exact"})}
    plan, parts = assemble(objective(half(), seen), modules, paths, spaces={"x": space})
    noise = WrittenNoise({"q(z|x)": Z, "p(z)": Z, "p(x|z)": u, "q.x relaxed": u, "q(x).x relaxed": u})
    figures = make_step(plan, parts, 0.0)(lambda r: StepInputs({"data": {"x": bits}}, noise, 4))
    y = torch.sigmoid((torch.logit(u) - 0.4) / 0.5)
    wanted = 0.5 * (bits - 1 / (1 + math.exp(0.4))).abs().mean() / (1.3 * (y * (1 - y) / 0.5).mean())
    assert float(figures["weight/lambda"]) == pytest.approx(float(wanted), rel=1e-12)


def test_r_ramps_and_takes_its_place_among_other_weights(toy: Toy) -> None:
    """At a quarter of the stage a ramp over half of it has reached half of r; 3 * lambda is three times lambda."""
    plain, figures = toy(objective(half(0.4)))
    full = float(figures["weight/lambda"])
    ramp = half(0.4, start=0.0, over=0.5)
    assert ramp.at(0.25) == pytest.approx(0.2)
    zero, figures = toy(objective(half(0.0)))
    assert float(figures["weight/lambda"]) == 0.0
    thrice, figures = toy(Objective.of(elbo(q, p) - 3 * E(p.xz, half(0.4) * d)))
    assert float(figures["weight/lambda"]) == pytest.approx(full)
    pull = plain.offset.grad - zero.offset.grad
    torch.testing.assert_close(thrice.offset.grad - zero.offset.grad, 3 * pull)


def test_a_critic_without_a_slope_has_no_weight(toy: Toy) -> None:
    """Rather than an infinite one: a network may begin with zeros."""
    trunk, figures = attrs.evolve(toy, slope=0.0)(objective(half()))
    assert float(figures["weight/lambda"]) == 0.0
    assert bool(torch.isfinite(trunk.offset.grad).all())


# --- running means ---------------------------------------------------------------------------------------------------


def test_a_measurement_counts_for_two_fifths() -> None:
    """Norms (2, 10), then (4, 10): means 0.4 * 2 = 0.8 and 4, then 0.48 + 1.6 = 2.08 and 2.4 + 4 = 6.4."""
    scales = BalanceScales()
    scales.add("w", torch.tensor([2.0, 10.0]), 0)
    assert float(scales.of("w")) == pytest.approx(5.0)
    scales.add("w", torch.tensor([4.0, 10.0]), 1)
    assert float(scales.of("w")) == pytest.approx(6.4 / 2.08)


def test_it_is_measured_now_and_then() -> None:
    """At the first step, wherever a stage begins, 1, 2, 4 and 8 steps later, and then every 16."""
    model = small_model(objective(half())).double()
    step = model.step()
    values = [float(step(lambda r, n=n: model.inputs(step=n))["weight/lambda"]) for n in range(3, 40)]
    new = [n for n, (before, now) in enumerate(itertools.pairwise(values), 4) if before != now]
    assert balance_meter.STEPS_BETWEEN == 16
    assert new == [3 + 1, 3 + 2, 3 + 4, 3 + 8, 3 + 16, 3 + 32]


def test_a_weight_of_other_terms_in_another_stage_is_measured_anew() -> None:
    """At a step at which nothing else is due: what d was found to pull says nothing of exp(3 d)."""
    scales = BalanceScales()

    def measured(weighed: Expr, step: int, scales: BalanceScales) -> float:
        model = small_model(objective(half(), weighed)).double()
        measure = balance_meter.BalanceMeter(model.plan, model.parts, Workers.start("cpu"), scales)
        return float(measure([model.inputs(step=step)])["lambda"])

    first = measured(d, 0, scales)
    other = measured(exp(3 * d), 5, scales)
    assert other == measured(exp(3 * d), 5, BalanceScales()) != pytest.approx(first, rel=0.1)
    assert measured(d, 5, scales) == first  # whose next measurement is that of step 8


def test_measuring_leaves_everything_as_it_was() -> None:
    """Buffers that every run of a network moves, such as torch's own spectral norm, among the rest."""
    model = small_model(objective(half()))
    critic = nn.utils.spectral_norm(nn.Linear(2, 1))
    model.parts.modules["d"] = nn.Sequential(critic, nn.Flatten(0))
    model.parts.modules.train()
    before = {name: value.clone() for name, value in model.parts.modules.state_dict().items()}
    measure = balance_meter.BalanceMeter(model.plan, model.parts, Workers.start("cpu"), BalanceScales())
    state = torch.get_rng_state()
    measure([model.inputs()])
    assert all(torch.equal(value, before[name]) for name, value in model.parts.modules.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parts.modules.parameters())


# --- however a step is run -------------------------------------------------------------------------------------------


def steps(model: Any, plan: Any = None, number: int = 3, **more: Any) -> tuple[dict[str, Tensor], list[float]]:
    """(parameters at the end, the weight at every step)."""
    model = model.double()
    step = model.step(plan=plan, **more)
    found = []
    for n in range(number):
        found.append(float(step(lambda r, n=n: model.inputs(step=n, repetition=r, pair_block=2))["weight/lambda"]))
    return dict(model.parts.modules.state_dict()), found


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=1e-11, msg=name)


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance_meter, "STEPS_BETWEEN", 1)


def test_one_graph_and_separate_ones_agree(every_step: None) -> None:
    at_once = attrs.evolve(objective(half()), order="same point")
    one, found = steps(small_model(at_once))
    model = small_model(at_once)
    assert model.plan.one_graph
    other, again = steps(model, attrs.evolve(model.plan, separate=True))
    same(one, other)
    assert found == pytest.approx(again, rel=1e-12) and len(set(found)) == 3


def test_draws_of_one_row_count_together() -> None:
    """k draws: what the network puts out for a row is k parameters, each with 1 / k of its gradient; were all draws
    the same, the norm would be 1 / sqrt(k) of a single one's, in both terms alike."""
    bound = E(q.xz, p.log_x_given_z + p.log_z - q.log_z_given_x, k=4)
    _, found = steps(small_model(Objective.of(bound - E(p.xz, half() * d, k=4))), number=1)
    _, once = steps(small_model(objective(half())), number=1)
    assert found[0] == pytest.approx(once[0], rel=0.5)


RUN: dict[str, Any] = {"objective.lambda": {"r": 0.5}, "train.steps": 14, "train.log_every": 2, "train.trackers": []}


def weights_logged(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["weight/lambda"] for line in lines if "weight/lambda" in line]


def test_a_resumed_run_ends_where_it_would_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after step 7, between the measurements of steps 4 and 8: the running means are in the checkpoint."""
    monkeypatch.setattr(balance_meter, "STEPS_BETWEEN", 4)
    train_small(tmp_path / "whole", RUN)
    with pytest.raises(StoppedError):
        train_small(tmp_path / "cut", RUN, stop=stop_after(7))
    train_small(tmp_path / "cut", RUN, resume=True)
    ends = [checkpoint.find(tmp_path / name / "checkpoints") for name in ("whole", "cut")]
    for part, tensors in ends[0].parts.items():
        assert all(torch.equal(ends[1].parts[part][name], value) for name, value in tensors.items()), part
    assert weights_logged(tmp_path / "whole") == weights_logged(tmp_path / "cut")
    assert len(set(weights_logged(tmp_path / "whole"))) == 5  # while r ramps, then measurements of steps 2, 4, 8, 12


def test_bfloat16_measures_the_same() -> None:
    """To the 8 bits that it has."""
    found = []
    for precision in ("fp32", "bf16"):
        model = small_model(objective(half()))
        measure = balance_meter.BalanceMeter(model.plan, model.parts, Workers.start("cpu", precision), BalanceScales())
        scale = measure([model.inputs()])["lambda"]
        assert scale.dtype == torch.float32
        found.append(float(scale))
    assert found[0] == pytest.approx(found[1], rel=0.02)


# --- the language ----------------------------------------------------------------------------------------------------


def test_it_prints_and_is_read_back(registry: Registry) -> None:
    expression: Any = registry.get("objective", "expression").load()
    made = objective(half(start=0.0, over=0.25))
    assert "E[p(x,z)](lambda*d)" in str(made)
    said = "lambda holds the gradient of its term at r times that of log p(x|z), r = 0 to 0.5 over the first 25% of"
    assert said in str(made)
    written = expression.of(made, registry)
    assert written.weights == {"lambda": BalanceTable(r=0.5, against="log p(x|z)", over=0.25)}
    assert str(written.objective()) == str(made)


@pytest.mark.parametrize(
    ("table", "weight"),
    [
        (BalanceTable(0.5), Weight("w", 0.5, against="log p(x|z)")),
        (BalanceTable(0.5, "d", 0.1, 0.2, 3), Weight("w", 0.5, 0.1, 0.2, 3, "d")),
    ],
)
def test_a_table_and_its_weight_are_the_same(table: BalanceTable, weight: Weight) -> None:
    assert weight_of("w", table) == weight
    assert table_of(weight) == table


def test_a_ramp_of_the_objective_is_the_ramp_of_r() -> None:
    assert weight_of("w", BalanceTable(0.5), ramp=0.25) == Weight("w", 0.5, 0.0, 0.25, against="log p(x|z)")


def test_a_recipe_keeps_it_and_explain_tells_it(registry: Registry) -> None:
    recipe = read_recipe(QUICKSTART, ["objective.lambda={ r = 0.5 }"], registry=registry)
    assert recipe.objective.lambda_ == BalanceTable(0.5)  # type: ignore[attr-defined]
    again = read_recipe(tomllib.loads(write_recipe(recipe, registry)), registry=registry)
    assert again.objective == recipe.objective
    schedule = read_recipe(QUICKSTART, ["objective.w={ to = 1.0, start = 0.0, over = 0.5 }"], registry=registry)
    assert schedule.objective.w == WeightTable(1.0, 0.0, 0.5)  # type: ignore[attr-defined]
    told = explain(compiled(recipe, registry))
    assert "lambda holds the gradient of its term at r times that of log p(x|z), r = 0 to 0.5 over the first" in told
    assert (
        f"both with respect to the outputs of decoder's network, measured every {balance_meter.STEPS_BETWEEN} steps"
        in told
    )


def test_the_place_is_where_both_terms_arrive() -> None:
    """The likelihood's own part; for other terms the one that both reach: q(z|x) is p's draw's critic's no more."""
    (found,) = balances_of(small_model(objective(half())).plan)
    assert (found.part, found.update.name) == ("decoder", "model")
    f = log_ratio(q.xz, p.xz, name="f")
    weight = Weight("w", 1.0, against=q.log_z_given_x)
    (found,) = balances_of(small_model(Objective.of(elbo(q, p) - E(q.xz, weight * f))).plan)
    assert found.part == "encoder"


def test_one_of_two_equal_terms_is_named_with_its_expectation() -> None:
    """log p(x|z) at the reconstruction, and at the model's own draw; the space after E[...] does not matter."""
    for over in ("q(x,z)", "p(x,z)"):
        weight = Weight("lambda", 0.5, against=f"E[{over}]log p(x|z)")
        twice = elbo(q, p) + 0.5 * E(p.xz, p.log_x_given_z) - E(p.xz, weight * d)
        (found,) = balances_of(small_model(Objective.of(twice)).plan)
        assert found.against.label == f"model/E[{over}] log p(x|z)"


def broken(made: Callable[[], Objective]) -> str:
    with pytest.raises(ConfigError) as caught:
        small_model(made())
    (problem,) = caught.value.lines
    return problem.removeprefix("objective: weight 'lambda': ")


MISTAKES: dict[str, tuple[Callable[[], Objective], str]] = {
    "no likelihood": (
        lambda: Objective.of(E(p.xz, q.log("z|x", stop="x") - half() * d)),
        "against 'log p(x|z)', which is no other term of update 'model'; did you mean 'log q(z|stop(x))'?",
    ),
    "itself": (
        lambda: Objective.of(E(q.xz, half() * p.log_x_given_z) + E(p.xz, d)),
        "against 'log p(x|z)', which is no other term of update 'model'",
    ),
    "no path": (
        lambda: Objective.of(elbo(q, p) - E(p.xz, half() * stop(d))),
        "log p(x|z) trains encoder and decoder, which no gradient of stop(d) reaches",
    ),
    "several terms": (
        lambda: Objective.of(elbo(q, p) - half() * E(p.xz, d + exp(d))),
        "a balanced weight stands before one term of one expectation, and not inside it, not ",
    ),
    "inside a function": (
        lambda: Objective.of(elbo(q, p) - E(p.xz, exp(half() * d))),
        "a balanced weight stands before one term of one expectation, and not inside it",
    ),
    "in several expectations": (
        lambda: Objective.of(elbo(q, p) + E(q.xz, p.log_x_given_z) - E(p.xz, half() * d)),
        "against 'log p(x|z)', which stands in several expectations: E[q(x,z)] log p(x|z), E[q(x,z)] log p(x|z)",
    ),
    "in two that differ": (
        lambda: Objective.of(elbo(q, p) + E(p.xz, p.log_x_given_z) - E(p.xz, half() * d)),
        "against 'log p(x|z)', which stands in several expectations: E[q(x,z)] log p(x|z), E[p(x,z)] log p(x|z); "
        "write one of these",
    ),
    "in a report": (
        lambda: attrs.evolve(objective(half()), reports=(("mine", E(p.xz, half() * d)),)),
        "it stands in the report 'mine'; a balanced weight has a value while it trains only",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_balanced_is_told(name: str) -> None:
    made, expected = MISTAKES[name]
    assert broken(made).startswith(expected)


def test_half_g_alone_has_nothing_to_balance_against() -> None:
    with pytest.raises(
        ConfigError, match="lambda: r is in units of the likelihood's pull, which weight_r = 0 leaves out"
    ):
        ASVAE(weight_r=0.0, lambda_=BalanceTable(0.5), critic=CriticTable(penalties=[R1()]))


def test_it_needs_no_noise_of_its_own() -> None:
    """Measured on the draws of the step: the same batch and noise give the same scale whatever came before."""
    model = small_model(objective(half())).double()
    scales = []
    for _ in range(2):
        measure = balance_meter.BalanceMeter(model.plan, model.parts, Workers.start("cpu"), BalanceScales())
        noise = Noise(0, "0.0", dtype=DOUBLE)
        scales.append(float(measure([attrs.evolve(model.inputs(), noise=noise)])["lambda"]))
        assert isinstance(model.step(), Step)
    assert scales[0] == scales[1]
