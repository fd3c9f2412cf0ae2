"""Two layers of codes: bottom-up, top-down and ladder, on a linear-Gaussian chain where all is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.models import small_model
from support.paths import SHIPPED
from torch import Tensor

from jointgen.config.toml import load_tables
from jointgen.engine.gradient_check import check_ownership
from jointgen.errors import ConfigError
from jointgen.objectives import Objective, Vocabulary, Weight, joint_from_text, parse

DOUBLE = torch.float64
A, S1, B, S0 = 0.8, 0.5, 1.3, 0.4
"""z2 ~ N(0, 1), z1 = A z2 + S1 eps, x = B z1 + S0 eps."""
DOWN = "p(z2) p(z1|z2) p(x|z1)"
PARTS = {"p(z2)": "prior", "p(z1|z2)": "down", "p(x|z1)": "decoder"}
LINEAR = {"type": "mlp", "hidden": []}
UP = ("q(x) q(z1|x) q(z2|z1)", {"q(z1|x)": "encoder", "q(z2|z1)": "top"}, "log q(z1|x) - log q(z2|z1)")
TOP = ("q(x) q(z2|x) q(z1|x,z2)", {"q(z1|x,z2)": "encoder", "q(z2|x)": "top"}, "log q(z1|x,z2) - log q(z2|x)")


def chain(q_text: str, parts: dict[str, str], log_q: str, family: str = "gaussian") -> Any:
    """The model of these joints with linear parts; the generative ones are the chain itself."""
    q = joint_from_text("q", q_text, parts)
    p = joint_from_text("p", DOWN, PARTS)
    text = f"E[q(x,z1,z2)](log p(x|z1) + log p(z1|z2) + log p(z2) - {log_q})"
    fixed = {"type": "gaussian", "scale": "fixed"}
    encoder = {"type": family, **({"through": "down"} if family == "ladder" else {})}
    model = small_model(
        Objective.of(parse(text, Vocabulary({"q": q, "p": p}))),
        data={"type": "linear_gaussian", "weights": [[B]], "bias": [0.0], "scale": 1.0, "rows": 64},
        latents={"z1": 1},
        prior={"type": "normal", "size": 1},
        encoder={"network": LINEAR, "family": encoder},
        encoders={"top": {"network": LINEAR, "family": {"type": "gaussian"}}},
        decoder={"network": LINEAR, "family": {**fixed, "init_scale": S0}},
        decoders={"down": {"network": LINEAR, "family": {"type": "gaussian"}}},
        discriminator=None,
    ).double()
    set_linear(model, "decoder", [B])
    set_linear(model, "down", [A], S1)
    return model


def set_linear(model: Any, part: str, slopes: list[float], scale: float | None = None) -> None:
    layer = model.parts.modules[part].trunk.layers[0]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[0] = torch.tensor(slopes, dtype=DOUBLE)
        if scale is not None:
            layer.bias[1] = math.log(scale)


def log_p(x: Tensor) -> Tensor:
    variance = B**2 * (A**2 + S1**2) + S0**2
    return -0.5 * (x[:, 0].square() / variance + math.log(2 * math.pi * variance))


def posterior_of_top(given: str) -> tuple[float, float]:
    """(slope, standard deviation) of z2 given z1 or given x."""
    slope, variance = (A, S1**2) if given == "z1" else (A * B, B**2 * S1**2 + S0**2)
    precision = 1 + slope**2 / variance
    return slope / variance / precision, precision**-0.5


def set_exact(model: Any, kind: str) -> None:
    """Set the encoders to the exact posteriors."""
    set_linear(
        model,
        "top",
        [posterior_of_top("z1" if kind == "up" else "x")[0]],
        posterior_of_top("z1" if kind == "up" else "x")[1],
    )
    if kind == "up":  # z1 given x, z2 integrated out
        prior = A**2 + S1**2
        precision = 1 / prior + B**2 / S0**2
        set_linear(model, "encoder", [B / S0**2 / precision], precision**-0.5)
    elif kind == "top-down":
        precision = 1 / S1**2 + B**2 / S0**2
        set_linear(model, "encoder", [B / S0**2 / precision, A / S1**2 / precision], precision**-0.5)
    else:  # the ladder adds the prior's precision itself; its trunk says what x alone does
        set_linear(model, "encoder", [1 / B], S0 / B)


CASES = [("up", *UP, "gaussian"), ("top-down", *TOP, "gaussian"), ("ladder", *TOP, "ladder")]


@pytest.mark.parametrize(("kind", "q_text", "parts", "log_q", "family"), CASES, ids=[case[0] for case in CASES])
def test_with_exact_posteriors_every_draw_gives_log_p(
    kind: str, q_text: str, parts: dict[str, str], log_q: str, family: str
) -> None:
    """p(x, z1, z2) / q(z1, z2|x) = p(x) at any draw: without variance, and the bound is tight."""
    model = chain(q_text, parts, log_q, family)
    set_exact(model, kind)
    inputs = model.inputs(8)
    (update,) = model.plan.updates
    found = model.rows(update.update.maximize)(inputs)
    x = next(iter(inputs.data["data"].values())).double()
    assert torch.allclose(found, log_p(x), rtol=0, atol=1e-10)


def test_the_bottom_up_recipe_is_the_bound() -> None:
    """Its own equation, at the exact posteriors, is log p(x) at any draw."""
    written = load_tables(SHIPPED / "relatives" / "two_layers_mnist.toml")["objective"]
    model = chain(*UP)
    set_exact(model, "up")
    weights = {"beta": Weight("beta", 1.0)}
    words = Vocabulary({name: model.plan.objective.joints[name] for name in ("q", "p")}, {}, weights)
    assert {name: joint.product for name, joint in words.joints.items()} == written["joints"]
    inputs = model.inputs(8)
    x = next(iter(inputs.data["data"].values())).double()
    assert torch.allclose(model.rows(parse(written["maximize"], words))(inputs), log_p(x), rtol=0, atol=1e-10)


def test_a_closed_kl_is_not_given_what_its_own_draw_made() -> None:
    """z2 is drawn given z1, and KL(q(z1|x) : p(z1|z2)) integrates over z1 anew: it is no part of the bound."""
    model = chain(*UP)
    words = Vocabulary({name: model.plan.objective.joints[name] for name in ("q", "p")})
    says = r"z2 depends on a draw of q\(z1\|x\).*write log q\(z1\|x\) - log p\(z1\|z2\)"
    with pytest.raises(ConfigError, match=says):
        model.rows(parse("E[q(x,z1,z2)](KL(q(z1|x) : p(z1|z2)))", words))
    with pytest.raises(ConfigError, match="integrates anew"):
        model.rows(parse("E[p(x,z1,z2)](KL(p(z2) : q(z2|z1)))", words))
    model.rows(parse("E[p(x,z1,z2)](KL(q(z2|z1) : p(z2)))", words))  # q's z2 is another draw than p's


def test_the_ladder_gives_the_gradient_of_its_definition() -> None:
    """All parts, the one it goes through included, against the bound in plain torch on the same draws."""
    model = chain(*TOP, "ladder")
    for part, value in (("encoder", 0.7), ("top", 0.4)):
        set_linear(model, part, [value], 0.8)
    runner, inputs = model.update(), model.inputs(5)
    runner.gradient(inputs)
    found = {n: -p.grad.clone() for n, p in model.parts.modules.named_parameters() if p.grad is not None}
    values = runner.program.run(inputs)
    drawn = {n.title: v for n, v in zip(runner.program.nodes, values, strict=True) if isinstance(v, Tensor)}
    x, modules = drawn["q.x"], model.parts.modules
    z2_value, z1_value = (next(v for title, v in drawn.items() if title.endswith(end)) for end in (".z2", ".z1"))

    def of(part: str, value: Tensor) -> tuple[Tensor, Tensor]:
        law = modules[part](value)
        return law.mean, law.scale.expand_as(law.mean)

    def normal(value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return -0.5 * ((value - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)

    m2, s2 = of("top", x)
    z2 = m2 + s2 * ((z2_value - m2) / s2).detach()
    (m_up, s_up), (m_down, s_down) = of("encoder", x), of("down", z2)
    precision = s_up**-2 + s_down**-2
    m1, s1 = (m_up * s_up**-2 + m_down * s_down**-2) / precision, precision**-0.5
    z1 = m1 + s1 * ((z1_value - m1) / s1).detach()
    bound = normal(x, *of("decoder", z1)) + normal(z1, m_down, s_down) - normal(z1, m1, s1)
    bound = bound + normal(z2, torch.zeros_like(z2), torch.ones_like(z2)) - normal(z2, m2, s2)
    wanted = torch.autograd.grad(bound.mean(), [dict(modules.named_parameters())[name] for name in found])
    for name, gradient in zip(found, wanted, strict=True):
        assert torch.allclose(found[name], gradient, rtol=0, atol=1e-10), name


def test_the_gradient_reaches_the_part_that_a_ladder_goes_through() -> None:
    model = chain(*TOP, "ladder")
    assert check_ownership(model.plan, model.parts, model.data(6), 6) == {}
    paths = {str(s.term): s.gradient_paths for s in model.plan.updates[0].summands}
    assert paths["log q(z1|x,z2)"]["down"] == {"explicit", "samples"}
    assert paths["log p(x|z1)"]["down"] == {"samples"}
    assert model.plan.runs() == {"top": 1, "encoder": 1, "down": 1, "decoder": 1}


MISSPELT = "encoder.family.through: 'dwn' is no conditional of the objective; did you mean 'down'"
WRONG = [
    ({"type": "ladder", "through": "dwn"}, MISSPELT),
    ({"type": "ladder", "through": "top"}, "'top' is of z2|x; z1|x,z2 needs a part that draws the same, given less"),
    ({"type": "ladder"}, "encoder.family.through: missing"),
]


@pytest.mark.parametrize(("family", "message"), WRONG, ids=["misspelt", "another variable", "missing"])
def test_mistakes_are_one_line(family: dict[str, Any], message: str) -> None:
    q, p = joint_from_text("q", TOP[0], TOP[1]), joint_from_text("p", DOWN, PARTS)
    text = f"E[q(x,z1,z2)](log p(x|z1) + log p(z1|z2) + log p(z2) - {TOP[2]})"
    gaussian = {"network": LINEAR, "family": {"type": "gaussian"}}
    with pytest.raises(ConfigError) as caught:
        small_model(
            Objective.of(parse(text, Vocabulary({"q": q, "p": p}))),
            latents={"z1": 1},
            encoder={"network": LINEAR, "family": family},
            encoders={"top": gaussian},
            decoders={"down": gaussian},
            discriminator=None,
        )
    assert message in str(caught.value)
