"""What no objective draws or scores is not asked of the recipe, not built, and gives no figure."""

from __future__ import annotations

from typing import Any

import pytest
from support.models import small_model

from jointgen.errors import ConfigError
from jointgen.evaluation.evaluate import list_figures, metrics_of
from jointgen.inference.view import PartsView
from jointgen.objectives import (
    E,
    Objective,
    Stage,
    Update,
    cycle,
    elbo,
    joint_from_text,
    kl,
    log_ratio,
    log_sigmoid,
    p,
    q,
    standardized,
)

f = log_ratio(q.x, p.x, name="f")
GAN = Objective.of(E(p.x, log_sigmoid(f)))
IMPLICIT = {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "implicit", "noise": 0}}


def built(objective: Any, **changes: Any) -> set[str]:
    return set(small_model(objective, **changes).parts.modules)


def test_gan_builds_no_encoder_and_asks_for_none() -> None:
    assert built(GAN, decoder=IMPLICIT, encoder=None) == {"prior", "decoder", "f"}
    assert built(GAN, decoder=IMPLICIT) == {"prior", "decoder", "f"}  # one that a base recipe brought with it


def test_figures_of_what_is_not_trained_are_none_with_a_reason() -> None:
    compiled = small_model(GAN, decoder=IMPLICIT).compiled
    view = PartsView(compiled, compiled.parts)
    figures = {figure.name: figure for figure in list_figures(metrics_of(compiled), view)}
    for name in ("rmse", "psnr", "ssim", "rate", "elbo", "active_units", "code_rmse"):
        assert not figures[name].statistics, name
        assert figures[name].note, name
    assert not any(name.startswith("reconstruction") for name in figures)
    assert figures["f/accuracy"].statistics  # of what is trained there are figures


@pytest.mark.parametrize(
    "objective",
    [
        Objective.of(E(q.x, kl(q.log_z_given_x, p.log_z))),  # scored in closed form
        Objective.of(E(p.xz, q.log_z_given_x)),  # scored where p draws
        Objective.of(E(q.z, log_ratio(q.z, p.z, name="g"))),  # drawn
        Objective.of(E(p.xz, cycle(q, "z|x"))),  # drawn for a value
        Objective(
            (Update("d", E(p.x, log_sigmoid(f)), trains="decoder"),), reports=(("back", E(p.xz, cycle(q, "z|x"))),)
        ),
    ],
    ids=["KL", "density", "expectation", "value", "report"],
)
def test_each_use_of_a_conditional_keeps_it(objective: Objective) -> None:
    assert "encoder" in built(objective)


def test_a_critics_view_and_a_joint_that_takes_a_factor_over_keep_conditionals() -> None:
    r = q.matched("z|x", name="r")
    t = log_ratio(p.xz, r.xz, name="t", view={"z": standardized(r, "z|x")})
    assert "encoder" in built(Objective.of(E(p.xz, t) + E(q.x, log_sigmoid(f))))


def test_stages_together_keep_what_either_uses() -> None:
    stages = (Stage("first", GAN, 0.5), Stage("second", Objective.of(elbo(q, p))))
    assert built(stages) == {"prior", "encoder", "decoder", "f"}


def test_what_a_used_factor_is_given_stays() -> None:
    """log q(z2|z1) alone: q(z1|x) draws what it is given, so the joint keeps it."""
    deep = joint_from_text("q", "q(x) q(z|x) q(w|z)", {"q(z|x)": "encoder", "q(w|z)": "second"})
    up = joint_from_text("p", "p(z) p(x|z) p(w|z)", {"p(w|z)": "decoder2"})
    table = {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "gaussian"}}
    objective = Objective.of(E(up.on("z", "w"), deep.log("w|z")))
    found = built(objective, encoders={"second": table}, decoders={"decoder2": table}, latents={"w": 2})
    assert {"encoder", "second"} <= found
    assert "decoder" not in found  # p(x|z): nothing sees x


def test_prior_keeps_the_encoder_that_it_goes_through() -> None:
    assert "encoder" in built(GAN, decoder=IMPLICIT, prior={"type": "vamp", "components": 3})


def test_named_table_of_an_unused_conditional_is_refused() -> None:
    """A default part may come from a base; a part that a recipe names for a factor must be used."""
    named = joint_from_text("q", "q(x) q(z|x)", {"q(z|x)": "mine"})
    table = {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "gaussian"}}
    objective = Objective.of(E(p.x, log_sigmoid(log_ratio(named.x, p.x, name="f"))))
    with pytest.raises(ConfigError, match=r"encoders\.mine: the objective uses no part of this name"):
        small_model(objective, encoders={"mine": table}, decoder=IMPLICIT)


def test_explain_says_what_is_not_built() -> None:
    compiled = small_model(GAN, decoder=IMPLICIT).compiled
    assert compiled.binding.unused == ["q(z|x)"]
    assert small_model(Objective.of(elbo(q, p))).compiled.binding.unused == []


def test_reconstruction_needs_every_code_of_the_decoder() -> None:
    """InfoGAN: q infers the code c, and nobody the noise z, so that nothing rebuilds x."""
    infer = joint_from_text("q", "q(x) q(c|x)", {"q(c|x)": "encoder"})
    make = joint_from_text("p", "p(c) p(z) p(x|c,z)", {"p(c)": "code"})
    d = log_ratio(infer.x, make.x, name="f")
    objective = Objective.of(E(make.on("x", "c"), log_sigmoid(d) + infer.log("c|x")))
    compiled = small_model(objective, decoder=IMPLICIT, priors={"code": {"type": "uniform", "size": 1}}).compiled
    assert not compiled.binding.can_reconstruct("x")
    view = PartsView(compiled, compiled.parts)
    figures = {figure.name: figure for figure in list_figures(metrics_of(compiled), view)}
    assert (figures["rmse"].statistics, figures["rmse"].note) == ((), "p(x|c,z) needs z, which q does not infer")
    assert figures["code_rmse"].statistics  # c is found again
