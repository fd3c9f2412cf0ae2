"""Gates of updates and weights that figures drive: against losses, trajectories and fixed points by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import torch
from support.models import SmallModel, small_model
from torch import Tensor

from jointgen.engine.drivers import DrivenState
from jointgen.engine.step import Step
from jointgen.errors import ConfigError
from jointgen.objectives import (
    Constant,
    Control,
    E,
    Figure,
    Objective,
    Pace,
    Update,
    Vocabulary,
    Weight,
    above,
    apply,
    below,
    exp,
    kl,
    log_ratio,
    log_sigmoid,
    p,
    parse_gate,
    q,
)
from jointgen.objectives.recipe_text import Expression
from jointgen.registry.components import Registry

f = log_ratio(q.x, p.x, name="f")
REAL, FAKE = E(q.x, -log_sigmoid(f)), E(p.x, -log_sigmoid(-f))


def steps_of(model: SmallModel, steps: int, first: int = 0, **options: Any) -> tuple[Step, list[Mapping[str, Tensor]]]:
    """The figures of each step."""
    step = model.step(**options)
    return step, [step(lambda r, n=n: model.inputs(step=n, repetition=r)) for n in range(first, first + steps)]


def larsen(bound: float) -> Objective:
    """A critic that stops while it wins: its gate reads the two halves of its own loss."""
    gate = above(REAL, bound) & above(FAKE, bound)
    return Objective.of(E(p.x, log_sigmoid(f)), order="critics, model", paces=(Pace("f", when=gate),))


# --- gates -----------------------------------------------------------------------------------------------------------


def test_mistakes_in_brackets_are_marked_where_they_are() -> None:
    with pytest.raises(ConfigError, match=r"expected a term at character 38: .* or f/loss >⟨\)⟩"):
        parse_gate("(step > 100 and (step > 1 or f/loss >))")
    for text in ("not (" * 400 + "step > 1" + ")" * 400, "(" * 400 + "step" + ")" * 400 + " > 1"):
        with pytest.raises(ConfigError, match="nested more than 50 deep"):
            parse_gate(text)
    assert str(parse_gate("(step) > 1")) == "step > 1"


def test_a_gate_opens_and_closes_by_the_figures_of_the_step_before() -> None:
    """In each step the critic ran where both halves of its loss were above 0.6 in the step before, and in the first."""
    _, figures = steps_of(small_model(larsen(0.6)), 30, lr=0.5)
    ran = [bool(one["f/ran"]) for one in figures]
    names = ("f/E[q(x)] log s(f)", "f/E[p(x)] log s(-f)")
    halves = [[-float(one[name]) for name in names] for one in figures]
    assert ran == [True, *(min(pair) > 0.6 for pair in halves[:-1])]
    assert 0 < sum(ran) < 30, "it closes and opens again, so the comparison says something"


def test_a_closed_gate_takes_no_step_and_still_looks() -> None:
    model = small_model(larsen(100.0))
    step, first = steps_of(model, 1, lr=0.5)
    before = [w.detach().clone() for w in model.parts.modules["f"].parameters()]
    second = step(lambda r: model.inputs(step=1, repetition=r))
    assert [bool(one["f/ran"]) for one in (*first, second)] == [True, False]
    assert all(torch.equal(a, b) for a, b in zip(before, model.parts.modules["f"].parameters(), strict=True))
    assert float(second["f/E[q(x)] log s(f)"]) != float(first[0]["f/E[q(x)] log s(f)"])


def test_a_gate_reads_an_accuracy_and_the_number_of_the_step() -> None:
    gate = below(Figure("f/positive_accuracy"), 2.0) & above(Figure("step"), 2)
    objective = Objective.of(E(p.x, log_sigmoid(f)), paces=(Pace("f", when=gate),))
    _, figures = steps_of(small_model(objective), 6)
    assert [bool(one["f/ran"]) for one in figures] == [True, False, False, True, True, True]


def test_the_generators_of_discogan_step_where_the_critic_does_not() -> None:
    """Two critic-free steps after each step of the critic (SKTBrain's code)."""
    update = Update("model", E(p.x, log_sigmoid(f)), unless="f")
    _, figures = steps_of(small_model(Objective((update,), paces=(Pace("f", every=3),))), 7)
    assert [bool(one["model/ran"]) for one in figures] == [False, True, True] * 2 + [False]
    assert ["f/loss" in one for one in figures] == [True, False, False] * 2 + [True]


def test_both_of_larsens_gates_open_where_both_are_closed() -> None:
    """critic: not (a low or b low), or decoder shut; decoder: not (a high or b high), or critic shut."""
    text = "(f/loss > 1 and step > 3) or f/loss > 9"
    gate = parse_gate(text)
    assert str(gate) == "f/loss > 1 and step > 3 or f/loss > 9"
    assert parse_gate(str(gate)) == gate
    for loss, number, expected in ((2, 4, True), (2, 3, False), (10, 0, True), (0, 9, False)):
        at = {"f/loss": loss, "step": number}
        found = gate.holds(lambda c, at=at: at[str(c.left)] > float(str(c.right)))  # type: ignore[misc]
        assert found is expected


GATES = [
    above(REAL, 0.33) & above(FAKE, 0.33),
    (above(REAL, 0.33) | below(FAKE, REAL)) & ~above(Figure("f/loss"), 2),
    ~(above(2 * REAL - 1, Weight("w", 3.0) * FAKE) & below(Figure("step"), 10)),
    above(REAL, 1) | (below(FAKE, 1) & above(FAKE, -1)) | below(REAL, 0),
]


@pytest.mark.parametrize("gate", GATES, ids=str)
def test_gates_are_read_back_from_what_they_print(gate: Any) -> None:
    words = Vocabulary(ratios={"f": f}, weights={"w": Weight("w", 3.0)})
    assert parse_gate(str(gate), words) == gate


# --- weights that figures drive --------------------------------------------------------------------------------------

ENERGY = exp(f)  # any positive term
K = Weight("k", 0.2, control=Control(0.5 * E(q.x, ENERGY) - E(p.x, ENERGY), gain=0.05, low=0.0, high=0.35))


def began() -> Objective:
    """BEGAN's updates (Berthelot et al. 2017), with exp(f) as the energy."""
    critic = Update("f", E(q.x, -ENERGY) + E(p.x, K * ENERGY), trains="f")
    return Objective((critic, Update("model", E(p.x, -ENERGY))))


def test_began_moves_k_as_by_hand() -> None:
    """k <- clip(k + gain (gamma L(x) - L(G(z))), low, high), on the losses that each step had."""
    _, figures = steps_of(small_model(began()).double(), 40, lr=0.002)
    by_hand = 0.2
    for one in figures:
        assert float(one["weight/k"]) == pytest.approx(by_hand, abs=1e-12)
        real, fake = float(one["f/E[q(x)] exp(f)"]), float(one["f/E[p(x)] exp(f)"])
        assert float(one["f/loss"]) == pytest.approx(real - by_hand * fake, abs=1e-12), "k weighs the critic's loss"
        by_hand = min(max(by_hand + 0.05 * (0.5 * real - fake), 0.0), 0.35)
    values = {round(float(one["weight/k"]), 9) for one in figures}
    assert len(values) > 5, "it moves"


def test_known_losses_give_a_known_k() -> None:
    """With a critic that is log 3 everywhere, L = 3 on both sides, and k falls by 0.05 * 1.5 a step until it is 0."""
    model = small_model(began()).double()
    with torch.no_grad():
        *_, (weight, bias) = pairs(model.parts.modules["f"])
        weight.zero_()
        bias.fill_(math.log(3.0))
    state = DrivenState()
    step = model.step(lr=0.0, driven=state)
    seen = [float(step(lambda r, n=n: model.inputs(step=n, repetition=r))["weight/k"]) for n in range(4)]
    assert seen == pytest.approx([0.2, 0.125, 0.05, 0.0])
    assert float(state.weights["k"]) == 0.0


def pairs(module: Any) -> list[tuple[Tensor, Tensor]]:
    found = list(module.parameters())
    return list(zip(found[::2], found[1::2], strict=True))


def test_gecos_multiplier_and_encoder_stand_still_at_the_closed_form() -> None:
    """min KL subject to E|x - w z|^2 = kappa, for q(z|x) = N(m x, s^2), p(z) = N(0, 1), and x of variance v.

    The Lagrangian KL + lambda (error - kappa) is stationary at m = 2 lambda w / u and s^2 = 1 / u with u = 1 + 2 lambda
    w^2, where the error is v / u^2 + w^2 / u. With v = 1, w = 2 and lambda = 1/2, u is 5 and kappa 0.84.
    """
    model, step, state = geco(kappa=0.84, start=0.5)
    set_encoder(model, slope=2 / 5, variance=1 / 5)
    inputs = antithetic(model)
    figures = step(lambda r: inputs)
    error = float(figures["model/E[q(x,z)] l2(x, mean p(x|z))"])
    assert error == pytest.approx(0.84, abs=1e-12)
    gradient = [w.grad for w in model.parts.modules["encoder"].parameters()]
    assert max(float(g.abs().max()) for g in gradient) == pytest.approx(0.0, abs=1e-12)  # type: ignore[union-attr]
    assert float(state.weights["lam"]) == pytest.approx(0.5, abs=1e-12)


def test_gecos_multiplier_rises_while_the_error_is_too_large_and_converges() -> None:
    model, step, state = geco(kappa=0.84, start=0.25, gain=0.2)
    set_encoder(model, slope=0.1, variance=1 / 2)
    inputs = antithetic(model)
    first = step(lambda r: inputs)
    error = float(first["model/E[q(x,z)] l2(x, mean p(x|z))"])
    assert error == pytest.approx((1 - 0.2) ** 2 + 4 / 2), "(1 - w m)^2 v + w^2 s^2"
    assert float(state.weights["lam"]) == pytest.approx(0.25 * math.exp(0.2 * (error - 0.84)))
    for _ in range(600):
        step(lambda r: inputs)
    assert float(state.weights["lam"]) == pytest.approx(0.5, abs=1e-3)


def geco(kappa: float, start: float, gain: float = 0.01) -> tuple[SmallModel, Step, DrivenState]:
    """(a linear model of one number whose encoder alone is trained, its step, its multiplier)."""
    error = apply("l2", "x", p.draw("x|z", "mean"))
    control = Control(E(q.xz, error - kappa), gain, "exp", 0.0, 100.0)
    lam = Weight("lam", start, control=control)
    loss = E(q.xz, -kl(q.log_z_given_x, p.log_z) - lam * (error - kappa))
    linear = {"type": "mlp", "hidden": []}
    model = small_model(
        Objective((Update("model", loss, trains="encoder"),)),
        data={"type": "linear_gaussian", "weights": [[1.0]], "scale": 1.0, "rows": 64},
        prior={"type": "normal", "size": 1},
        encoder={"network": linear, "family": {"type": "gaussian"}},
        decoder={"network": linear, "family": {"type": "gaussian", "scale": "fixed", "init_scale": 1.0}},
    ).double()
    decoder = model.parts.modules["decoder"].trunk.layers[0]  # type: ignore[union-attr, index]
    with torch.no_grad():
        decoder.weight.fill_(2.0)
        decoder.bias.zero_()
    state = DrivenState()
    return model, model.step(lr=0.02, driven=state), state


def set_encoder(model: SmallModel, slope: float, variance: float) -> None:
    encoder = model.parts.modules["encoder"].trunk.layers[0]  # type: ignore[union-attr, index]
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor([[slope], [0.0]], dtype=torch.float64))
        encoder.bias.copy_(torch.tensor([0.0, 0.5 * math.log(variance)], dtype=torch.float64))


