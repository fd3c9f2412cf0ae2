"""Text to expression: what prints can be read back as the same expression, and mistakes are pointed at."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from jointgen.errors import ConfigError
from jointgen.objectives import (
    POINTWISE,
    Apply,
    Constant,
    E,
    Expr,
    Objective,
    Pointwise,
    Stop,
    Sum,
    Update,
    Value,
    Vocabulary,
    Weight,
    Weighted,
    absolute,
    apply,
    clip,
    cycle,
    exp,
    features,
    joint_from_text,
    kl,
    log,
    log_ratio,
    log_sigmoid,
    p,
    parse,
    parse_product,
    parse_ratio_sides,
    q,
    sigmoid,
    square,
    stop,
    tanh,
)
from jointgen.objectives.objective import as_stages
from jointgen.registry.components import Registry

r = joint_from_text("r", "r(y) r(code) r(x|code,y)")
f = log_ratio(q.xz, p.xz, name="f")
g = log_ratio(q.x, p.x, name="g")
lam = Weight("lambda", 10.0, start=0.0, over=0.5)
w = Weight("w", 0.1)
WORDS = Vocabulary(
    {"q": q, "p": p, "r": r}, {"f": f, "g": g}, {"lambda": lam, "w": w}, ("l1", "l2"), reductions=("logmeanexp",)
)

# --- there and back --------------------------------------------------------------------------------------------------


def settings_of(registry: Registry) -> list[Any]:
    """Every shipped objective, in each of its forms."""
    load: Callable[[str], Any] = lambda name: registry.get("objective", name).load()  # noqa: E731
    asvae = load("asvae")
    return [
        load("vae")(),
        load("vae")(beta=0.5, warm_up=0.2),
        load("vae")(analytic=True),
        load("iwae")(k=5),
        load("iwae")(k=1),
        load("avb")(),
        load("avb")(adaptive_contrast=True),
        load("ali")(),
        load("alice")(distance="l2", weight=0.3),
        *(asvae(form=form, ratio=ratio) for form in ("literal", "decomposed") for ratio in ("T", "d")),
        asvae(form="literal", weight_r=0.0, weight_g=0.3),
        asvae(form="literal", weight_r=1 / 3),
        asvae(vae_first=0.25, ramp=0.5, lambda_=1 / 3),
    ]


def test_every_shipped_objective_is_read_back_from_what_it_prints(registry: Registry) -> None:
    found = [stage.objective for config in settings_of(registry) for stage in as_stages(config.objective())]
    assert len(found) >= 16
    for objective in found:
        words = Vocabulary(objective.joints, objective.ratios, objective.weights)
        for update in objective.updates:
            assert parse(str(update.maximize), words) == update.maximize
        for _, report in objective.reports:
            assert parse(str(report), words) == report
        for ratio in objective.ratios.values():
            assert parse_ratio_sides(f"{ratio.num} : {ratio.den}", words) == (ratio.num, ratio.den)


TRICKY = [
    E(q.xz, -f),
    E(q.xz, -2 * f),
    E(q.xz, 2 * -f),
    E(q.xz, -1 * -(f + g) - 1),
    E(q.xz, f - (g - 2 * (f - 3 * (g - 1)))),
    E(q.xz, 1 - f),
    E(q.xz, -1 + f),
    E(q.xz, 0 * f + 1e-9 * g - 123456789 * f),
    E(q.xz, f * (1 / 3) - 0.1234567891 * g),
    E(q.xz, lam * -f) - lam * E(p.xz, w * (f - g)),
    2 * lam * (E(q.xz, f) - w * E(p.xz, -g)),
    1.0 * (E(q.xz, f) + E(p.xz, g)) - E(p.xz, f),
    E(q.xz, log_sigmoid(-f) - log_sigmoid(1 - f) + square(f - 1)),
    E(q.xz, stop(f - 2 * g) - stop(q.log_z_given_x)),
    E(p.xz, q.log("z|x", stop="x") - q.log("z|x", hold=True) + q.log("z|x", stop=("x", "z"), hold=True)),
    E(q.xz, p.log("x|z", mass=True) - kl(q.log_z_given_x, p.log_z)),
    E(q.xz, p.log_x_given_z, k=7),
    E(q.xz, p.log_x_given_z, k=7, reduce="logmeanexp"),
    E(q.xz, p.log_x_given_z, reduce="logmeanexp"),
    E(q.x * p.z, f) + E(p.x * p.z, g),
    E(q.xz, lam * cycle(p, "x|z")) - E(p.xz, cycle(q, "z|x", distance="l2", reading="sample")),
    E(q.xz, Apply("l1", (Value("x", "mean"), Value("x")))),
    E(q.xz, apply("l2", features(g, 3), stop(features(g, "all", at={"x": p.draw("x|z", "mean")})))),
    E(q.xz, apply("l1", features(f, at={"z": "x", "x": "z"}), features(q.draw("z|x", at={"x": stop("x")}), 1))),
    E(q.on("x", "z", w="x"), apply("l1", "x", "w")),
    E(p.xz, apply("l1", "z", q.draw("z|x", "mean", at={"x": "z"}))),
    E(q.xz, apply("l2", stop(q.draw("z|x", "encoded", at={"x": stop("x")})), stop("z"))),
    E(q.xz, q.log("z|x", stop="z", at={"x": stop(p.draw("x|z", "mean"))}) - p.log("x|z", at={"x": "z"})),
    E(q.xz, p.log("x|z", at={"z": q.draw("z|x", at={"x": p.draw("x|z", at={"z": stop("z")})})}, mass=True)),
    E(p.xz, kl(q.log("z|x", stop="x"), q.log("z|x", at={"x": p.draw("x|z", "mean")}))),
    E(r.on("x", "y", "code"), r.log("x|code,y") + r.log("code") - r.log("x|code,y", stop="code")),
    E(r.on("code") * q.x, r.log("code")),
    E(q.x, sigmoid(-f) - tanh(log(exp(g)))) - E(p.x, log(sigmoid(f)) - log_sigmoid(f)),
    E(q.xz, clip(f - 1, -0.5, 1e-7) + clip(g, 0, 3)),
    E(q.xz, absolute(kl(q.log_z_given_x, p.log_z) - w) - lam + (2 * w - 3) - lam * (w - 1)),
    E(q.xz, lam - f + 0.5 * (w + 1)),
]


@pytest.mark.parametrize("expr", TRICKY, ids=[str(i) for i in range(len(TRICKY))])
def test_tricky_expressions_are_read_back(expr: Expr) -> None:
    assert parse(str(expr), WORDS) == expr


class Writer:
    """Random expressions from a seed, by the language's own operators."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def objective(self) -> Expr:
        total = self.weighted(self.expectation())
        for _ in range(self.random.randrange(3)):
            other = self.weighted(self.expectation())
            total = total + other if self.random.random() < 0.5 else total - other
        return self.weighted(total)

    def expectation(self) -> Expr:
        over = self.random.choice([q.xz, p.xz, q.x * p.z, p.x * q.z])
        k, reduce = self.random.choice([(1, "mean"), (4, "mean"), (4, "logmeanexp")])
        return E(over, self.term(3), k=k, reduce=reduce)

    def weighted(self, expr: Expr) -> Expr:
        pick = self.random.randrange(6)
        by_number = self.random.choice([-1, 1, 0, 3, -2.5, 1 / 7, 1e-7, 2e9]) * expr
        return [expr, expr, -expr, by_number, lam * expr, -w * expr][pick]

    def term(self, depth: int) -> Expr:
        return self.weighted(self.leaf() if depth == 0 else self.node(depth - 1))

    def node(self, depth: int) -> Expr:
        pick = self.random.randrange(6)
        if pick < 2:
            return self.term(depth) + self.term(depth)
        if pick < 4:
            return self.term(depth) - self.term(depth)
        return Stop(self.term(depth)) if pick == 4 else Pointwise(self.random.choice(POINTWISE), self.term(depth))

    def leaf(self) -> Expr:
        return self.random.choice(
            [
                f,
                g,
                f + self.random.choice([2, -0.5]),
                p.log_x_given_z,
                q.log("z|x", stop="x"),
                p.log("z", hold=True),
                p.log("x|z", mass=True),
                kl(q.log_z_given_x, p.log_z),
                cycle(p, "x|z"),
            ]
        )


