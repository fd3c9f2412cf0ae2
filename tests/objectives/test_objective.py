"""Objectives: the critics' updates that follow from the ratios, their order, stages, and names that clash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from support.models import resolve

from jointgen.errors import ConfigError
from jointgen.objectives import (
    Conditional,
    Constant,
    E,
    Joint,
    Objective,
    Stage,
    Update,
    Weight,
    as_stages,
    cycle,
    kl,
    log_ratio,
    log_sigmoid,
    p,
    q,
    score,
)
from jointgen.objectives.recipe_text import Expression, StageTable

f1 = log_ratio(q.xz, p.x * p.z, name="f1")
f2 = log_ratio(p.xz, q.x * q.z, name="f2")
LITERAL = E(q.xz, p.log_x_given_z - f1) + E(p.xz, q.log_z_given_x - f2)

# --- the critics' updates --------------------------------------------------------------------------------------------


def update_of(ratio: Any) -> Update:
    """The update that an objective with this ratio derives for its critic."""
    updates = Objective.of(E(p.x, -ratio)).complete(resolve).updates
    return next(update for update in updates if update.name == "c")


@pytest.mark.parametrize(
    ("loss", "update"),
    [
        ("logistic", "E[q(x)](log s(c)) + E[p(x)](log s(-c))"),
        ("wasserstein", "E[q(x)](c) + E[p(x)](-c)"),
        ("hinge", "E[q(x)](-relu(1 - c)) + E[p(x)](-relu(1 + c))"),
        ("least_squares", "E[q(x)](-square(c - 1)) + E[p(x)](-square(c))"),
    ],
)
def test_a_ratio_contributes_the_update_of_its_critic(loss: str, update: str) -> None:
    """Positives come first: they are draws of the numerator."""
    options: dict[str, Any] = {"name": "c", "loss": loss, "times": 5}
    ratio = log_ratio(q.x, p.x, **options) if loss == "logistic" else score(q.x, p.x, **options)
    found = update_of(ratio)
    assert str(found.maximize) == update
    assert (found.trains, found.times, found.every) == (("c",), 5, 1)


def test_the_two_critics_of_asvae_are_trained_by_equations_5_and_6() -> None:
    updates = Objective.of(LITERAL).complete(resolve).updates
    assert [(u.name, str(u.maximize)) for u in updates] == [
        ("model", "E[q(x,z)](log p(x|z) - f1) + E[p(x,z)](log q(z|x) - f2)"),
        ("f1", "E[q(x,z)](log s(f1)) + E[p(x)p(z)](log s(-f1))"),
        ("f2", "E[p(x,z)](log s(f2)) + E[q(x)q(z)](log s(-f2))"),
    ]


def test_penalties_are_taken_off() -> None:
    ratio = log_ratio(q.x, p.x, name="c", penalties=("r1", "gradient_penalty"))
    written = "E[q(x)](log s(c)) + E[p(x)](log s(-c)) - 0.1*R1(c) - 10*GradientPenalty(c)"
    assert str(update_of(ratio).maximize) == written


@pytest.mark.parametrize("loss", ["wasserstein", "hinge", "least_squares"])
def test_a_score_is_never_called_a_ratio(loss: str) -> None:
    objective = Objective.of(E(p.x, -log_ratio(q.x, p.x, name="c", loss=loss)))
    with pytest.raises(ConfigError, match=r"c = log-ratio q\(x\) : p\(x\): .* gives only a score: use score\(...\)"):
        objective.complete(resolve)


def test_a_ratio_is_never_called_a_score() -> None:
    objective = Objective.of(E(p.x, score(q.x, p.x, name="c", loss="logistic")))
    with pytest.raises(ConfigError, match=r"c = score .* trained by Logistic gives a log-ratio: use log_ratio\(...\)"):
        objective.complete(resolve)


def test_a_ratio_inside_a_known_part_has_a_critic_too() -> None:
    inner = log_ratio(q.x, p.x, name="inner")
    outer = log_ratio(q.xz, p.xz, name="outer", known=inner)
    updates = Objective.of(E(p.xz, outer)).complete(resolve).updates
    assert [u.name for u in updates] == ["model", "outer", "inner"]


def test_every_name_is_replaced_by_its_component() -> None:
    """In terms, in known parts and in reports."""
    loop = cycle(p, "x|z")
    ratio = log_ratio(q.xz, p.xz, name="c", known=-loop)
    whole = Objective.of(E(q.xz, log_sigmoid(-ratio) - loop), reports=(("loop", E(q.xz, loop)),)).complete(resolve)
    terms = [e.term for e in whole.walk() if type(e).__name__ == "Apply"]
    assert {type(term.component).__name__ for term in terms} == {"L1"}
    assert type(whole.ratios["c"].loss).__name__ == "Logistic"
    assert str(whole.updates[0].maximize) == "E[q(x,z)](log s(-c) - l1(x, mean p(x|z)))"


# --- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("model, critics", ["model", "f1", "f2"]),
        ("critics, model", ["f1", "f2", "model"]),
        ("same point", ["model", "f1", "f2"]),
    ],
)
def test_the_order_of_updates_is_the_objectives(order: Any, names: list[str]) -> None:
    objective = Objective.of(LITERAL, order=order).complete(resolve)
    assert [u.name for u in objective.updates] == names
    assert objective.order == order


def test_a_written_update_stands_for_the_critics() -> None:
    ratio = log_ratio(q.x, p.x, name="d")
    own = Update("d", E(q.x, log_sigmoid(ratio)) + 0.5 * E(p.x, log_sigmoid(-ratio)), trains="d", every=2)
    whole = Objective((own, Update("model", E(p.x, log_sigmoid(ratio))))).complete(resolve)
    assert [u.name for u in whole.updates] == ["d", "model"]
    assert (whole.updates[0].every, whole.updates[0].trains) == (2, ("d",))
    assert str(whole.updates[0].maximize) == "E[q(x)](log s(d)) + 0.5*E[p(x)](log s(-d))"


@pytest.mark.parametrize("options", [{"penalties": ("r1",)}, {"times": 5}])
def test_a_written_update_must_not_drop_what_the_ratio_asks_for(options: Any) -> None:
    ratio = log_ratio(q.x, p.x, name="d", **options)
    own = Update("d", E(q.x, log_sigmoid(ratio)), trains="d")
    objective = Objective((own, Update("model", E(p.x, log_sigmoid(ratio)))))
    with pytest.raises(
        ConfigError, match="ratio 'd' has penalties, times or a history, which the update written for it would drop"
    ):
        objective.complete(resolve)


def test_completing_twice_is_completing_once() -> None:
    ratio = log_ratio(q.x, p.x, name="d", penalties=("r1",), times=3)
    whole = Objective.of(E(p.x, log_sigmoid(ratio))).complete(resolve)
    assert whole.complete(resolve) == whole


def test_an_objective_prints_its_equation_its_ratios_and_its_weights() -> None:
    lam = Weight("lambda", 10.0, start=0.0, over=0.5)
    d = log_ratio(p.x, q.x, name="d")
    assert str(Objective.of(E(q.xz, p.log_x_given_z) - lam * E(p.x, d))).splitlines() == [
        "maximise E[q(x,z)](log p(x|z)) - lambda*E[p(x)](d)",
        "d = log-ratio p(x) : q(x)",
        "lambda = 0 to 10 over the first 50% of the stage",
    ]


# --- names -----------------------------------------------------------------------------------------------------------

OTHER_P = Joint("p", (Conditional("z", part="prior"), Conditional("x", "z", part="second_decoder")))

CLASHES: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: Objective.of(E(q.xz, f1) + E(p.xz, attrs.evolve(f2, name="f1"))),
        "two different ratios are called 'f1'",
    ),
    (
        lambda: Objective.of(E(q.xz, Weight("w", 1.0) * f1) + E(p.xz, Weight("w", 2.0) * f2)),
        "two different weights are called 'w'",
    ),
    (lambda: Objective.of(E(p.xz, p.log_z) + E(OTHER_P.xz, f1)), "two different joints are called 'p'"),
    (lambda: Objective.of(E(q.xz, kl(q.log_z_given_x, OTHER_P.log_z) - p.log_z)), "two different joints are called"),
    (lambda: Objective((Update("a", E(q.xz, f1)), Update("a", E(q.xz, f2)))), "two updates are called 'a'"),
    (lambda: Objective.of(E(q.xz, log_ratio(q.xz, p.xz, name="decoder"))), "ratio 'decoder' has the name of a part"),
    (
        lambda: Objective.of(E(q.xz, Weight("f1", 1.0) * f1)),
        "'f1' names both a ratio and a weight",
    ),
    (
        lambda: Objective.of(E(q.xz, log_ratio(q.xz, p.xz, name="model"))),
        "update 'model' has the name of a ratio and does not train its critic",
    ),
]


MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: as_stages(E(q.xz, p.log_z)),
        r"E\[q\(x,z\)\]\(log p\(z\)\) is an expression; an objective is Objective.of",
    ),
    (lambda: as_stages([Objective.of(E(q.xz, p.log_z))]), r"is no stage; write Stage\(name, objective, share\)"),
    (lambda: Weight("w", 1.0, over=0.5), "weight w: give start, from which it goes to its value"),
    (lambda: Weight("w", 1.0, cycles=3), "weight w: give start, from which it goes to its value"),
    (lambda: Weight("w", 1.0, start=0.0, over=0.5, cycles=0), "weight w: cycles is 1 or more, got 0"),
    (lambda: Weight("w", 0.5, start=0.1, against=p.log_x_given_z), "weight w: over: say over which share"),
    (lambda: Weight("w", -0.5, against=p.log_x_given_z), "weight w: a strength r is 0 or more, got -0.5"),
]


@pytest.mark.parametrize(("write", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_mistakes_in_python_are_told(write: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write()


def test_stages_have_the_order_of_their_objective() -> None:
    """But for those that say another."""
    term = "E[q(x,z)](log p(x|z))"
    stages = [StageTable("a", term, 0.5), StageTable("b", term, order="critics, model")]
    made = Expression(stages=stages, order="same point").objective()
    assert [stage.objective.order for stage in made] == ["same point", "critics, model"]


@pytest.mark.parametrize(("write", "message"), CLASHES, ids=[message for _, message in CLASHES])
def test_clashing_names_are_refused(write: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda: Update("a", f1), "update a: f1 stands outside an expectation"),
        (lambda: Update("a", E(q.xz, f1) - 1), "update a: -1 stands outside an expectation"),
        (lambda: Update("a", E(q.xz, f1), every=0), "every and times must be at least 1"),
        (lambda: Update("a", E(q.xz, f1), times=0), "every and times must be at least 1"),
        (lambda: Objective(()), "needs at least one update"),
    ],
)
def test_updates_that_make_no_sense_are_refused(write: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write()


def test_a_constant_in_an_expectation_is_no_mistake() -> None:
    assert str(Update("a", E(q.xz, f1 - Constant(1.0))).maximize) == "E[q(x,z)](f1 - 1)"


# --- stages ----------------------------------------------------------------------------------------------------------

SOME = Objective.of(E(q.xz, p.log_x_given_z))


@pytest.mark.parametrize(
    ("given", "shares"),
    [
        ([0.25, None], [0.25, 0.75]),
        ([None, None, 0.5], [0.25, 0.25, 0.5]),
        ([0.3, 0.7], [0.3, 0.7]),
        ([None], [1.0]),
        ([1.0, None], [1.0, 0.0]),
    ],
)
def test_stages_without_a_share_divide_what_is_left(given: list[float | None], shares: list[float]) -> None:
    stages = as_stages([Stage(f"s{i}", SOME, share) for i, share in enumerate(given)])
    assert [stage.share for stage in stages] == pytest.approx(shares)


def test_an_objective_is_one_stage() -> None:
    assert as_stages(SOME) == (Stage("train", SOME, 1.0),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0.5, 0.6], "shares sum to 1.1"),
        ([0.5, 0.4], "shares sum to 0.9"),
        ([0.7, 0.7, None], "shares sum to 1.4"),
        ([], "shares sum to 0"),
        ([-0.5, 1.5], "stage s0: its share is between 0 and 1, got -0.5"),
    ],
)
def test_shares_that_do_not_sum_to_one_are_refused(given: list[float | None], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        as_stages([Stage(f"s{i}", SOME, share) for i, share in enumerate(given)])