class Antithetic:
    """Noise of +1, -1, +1, -1: means over it are exact for a polynomial of degree two."""

    dtype, device = torch.float64, torch.device("cpu")

    def named(self, name: str, rows: int) -> Any:
        return self

    def normal(self, *shape: int) -> Tensor:
        return torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64).reshape(4, 1)

    uniform = normal


def antithetic(model: SmallModel) -> Any:
    """x of variance 1 with each sign of the noise."""
    inputs = model.inputs(rows=4)
    x = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64).reshape(4, 1)
    noise: Any = Antithetic()
    return attrs.evolve(inputs, data={"data": {"x": x}}, noise=noise)


# --- state, text, mistakes -------------------------------------------------------------------------------------------


def test_the_state_goes_on_from_a_checkpoint() -> None:
    whole = small_model(attrs.evolve(began(), paces=()))
    _, expected = steps_of(whole, 8)
    model, state = small_model(began()), DrivenState()
    _, first = steps_of(model, 4, driven=state)
    again = DrivenState()
    again.load_state_dict(state.state_dict())
    _, second = steps_of(model, 4, first=4, driven=again)
    for one, other in zip(expected, [*first, *second], strict=True):
        assert {name: float(value) for name, value in one.items()} == {n: float(v) for n, v in other.items()}
    with pytest.raises(ValueError, match=r"weights\.k: expected one number"):
        again.load_state_dict({**state.state_dict(), "weights": {"k": torch.zeros(2)}})