def value_of(expr: Expr, leaves: Mapping[str, float]) -> float:
    """The number that an expression is, where its leaves are these: independent of how it is printed."""
    if isinstance(expr, Constant):
        return expr.value
    if isinstance(expr, Sum):
        return sum(value_of(term, leaves) for term in expr.terms)
    if isinstance(expr, Weighted):
        return (expr.weight.to if isinstance(expr.weight, Weight) else expr.weight) * value_of(expr.term, leaves)
    if isinstance(expr, Stop):
        return value_of(expr.term, leaves)
    if isinstance(expr, Pointwise):
        return value_of(expr.term, leaves) + 10.0 * POINTWISE.index(expr.function)
    if expr.children and not isinstance(expr, type(f)):
        return 100.0 + value_of(expr.children[0], leaves)  # an expectation
    return leaves.setdefault(str(expr), 1.0 + len(leaves) ** 0.5) if isinstance(leaves, dict) else leaves[str(expr)]


@pytest.mark.parametrize("seed", range(20))
def test_random_expressions_are_read_back(seed: int) -> None:
    """Twenty of each seed: the same expression, hence the same text and the same number."""
    writer, leaves = Writer(seed), dict[str, float]()
    for _ in range(20):
        expr = writer.objective()
        again = parse(str(expr), WORDS)
        assert again == expr, f"{expr} was read back as {again}"
        assert str(again) == str(expr)
        assert value_of(again, leaves) == value_of(expr, leaves)


