"""How often updates run, and what their parameters are held to: counted and computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from jointgen_critics.constraints import ClipWeights, OrthonormalRows, UnitRows
from support.models import small_model
from support.runs import stop_after, train_small, weights
from torch import nn

from jointgen.data.batches import BatchNumbers
from jointgen.errors import ConfigError, StoppedError
from jointgen.objectives import E, Objective, Pace, TimesRule, Update, elbo, p, q, score
from jointgen.objectives.recipe_text import Expression
from jointgen.registry.components import Registry

RULES = (TimesRule(4, until=3), TimesRule(3, every=5), TimesRule(2))
BY_HAND = [4, 4, 4, 2, 2, 3, 2, 2, 2, 2, 3, 2]
"""Steps 0 to 2 by the first rule; 5 and 10 by the second; the others by the third."""


def wgan(**options: Any) -> Objective:
    f = score(q.x, p.x, name="f", loss="wasserstein", times=RULES)
    return Objective.of(E(p.x, f), order="critics, model", **options)


def steps_taken(objective: Objective, steps: int) -> tuple[dict[str, list[int]], list[list[int]]]:
    """(optimizer steps of each update in each step, the repetitions whose rows were asked for in each step)."""
    model = small_model(objective)
    step = model.step(lr=0.0)
    counts: dict[str, list[int]] = {name: [] for name in step.optimizers}
    for name, (optimizer,) in step.optimizers.items():
        optimizer.register_step_post_hook(lambda *_, name=name: counts[name].__setitem__(-1, counts[name][-1] + 1))
    asked: list[list[int]] = []
    for number in range(steps):
        for taken in counts.values():
            taken.append(0)
        asked.append([])
        step(lambda r, n=number: (asked[-1].append(r), model.inputs(step=n, repetition=r))[1])  # type: ignore[func-returns-value]
    return counts, asked


def test_a_schedule_of_times_counts_critic_steps_as_by_hand() -> None:
    counts, asked = steps_taken(wgan(), 12)
    assert counts == {"f": BY_HAND, "model": [1] * 12}
    assert asked == [list(range(n)) for n in BY_HAND], "each repetition has rows of its own, and no other is asked for"


def test_arjovskys_schedule_takes_so_many_critic_steps() -> None:
    """100 in each of the first 25 generator steps and in every 500th, else 5 (Arjovsky et al. 2017, the code)."""
    rules = (TimesRule(100, until=25), TimesRule(100, every=500), TimesRule(5))
    update = Update("f", E(q.x, wgan().ratios["f"]), trains="f", times=rules)
    assert sum(update.times_at(step) for step in range(1000)) == 25 * 100 + 100 + (1000 - 25 - 1) * 5
    assert update.most_times == 100


def test_every_batch_of_a_schedule_is_used_once_and_none_is_left_out() -> None:
    model = small_model(wgan())
    batches_of, first = model.compiled.batches_of, 0
    numbers, used = BatchNumbers(batches_of), []
    for step, times in enumerate(BY_HAND):
        assert numbers.first_of(step) == first
        used += [numbers.first_of(step) + r for r in range(times)]
        first += times
    assert used == list(range(sum(BY_HAND)))
    assert BatchNumbers(batches_of).first_of(7) == sum(BY_HAND[:7]), "a run that resumes goes on from there"


def test_a_pace_slows_a_critic_down() -> None:
    d = score(q.x, p.x, name="d", loss="hinge")
    counts, _ = steps_taken(Objective.of(E(p.x, d), paces=(Pace("d", every=3, times=2),)), 7)
    assert counts == {"model": [1] * 7, "d": [2, 0, 0, 2, 0, 0, 2]}


# --- constraints -----------------------------------------------------------------------------------------------------


def test_clipped_weights_are_within_the_bound_after_every_step() -> None:
    """With a rate so high that an unclipped weight leaves it at once; the decoder is not held."""
    model = small_model(wgan(constraints={"f": (ClipWeights(0.05),)}))
    step = model.step(lr=10.0)
    for number in range(5):
        step(lambda r, n=number: model.inputs(step=n, repetition=r))
        held = torch.cat([w.flatten() for w in model.parts.modules["f"].parameters()])
        assert held.abs().max() == pytest.approx(0.05), "it is reached, so the test can fail"
    free = torch.cat([w.flatten() for w in model.parts.modules["decoder"].parameters()])
    assert free.abs().max() > 0.05


def test_an_encoder_can_be_held_to_unit_rows() -> None:
    model = small_model(Objective.of(elbo(q, p), constraints={"encoder": ("unit_rows",)}))
    model.step(lr=0.1)(lambda r: model.inputs(repetition=r))
    rows = [w.norm(dim=1) for w in model.parts.modules["encoder"].parameters() if w.ndim == 2]
    assert torch.cat(rows).tolist() == pytest.approx([1.0] * sum(map(len, rows)), abs=1e-6)


def test_rows_become_orthonormal_by_the_polar_factor() -> None:
    """Of [[3, 4], [-4, 3]] / 2, five halves times a rotation, it is the rotation."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.5, 2.0], [-2.0, 1.5]]))
        bias = layer.bias.clone()
        OrthonormalRows()(layer)
    assert layer.weight.flatten().tolist() == pytest.approx([0.6, 0.8, -0.8, 0.6], abs=1e-6)
    assert torch.equal(layer.bias, bias)


