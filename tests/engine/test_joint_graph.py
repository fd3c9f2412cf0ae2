"""Updates at the same point are losses on one graph: the same step as with a graph for each, and fewer runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from jointgen_ali.objective import ALI, ALICE
from jointgen_avb.objective import AVB
from jointgen_critics.penalties import R1, GradientPenalty
from support.models import small_model
from torch import Tensor

from jointgen.engine.gradient_check import check_ownership
from jointgen.errors import OwnershipError
from jointgen.objectives import (
    CriticTable,
    E,
    Objective,
    Update,
    elbo,
    log_ratio,
    log_sigmoid,
    p,
    q,
    square,
    stop,
)

DROPPING: dict[str, Any] = {
    "encoder": {"network": {"type": "mlp", "hidden": [6], "dropout": 0.5}, "family": {"type": "gaussian"}},
    "discriminator": {"type": "mlp", "hidden": [6], "dropout": 0.5},
}
SPECTRAL = {"discriminator": {"type": "mlp", "hidden": [6], "spectral_norm": True}}


def penalised() -> Objective:
    """A known part, held and stopped terms, penalties at some steps only."""
    known = q.log_z_given_x - p.log_z
    f = log_ratio(q.xz, p.xz, name="f", known=known, penalties=(R1(weight=0.5, every=2, at="both"), GradientPenalty()))
    live, held = q.log("z|x"), q.log("z|x", hold=True)
    model = E(q.xz, p.log_x_given_z - f + 0.3 * square(live - held) - stop(live)) + E(p.xz, 0.5 * held + f)
    return Objective.of(model, order="same point")


def several_players() -> Objective:
    """The encoder and the decoder are players of their own; each sees the other's draws, one with three codes a row."""
    d = log_ratio(q.x, p.x, name="d")
    log_w = p.log_x_given_z + p.log_z - q.log_z_given_x
    encoder = Update("encoder", E(q.xz, log_w, k=3, reduce="logmeanexp") + E(p.xz, q.log_z_given_x), trains="encoder")
    decoder = Update("decoder", E(q.xz, log_w) + E(p.x, log_sigmoid(d) + 0.0) + elbo(q, p), trains="decoder")
    return Objective((encoder, decoder), "same point")


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "ali": lambda: ALI().objective(),
    "alice": lambda: ALICE(distance="l2").objective(),
    "avb": lambda: AVB(critic=CriticTable(penalties=[R1()])).objective(),
    "avb, contrast": lambda: AVB(adaptive_contrast=True).objective(),
    "penalties": penalised,
    "several players": several_players,
}


def trained(objective: Objective, separate: bool, **changes: Any) -> tuple[dict[str, Tensor], Any]:
    """(the model's numbers after five steps of Adam, the figures of the last)."""
    model = small_model(objective, **changes).double()
    model.parts.modules.train()
    plan = attrs.evolve(model.plan, separate=separate)
    step = model.step(plan=plan, rule=torch.optim.Adam, lr=0.01)
    for number in range(5):
        figures = step(lambda r, number=number: model.inputs(step=number, repetition=r), until_log=0)
    return model.parts.modules.state_dict(), figures


@pytest.mark.parametrize("changes", [{}, DROPPING, SPECTRAL], ids=["plain", "dropout", "spectral norm"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_graph_is_the_same_step_as_a_graph_for_each(name: str, changes: dict[str, Any]) -> None:
    """Parameters, and every figure: terms, losses, gradient norms, the critics' health."""
    one, figures = trained(OBJECTIVES[name](), separate=False, **changes)
    each, expected = trained(OBJECTIVES[name](), separate=True, **changes)
    for key, value in each.items():
        torch.testing.assert_close(one[key], value, rtol=0, atol=1e-12)
    assert figures.keys() == expected.keys()
    for key, value in expected.items():
        assert float(figures[key]) == pytest.approx(float(value), abs=1e-11), key


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_graph_runs_as_often_as_the_plan_says(name: str) -> None:
    model = small_model(OBJECTIVES[name]())
    penalties = any(ratio.penalties for ratio in model.plan.objective.ratios.values())
    critics = {update.name for update in model.plan.updates} - {"model", "encoder", "decoder"}
    for separate in (False, True):
        plan = attrs.evolve(model.plan, separate=separate)
        step = model.step(plan=plan)
        with model.forwards_counted() as counted:
            step(lambda r: model.inputs(step=1, repetition=r))  # no R1 at odd steps
        expected = plan.runs()
        if penalties:
            counted, expected = ({k: n for k, n in runs.items() if k not in critics} for runs in (counted, expected))
        assert counted == expected
    assert sum(model.plan.runs().values()) < sum(plan.runs().values())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_ownership_holds_on_one_graph(name: str) -> None:
    model = small_model(OBJECTIVES[name]())
    check_ownership(model.plan, model.parts, model.data(4), 4)


def test_a_network_with_state_is_caught_on_one_graph() -> None:
    """The naive sum runs it anew for each term."""

    class Counting(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module):
            super().__init__()
            self.inner, self.calls = inner, 0

        def forward(self, *inputs: Tensor) -> Tensor:
            self.calls += 1
            return self.inner(*inputs) * (1 + 0.01 * self.calls)

    model = small_model(ALI().objective())
    model.parts.modules["encoder"].trunk = Counting(model.parts.modules["encoder"].trunk)
    with pytest.raises(OwnershipError, match="is not the sum of its terms'"):
        check_ownership(model.plan, model.parts, model.data(4), 4)


def test_a_critics_gradient_does_not_run_the_makers_of_its_samples() -> None:
    """Backward passes through the encoder: one, for the model's update alone."""
    model = small_model(ALI().objective())
    passes: list[str] = []

    def seen(module: Any, args: Any, out: Tensor) -> None:
        out.register_hook(lambda gradient: passes.append("encoder"))

    model.parts.modules["encoder"].trunk.register_forward_hook(seen)
    model.step()(lambda r: model.inputs(repetition=r))
    assert passes == ["encoder"]
