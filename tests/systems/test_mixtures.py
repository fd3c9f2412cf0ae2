"""Mixtures as sides of a ratio and under an expectation, by hand and in closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.cells import COUNTS, JOINTS, SOURCES, Cells, exact_rows
from support.models import assemble, resolve, small_model
from torch import Tensor

from jointgen.engine.gradient_check import check_ownership
from jointgen.engine.update import UpdateRunner
from jointgen.errors import ConfigError
from jointgen.objectives import (
    E,
    Mixture,
    Objective,
    Vocabulary,
    joint_from_text,
    log_ratio,
    log_sigmoid,
    p,
    parse,
    parse_ratio_sides,
    q,
)
from jointgen.objectives.objective import critic_update, resolved
from jointgen.objectives.recipe_text import Expression
from jointgen.registry.components import Registry
from jointgen.training.critic_trust import CriticTrust


def critic_of(ratio: Any, outputs: Tensor) -> tuple[UpdateRunner, Cells]:
    critic = Cells(outputs)
    objective = Objective((critic_update(resolved(ratio, resolve)),))
    plan, parts = assemble(objective, {"f": critic}, SOURCES)
    return UpdateRunner(plan.updates[0], parts), critic


def test_the_optimum_of_a_critic_against_a_mixture() -> None:
    """At log q / (r/4 + 3s/4) the gradient vanishes and both identities hold; against r/2 + s/2 they do not."""
    best = (COUNTS["q"] / (0.25 * COUNTS["r"] + 0.75 * COUNTS["s"])).log()
    sides = {}
    for shares in ((0.25, 0.75), (0.5, 0.5)):
        mixture = shares[0] * JOINTS["r"].x + shares[1] * JOINTS["s"].x
        update, critic = critic_of(log_ratio(JOINTS["q"].x, mixture, name="f"), best)
        _, values = update.gradient(exact_rows())
        assert critic.outputs.grad is not None
        outputs = update.critic_outputs(exact_rows(), values)
        sides[shares] = critic.outputs.grad.abs().max().item(), update.critic_figures(outputs)
    slope, figures = sides[0.25, 0.75]
    assert slope < 1e-15
    assert figures["f/positive_log_mean_exp"].item() == pytest.approx(0.0, abs=1e-14)
    assert figures["f/negative_log_mean_exp"].item() == pytest.approx(0.0, abs=1e-14)
    mean = (0.25 * COUNTS["r"] + 0.75 * COUNTS["s"]) @ best
    assert figures["f/negative_mean"].item() == pytest.approx(mean.item(), abs=1e-14)
    right = (0.25 * COUNTS["r"] + 0.75 * COUNTS["s"]) @ (best < 0).double()
    assert figures["f/negative_accuracy"].item() == pytest.approx(right.item(), abs=1e-14)
    slope, figures = sides[0.5, 0.5]
    assert slope > 0.01
    off = ((0.5 * COUNTS["r"] + 0.5 * COUNTS["s"]) @ best.exp()).log().item()
    assert figures["f/negative_log_mean_exp"].item() == pytest.approx(off, abs=1e-14)
    assert abs(off) > 0.05


def test_a_mixture_above_is_the_same_mixture() -> None:
    """log (r/4 + 3s/4)/q: the sides of the last test changed, and so the sign of the optimum."""
    best = (COUNTS["q"] / (0.25 * COUNTS["r"] + 0.75 * COUNTS["s"])).log()
    mixture = 0.25 * JOINTS["r"].x + 0.75 * JOINTS["s"].x
    update, critic = critic_of(log_ratio(mixture, JOINTS["q"].x, name="f"), -best)
    update.gradient(exact_rows())
    assert critic.outputs.grad is not None
    assert critic.outputs.grad.abs().max().item() < 1e-15


class Slope:
    """A penalty of 100 * the mean of its positives + that of its negatives, which is easy to add up."""

    weight, every = 1.0, 1

    def __call__(self, critic: Any, positive: Any, negative: Any, noise: Any) -> Tensor:
        return 100 * positive[0][:, 0] + negative[0][:, 0] + 0 * critic(*positive)


def test_a_penalty_is_the_mean_over_pairs_of_components() -> None:
    """100 E_num x + E_den x, where E_q x = 3/4, E_r x = 1 and E_s x = 3/2."""
    sides = 0.5 * JOINTS["q"].x + 0.5 * JOINTS["r"].x, 0.25 * JOINTS["r"].x + 0.75 * JOINTS["s"].x
    ratio = log_ratio(*sides, name="f", penalties=(Slope(),))
    update, _ = critic_of(ratio, torch.zeros(3, dtype=torch.float64))
    loss, figures, _ = update.loss(exact_rows())
    penalty = 100 * (0.5 * 0.75 + 0.5 * 1.0) + (0.25 * 1.0 + 0.75 * 1.5)
    assert loss.item() == pytest.approx(penalty + 2 * math.log(2.0))  # f = 0: each half of the logistic loss is log 2
    assert figures["f/Slope(f at q(x) : s(x))"].item() == pytest.approx(75 + 1.5)
    assert [round(s.weight(float), 9) for s in update.plan.summands if s.penalty] == [-0.125, -0.375, -0.125, -0.375]


# --- in a model ------------------------------------------------------------------------------------------------------

R = joint_from_text("r", "r(w) r(z|w) r(x|z)", {"r(w)": "data", "r(z|w)": "encoder", "r(x|z)": "decoder"})
"""Reconstructions, as VAE/GAN shows them to its critic beside samples (Larsen et al. 2016, algorithm 1)."""


def vae_gan(written_out: bool) -> Objective:
    f = log_ratio(q.x, 0.5 * p.x + 0.5 * R.x, name="f")
    fake = E(0.5 * p.x + 0.5 * R.x, log_sigmoid(f))
    if written_out:
        fake = 0.5 * E(p.x, log_sigmoid(f)) + 0.5 * E(R.x, log_sigmoid(f))
    return Objective.of(E(q.xz, p.log_x_given_z) + fake)


def gradients(objective: Objective) -> list[Tensor]:
    model = small_model(objective).double()
    found = []
    for update in ("model", "f"):
        model.parts.modules.zero_grad()
        model.update(update).gradient(model.inputs())
        found += [p.grad.clone() for p in model.parts.modules.parameters() if p.grad is not None]
    return found


def test_an_expectation_over_a_mixture_is_the_weighted_sum() -> None:
    pairs = zip(gradients(vae_gan(False)), gradients(vae_gan(True)), strict=True)
    assert all(torch.allclose(one, other, rtol=1e-12, atol=1e-15) for one, other in pairs)


def test_the_gradients_are_those_that_the_plan_states() -> None:
    model = small_model(vae_gan(False))
    check_ownership(model.plan, model.parts, model.data(), 8)
    labels = {summand.label: summand.weights for summand in model.plan.updates[-1].summands}
    assert labels == {
        "f/E[q(x)] log s(f)": (),
        "f/E[p(x)] log s(-f)": (0.5,),
        "f/E[r(x)] log s(-f)": (0.5,),
    }


def test_the_verdict_names_the_mixture() -> None:
    plan = small_model(vae_gan(False)).plan
    trust = CriticTrust(600)
    trust.watch(plan)
    lines: list[str] = []
    for event in range(5):
        lines += trust.add(event, {"f/negative_log_mean_exp": 3.0, "f/positive_accuracy": 0.5, "f/saturation": 0.0})
    (line,) = lines
    assert "cannot be trusted as log q(x)/(0.5 p(x) + 0.5 r(x))" in line
    assert "E[0.5 p(x) + 0.5 r(x)] exp(f) is 20" in line


# --- text ------------------------------------------------------------------------------------------------------------


def test_a_mixture_prints_and_is_read_back(registry: Registry) -> None:
    objective = vae_gan(False)
    assert objective.ratios["f"].definition == "f = log-ratio q(x) : 0.5 p(x) + 0.5 r(x)"
    text = Expression.of(objective, registry)
    assert text.updates["model"].maximize == "E[q(x,z)](log p(x|z)) + E[0.5 p(x) + 0.5 r(x)](log s(f))"
    read = text.objective()
    assert isinstance(read, Objective)
    assert read.complete(resolve) == objective.complete(resolve)
    thirds = (1 / 3) * q.x + (1 / 3) * p.x + (1 / 3) * R.x
    words = Vocabulary({"p": p, "q": q, "r": R})
    assert parse_ratio_sides(f"p(x) : {thirds}", words)[1] == thirds
    assert [str(side) for side in parse_ratio_sides("1 p(x) : q(x)", words)] == ["p(x)", "q(x)"]
    assert parse_ratio_sides("0.33333 p(x) + 0.33333 q(x) + 0.33333 r(x) : p(x)", words)[0].variables == ("x",)


WRONG = {
    "E[0.5 p(x) + 0.4 q(x)](f)": r"the shares of a mixture sum to 1, these sum to 0.9 at character 3",
    "E[0.5 p(x)](f)": "these sum to 0.5",
    "E[0.5 p(x) + q(x)](f)": "expected the share of a mixture, a number at character 14",
    "E[p(x) + q(x)](f)": r"a share before each distribution, as in 0.5 q\(x\) \+ 0.5 p\(x\) at character 3",
    "E[0.5 p(x) + 0.5 q(z)](f)": r"p\(x\) and q\(z\) are over different variables at character 14",
    "E[0.5 p(x) + 0.5 p(x)](f)": r"p\(x\) stands in it twice; add up its shares at character 14",
    "E[0 p(x) + 1 q(x)](f)": "a share is a number above 0, got 0.0 at character 3",
}


@pytest.mark.parametrize("text", WRONG)
def test_each_mistake_is_marked_in_the_text(text: str) -> None:
    f = log_ratio(q.x, p.x, name="f")
    with pytest.raises(ConfigError, match=WRONG[text]):
        parse(text, Vocabulary(ratios={"f": f}))


def test_mistakes_in_python() -> None:
    for share in (0.0, -0.5, math.nan, math.inf, True):
        with pytest.raises(ConfigError, match="a share is a number above 0"):
            share * q.x
    with pytest.raises(ConfigError, match=r"sum to 1, these sum to 1.5"):
        log_ratio(q.x, 0.5 * p.x + R.x, name="f")
    assert isinstance(p.x + 0.5 * R.x, Mixture)