def test_a_row_is_divided_by_its_norm() -> None:
    layer = nn.Conv2d(1, 2, (1, 2), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([3.0, 4.0, 0.0, -2.0]).reshape(2, 1, 1, 2))
        UnitRows()(layer)
    assert layer.weight.flatten().tolist() == pytest.approx([0.6, 0.8, 0.0, -1.0])


# --- text, resume, mistakes ------------------------------------------------------------------------------------------

TEXT: dict[str, Any] = {
    "objective": {
        "type": "expression",
        "maximize": "E[q(x,z)](log p(x|z)) + E[p(x)](f)",
        "order": "critics, model",
        "scores": {
            "f": {
                "of": "q(x) : p(x)",
                "loss": {"type": "wasserstein"},
                "times": [{"until": 3, "times": 3}, {"every": 4, "times": 2}, {"times": 1}],
            }
        },
        "constraints": {"f": [{"type": "clip", "bound": 0.1}]},
        "updates": {"model": {"every": 2}},
    },
    "train.steps": 9,
    "train.checkpoint_every": 5,
}


def test_a_run_with_a_schedule_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = train_small(tmp_path / "whole", TEXT)
    with pytest.raises(StoppedError):
        train_small(tmp_path / "parts", TEXT, stop=stop_after(5))
    train_small(tmp_path / "parts", TEXT, resume=True)
    once, twice = (weights(tmp_path / name / "checkpoints/step-00000009") for name in ("whole", "parts"))
    assert all(torch.equal(once[key], twice[key]) for key in once)
    assert max(float(w.abs().max()) for key, w in once.items() if key.startswith("f/")) == pytest.approx(0.1)
    assert whole.record.step == 9


def test_schedules_and_constraints_are_written_as_text_and_read_back(registry: Registry) -> None:
    objective = wgan(constraints={"f": ("clip",), "decoder": (UnitRows(),)}, paces=(Pace("f", every=2),))
    written = Expression.of(objective, registry)
    assert written.updates["f"].every == 2 and written.updates["f"].maximize is None
    assert written.constraints == {"f": [ClipWeights(0.01)], "decoder": [UnitRows()]}
    again = written.objective()
    assert isinstance(again, Objective)
    assert again.complete(registry.default) == objective.complete(registry.default)
    completed = {u.name: u for u in again.complete(registry.default).updates}
    assert (completed["f"].every, completed["f"].times) == (2, RULES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Update("a", E(p.x, q.log("x")), times=()), "update a: times: give a number, or one rule at least"),
        (
            lambda: wgan(paces=(Pace("g"),)),
            "update 'g' says nothing to maximise, and no ratio is called so.*known: f",
        ),
        (lambda: wgan(paces=(Pace("f"), Pace("f"))), "update 'f' is written twice"),
        (
            lambda: Update("a", E(p.x, q.log("x")), times=(TimesRule(3, until=5),)),
            "update a: times: the last rule holds for all other steps: give it times alone",
        ),
        (
            lambda: Update("a", E(p.x, q.log("x")), times=(TimesRule(3), TimesRule(1))),
            r"update a: times\[0\]: no rule after one without until and every is ever asked",
        ),
        (
            lambda: small_model(wgan(constraints={"d": ("clip",)})),
            "objective.constraints.d: the objective trains no part of this name; .*known: decoder, f",
        ),
        (
            lambda: small_model(attrs.evolve(wgan(), order="same point")).step(),
            "objective.order: 'same point' runs each update once a step, f asks otherwise",
        ),
    ],
)
def test_mistakes_are_told(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
