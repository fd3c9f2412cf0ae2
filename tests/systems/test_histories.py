"""A critic's history of draws: which rows it sees and keeps, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.models import SmallModel, small_model
from torch import Tensor

from jointgen.engine.histories import Histories, PastRows
from jointgen.errors import ConfigError
from jointgen.objectives import E, Objective, Update, Vocabulary, log_ratio, log_sigmoid, p, parse, q
from jointgen.objectives.recipe_text import Expression
from jointgen.registry.components import Registry

SIZE = 3
NAME = f"f/history {SIZE} of p(x)"
f = log_ratio(q.x, p.x, name="f", history=SIZE)


def gan(**options: Any) -> Objective:
    return Objective.of(E(p.x, log_sigmoid(f)), order="critics, model", **options)


def test_rows_are_appended_until_it_is_full_and_replaced_where_they_were_taken() -> None:
    past = PastRows(3)
    rows = lambda *numbers: {"x": torch.tensor(numbers, dtype=torch.float64)[:, None]}  # noqa: E731
    never, nowhere = torch.tensor([False, False]), torch.tensor([0, 0])
    past.add(rows(1, 2), never, nowhere)
    assert past.count == 2 and not past.is_full
    past.add(rows(3, 4), never, nowhere)
    assert past.is_full and past.rows["x"].flatten().tolist() == [1, 2, 3]
    past.add(rows(5, 6, 7, 8), torch.tensor([True, False, True, True]), torch.tensor([1, 0, 2, 1]))
    assert past.rows["x"].flatten().tolist() == [1, 8, 7], "5 and 8 were given the place of 2; the last one keeps it"


def seen_by_the_critic(model: SmallModel, steps: int, histories: Histories, first: int = 0) -> list[list[Tensor]]:
    """What the critic is shown in each step: in its own update its positives and negatives, then the model's draws."""
    watched = model.watched("f")["f"]
    step = model.step(lr=0.0, histories=histories)
    shown = []
    for number in range(first, first + steps):
        watched.calls.clear()
        step(lambda r, n=number: model.inputs(step=n, repetition=r))
        shown.append([call[0] for call in watched.calls])
    return shown


def chosen(model: SmallModel, step: int) -> tuple[Tensor, Tensor]:
    numbers = model.inputs(step=step).noise.named(NAME, 8).uniform(2)
    return numbers[:, 0] < 0.5, (numbers[:, 1] * SIZE).long()


def test_a_critic_sees_old_draws_in_half_of_its_rows_and_the_model_new_ones() -> None:
    model, histories = small_model(gan()), Histories()
    shown = seen_by_the_critic(model, 4, histories)
    new = [fresh for _, _, fresh in shown]
    pool = new[0][:SIZE].clone()  # the first step fills it, and shows new draws alone
    assert torch.equal(shown[0][1], new[0])
    for number in (1, 2, 3):
        is_taken, slots = chosen(model, number)
        assert 0 < is_taken.sum() < 8
        expected = torch.where(is_taken[:, None], pool[slots], new[number])
        assert torch.equal(shown[number][1], expected)
        for row in range(8):
            if is_taken[row]:
                pool[slots[row]] = new[number][row]
    assert torch.equal(histories.past[NAME].rows["x"], pool)


def test_histories_of_two_sizes_are_two() -> None:
    g = log_ratio(q.x, p.x, name="f")
    past = E(p.x, log_sigmoid(-g), history=3) + E(p.x, log_sigmoid(-g), history=5)
    model = small_model(
        Objective((Update("model", E(p.x, log_sigmoid(g))), Update("f", E(q.x, log_sigmoid(g)) + past, ("f",))))
    )
    histories = Histories()
    seen_by_the_critic(model, 3, histories)
    assert {len(past.rows["x"]) for past in histories.past.values()} == {3, 5}


def test_a_run_goes_on_with_the_history_of_its_checkpoint() -> None:
    whole, histories = small_model(gan()), Histories()
    expected = seen_by_the_critic(whole, 5, histories)
    before, after = Histories(), Histories()
    seen_by_the_critic(small_model(gan()), 3, before)
    after.load_state_dict(before.state_dict())
    again = seen_by_the_critic(small_model(gan()), 2, after, first=3)
    for one, other in zip(expected[3:], again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    with pytest.raises(ValueError, match="expected rows of one number, and as many draws at the most"):
        after.load_state_dict({NAME: {"rows": {"x": torch.zeros(2, 1)}, "count": 3}})


def test_micro_batches_keep_the_same_history() -> None:
    pools = []
    for parts in (1, 4):
        model, histories = small_model(gan()).double(), Histories()
        step = model.step(micro_batches=parts, histories=histories)
        for number in range(6):
            step(lambda r, n=number, m=model: m.inputs(step=n, repetition=r))
        pools.append((histories.past[NAME].rows["x"], *model.parts.modules["f"].parameters()))
    for one, other in zip(*pools, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_figures_of_the_critic_are_of_what_it_saw() -> None:
    model = small_model(gan())
    step = model.step(lr=0.0)
    watched = model.watched("f")["f"]
    watched.weight.data.fill_(1.0)
    step = model.step(lr=0.0)
    for number in range(3):
        watched.calls.clear()
        figures = step(lambda r, n=number: model.inputs(step=n, repetition=r), until_log=0)
    negatives = watched.calls[1][0].sum(1)
    assert float(figures["f/negative_mean"]) == pytest.approx(float(negatives.mean()), abs=1e-5)


def test_it_prints_and_reads_back(registry: Registry) -> None:
    expr = E(q.x, log_sigmoid(f)) + E(p.x, log_sigmoid(-f), history=50)
    assert str(expr) == "E[q(x)](log s(f)) + E[p(x); history 50](log s(-f))"
    assert parse(str(expr), Vocabulary(ratios={"f": f})) == expr
    written = Expression.of(gan(), registry)
    assert written.ratios["f"].history == SIZE  # type: ignore[union-attr]
    critic = {u.name: u for u in written.objective().complete(registry.default).updates}["f"]  # type: ignore[union-attr]
    assert str(critic.maximize) == "E[q(x)](log s(f)) + E[p(x); history 3](log s(-f))"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: small_model(Objective.of(E(q.xz, p.log_x_given_z, history=5))),
            r"log p\(x\|z\) stands under a history of draws, of which only a critic sees those of the past",
        ),
        (lambda: E(q.xz, f, k=3, history=5), "a history goes with one draw for each row, and with no sum"),
        (lambda: E(q.xz, f, history=-1), "a history has from 1 to 10,000 draws"),
        (
            lambda: parse("E[q(x); history](log s(f))"),
            "a history has from 1 to 10,000 draws, a whole number",
        ),
        (
            lambda: small_model(Objective.of(E(p.x, log_sigmoid(f)), order="same point")).step(),
            "objective.order: f has a history of draws, which goes in turns only",
        ),
    ],
)
def test_mistakes_are_told(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
