"""Values in values: a draw at another draw, a density at a value, a stop anywhere, against losses written by hand.

Networks are lines: q(z|x) = N(a x + b, s^2) and p(x|z) = N(c z + d, t^2), so each loss is a line of plain torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.models import ALL_REAL, assemble, small_model
from support.networks import DOUBLE, Line, StandardNormal
from torch import Tensor

from jointgen.contracts.noise import Noise
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.gradient_check import check_ownership
from jointgen.engine.update import UpdateRunner
from jointgen.errors import ConfigError
from jointgen.inference.view import PartsView
from jointgen.objectives import (
    E,
    Expr,
    Objective,
    Update,
    apply,
    features,
    joint_from_text,
    kl,
    log_ratio,
    log_sigmoid,
    p,
    parse,
    q,
    score,
    stop,
)
from jointgen.objectives.recipe_text import Expression
from jointgen.registry.discovery import load_plugins

X = torch.tensor([[0.5], [-1.25], [2.0], [0.1]], dtype=DOUBLE)
encoder, decoder = Line(0.7, -0.2, math.log(0.6)), Line(-1.3, 0.4, math.log(0.8))
NUMBERS = {"a": encoder.slope, "b": encoder.offset, "c": decoder.slope, "d": decoder.offset}


def q_mean(x: Tensor) -> Tensor:
    return encoder.slope * x + encoder.offset


def p_mean(z: Tensor) -> Tensor:
    return decoder.slope * z + decoder.offset


def log_q(z: Tensor, x: Tensor) -> Tensor:
    return encoder(x).log_prob(z)


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum(1)


# text -> the same number for each row in plain torch. z is what the prior draws for the expectation.
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "E[q(x)](l2(x, mean p(x|z=mean q(z|x))))": lambda z: squared(X, p_mean(q_mean(X))),
    "E[q(x)](l2(x, mean p(x|z=stop(mean q(z|x)))))": lambda z: squared(X, p_mean(q_mean(X).detach())),
    "E[q(x)](l2(stop(x), stop(mean p(x|z=x))))": lambda z: squared(X, p_mean(X)).detach(),
    "E[p(z)](l2(z, mean q(z|x=z)))": lambda z: squared(z, q_mean(z)),
    "E[p(z)](l2(stop(mean q(z|x=z)), mean q(z|x=mean p(x|z))))": lambda z: squared(
        q_mean(z).detach(), q_mean(p_mean(z))
    ),
    "E[p(z)](log q(z|x=mean p(x|z)))": lambda z: log_q(z, p_mean(z)),
    "E[p(z)](log q(z|x=stop(mean p(x|z))))": lambda z: log_q(z, p_mean(z).detach()),
    "E[p(z)](hold(log q(z|x=mean p(x|z))))": lambda z: Line.forward(HELD, p_mean(z)).log_prob(z),
    "E[q(x)](log q(z=mean q(z|x=stop(x))|x=mean p(x|z=x)))": lambda z: log_q(q_mean(X), p_mean(X)),
}
HELD = Line(0.7, -0.2, math.log(0.6)).requires_grad_(False)


@pytest.mark.parametrize("text", LOSSES)
def test_a_value_is_what_it_says(text: str) -> None:
    plan, parts = assemble(
        Objective((Update("model", parse(text), trains=("encoder", "decoder")),)),
        {"encoder": encoder, "decoder": decoder, "prior": StandardNormal()},
    )
    noise = Noise(3, "values", dtype=DOUBLE)
    z = noise.named("p(z)", len(X)).normal(1)
    update = UpdateRunner(plan.updates[0], parts)
    parts.modules.zero_grad()
    figures, _ = update.gradient(StepInputs({"data": {"x": X}}, noise, len(X)))
    found = {name: number.grad.item() for name, number in NUMBERS.items() if number.grad is not None}
    parts.modules.zero_grad()
    mean = LOSSES[text](z).mean()
    assert figures["model/loss"].item() == pytest.approx(-mean.item(), abs=1e-12)
    wanted = [0.0] * 4
    if mean.requires_grad:
        gradients = torch.autograd.grad(-mean, list(NUMBERS.values()), allow_unused=True)
        wanted = [0.0 if gradient is None else gradient.item() for gradient in gradients]
    assert found == pytest.approx(dict(zip(NUMBERS, wanted, strict=True)), abs=1e-12)


# --- small models: everything agrees with the plan, and what does not fit is refused ---------------------------------

r = joint_from_text("r", "r(x) r(w|x)", {"r(x)": "data", "r(w|x)": "encoder"})
q_at_p = q.draw("z|x", at={"x": p.draw("x|z", at={"z": stop("z")})})
CHECKED: dict[str, Expr] = {
    "cycle of codes": E(q.xz, p.log_x_given_z - apply("l2", "z", stop(q_at_p)) - apply("l1", q_at_p, "z")),
    "KL at a draw": E(p.xz, p.log_x_given_z - kl(q.log("z|x", stop="x"), q.log("z|x", at={"x": p.draw("x|z")}))),
    "density of a draw": E(q.xz, p.log("x|z", at={"z": q_at_p}) - q.log("z|x", at={"z": q_at_p}), k=3),
    "own density": E(q.x, q.log("z|x", at={"z": q.draw("z|x")}), k=2) + E(p.z, p.log_z),
}


@pytest.mark.parametrize("name", CHECKED)
def test_gradients_go_where_the_plan_says(name: str) -> None:
    model = small_model(Objective.of(CHECKED[name]))
    check_ownership(model.plan, model.parts, model.data(4), 4)


def test_equal_draws_with_and_without_a_stop_are_one_draw() -> None:
    """q'(z|x=mean p(x|z)) with its input stopped has the noise of the draw with it: their difference is zero."""
    mean = p.draw("x|z", "mean")
    live, stopped = (q.draw("z|x", at={"x": value}) for value in (mean, stop(mean)))
    found = small_model(Objective.of(E(q.xz, p.log_x_given_z))).double()
    rows = found.rows(E(q.xz, apply("l2", live, stopped)))(found.inputs())
    assert rows.abs().max().item() == 0.0


