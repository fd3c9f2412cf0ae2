"""The objective language: what is written prints as the paper's equation, and nothing else can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jointgen.errors import ConfigError
from jointgen.objectives import (
    KL,
    Conditional,
    Constant,
    E,
    Expr,
    Joint,
    LogDensity,
    Product,
    Weight,
    absolute,
    cycle,
    elbo,
    exp,
    joint_from_text,
    kl,
    log_ratio,
    log_sigmoid,
    p,
    q,
    relu,
    score,
    softplus,
    square,
    stop,
)
from jointgen.objectives.algebra import summands

f = log_ratio(q.xz, p.xz, name="f")
f1 = log_ratio(q.xz, p.x * p.z, name="f1")
f2 = log_ratio(p.xz, q.x * q.z, name="f2")
t = log_ratio(q.xz, q.x * p.z, name="t")
dz = log_ratio(q.z, p.z, name="dz")
dx = log_ratio(q.x, p.x, name="dx")
critic = score(q.x, p.x, name="critic", loss="wasserstein")
lam = Weight("lambda", 10.0)

# --- printing --------------------------------------------------------------------------------------------------------

EQUATIONS: dict[str, tuple[Expr, str]] = {
    "VAE": (elbo(q, p), "E[q(x,z)](log p(x|z) + log p(z) - log q(z|x))"),
    "AVB": (E(q.xz, p.log_x_given_z - t), "E[q(x,z)](log p(x|z) - t)"),
    "ALI": (
        E(q.xz, log_sigmoid(-f)) + E(p.xz, log_sigmoid(f)),
        "E[q(x,z)](log s(-f)) + E[p(x,z)](log s(f))",
    ),
    "AS-VAE": (
        E(q.xz, p.log_x_given_z - f1) + E(p.xz, q.log_z_given_x - f2),
        "E[q(x,z)](log p(x|z) - f1) + E[p(x,z)](log q(z|x) - f2)",
    ),
    "sVAE": (
        E(q.xz, p.log_x_given_z - f) + E(p.xz, q.log_z_given_x + f),
        "E[q(x,z)](log p(x|z) - f) + E[p(x,z)](log q(z|x) + f)",
    ),
    "AAE": (
        E(q.xz, p.log_x_given_z) + E(q.z, log_sigmoid(-dz)),
        "E[q(x,z)](log p(x|z)) + E[q(z)](log s(-dz))",
    ),
    "GAN": (E(p.x, log_sigmoid(dx)), "E[p(x)](log s(dx))"),
    "WGAN": (E(p.x, critic), "E[p(x)](critic)"),
    "ALICE": (
        E(q.xz, log_sigmoid(-f)) - lam * E(q.xz, cycle(p, "x|z")),
        "E[q(x,z)](log s(-f)) - lambda*E[q(x,z)](l1(x, mean p(x|z)))",
    ),
    "IWAE": (
        E(q.xz, p.log_x_given_z + p.log_z - q.log_z_given_x, k=5, reduce="logmeanexp"),
        "E[q(x,z); k=5 logmeanexp](log p(x|z) + log p(z) - log q(z|x))",
    ),
    "VAE, closed KL": (
        E(q.xz, p.log_x_given_z - kl(q.log_z_given_x, p.log_z)),
        "E[q(x,z)](log p(x|z) - KL(q(z|x) : p(z)))",
    ),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_an_objective_prints_as_the_equation_of_its_paper(name: str) -> None:
    expr, written = EQUATIONS[name]
    assert str(expr) == written


@pytest.mark.parametrize(
    ("expr", "written"),
    [
        (f - 2 * (f1 - 3 * f2), "f - 2*(f1 - 3*f2)"),
        (f - (f1 - f2), "f - (f1 - f2)"),
        (f - f1 - f2, "f - f1 - f2"),
        (-f, "-f"),
        (-(f + f1), "-(f + f1)"),
        (-2 * f, "-2*f"),
        (f + -2 * f1, "f - 2*f1"),
        (f - -2 * f1, "f + 2*f1"),
        (-1 * -f, "f"),
        (1 * f, "f"),
        (f * 0.5, "0.5*f"),
        (1 - f, "1 - f"),
        (f - 1, "f - 1"),
        (-1 + f, "-1 + f"),
        (lam * (f - f1), "lambda*(f - f1)"),
        (-lam * f, "-lambda*f"),
        (lam * -f, "-lambda*f"),
        (2 * lam * f, "2*lambda*f"),
        (lam * (2 * (f - f1)), "lambda*2*(f - f1)"),
        (square(f - 1) - relu(1 + f), "square(f - 1) - relu(1 + f)"),
        (exp(-f) + absolute(f) + softplus(f1), "exp(-f) + abs(f) + softplus(f1)"),
        (stop(f - f1), "stop(f - f1)"),
        (p.log("x|z", stop="z"), "log p(x|stop(z))"),
        (p.log("x|z", stop=("x", "z")), "log p(stop(x)|stop(z))"),
        (q.log("z|x", hold=True), "hold(log q(z|x))"),
        (p.log("x|z", mass=True), "log mass p(x|z)"),
        (cycle(p, "x|z", distance="l2", reading="sample"), "l2(x, p(x|z))"),
    ],
)
def test_terms_print_as_they_are_written(expr: Expr, written: str) -> None:
    assert str(expr) == written


@pytest.mark.parametrize("value", [0.1, 1 / 3, 123456789.0, 1e-9, 2.5, 1e16, 0.1 + 0.2])
def test_a_weight_prints_as_the_number_that_it_is(value: float) -> None:
    """Six digits are short to read, but 1/3 is not 0.333333: what a run writes down must repeat it."""
    printed, _, term = str(value * f).partition("*")
    assert term == "f"
    assert float(printed) == value


# --- weighted sums ---------------------------------------------------------------------------------------------------


def total_weights(expr: Expr) -> dict[str, float]:
    """The coefficient of each term, multiplied out."""
    found: dict[str, float] = {}
    for weights, term in summands(expr):
        product = 1.0
        for weight in weights:
            product *= weight.to if isinstance(weight, Weight) else weight
        found[str(term)] = found.get(str(term), 0.0) + product
    return found


def test_summands_multiply_nested_weights_out() -> None:
    """2 (f - 3 (f1 - lambda f2)) - f with lambda = 10: f has 2 - 1, f1 has 2 * -3, f2 has 2 * -3 * -10."""
    expr = 2 * (f - 3 * (f1 - lam * f2)) - f
    assert total_weights(expr) == {"f": 1.0, "f1": -6.0, "f2": 60.0}


def test_a_function_of_a_sum_is_one_summand() -> None:
    assert total_weights(square(f - 1) * 3 - 2 * stop(f + f1)) == {"square(f - 1)": 3.0, "stop(f + f1)": -2.0}


@pytest.mark.parametrize(
    ("weight", "progress", "value"),
    [
        (Weight("w", 10.0), 0.0, 10.0),
        (Weight("w", 10.0, start=0.0, over=0.5), 0.0, 0.0),
        (Weight("w", 10.0, start=0.0, over=0.5), 0.125, 2.5),  # a quarter of the way
        (Weight("w", 10.0, start=0.0, over=0.5), 0.5, 10.0),
        (Weight("w", 10.0, start=0.0, over=0.5), 1.0, 10.0),
        (Weight("w", 1.0, start=5.0, over=1.0), 0.75, 2.0),  # downwards
        (Weight("w", 3.0, start=0.0, over=0.0), 0.0, 3.0),  # no time to change in: there at once
    ],
)
def test_weights_go_in_a_line_over_their_share_of_the_stage(weight: Weight, progress: float, value: float) -> None:
    assert weight.at(progress) == pytest.approx(value, abs=1e-12)


def test_a_share_is_a_share() -> None:
    with pytest.raises(ConfigError, match=r"weight w: over is a share of the stage, 0 to 1, got 500"):
        Weight("w", 1.0, start=0.0, over=500)


def test_a_weight_says_how_it_goes() -> None:
    assert Weight("w", 2.0).describe() == "w = 2"
    assert Weight("w", 2.0, start=0.0, over=0.25).describe() == "w = 0 to 2 over the first 25% of the stage"


# --- distributions ---------------------------------------------------------------------------------------------------

LABELLED = joint_from_text("p", "p(y) p(z) p(x|z,y)", {"p(y)": "labels"})
DEEP = joint_from_text("p", "p(w) p(z|w) p(x|z)")


def test_sugar_is_short_for_the_long_form() -> None:
    assert q.xz == q.on("x", "z")
    assert p.x * p.z == Product((p.on("x"), p.on("z")))
    assert p.log_x_given_z == p.log("x|z") == LogDensity(p, Conditional("x", "z", part="decoder"))
    assert p.log_z == p.log("z")
    assert LABELLED.log_x_given_zy == LABELLED.log("x|z,y") == LABELLED.log("x|y,z")
    assert kl(q.log_z_given_x, p.log_z) == KL(q, q.factor("z|x"), p, p.factor("z"))


def test_joints_print_as_their_product() -> None:
    assert str(q) == "q(x,z) = q(x) q(z|x)"
    assert str(LABELLED) == "p(x,y,z) = p(y) p(z) p(x|z,y)"
    assert joint_from_text("p", LABELLED.product, {"p(y)": "labels"}) == LABELLED


def test_the_usual_parts_have_the_usual_names() -> None:
    assert [factor.part for factor in joint_from_text("q", "q(x) q(z|x)").factors] == ["data", "encoder"]
    assert [factor.part for factor in joint_from_text("p", "p(z) p(x|z)").factors] == ["prior", "decoder"]


def test_only_what_a_marginal_needs_is_drawn() -> None:
    assert [str(factor) for factor in DEEP.ancestors(["z"])] == ["w", "z|w"]
    assert [str(factor) for factor in LABELLED.ancestors(["z"])] == ["z"]
    assert [str(factor) for factor in LABELLED.ancestors(["x"])] == ["y", "z", "x|z,y"]


def test_the_bound_drops_data_roots_and_keeps_every_other_factor() -> None:
    """p(y) is data, so this is a bound on log p(x|y); two layers of codes have two rates."""
    labelled = joint_from_text("q", "q(x,y) q(z|x,y)")
    model = joint_from_text("p", "p(y) p(z) p(x|z,y)", {"p(y)": "data"})
    assert str(elbo(labelled, model)) == "E[q(x,y,z)](log p(x|z,y) + log p(z) - log q(z|x,y))"
    deep = joint_from_text("q", "q(x) q(z|x) q(w|z)")
    assert str(elbo(deep, DEEP)) == "E[q(w,x,z)](log p(z|w) + log p(x|z) + log p(w) - log q(z|x) - log q(w|z))"


def test_there_is_no_bound_without_a_draw_of_every_variable() -> None:
    with pytest.raises(ConfigError, match="q does not draw 'w', so there is no bound"):
        elbo(q, DEEP)


# --- what cannot be written ------------------------------------------------------------------------------------------


def wrong_conditional_order() -> object:
    return Joint("p", (Conditional("x", "z"), Conditional("z")))


MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (lambda: f * f1, r"\(f1\) \* \(f\)|\(f\) \* \(f1\): a term can be multiplied by a number or a weight only"),
    (wrong_conditional_order, r"x\|z is given 'z', which no factor before it draws"),
    (lambda: Joint("p", (Conditional("z"), Conditional("z"))), r"'z' is drawn by two factors"),
    (lambda: q.on("y"), r"no variable 'y' in q\(x,z\)"),
    (lambda: q.on("x", "x"), "names each variable once"),
    (lambda: q.on(), "names each variable once"),
    (lambda: q.x * p.x, "'x' stands in two factors of the product"),
    (lambda: q.xz * p.z, "'z' stands in two factors of the product"),
    (lambda: p.log("z|x"), r"p\(z\|x\) is no factor of p\(x,z\) = p\(z\) p\(x\|z\)"),
    (
        lambda: p.log("x|z", stop="y"),
        r"log p\(x\|z\): 'y' is no argument that a value can take the place of; known: x, z",
    ),
    (lambda: kl(q.log_z_given_x, p.log_x_given_z), "the two sides are over different variables"),
    (lambda: log_ratio(q.x, p.z, name="f"), r"f = log-ratio q\(x\) : p\(z\): the two sides are over different"),
    (lambda: log_ratio(q.x, p.x, name="f", view={"z": "mean"}), "view names 'z', which the critic does not see"),
    (
        lambda: score(q.x, p.x, name="c", loss="hinge", known=q.log_z_given_x),
        "a known part belongs to a log-ratio, not to a score",
    ),
    (lambda: E(q.x, f, k=0), "k must be from 1 to 10,000"),
    (lambda: E(q.x, 2 * E(q.x, f)), "an expectation stands inside another"),
    (lambda: joint_from_text("q", "q(x) p(z|x)"), r"joint q: expected q\(...\) at 'p\(z\|x\)'"),
    (lambda: joint_from_text("q", "q(x) q(z|x", {}), r"joint q: expected q\(...\) at 'q\(z\|x'"),
    (lambda: joint_from_text("q", "q(x)", {"q(z|x)": "encoder"}), r"q\(z\|x\) is no factor of q\(x\)"),
]


@pytest.mark.parametrize(("write", "message"), MISTAKES, ids=[message[:40] for _, message in MISTAKES])
def test_mistakes_are_named(write: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write()


def test_numbers_become_terms() -> None:
    assert 1 - f == Constant(1.0) - f
    assert f - 1 == f - Constant(1.0)
    assert f + -1 == f - 1