def test_the_number_of_a_random_expression_is_not_always_the_same() -> None:
    """The comparison above can fail: other signs and weights give other numbers."""
    leaves: dict[str, float] = {}
    pairs = [
        (E(q.xz, f - g), E(q.xz, g - f)),
        (E(q.xz, 2 * (f - g)), E(q.xz, 2 * f - g)),
        (E(q.xz, stop(f)), E(q.xz, -f)),
    ]
    for one, other in pairs:
        assert value_of(one, leaves) != value_of(other, leaves)


def test_a_weight_that_multiplies_nothing_adds_itself() -> None:
    distance = kl(q.log_z_given_x, p.log_z)
    for text in ("E[q(x,z)](abs(KL(q(z|x) : p(z)) - w))", "E[q(x,z)](abs(KL(q(z|x) : p(z)) - w*1))"):
        assert parse(text, WORDS) == E(q.xz, absolute(distance - w))
    assert str(2 * w - distance) == "2*w - KL(q(z|x) : p(z))"
    assert str(3 - lam) == "3 - lambda"
    with pytest.raises(ConfigError, match=r"update model: -2\*w stands outside an expectation"):
        Update("model", E(q.xz, f) - 2 * w)


def test_spaces_and_lines_do_not_matter() -> None:
    written = "  E[ q ( x , z ) ] (\n log  p(x | z)\n - f )  "
    assert parse(written, WORDS) == E(q.xz, p.log_x_given_z - f)


def test_products_of_marginals_are_read() -> None:
    assert parse_product("q(x) p(z)", WORDS) == q.x * p.z
    assert parse_ratio_sides("q(x,z) : p(x)p(z)", WORDS) == (parse_product("q(x,z)", WORDS), p.x * p.z)


def test_an_objective_of_three_variables_is_read() -> None:
    text = "E[r(x,y,code)](log r(x|code,y) + log r(code))"
    assert parse(text, WORDS) == E(r.on("x", "y", "code"), r.log("x|code,y") + r.log("code"))
    assert Objective.of(parse(text, WORDS)).joints == {"r": r}


# --- mistakes --------------------------------------------------------------------------------------------------------