WRONG: list[tuple[Any, str]] = [
    (
        E(p.xz, apply("l2", "z", q.draw("z|x", at={"x": "z"}))),
        "q(z|x=z): z is 3 real, and it takes the place of x, which is 2 real",
    ),
    (
        E(q.xz, q.log("z|x", at={"z": p.draw("x|z", "mean")})),
        "log q(z=mean p(x|z)|x): mean p(x|z) is 2 real, and it takes the place of z, which is 3 real",
    ),
    (
        E(q.x, p.log("x|z")),
        "p(x|z) needs 'z', which its expectation over x does not draw",
    ),
]


@pytest.mark.parametrize(("expr", "problem"), WRONG, ids=[problem for _, problem in WRONG])
def test_values_that_do_not_fit_are_refused(expr: Expr, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        small_model(
            Objective.of(expr + E(p.x, p.log("z", at={"z": q.draw("z|x")}))), prior={"type": "normal", "size": 3}
        )
    assert error.value.lines == [f"objective: {problem}"]


# --- joints: copies, conditionals without a root, and factors of a joint that stands nowhere --------------------------

REAL = {"type": "gaussian", "scale": "global", "init_scale": 0.5}


def test_a_critic_of_x_and_its_copy_sees_the_same_rows_twice() -> None:
    """h = q(x,x as w) : c(x,w), where c(w|z) is the decoder: the critic of ALICE's implicit cycle (Li et al. 2017)."""
    c = joint_from_text("c", "q(x) q(z|x) c(w|z)", {"c(w|z)": "decoder"}, {"q": q})
    h = log_ratio(q.on("x", w="x"), c.on("x", "w"), name="h")
    assert h.definition == "h = log-ratio q(x,x as w) : c(x,w)"
    model = small_model(Objective.of(E(c.on("x", "z", "w"), log_sigmoid(h) + p.log_z)))
    assert model.compiled.binding.spaces["w"] == model.compiled.binding.spaces["x"]
    watched = model.watched("h")["h"]
    model.update("h").gradient(model.inputs())
    shown = [(call[1], call[0]) for call in watched.calls]  # the critic's variables are in alphabetical order: w, x
    assert len(shown) == 2
    assert sum(torch.equal(x, w) for x, w in shown) == 1
    assert torch.equal(shown[0][0], shown[1][0])


def test_a_joint_takes_over_factors_of_a_joint_that_nothing_is_expected_under() -> None:
    """p is named by g alone: its prior and decoder are bound, trained, and written into a recipe."""
    g = joint_from_text("g", "p(z) p(x|z) g(z2|x)", {"g(z2|x)": "encoder"}, {"p": p})
    objective = Objective.of(E(g.on("x", "z2"), g.log("z2|x")) + E(q.x, -apply("l2", "x", "x")))
    model = small_model(objective, latents={"z2": 4})
    assert set(model.plan.updates[0].trains) == {"encoder", "decoder"}
    check_ownership(model.plan, model.parts, model.data(4), 4)
    written = Expression.of(objective, load_plugins().registry)
    assert written.joints["p"] == "p(z) p(x|z)"
    assert str(written.objective()).splitlines()[0] == f"maximise {objective.updates[0].maximize}"


def test_conditionals_without_a_root_are_used_as_values_and_not_drawn() -> None:
    """An autoencoder as an energy, -|x - a(a(x))|^2 (EBGAN, Zhao et al. 2017), without a prior for its code h."""
    a = joint_from_text("a", "a(h|x) a(x|h)", {"a(h|x)": "coder", "a(x|h)": "rebuilder"})
    energy = apply("l2", "x", a.draw("x|h", "mean", at={"h": a.draw("h|x", "mean")}))
    table = {"network": {"type": "mlp", "hidden": [5]}, "family": REAL}
    model = small_model(
        Objective.of(E(p.xz, p.log_x_given_z - energy) - E(q.x, energy)), latents={"h": 3},
        encoders={"coder": table}, decoders={"rebuilder": table}, encoder=None,
    )  # fmt: skip
    assert set(model.plan.updates[0].trains) == {"decoder", "coder", "rebuilder"}
    check_ownership(model.plan, model.parts, model.data(4), 4)
    assert model.compiled.binding.observed == ["x"]
    assert model.compiled.binding.generator_of("x").name == "p"
    with pytest.raises(ConfigError, match=r"a\(x\): a\(h,x\) = a\(h\|x\) a\(x\|h\) has no root"):
        a.on("x")


# --- features of networks --------------------------------------------------------------------------------------------

d = log_ratio(q.x, p.x, name="d")
perceptual = apply("l2", features(d, 2), features(d, 2, at={"x": p.draw("x|z", "mean")}))
CRITIC = {"type": "mlp", "hidden": [6, 4]}


def perceptual_model(order: Any = "model, critics") -> Any:
    objective = Objective.of(E(q.xz, -perceptual - kl(q.log_z_given_x, p.log_z)), order=order)
    return small_model(objective, discriminator=CRITIC).double()


@pytest.mark.parametrize("order", ["model, critics", "same point"])
def test_an_error_in_features_trains_the_model_and_never_the_critic(order: Any) -> None:
    """VAE/GAN (Larsen et al. 2016): d's gradient is that of its own loss, whatever the model does with its features."""
    model = perceptual_model(order)
    assert str(model.plan.updates[0].update.maximize) == (
        "E[q(x,z)](-l2(features[2] d(x), features[2] d(mean p(x|z))) - KL(q(z|x) : p(z)))"
    )
    check_ownership(model.plan, model.parts, model.data(4), 4)
    assert set(model.plan.updates[0].trains) == {"encoder", "decoder"}
    critic, inputs = model.parts.modules["d"], model.inputs()
    model.step(lr=0.0)(lambda _: inputs)
    found = {name: p.grad.clone() for name, p in critic.named_parameters()}
    model.parts.modules.zero_grad()
    model.update("d").gradient(inputs)
    alone = {name: p.grad for name, p in critic.named_parameters()}
    for name, gradient in alone.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-12)


