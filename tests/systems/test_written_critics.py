"""Critics whose updates are written by hand: what they learn, and that nothing is said of them that is not so.

f-GAN with the Kullback-Leibler divergence (Nowozin et al. 2016, table 2): the critic maximises E_q f - E_r exp(f - 1),
whose optimum is 1 + log q/r. So exp(f) has the mean e under r, where that of a log-ratio has the mean 1.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.cells import COUNTS, JOINTS, SOURCES, Cells, exact_rows
from support.models import assemble, small_model
from torch import Tensor

from jointgen.engine.update import UpdateRunner
from jointgen.objectives import E, Expr, Objective, Ratio, Update, exp, log_ratio, log_sigmoid, p, q
from jointgen.reports.explain.descriptions import describe_critic
from jointgen.training.critic_trust import CriticTrust

F = log_ratio(JOINTS["q"].x, JOINTS["r"].x, name="f")
OPTIMUM = 1 + (COUNTS["q"] / COUNTS["r"]).log()
FGAN = E(JOINTS["q"].x, F) - E(JOINTS["r"].x, exp(F - 1))


def written(maximize: Expr) -> Update:
    return Update("f", maximize, trains=("f",))


def trained_at(outputs: Tensor) -> tuple[UpdateRunner, Tensor]:
    critic = Cells(outputs)
    plan, parts = assemble(Objective((written(FGAN),)), {"f": critic}, SOURCES)
    update = UpdateRunner(plan.updates[0], parts)
    update.gradient(exact_rows())
    assert critic.outputs.grad is not None
    return update, critic.outputs.grad


def test_the_optimum_of_an_f_gan() -> None:
    """And away from it, at f = log q/r, the gradient of the loss is -q + exp(f - 1) r = -q (1 - 1/e)."""
    _, gradient = trained_at(OPTIMUM)
    assert gradient.abs().max().item() < 1e-15
    _, gradient = trained_at(OPTIMUM - 1)
    assert torch.allclose(gradient, -COUNTS["q"] * (1 - torch.exp(torch.tensor(-1.0, dtype=torch.float64))))


def test_no_figure_takes_its_output_for_a_log_ratio() -> None:
    update, _ = trained_at(OPTIMUM)
    _, _, values = update.loss(exact_rows())
    outputs = update.critic_outputs(exact_rows(), values)
    figures = update.critic_figures(outputs)
    assert figures.keys() == {"f/positive_mean", "f/negative_mean", "f/max_abs"}
    assert figures["f/positive_mean"].item() == pytest.approx((COUNTS["q"] @ OPTIMUM).item())


def ratio_of(*updates: Update) -> tuple[Ratio, Any]:
    """The ratio f of a model, completed, and the verdict after five log events with an identity that fails."""
    f = log_ratio(q.x, p.x, name="f")
    plan = small_model(Objective((Update("model", E(p.xz, log_sigmoid(f))), *updates))).plan
    trust = CriticTrust(600)
    trust.watch(plan)
    ratio = plan.objective.ratios["f"]
    figures = {"f/negative_mean": 1.0, "f/positive_mean": 1.0, "f/max_abs": 1.0}
    if ratio.kind == "log_ratio":
        figures |= {"f/negative_log_mean_exp": 3.0, "f/positive_accuracy": 0.5, "f/saturation": 0.0}
    lines = [line for event in range(5) for line in trust.add(event, figures)]
    return ratio, (trust.summary()["f"], lines)


def test_the_loss_itself_is_known_wherever_its_signs_stand() -> None:
    """E_q log s(f) + E_p log s(-f) with the second sign outside and inside of its expectation."""
    f = log_ratio(q.x, p.x, name="f")
    ratio, _ = ratio_of(written(E(q.x, log_sigmoid(f)) - E(p.x, -log_sigmoid(-f))))
    assert ratio.kind == "log_ratio"
    ratio, _ = ratio_of(written(E(q.x, log_sigmoid(f)) - E(p.x, log_sigmoid(-f))))
    assert ratio.kind == "critic"


def test_a_written_update_is_announced_as_such_and_has_no_verdict() -> None:
    f = log_ratio(q.x, p.x, name="f")
    ratio, (verdict, lines) = ratio_of(written(E(q.x, f) - E(p.x, exp(f - 1))))
    assert ratio.definition == "f = critic q(x) : p(x)"
    assert [*describe_critic(ratio)] == [
        "a critic that sees x; trained as its update is written, so its output is not judged"
    ]
    assert (verdict.ratio, verdict.trusted, lines) == ("critic q(x) : p(x)", None, [])


def test_the_loss_written_out_is_no_other_loss() -> None:
    """In another order it is still the logistic loss, so the critic is judged."""
    f = log_ratio(q.x, p.x, name="f")
    pieces = 0.25 * E(p.x, log_sigmoid(-f)) + E(q.x, log_sigmoid(f)) + E(p.x, 0.75 * log_sigmoid(-f))
    ratio, (verdict, lines) = ratio_of(written(E(p.x, log_sigmoid(-f)) + E(q.x, log_sigmoid(f))))
    assert ratio.kind == "log_ratio"
    assert verdict.trusted is False
    assert len(lines) == 1
    ratio, _ = ratio_of(written(pieces))
    assert ratio.kind == "critic"  # the terms are not added up


def test_an_update_that_trains_a_critic_besides_makes_it_one_of_its_own() -> None:
    f = log_ratio(q.x, p.x, name="f")
    both = Update("both", E(p.x, f), trains=("f",))
    assert ratio_of(both)[0].kind == "critic"