# the text with its mistake between ⟨ and ⟩ (⟨⟩ at the end: something is missing there), and what is said
MISTAKES = [
    ("⟨⟩", "expected a term"),
    ("E⟨⟩", "expected '['"),
    ("E⟨(⟩f)", "expected '['"),
    ("E[q(x,z)]⟨⟩", "expected '('"),
    ("E[q(x,z)](⟨⟩", "expected a term"),
    ("E[q(x,z)](f⟨⟩", "expected ')'"),
    ("E[q(x,z)](f ⟨g⟩)", "expected ')'"),
    ("E[q(x,z)](f) ⟨f⟩", "expected an operator or the end"),
    ("E[q(x,z)](f)⟨)⟩", "expected an operator or the end"),
    ("E[q(x,z)](f) ⟨$⟩", "expected an operator or the end"),
    ("E[q(x,z)](2 ⟨3⟩)", "expected ')'"),
    ("E[⟨]⟩(f)", "expected a joint, such as q(x,z)"),
    ("E[⟨s⟩(x)](f)", "unknown joint 's'; known: p, q, r"),
    ("E[q(⟨)⟩](f)", "expected a variable"),
    ("E[q(x,z)](l1(features[⟨x⟩] f(x,z), z))", "expected the number of a layer, from 1, or *"),
    ("E[q(x,z)](l1(⟨features⟩[0] f(x,z), z))", "layers are counted from 1"),
    ("E[q(x,z)](l1(features ⟨fs⟩(x), z))", "unknown critic or joint 'fs'"),
    ("E[q(x,z)](l1(features f(⟨z⟩,x), z))", "f sees x, z in this order; write x=z"),
    ("E[q(x,z)](l1(features f(x⟨)⟩, z))", "f sees x, z; z is missing"),
    ("E[q(x,z)](l1(features g(x,⟨z⟩), z))", "g sees x, and no more"),
    ("E[q(x,z)](l1(features f(⟨y⟩=z, x), z))", "unknown variable of the critic 'y'"),
    ("E[q(x,⟨x⟩ as x)](f)", "names each variable once"),
    ("E[q(x,⟨y⟩ as w)](f)", "no variable 'y' in q(x,z)"),
    ("E[q(x,x as⟨)⟩](f)", "expected another name for the variable"),
    ("E[q(x,⟨y⟩)](f)", "no variable 'y' in q(x,z)"),
    ("E[q(x,⟨x⟩)](f)", "names each variable once"),
    ("E[q(⟨stop⟩(x))](f)", "no variable 'stop'"),
    ("E[q(x)⟨p⟩(x)](f)", "'x' stands in two factors of the product"),
    ("E[q(x)p(z)⟨r⟩(x)](f)", "'x' stands in two factors of the product"),
    ("E[q(x,z); ⟨n⟩=5](f)", "unknown option 'n'; known: history, k, sum"),
    ("E[q(x,z); k ⟨5⟩](f)", "expected '='"),
    ("E[q(x,z); k=⟨five⟩](f)", "expected a whole number"),
    ("E[q(x,z); k=⟨2.5⟩](f)", "expected a whole number"),
    ("E[q(x,z); k=⟨0⟩](f)", "k must be from 1 to 10,000"),
    ("E[q(x,z); k=5 ⟨logmenexp⟩](f)", "unknown reduction 'logmenexp'; did you mean 'logmeanexp'?"),
    ("E[q(x,z)](2*⟨E⟩[q(x)](g))", "an expectation stands inside another"),
    ("E[q(x,z)](log ⟨s⟩ f)", "unknown joint 's'"),
    ("E[q(x,z)](log⟨)⟩", "expected a joint, such as p(x|z)"),
    ("E[q(x,z)](log mass⟨)⟩", "expected a joint, such as p(x|z)"),
    ("E[q(x,z)](log p(⟨z⟩|x))", "p(z|x) is no factor of p(x,z)"),
    ("E[q(x,z)](log p(x|⟨|⟩z))", "expected a variable"),
    ("E[q(x,z)](log p(x|stop ⟨z⟩))", "expected '('"),
    ("E[q(x,z)](hold(⟨f⟩))", "hold(...) holds the parameters of one log-density"),
    ("E[q(x,z)](stop ⟨f⟩)", "expected '('"),
    ("E[q(x,z)](exp ⟨f⟩)", "expected '('"),
    ("E[q(x,z)](⟨h⟩)", "unknown ratio or weight 'h'; known: f, g, lambda, w"),
    ("E[q(x,z)](⟨lamda⟩*f)", "unknown ratio or weight 'lamda'; did you mean 'lambda'?"),
    ("E[q(x,z)](lambda*⟨)⟩", "expected a term"),
    ("E[q(x,z)](clip(f⟨)⟩)", "clip(term, low, high) has two bounds; expected ','"),
    ("E[q(x,z)](clip(f, 0, ⟨w⟩))", "a bound of clip(term, low, high) is a number"),
    ("E[q(x,z)](⟨clip⟩(f, 1, 0))", "clip(f, 1, 0): the lower bound must be less than the upper one"),
    ("E[q(x,z)](s ⟨f⟩)", "expected '('"),
    ("E[q(x,z)](f⟨*⟩2)", "only a number or a weight can stand before '*'"),
    ("E[q(x,z)](f⟨*⟩g)", "only a number or a weight can stand before '*'"),
    ("E[q(x,z)](2*⟨-⟩f)", "expected a term"),
    ("E[q(x,z)](f + ⟨)⟩", "expected a term"),
    ("E[q(x,z)](⟨squre⟩(f))", "unknown term 'squre'; did you mean 'square'?"),
    ("E[q(x,z)](l1(x,⟨)⟩)", "expected a value, which is a variable x, a reading of it such as mean x"),
    ("E[q(x,z)](l1(x, ⟨f⟩(x)))", "unknown joint 'f'; known: p, q, r; a value is a variable x"),
    ("E[q(x,z)](l1(stop ⟨x⟩, z))", "expected '('"),
    ("E[q(x,z)](log q(z|⟨stop⟩(mean p(x|z))))", "say in which variable's place this value stands"),
    ("E[q(x,z)](log q(z|x=⟨)⟩)", "expected a value"),
    ("E[q(x,z)](log q(⟨z⟩|y=x))", "q(z|y) is no factor of q(x,z)"),
    ("E[q(x,z)](log r(x|y,⟨y⟩))", "'y' stands here twice"),
    ("E[q(x,z)](l1(z, ⟨mean⟩ q(z=x|x)))", "'z' is no argument that a value can take the place of; known: x"),
    ("E[q(x,z)](l1(z, ⟨p⟩(z)))", "p(z) is a root, which only an expectation draws, as in E[q(x)p(z)](...)"),
    ("E[q(x,z)](⟨KL⟩(q(z=x|x) : p(z)))", "'z' is no argument that a value can take the place of; known: x"),
    ("E[q(x,z)](l1(x, mean p(⟨y⟩|z)))", "p(y|z) is no factor of p(x,z)"),
    ("E[q(x,z)](⟨KL⟩(q(z|x) : p(x|z)))", "the two sides are over different variables"),
    ("E[q(x,z)](KL(q(z|x)⟨,⟩ p(z)))", "expected ':'"),
]


