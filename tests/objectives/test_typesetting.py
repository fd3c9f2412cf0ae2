"""Expressions as LaTeX; their HTML is tested with the page that shows it."""

from __future__ import annotations

import pytest

from jointgen.objectives import E, Objective, Weight, log_ratio, p, q
from jointgen.objectives.objective import Update
from jointgen.objectives.typesetting import as_latex


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("E[q(x,z)](log p(x|z) - f)", r"\mathbb{E}_{q(x,z)}(\log p(x \mid z) - f)"),
        ("lambda*log s(-f1)", r"\lambda \cdot \log \sigma(-f_{1})"),
        ("l1(x, mean p(x|z2))", r"l_{1}(x, \mathrm{mean}\, p(x \mid z_{2}))"),
        ("E[q(x,z); k=50 logmeanexp](a_b)", r"\mathbb{E}_{q(x,z); k=50 \mathrm{logmeanexp}}(\mathrm{a\_b})"),
        ("KL(q(z|x) : p(z))", r"\mathrm{KL}(q(z \mid x) : p(z))"),
        ("stop(x)", r"\mathrm{stop}(x)"),
    ],
)
def test_an_expression_in_latex(text: str, latex: str) -> None:
    assert as_latex(text) == latex


def test_an_objective_has_a_line_for_each_summand_critic_and_weight() -> None:
    f = log_ratio(q.xz, p.xz, name="f")
    weight = Weight("lambda", to=10.0, start=0.0, over=0.1)
    objective = Objective.of(E(q.xz, p.log_x_given_z - f) + E(p.xz, weight * q.log_z_given_x))
    assert objective.latex().splitlines() == [
        r"\begin{aligned}",
        r"\max\quad & \mathbb{E}_{q(x,z)}(\log p(x \mid z) - f) \\",
        r"& \quad + \mathbb{E}_{p(x,z)}(\lambda \cdot \log q(z \mid x)) \\",
        r"& f = \log \frac{q(x,z)}{p(x,z)} \\",
        r"& \text{lambda = 0 to 10 over the first 10\% of the stage}",
        r"\end{aligned}",
    ]
    assert objective._repr_latex_() == rf"$\displaystyle {objective.latex()}$"


def test_several_updates_have_their_names() -> None:
    up, down = Update("model", E(q.xz, p.log_x_given_z)), Update("wake_up", E(p.xz, q.log_z_given_x))
    lines = Objective((up, down)).latex().splitlines()
    assert lines[1].startswith(r"\text{model: }\max\quad & ") and lines[2].startswith(r"\text{wake\_up: }\max")
