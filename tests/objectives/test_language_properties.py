"""Whatever expression is composed is read back equal, and whatever text is read is an expression or a ConfigError."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jointgen.config.structure import structure, unstructure
from jointgen.config.toml import to_toml
from jointgen.errors import ConfigError
from jointgen.objectives import (
    POINTWISE,
    Clip,
    E,
    Expr,
    Objective,
    Pointwise,
    Stop,
    Value,
    Vocabulary,
    Weight,
    apply,
    cycle,
    features,
    joint_from_text,
    kl,
    log_ratio,
    p,
    parse,
    parse_product,
    parse_ratio_sides,
    q,
    stop,
)
from jointgen.objectives.parse import parse_view
from jointgen.objectives.recipe_text import Expression
from jointgen.objectives.tables import BalanceTable, WeightTable, table_of, weight_of
from jointgen.registry.components import Registry

NUMBERS = st.floats(-1e9, 1e9, allow_nan=False).filter(lambda number: number != 0)
SHARES = st.floats(0, 1)
f = log_ratio(q.xz, p.xz, name="f")
g = log_ratio(q.x, p.x, name="g", known=p.log_x_given_z - q.log_z_given_x)
lam, w = Weight("lambda", 10.0, start=0.0, over=0.5), Weight("w", 0.1)
WORDS = Vocabulary({"q": q, "p": p}, {"f": f, "g": g}, {"lambda": lam, "w": w}, ("l1", "l2"))
MARGINALS = st.sampled_from([q.xz, p.xz, q.x * p.z, p.x * q.z, q.x])
SOME_SHARES = st.floats(1e-3, 1.0, exclude_max=True)
MIXTURES = st.builds(lambda share, a, b: share * a + (1 - share) * b, SOME_SHARES, st.just(q.xz), st.just(p.x * q.z))
LEAVES = st.sampled_from(
    [
        f,
        g,
        p.log_x_given_z,
        q.log("z|x", stop="x"),
        p.log("z", hold=True),
        p.log("x|z", mass=True, stop=("x", "z")),
        kl(q.log_z_given_x, p.log_z),
        cycle(p, "x|z"),
        cycle(q, "z|x", distance="l2", reading="sample"),
    ]
)


VALUES = st.recursive(
    st.sampled_from(["x", "z", "mean x"]).map(lambda text: Value(*reversed(text.split()))),
    lambda values: st.one_of(
        values.map(stop),
        st.tuples(values, st.sampled_from([1, 7, "last", "all"])).map(
            lambda one: features(g, one[1], at={"x": one[0]})
        ),
        st.tuples(values, values).map(lambda both: features(f, at={"x": both[0], "z": both[1]})),
        values.map(lambda value: p.draw("x|z", "mean", at={"z": value})),
        values.map(lambda value: q.draw("z|x", at={"x": value})),
    ),
    max_leaves=4,
)
OF_VALUES = st.one_of(
    st.tuples(VALUES, VALUES).map(lambda both: apply("l2", *both)),
    VALUES.map(lambda value: q.log("z|x", at={"x": value}, hold=True)),
    st.tuples(VALUES, VALUES).map(lambda both: p.log("x|z", at={"x": both[0], "z": both[1]}, mass=True)),
    VALUES.map(lambda value: kl(q.log("z|x", at={"x": value}), p.log_z)),
)


def grown(terms: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    pairs = st.tuples(terms, terms)
    return st.one_of(
        pairs.map(lambda both: both[0] + both[1]),
        pairs.map(lambda both: both[0] - both[1]),
        st.tuples(NUMBERS, terms).map(lambda both: both[0] * both[1]),
        st.tuples(st.sampled_from([lam, w]), terms).map(lambda both: both[0] * both[1]),
        st.tuples(NUMBERS, terms).map(lambda both: both[0] + both[1]),
        terms.map(lambda term: -term),
        terms.map(Stop),
        st.builds(Pointwise, st.sampled_from(POINTWISE), terms),
        st.tuples(st.sampled_from([lam, w]), terms).map(lambda both: both[1] - both[0]),
        st.builds(Clip, terms, st.floats(-1e6, -1e-6), st.floats(1e-6, 1e6)),
    )


TERMS = st.recursive(st.one_of(LEAVES, OF_VALUES), grown, max_leaves=12)
DRAWS = st.sampled_from(
    [{}, {"k": 3}, {"k": 10_000, "reduce": "logmeanexp"}, {"sums": "x"}, {"sums": "x", "k": 3, "reduce": "logmeanexp"}]
)
EXPECTATIONS = st.builds(lambda over, term, draws: E(over, term, **draws), st.one_of(MARGINALS, MIXTURES), TERMS, DRAWS)
SUMS = st.recursive(
    EXPECTATIONS,
    lambda sums: st.one_of(
        st.tuples(sums, sums).map(lambda both: both[0] + both[1]),
        st.tuples(sums, sums).map(lambda both: both[0] - both[1]),
        st.tuples(st.one_of(NUMBERS, st.sampled_from([lam, w])), sums).map(lambda both: both[0] * both[1]),
    ),
    max_leaves=3,
)

# --- there and back --------------------------------------------------------------------------------------------------


@given(SUMS)
def test_what_prints_is_read_back(expr: Expr) -> None:
    again = parse(str(expr), WORDS)
    assert again == expr
    assert str(again) == str(expr)


@given(SUMS)
def test_an_objective_goes_through_tables_and_a_toml_file(registry: Registry, expr: Expr) -> None:
    objective = Objective.of(expr)
    written = Expression.of(objective, registry)
    tables = unstructure(written, registry)
    again = structure(tomllib.loads(to_toml(tables)), Expression, registry)
    assert again == written
    read = again.objective()
    assert isinstance(read, Objective)
    assert [str(update.maximize) for update in read.updates] == [str(expr)]
    assert read.weights == objective.weights
    assert {name: ratio.definition for name, ratio in read.ratios.items()} == {
        name: ratio.definition for name, ratio in objective.ratios.items()
    }


WEIGHT_TABLES = st.builds(
    lambda after, **table: WeightTable(**table, after=after * (1 - table["over"])),
    to=NUMBERS,
    start=NUMBERS,
    over=SHARES,
    cycles=st.integers(1, 9),
    after=SHARES,
)
STRENGTHS = st.floats(0, 1e9)
BALANCE_TABLES = st.one_of(
    st.builds(BalanceTable, STRENGTHS, st.sampled_from(["log p(x|z)", "f"])),
    st.builds(BalanceTable, STRENGTHS, start=STRENGTHS, over=SHARES.filter(bool), cycles=st.integers(1, 9)),
)


@given(st.one_of(NUMBERS, WEIGHT_TABLES, BALANCE_TABLES))
def test_a_weight_is_written_as_the_table_that_it_was_made_from(setting: Any) -> None:
    weight = weight_of("w", setting)
    assert table_of(weight) == setting
    assert weight_of("w", table_of(weight)) == weight


@given(WEIGHT_TABLES, st.floats(0, 1))
def test_a_schedule_stays_between_its_ends(table: WeightTable, progress: float) -> None:
    low, high = sorted((table.start, table.to))
    slack = 1e-9 * (abs(low) + abs(high))
    assert low - slack <= table.named("w").at(progress) <= high + slack
    assert table.named("w").at(1.0) == table.to


# --- any text --------------------------------------------------------------------------------------------------------

SOUP = "E [ ] ( ) q p x z f g lambda w log s stop hold KL mass l1 mean exp , ; : | * + - . k = 5 1e3 9 logmeanexp = ² λ"
WORDS_OF_TEXT = st.sampled_from([*SOUP.split(), "q(x,z)", "log p(x|z)", "E[q(x,z)](", " ", "\n", "standardized "])
TEXTS = st.one_of(st.lists(WORDS_OF_TEXT, max_size=20).map("".join), st.text())


@given(TEXTS)
def test_any_text_is_an_expression_or_a_mistake(text: str) -> None:
    try:
        expr = parse(text, WORDS)
    except ConfigError as error:
        assert len(error.lines) == 1
        assert "\n" not in error.lines[0]
    else:
        assert parse(str(expr), WORDS) == expr


@given(SUMS, st.data())
def test_a_printed_expression_with_a_changed_character_is_an_expression_or_a_mistake(
    expr: Expr, data: st.DataObject
) -> None:
    text = str(expr)
    at = data.draw(st.integers(0, len(text)))
    other = data.draw(st.one_of(st.sampled_from(SOUP), st.just(""), st.characters()))
    try:
        parse(text[:at] + other + text[at + 1 :], WORDS)
    except ConfigError as error:
        assert len(error.lines) == 1


@pytest.mark.parametrize("read", [parse_product, parse_ratio_sides, parse_view])
@given(text=TEXTS)
def test_any_text_in_place_of_sides_and_views_is_one_or_a_mistake(read: Any, text: str) -> None:
    try:
        read(text, WORDS)
    except ConfigError as error:
        assert len(error.lines) == 1


@given(TEXTS, st.dictionaries(st.sampled_from(["r(x)", "r(z|x)", "q(x)", "x"]), st.text(max_size=5)))
def test_any_text_is_a_joint_or_a_mistake(text: str, parts: dict[str, str]) -> None:
    try:
        joint = joint_from_text("r", text, parts, {"q": q})
    except ConfigError:
        return
    assert joint_from_text("r", joint.product, parts, {"q": q}) == joint