def test_features_are_what_the_layers_make() -> None:
    """By hand: two hidden layers with leaky ReLUs of slope 0.2."""
    model = perceptual_model()
    net, x = model.parts.modules["d"], model.data()["data"]["x"].double()
    one = torch.nn.functional.leaky_relu(net.first(x), 0.2)
    two = torch.nn.functional.leaky_relu(net.rest[1](one), 0.2)
    zero = apply("l1", features(d, "last"), features(d, 2))
    assert model.rows(E(q.x, zero))(model.inputs()).abs().max().item() == 0.0
    (got_one, got_two) = net.features(x)
    torch.testing.assert_close((got_one, got_two), (one, two))
    torch.testing.assert_close(net(x), net.rest[3](two).squeeze(1))


def test_features_of_a_trunk_train_it_where_it_is_trained() -> None:
    """|h(x) - h(x')|^2 of the encoder's first layer, whose gradient reaches encoder and decoder."""
    distance = apply("l2", features(q.draw("z|x"), 1), features(q.draw("z|x", at={"x": p.draw("x|z", "mean")}), 1))
    model = small_model(Objective.of(E(q.xz, p.log_x_given_z - distance)))
    paths = next(s.gradient_paths for s in model.plan.updates[0].summands if "l2" in s.label)
    assert {part: sorted(ways) for part, ways in paths.items()} == {
        "encoder": ["explicit", "samples"],
        "decoder": ["samples"],
    }
    check_ownership(model.plan, model.parts, model.data(4), 4)