@pytest.mark.parametrize(("marked", "message"), MISTAKES, ids=[marked for marked, _ in MISTAKES])
def test_mistakes_are_pointed_at(marked: str, message: str) -> None:
    text = marked.replace("⟨", "").replace("⟩", "")
    place = marked.replace("⟨⟩", "⟨end⟩")
    with pytest.raises(ConfigError) as error:
        parse(text, WORDS)
    (problem,) = error.value.lines
    assert problem.endswith(f" at character {marked.index('⟨') + 1}: {place}")
    assert message in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"E[q(x,z)]({'(' * 3000}f{')' * 3000})", "parentheses or factors are nested more than 50 deep at character "),
        (f"E[q(x,z)]({'2*' * 3000}f)", "parentheses or factors are nested more than 50 deep at character "),
        (f"E[q(x,z)]({'-abs(' * 30}f{')' * 30})", "an expression is nested more than 50 deep"),
        (f"E[q(x,z)]({' + '.join(['f'] * 1500)})", "an expression has more than 1,000 terms"),
        (" + ".join(["E[q(x,z)](f)"] * 20_000), "has 299,997 characters; at most 50,000 are read"),
        (f"E[q(x,z)](1{'0' * 400}*f)", "a number must be at most 1000000000000.0 at character 11: "),
        (f"E[q(x,z); k={'9' * 5000}](f)", "k must be from 1 to 10,000 at character 13: "),
        ("E[q(x,z); k=²](f)", "expected a whole number at character 13: "),
    ],
)
def test_what_is_too_large_is_told_in_a_short_line(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        Update("model", parse(text, WORDS))
    (line,) = error.value.lines
    assert line.startswith(problem) and len(line) < 800


def test_an_expression_composed_in_python_has_the_same_limits() -> None:
    deep: Expr = WORDS.ratios["f"]
    for _ in range(5000):
        deep = stop(deep)
    with pytest.raises(ConfigError, match="an expression is nested more than 50 deep"):
        E(q.xz, deep)
    chain = " ".join(["q(v0)", *(f"q(v{n + 1}|v{n})" for n in range(3000))])
    with pytest.raises(ConfigError, match="joint q has 3,001 factors; at most 50 are drawn"):
        joint_from_text("q", chain)


def test_the_largest_expression_prints_and_reads_back() -> None:
    text = f"E[q(x,z)]({'abs(' * 40}f{')' * 40} + {' + '.join(['f'] * 900)})"
    assert str(parse(text, WORDS)) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("q(x,z) p(x)p(z)", "'x' stands in two factors of the product at character 8: q(x,z) ⟨p⟩(x)p(z)"),
        ("q(x,z) : ", "expected a joint, such as q(x,z) at character 10: q(x,z) : ⟨end⟩"),
        ("q(x) : p(x) : p(x)", "expected an operator or the end at character 13: q(x) : p(x) ⟨:⟩ p(x)"),
    ],
)
def test_mistakes_in_the_sides_of_a_ratio_are_pointed_at(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_ratio_sides(text, WORDS)
    assert error.value.lines[0].endswith(problem)


@pytest.mark.parametrize("name", ["E", "log", "s", "stop", "KL", "exp"])
def test_words_of_the_language_name_nothing_else(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is a word of the objective language"):
        Vocabulary(ratios={name: f})


def test_a_name_means_one_thing() -> None:
    with pytest.raises(ConfigError, match="'f' names both a ratio and a weight"):
        Vocabulary(ratios={"f": f}, weights={"f": Weight("f", 1.0)})