@pytest.mark.parametrize("make", [lambda: larsen(0.6), began], ids=["gate", "control"])
def test_micro_batches_make_the_same_gates_and_weights(make: Any) -> None:
    runs = [steps_of(small_model(make()).double(), 12, lr=0.5, micro_batches=parts)[1] for parts in (1, 4)]
    for one, other in zip(*runs, strict=True):
        for name, value in one.items():
            assert float(value) == pytest.approx(float(other[name]), abs=1e-9), name


@pytest.mark.parametrize("objective", [larsen(0.5), began()], ids=["gate", "control"])
def test_they_are_written_as_text_and_read_back(objective: Objective, registry: Registry) -> None:
    written = Expression.of(objective, registry)
    again = written.objective()
    assert isinstance(again, Objective)
    assert str(again) == str(objective)
    assert again.complete(registry.default) == objective.complete(registry.default)
    for name, weight in objective.weights.items():
        assert again.weights[name].describe() == weight.describe()


def driven(expr: Any, **options: Any) -> Any:
    weight = Weight("k", 0.5, control=Control(expr, **{"gain": 0.1, **options}))
    return small_model(Objective.of(E(p.x, weight * log_sigmoid(f))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: small_model(
                Objective.of(E(p.x, log_sigmoid(f)), paces=(Pace("f", when=above(E(q.x, log_sigmoid(-f)), 1)),))
            ),
            r"objective: the gate of update 'f' reads E\[q\(x\)\] log s\(-f\), which is no term of an update;",
        ),
        (
            lambda: small_model(
                Objective.of(E(p.x, log_sigmoid(f)), paces=(Pace("f", when=above(Figure("f/positive_acuracy"), 1)),))
            ),
            "the gate of update 'f' reads 'f/positive_acuracy', which is no figure of a step; did you mean",
        ),
        (lambda: driven(log_sigmoid(f)), r"the control of weight 'k': log s\(f\) stands outside an expectation"),
        (lambda: driven(E(p.x, log_sigmoid(-f)) - Constant(1), gain=-1.0), "gain must be more than 0, got -1; turn"),
        (lambda: driven(Figure("step") - Constant(5000)), "weight 'k': no control reads the number of the step; write"),
        (lambda: driven(E(p.x, f), low=1.0, high=0.0), "low must be less than high, got 1 and 0"),
        (lambda: driven(E(p.x, f), low=0.6), "weight k: begins at 0.5, which is not between 0.6 and 1e"),
        (
            lambda: small_model(attrs.evolve(larsen(1.0), order="same point")).step(),
            "objective.order: 'same point' runs each update once a step, f asks otherwise",
        ),
        (
            lambda: small_model(Objective((Update("model", E(p.x, log_sigmoid(f)), unless="g"),))),
            r"objective.updates.model.unless: no update is called so; .*known: .*f",
        ),
        (
            lambda: small_model(
                Objective((Update("model", E(p.x, log_sigmoid(f)), unless="f"),), paces=(Pace("f", unless="model"),))
            ),
            "update 'model' makes way for itself, by f",
        ),
        (lambda: parse_gate("f/loss"), "expected '<' or '>' at character 7: f/loss⟨end⟩"),
        (
            lambda: parse_gate("f/loss > 1 adn step > 2"),
            "expected an operator or the end at character 12: .*⟨adn⟩",
        ),
    ],
)
def test_mistakes_are_told(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