def test_a_critic_sees_features_of_critics() -> None:
    """BigBiGAN (Donahue & Simonyan 2019): J looks at what F and H have made of x and z, which its update holds."""
    sx, sz = (score(a, b, name=name, loss="hinge") for a, b, name in ((q.x, p.x, "sx"), (q.z, p.z, "sz")))
    view = {"x": features(sx), "z": features(sz)}
    both = score(q.xz, p.xz, name="sxz", loss="hinge", view=view)
    model = small_model(Objective.of(E(p.xz, sx + sz + both) - E(q.xz, sx + sz + both)), discriminator=CRITIC)
    check_ownership(model.plan, model.parts, model.data(4), 4)
    assert model.parts.modules["sxz"].first.in_features == 4
    assert model.plan.updates[-1].trains == ("sxz",)
    written = Expression.of(Objective.of(E(p.xz, both) - E(q.xz, both)), load_plugins().registry)
    assert written.scores["sxz"].view == {"x": "features sx(x)", "z": "features sz(z)"}
    assert list(written.objective().ratios) == ["sxz", "sx", "sz"]


def test_a_recognition_network_sees_the_critics_trunk() -> None:
    """InfoGAN (Chen et al. 2016): q(c|x) is a head on the features of f, which the critic's update trains, too."""
    of = {"q": joint_from_text("q", "q(x) q(c|x)", {"q(c|x)": "encoder"}),
          "p": joint_from_text("p", "p(c) p(z) p(x|c,z)", {"p(c)": "code"})}  # fmt: skip
    f = log_ratio(of["q"].x, of["p"].x, name="f")
    information = of["q"].log("c|x")
    objective = Objective(
        (
            Update("model", E(of["p"].on("x", "c"), log_sigmoid(f) + information), trains=("decoder", "encoder")),
            Update("f", E(of["q"].x, log_sigmoid(f)) + E(of["p"].on("x", "c"), log_sigmoid(-f) + information),
                   trains=("f", "encoder")),
        )
    )  # fmt: skip
    head = {**ALL_REAL["encoder"], "input": "features[1] f(x)"}
    model = small_model(objective, encoder=head, discriminator=CRITIC, priors={"code": {"type": "normal", "size": 2}})
    check_ownership(model.plan, model.parts, model.data(4), 4)
    assert model.parts.modules["encoder"].trunk.layers[0].in_features == 6
    paths = [s.gradient_paths for s in model.plan.updates[1].summands if "log q(c|x)" in s.label]
    assert "f" in paths[0]
    view, x = PartsView(model.compiled, model.parts), model.data()["data"]["x"]
    law = model.parts.modules["encoder"](model.parts.modules["f"].features(x)[0])
    drawn = view.draw("q", {"x": x}, len(x), view.noise(0, "encode"), "mean")["c"]
    torch.testing.assert_close(drawn, law.draw(view.noise(0, "any").named("any", len(x))).read("mean"))


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (features(d, 3), {}, "discriminator: the objective needs features[3] d(x), and this network shows 2 layers"),
    (features(d), {"input": "features e(x)"}, "encoder.input: unknown critic or joint 'e'"),
    (features(d), {"input": "features d(z)"}, "encoder.input: z is not what 'encoder' is given, which is x"),
    (features(d), {"input": "features q(z|x)"}, "objective: parts see each other's features: encoder -> encoder"),
    (features(d), {"input": "q(z|x)"}, "encoder.input: q(z|x) is a draw; a network sees variables and features"),
]


@pytest.mark.parametrize(("value", "encoder", "problem"), REFUSED, ids=[problem for *_, problem in REFUSED])
def test_features_that_are_not_there_are_refused(value: Any, encoder: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        small_model(
            Objective.of(E(q.xz, p.log_x_given_z - apply("l1", value, value))),
            discriminator=CRITIC,
            encoder={**ALL_REAL["encoder"], **encoder},
        )
    assert any(line.startswith(problem) for line in error.value.lines), error.value.lines
