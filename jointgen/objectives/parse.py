"""From text to expressions, in the notation in which expressions print. Errors mark the place in the text.

>>> print(parse("E[q(x,z)](log p(x|z)) - 2*E[p(x,z)](log q(z|stop(x)))"))
E[q(x,z)](log p(x|z)) - 2*E[p(x,z)](log q(z|stop(x)))
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import attrs

from jointgen.errors import ConfigError, nearest, suggest
from jointgen.objectives.aggregates import AggregateDensity
from jointgen.objectives.algebra import (
    MAX_DRAWS,
    MAX_NESTING,
    MAX_NUMBER,
    POINTWISE,
    Clip,
    Constant,
    Expr,
    Pointwise,
    Stop,
    Weight,
    as_expr,
)
from jointgen.objectives.batch_terms import Divergence, LogMeanExp
from jointgen.objectives.components import Named
from jointgen.objectives.distributions import (
    KL,
    Distribution,
    Joint,
    LogDensity,
    Marginal,
    Mixture,
    Product,
    as_distribution,
    p,
    q,
)
from jointgen.objectives.estimators import Estimate
from jointgen.objectives.expressions import MEAN, Apply, CriticView, Expectation, Ratio, Standardized, check_sums
from jointgen.objectives.values import Argument, Arguments, Features, Layer, StoppedValue, Value
from jointgen.text import MAX_SHOWN, shortened

MAX_LENGTH = 50_000
"""So many characters of an expression are read, at the most."""

_TOKEN = re.compile(r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|(?P<name>\w+)|(?P<symbol>.))", re.DOTALL)
RESERVED = ("E", "KL", "logmeanexp", "prod", "clip", "features", "hold", "log", "mass", "s", "stop", *POINTWISE)

VALUES = "a variable x, a reading of it such as mean x, a new draw such as mean p(x|z), stop(mean x), or features f(x)"


@attrs.frozen
class Vocabulary:
    """The names that a text may use.

    Args:
        joints: Joints by name.
        ratios: Ratios by name.
        weights: Weights by name.
        terms: The registered terms that may stand before a parenthesis; None for any name.
        components: Components with settings by kind and name, such as those of an objective's table `terms`.
        reductions: The registered reductions that may stand after k; None for any name.

    Raises:
        ConfigError: A name is a word of the language, or names both a ratio and a weight.
    """

    joints: Mapping[str, Joint] = attrs.field(factory=lambda: {"q": q, "p": p})
    ratios: Mapping[str, Ratio] = attrs.field(factory=dict)
    weights: Mapping[str, Weight] = attrs.field(factory=dict)
    terms: tuple[str, ...] | None = None
    components: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    reductions: tuple[str, ...] | None = None

    def __attrs_post_init__(self) -> None:
        for name in (
            *self.joints,
            *self.ratios,
            *self.weights,
            *(n for named in self.components.values() for n in named),
        ):
            if name in RESERVED:
                raise ConfigError(f"{name!r} is a word of the objective language and cannot name anything else")
        for name in self.ratios.keys() & self.weights.keys():
            raise ConfigError(f"{name!r} names both a ratio and a weight")

    def component(self, kind: str, name: str) -> str | Named:
        """Return the component of a name that has settings, or else the name of a registered one."""
        named = self.components.get(kind, {})
        return Named(name, named[name]) if name in named else name


def parse(text: str, vocabulary: Vocabulary | None = None) -> Expr:
    """Read an expression.

    Args:
        text: The expression as it prints.
        vocabulary: The names that it may use; without one, the joints q and p.

    Raises:
        ConfigError: The text is no expression; the message marks the place as ⟨here⟩.
    """
    parser = _Parser(text, vocabulary or Vocabulary())
    expr = parser.sum()
    parser.expect_end()
    return expr


def parse_product(text: str, vocabulary: Vocabulary | None = None) -> Product:
    """Read a product of marginals.

    >>> print(parse_product("p(x) p(z)"))
    p(x)p(z)
    """
    parser = _Parser(text, vocabulary or Vocabulary())
    product = parser.product_of_marginals()
    parser.expect_end()
    return product


def parse_ratio_sides(text: str, vocabulary: Vocabulary | None = None) -> tuple[Distribution, Distribution]:
    """Read the numerator and the denominator of a ratio.

    >>> numerator, denominator = parse_ratio_sides("q(x,z) : p(x)p(z)")
    """
    parser = _Parser(text, vocabulary or Vocabulary())
    numerator = parser.distribution()
    parser.take(":")
    denominator = parser.distribution()
    parser.expect_end()
    return numerator, denominator


def parse_view(text: str, vocabulary: Vocabulary | None = None) -> CriticView:
    """Read how a critic sees a variable: the name of a reading, "standardized r(z|x)", or a value, "features f(x)"."""
    if "(" not in text and not text.lstrip().startswith("features"):
        return text
    parser = _Parser(text, vocabulary or Vocabulary())
    if not parser.accept("standardized"):
        value = parser.value()
        parser.expect_end()
        if isinstance(value, Value) and nearest(value.reading, ["standardized"]):
            parser.fail(f"unknown view {value.reading!r}; did you mean 'standardized'?", 0)
        return value
    joint, factor = parser.plain("a view")
    parser.expect_end()
    return Standardized(joint, factor)


def parse_values(text: str, vocabulary: Vocabulary | None = None) -> tuple[Argument, ...]:
    """Read one value or several with commas between them, such as "features f(x), y"."""
    parser = _Parser(text, vocabulary or Vocabulary())
    values = [parser.value()]
    while parser.accept(","):
        values.append(parser.value())
    parser.expect_end()
    return tuple(values)


class _Parser:
    """A parser by recursive descent, one method for each rule. Tokens are tuples (kind, text, start, end)."""

    def __init__(self, text: str, vocabulary: Vocabulary):
        self.text, self.words = text, vocabulary
        self.tokens = [
            (str(match.lastgroup), match[match.lastgroup], match.start(match.lastgroup), match.end())
            for match in _TOKEN.finditer(text.rstrip())
            if match.lastgroup is not None
        ]
        self.at, self.inside, self.depth = 0, False, 0
        if len(text) > MAX_LENGTH:
            raise ConfigError(f"has {len(text):,} characters; at most {MAX_LENGTH:,} are read")

    # --- tokens

    def peek(self, ahead: int = 0) -> str:
        position = self.at + ahead
        return self.tokens[position][1] if position < len(self.tokens) else ""

    def kind(self, ahead: int = 0) -> str:
        position = self.at + ahead
        return self.tokens[position][0] if position < len(self.tokens) else "end"

    def next(self) -> str:
        word = self.peek()
        self.at += 1
        return word

    def accept(self, *symbols: str) -> str:
        return self.next() if self.peek() in symbols and self.kind() != "end" else ""

    def take(self, symbol: str) -> None:
        if not self.accept(symbol):
            self.fail(f"expected {symbol!r}")

    def take_name(self, expected: str) -> str:
        if self.kind() != "name":
            self.fail(f"expected {expected}")
        return self.next()

    def expect_end(self) -> None:
        if self.kind() != "end":
            self.fail("expected an operator or the end")

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        position = self.at if at is None else at
        start, end = self.tokens[position][2:] if position < len(self.tokens) else (len(self.text), len(self.text))
        before, after = self.text[:start], self.text[end:]
        before = before if len(before) <= MAX_SHOWN else f"...{before[-MAX_SHOWN:]}"
        marked = f"{before}⟨{shortened(self.text[start:end]) or 'end'}⟩{shortened(after)}"
        raise ConfigError(f"{message} at character {start + 1}: {marked}")

    def lookup(self, name: str, table: Mapping[str, Any], noun: str) -> Any:
        if name not in table:
            self.fail(f"unknown {noun} {name!r}{suggest(name, table)}", self.at - 1)
        return table[name]

    # --- grammar

    def sum(self) -> Expr:
        expr = -self.product() if self.accept("-") else self.product()
        while sign := self.accept("+", "-"):
            term = self.product()
            expr = expr + term if sign == "+" else expr - term
        return expr

    def product(self) -> Expr:
        """Read weight * weight * term: all factors but the last are numbers or weights."""
        if self.depth == MAX_NESTING:
            self.fail(f"parentheses or factors are nested more than {MAX_NESTING} deep")
        self.depth += 1
        factor = self.factor()
        if not self.accept("*"):
            product = as_expr(factor)  # a weight that multiplies nothing adds itself
        elif isinstance(factor, Constant):
            product = factor.value * self.product()
        elif isinstance(factor, Weight):
            product = factor * self.product()
        else:
            self.fail("only a number or a weight can stand before '*'", self.at - 1)
        self.depth -= 1
        return product

    def factor(self) -> Expr | Weight:
        if self.kind() == "number":
            return self.number()
        if self.accept("("):
            return self.closed(self.sum())
        name = self.take_name("a term")
        special = {
            "E": self.expectation,
            "log": self.log,
            "s": self.sigmoid,
            "clip": self.clip,
            "hold": self.hold,
            "stop": self.stop,
            "KL": self.kl,
        }
        if name in special:
            return special[name]()
        if name in POINTWISE:
            self.take("(")
            return Pointwise(name, self.closed(self.sum()))
        if name == "logmeanexp" and self.peek() == "[":
            return self.log_mean_exp()
        if self.peek() == "(":
            is_side = self.kind(1) == "number" or (self.peek(1) in self.words.joints and self.peek(2) == "(")
            return self.divergence(name) if is_side and not self.inside else self.apply(name)
        return self.lookup(name, {**self.words.ratios, **self.words.weights}, "ratio or weight")

    def number(self) -> Constant:
        value = float(self.next())
        if value > MAX_NUMBER:
            self.fail(f"a number must be at most {MAX_NUMBER}", self.at - 1)
        return Constant(value)

    def closed(self, expr: Expr) -> Expr:
        self.take(")")
        return expr

    def expectation(self) -> Expectation:
        if self.inside:
            self.fail("an expectation stands inside another", self.at - 1)
        opened = self.at - 1
        self.take("[")
        over = self.distribution()
        k, reduce, wrt, sums, history = self.options(over)
        self.take("]")
        self.take("(")
        self.inside = True
        term = self.closed(self.sum())
        self.inside = False
        return self.checked(opened, lambda: Expectation(over, term, k, reduce, wrt, sums, history))

    def options(self, over: Distribution) -> tuple[int, Any, tuple[str, ...], tuple[str, ...], int]:
        """Read what stands behind the distribution of an expectation: "; sum y; k=5 stein(z); history 50"."""
        history = 0
        draws: tuple[int, Any, tuple[str, ...]] = (1, MEAN, ())
        sums: list[str] = []
        given: set[str] = set()
        while self.accept(";"):
            start, word = self.at, self.take_name("'sum', 'k' or 'history'")
            if word not in ("sum", "k", "history"):
                self.fail(f"unknown option {word!r}{suggest(word, ('sum', 'k', 'history'))}", start)
            if word in given:
                self.fail(f"{word!r} is given twice", start)
            given.add(word)
            if word == "k":
                draws = self.draws()
                continue
            if word == "history":
                history = self.history()
                continue
            while not sums or self.accept(","):
                start = self.at
                sums.append(self.take_name("a variable"))
                self.checked(start, lambda: check_sums(over, tuple(sums)))
        return *draws, tuple(sums), history

    def history(self) -> int:
        if not self.peek().isdecimal() or not 1 <= int(self.peek()[:20]) <= MAX_DRAWS:
            self.fail(f"a history has from 1 to {MAX_DRAWS:,} draws, a whole number")
        return int(self.next())

    def log_mean_exp(self) -> LogMeanExp:
        if self.inside:
            self.fail("logmeanexp[...](...) is a summand beside expectations; it stands inside one", self.at - 1)
        self.take("[")
        over = self.distribution()
        self.take("]")
        self.take("(")
        self.inside = True
        term = self.closed(self.sum())
        self.inside = False
        return LogMeanExp(over, term)

    def divergence(self, name: str) -> Divergence:
        """Read "MMD(q(z) : p(z))" or "PT(p(x); mean x)"."""
        opened = self.at - 1
        self.take("(")
        sides = [self.distribution()]
        if self.accept(":"):
            sides.append(self.distribution())
        values = []
        if self.accept(";"):
            values.append(self.value())
            while self.accept(","):
                values.append(self.value())
        self.take(")")
        measure = self.words.component("divergence", name)
        return self.checked(opened, lambda: Divergence(measure, tuple(sides), tuple(values)))

    def draws(self) -> tuple[int, Any, tuple[str, ...]]:
        """Read "=5 stein(z)": the number of draws, the name of the reduction, and the variables it looks at."""
        self.take("=")
        if not self.peek().isdecimal():
            self.fail("expected a whole number")
        k = int(self.next()[:20])
        if not 1 <= k <= MAX_DRAWS:
            self.fail(f"k must be from 1 to {MAX_DRAWS:,}", self.at - 1)
        if self.kind() != "name":
            return k, MEAN, ()
        name, own = self.next(), self.words.components.get("reduction", {})
        if self.words.reductions is not None and name not in (MEAN, *self.words.reductions, *own):
            known = (MEAN, *self.words.reductions, *own)
            self.fail(f"unknown reduction {name!r}{suggest(name, known)}", self.at - 1)
        reduce = self.words.component("reduction", name)
        if not self.accept("("):
            return k, reduce, ()
        wrt = [self.take_name("a variable")]
        while self.accept(","):
            wrt.append(self.take_name("a variable"))
        self.take(")")
        return k, reduce, tuple(wrt)

    def distribution(self) -> Distribution:
        """Read a product, or the mixture "0.5 p(x) + 0.5 r(x)"."""
        opened = self.at
        if self.kind() != "number":
            product = self.product_of_marginals()
            if self.peek() == "+":
                self.fail("a mixture has a share before each distribution, as in 0.5 q(x) + 0.5 p(x)", opened)
            return product
        mixture: Mixture | None = None
        while mixture is None or self.accept("+"):
            start = self.at
            if self.kind() != "number":
                self.fail("expected the share of a mixture, a number")
            share, product = self.number().value, self.product_of_marginals()
            component: Mixture = self.checked(start, lambda share=share, product=product: share * product)
            mixture = component if mixture is None else self.checked(start, lambda a=mixture, b=component: a + b)
        return self.checked(opened, lambda: as_distribution(mixture))

    def product_of_marginals(self) -> Product:
        product = Product((self.marginal(),))
        while self.kind() == "name":
            start = self.at
            marginal = self.marginal()
            product = self.checked(start, lambda so_far=product, more=marginal: so_far * more)
        return product

    def marginal(self) -> Marginal:
        each = self.kind(1) == "name" and bool(self.accept("prod"))
        joint = self.lookup(self.take_name("a joint, such as q(x,z)"), self.words.joints, "joint")
        self.take("(")
        variables: list[str] = []
        copies: list[tuple[str, str]] = []
        while True:
            start = self.at
            variable = self.take_name("a variable")
            if self.accept("as"):
                copies.append((self.take_name("another name for the variable"), variable))
                variable = copies[-1][0]
            variables.append(variable)
            marginal = self.checked(start, lambda: Marginal(joint, tuple(variables), tuple(copies), each))
            if not self.accept(","):
                self.take(")")
                return marginal

    def arguments(self) -> tuple[list[str], dict[str, Argument]]:
        """Read "x, stop(y), z=mean q(z|x)": the variables, and the values that take the place of some."""
        variables: list[str] = []
        instead: dict[str, Argument] = {}
        while True:
            start = self.at
            if self.peek() == "stop":
                name, value = self.stopped_argument()
                instead[name] = value
            else:
                name = self.take_name("a variable")
                if self.accept("="):
                    instead[name] = self.value()
            if name in variables:
                self.fail(f"{name!r} stands here twice", start)
            variables.append(name)
            if not self.accept(","):
                return variables, instead

    def stopped_argument(self) -> tuple[str, Argument]:
        """Read "stop(x)", which is the variable x without its gradient."""
        start = self.at
        value = self.value()
        assert isinstance(value, StoppedValue)
        if value.value != Value(str(value.value)):
            self.fail("say in which variable's place this value stands, as in z=stop(mean q(z|x))", start)
        return str(value.value), value

    def log(self) -> Expr:
        if self.peek() == "s" and self.peek(1) == "(":
            self.at += 2
            return Pointwise("log_sigmoid", self.closed(self.sum()))
        if self.accept("("):
            return Pointwise("log", self.closed(self.sum()))
        return self.density()

    def sigmoid(self) -> Expr:
        self.take("(")
        return Pointwise("sigmoid", self.closed(self.sum()))

    def clip(self) -> Expr:
        opened = self.at - 1
        self.take("(")
        term = self.sum()
        bounds = []
        for _ in range(2):
            if not self.accept(","):
                self.fail("clip(term, low, high) has two bounds; expected ','")
            sign = -1.0 if self.accept("-") else 1.0
            if self.kind() != "number":
                self.fail("a bound of clip(term, low, high) is a number")
            bounds.append(sign * self.number().value)
        self.take(")")
        return self.checked(opened, lambda: Clip(term, *bounds))

    def is_aggregate(self) -> bool:
        """Whether "q(z)" follows, where a conditional of q draws z and nothing is given."""
        joint = self.words.joints.get(self.peek())
        if joint is None or [self.peek(1), self.peek(3)] != ["(", ")"] or self.peek(2) not in joint.variables:
            return False
        return not joint.drawn_by(self.peek(2)).is_root

    def aggregate(self) -> AggregateDensity:
        """Read "prod q(z)" or "q(z)": the density of a marginal, by the rows of the batch."""
        start, each = self.at, bool(self.accept("prod"))
        joint = self.lookup(self.take_name("a joint, such as q(z)"), self.words.joints, "joint")
        self.take("(")
        variable = self.take_name("a variable")
        self.take(")")
        return self.checked(start, lambda: AggregateDensity(joint, variable, each))

    def density(self, hold: bool = False) -> LogDensity | AggregateDensity:
        if not hold and (self.peek() == "prod" or self.is_aggregate()):
            return self.aggregate()
        mass = self.peek() == "mass" and bool(self.accept("mass"))
        return LogDensity(*self.conditional(), hold=hold, mass=mass)

    def conditional(self) -> tuple[Joint, Any, Arguments]:
        """Read "p(x|stop(z))": the joint, the factor, and the values that take the place of its variables."""
        joint = self.lookup(self.take_name("a joint, such as p(x|z)"), self.words.joints, "joint")
        self.take("(")
        start = self.at
        out, instead = self.arguments()
        given, instead_given = self.arguments() if self.accept("|") else ([], {})
        self.take(")")
        text = ",".join(out) + ("|" + ",".join(given) if given else "")
        factor = self.checked(start, lambda: joint.factor(text))
        return joint, factor, tuple((instead | instead_given).items())

    def plain(self, where: str) -> tuple[Joint, Any]:
        start = self.at
        joint, factor, at = self.conditional()
        if at:
            self.fail(f"{where} takes no value in the place of an argument", start)
        return joint, factor

    def hold(self) -> Expr:
        self.take("(")
        if self.take_name("'log'") != "log":
            self.fail("hold(...) holds the parameters of one log-density, hold(log q(z|x))", self.at - 1)
        return self.closed(self.density(hold=True))

    def stop(self) -> Expr:
        self.take("(")
        return Stop(self.closed(self.sum()))

    def kl(self) -> Expr:
        opened = self.at - 1
        self.take("(")
        joint, factor, at = self.conditional()
        self.take(":")
        other_joint, other, other_at = self.conditional()
        self.take(")")
        return self.checked(opened, lambda: KL(joint, factor, other_joint, other, at, other_at))

    def apply(self, name: str) -> Expr:
        opened = self.at - 1
        self.take("(")
        values = [self.value()]
        while self.accept(","):
            values.append(self.value())
        if self.accept(";"):
            return self.estimate(name, tuple(values), opened)
        self.take(")")
        own = self.words.components.get("term", {})
        if self.words.terms is not None and name not in {*self.words.terms, *own}:
            known = {*self.words.terms, *own, *POINTWISE, "log", "stop", "hold", "KL", "E"}
            self.fail(f"unknown term {name!r}{suggest(name, known)}", opened)
        return Apply(self.words.component("term", name), tuple(values))

    def estimate(self, name: str, values: tuple[Argument, ...], opened: int) -> Estimate:
        """Read the laws of "reinforce(x, stop(z); q(z|x), p(x|z))"."""
        laws = [LogDensity(*self.plain("a law of an estimator"))]
        while self.accept(","):
            laws.append(LogDensity(*self.plain("a law of an estimator")))
        self.take(")")
        estimator = self.words.component("estimator", name)
        return self.checked(opened, lambda: Estimate(estimator, values, tuple(laws)))

    def value(self) -> Argument:
        """Read a value: "x", "mean x", "mean p(x|z)", "stop(x)", and others nested in it."""
        if self.depth == MAX_NESTING:
            self.fail(f"values are nested more than {MAX_NESTING} deep")
        self.depth += 1
        if self.accept("stop"):
            value: Argument = self.stopped_value()
        elif self.peek() == "features" and (self.kind(1) == "name" or self.peek(1) == "["):
            value = self.features()
        else:
            value = self.reading()
        self.depth -= 1
        return value

    def stopped_value(self) -> StoppedValue:
        self.take("(")
        value = StoppedValue(self.value())
        self.take(")")
        return value

    def features(self) -> Features:
        """Read "features f(x)", "features[2] f(mean p(x|z))" or "features[*] q(z|x)"."""
        start = self.at
        self.take("features")
        layer: Layer = "last"
        if self.accept("["):
            layer = "all"
            if not self.accept("*"):
                if not self.peek().isdecimal():
                    self.fail("expected the number of a layer, from 1, or *")
                layer = int(self.next()[:9])
            self.take("]")
        if self.peek() in self.words.joints:
            joint, factor, at = self.conditional()
            return self.checked(start, lambda: Features(layer, None, joint, factor, at))
        known = {**self.words.ratios, **self.words.joints}
        self.take_name("a critic or a conditional, as in features f(x), features q(z|x)")
        ratio = self.lookup(self.peek(-1), known, "critic or joint")
        seen = self.seen_by(ratio) if self.accept("(") else {}
        return self.checked(start, lambda: Features(layer, ratio, at=seen))

    def seen_by(self, ratio: Ratio) -> dict[str, Argument]:
        """Read what a critic sees, "x,mean q(z|x))": each variable of its ratio in order, or by name, "z=x"."""
        given, found = ratio.num.variables, dict[str, Argument]()
        while True:
            start, names = self.at, [variable for variable in given if variable not in found]
            if self.kind() == "name" and self.peek(1) == "=":
                variable = self.lookup(self.next(), {v: v for v in given}, "variable of the critic")
                self.next()
                found[variable] = self.value()
            elif not names:
                self.fail(f"{ratio.name} sees {', '.join(given)}, and no more")
            else:
                found[names[0]] = value = self.value()
                if isinstance(value, Value) and value.factor is None and value.variable in {*given} - {names[0]}:
                    self.fail(f"{ratio.name} sees {', '.join(given)} in this order; write {names[0]}={value}", start)
            if not self.accept(","):
                break
        if missing := [variable for variable in given if variable not in found]:
            self.fail(f"{ratio.name} sees {', '.join(given)}; {missing[0]} is missing")
        self.take(")")
        return found

    def reading(self) -> Value:
        """Read a variable, or a new draw of a conditional, each perhaps after the name of a reading."""
        start = self.at
        reading = self.next() if self.kind() == self.kind(1) == "name" else "sample"
        if self.peek(1) != "(":
            return Value(self.take_name(f"a value, which is {VALUES}"), reading)
        if self.kind() == "name" and self.peek() not in self.words.joints:
            known = suggest(self.peek(), self.words.joints)
            self.fail(f"unknown joint {self.peek()!r}{known}; a value is {VALUES}")
        joint, factor, at = self.conditional()
        return self.checked(start, lambda: Value(factor.out[0], reading, joint, factor, at))

    def checked(self, at: int, make: Any) -> Any:
        """Call `make` and add the place in the text to what it raises."""
        try:
            return make()
        except ConfigError as error:
            self.fail(str(error), at)
