"""The algebra of terms: sums, weights and pointwise functions. Torch-free.

A term is one number for each row of a batch. `Expr` overloads the operators, and every expression is kept in one
normal form, so that equal expressions are equal objects and print alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, TypeGuard

import attrs

from jointgen.errors import ConfigError


class Tree:
    """What an objective is written with: terms, expectations, and the values that terms are about."""

    __slots__ = ()

    component_slots: ClassVar[tuple[Any, ...]] = ()
    """The fields that hold a registered component, see `jointgen.objectives.components.Slot`."""
    is_summand: ClassVar[bool] = False
    """Whether it is no term of rows but a whole summand of an update: an expectation, or a term of the batch."""
    sees_batch: ClassVar[bool] = False
    """Whether it depends on the rows of the whole batch, so that parts of a batch give something else."""

    @property
    def children(self) -> tuple[Tree, ...]:
        """What this one is made of."""
        return ()

    def walk(self) -> Iterator[Tree]:
        """Yield this one and everything inside it, the known parts of ratios and the values of terms included."""
        yield self
        for child in self.children:
            yield from child.walk()


class Expr(Tree):
    """A term, which is one number for each row of a batch, or an expectation of terms.

    Expressions are added, subtracted, and multiplied by a number or a `Weight`:

    >>> print(2 * Constant(1.0) - Weight("beta", to=0.5) * Constant(3.0))
    2*1 - beta*3
    """

    __slots__ = ()

    def __add__(self, other: Expr | float | Weight | Weights) -> Expr:
        return Sum((*_terms(self), *_terms(as_expr(other))))

    def __radd__(self, other: float | Weight | Weights) -> Expr:
        return as_expr(other) + self

    def __sub__(self, other: Expr | float | Weight | Weights) -> Expr:
        return self + -as_expr(other)

    def __rsub__(self, other: float | Weight | Weights) -> Expr:
        return as_expr(other) + -self

    def __neg__(self) -> Expr:
        return _weighted(-1.0, self)

    def __mul__(self, weight: float | Weight) -> Expr:
        if not isinstance(weight, int | float | Weight):
            raise ConfigError(f"({self}) * ({weight}): a term can be multiplied by a number or a weight only")
        return _weighted(weight if isinstance(weight, Weight) else float(weight), self)

    __rmul__ = __mul__


MAX_NESTING = 50
"""So many expressions may stand in one another."""
MAX_TERMS = 1_000
"""So many expressions may stand in one update or report."""
MAX_DRAWS = 10_000
"""So many draws for each row of a batch an expectation takes, at the most: all are in memory at once."""
MAX_NUMBER = 1e12
"""The largest number and weight in an expression: float32 has no digits left beside such a term."""


def check_size(expr: Tree) -> None:
    """Check, without recursion, that an expression is small enough for the functions that walk it by recursion.

    Raises:
        ConfigError: It is nested too deeply, or has too many terms.
    """
    left: list[tuple[Tree, int]] = [(expr, 1)]
    terms = 0
    while left:
        inner, depth = left.pop()
        terms += 1
        if depth > MAX_NESTING:
            raise ConfigError(f"an expression is nested more than {MAX_NESTING} deep")
        if terms > MAX_TERMS:
            raise ConfigError(f"an expression has more than {MAX_TERMS:,} terms")
        left += [(child, depth + 1) for child in inner.children]


def as_expr(value: Expr | float | Weight | Weights) -> Expr:
    """Return an expression as it is, and a number or a weight as the same number in every row.

    >>> print(Constant(2.0) - Weight("C", to=25))
    2 - C
    """
    if isinstance(value, Expr):
        return value
    if isinstance(value, Weight | Weights):
        weighed: Expr = value * Constant(1.0)
        return weighed
    return -Constant(-float(value)) if value < 0 else Constant(float(value))


def _terms(expr: Expr) -> tuple[Expr, ...]:
    return expr.terms if isinstance(expr, Sum) else (expr,)


def _weighted(weight: float | Weight, term: Expr) -> Expr:
    """Return weight * term in normal form: a minus sign outermost, if there is one, and no weight of 1."""
    if isinstance(weight, float) and weight < 0:
        positive = _weighted(-weight, term)
        return positive.term if _is_negative(positive) else Weighted(-1.0, positive)
    if weight == 1.0:
        return term
    return Weighted(-1.0, Weighted(weight, term.term)) if _is_negative(term) else Weighted(weight, term)


def _is_negative(expr: Expr) -> TypeGuard[Weighted]:
    return isinstance(expr, Weighted) and expr.weight == -1.0


# --- weights ---------------------------------------------------------------------------------------------------------


class _AddsItself:
    """What weights add to a term where they multiply none: `kl(...) - C`."""

    def __add__(self, other: Expr | float | Weight | Weights) -> Expr:
        return as_expr(self) + other  # type: ignore[arg-type]

    def __radd__(self, other: float) -> Expr:
        return as_expr(other) + as_expr(self)  # type: ignore[arg-type]

    def __sub__(self, other: Expr | float | Weight | Weights) -> Expr:
        return as_expr(self) - other  # type: ignore[arg-type]

    def __rsub__(self, other: float) -> Expr:
        return as_expr(other) - as_expr(self)  # type: ignore[arg-type]


@attrs.frozen(cache_hash=True)
class Control:
    """What drives a weight: after each step it moves by what an expression of the step's figures is.

    Args:
        of: The expression, of terms that updates compute: BEGAN's (Berthelot et al. 2017) is gamma L(x) - L(G(z)).
        gain: How fast the weight moves.
        kind: "add" adds gain times the expression to the weight; "exp" multiplies the weight by exp(gain times it), as
            GECO does with a Lagrange multiplier (Rezende & Viola 2018).
        low, high: The weight stays between these.
        average: The share of the expression's running mean that a step leaves; 0 takes the step's own value.

    Raises:
        ConfigError: The bounds or the shares are none.
    """

    of: Expr
    gain: float
    kind: Literal["add", "exp"] = "add"
    low: float = -MAX_NUMBER
    high: float = MAX_NUMBER
    average: float = 0.0

    def __attrs_post_init__(self) -> None:
        check_size(self.of)
        if not self.low < self.high:
            raise ConfigError(f"low must be less than high, got {self.low:g} and {self.high:g}")
        if not 0.0 <= self.average < 1.0:
            raise ConfigError(f"average is a share of the past, 0 to less than 1, got {self.average:g}")
        if not 0.0 < self.gain <= MAX_NUMBER:
            raise ConfigError(f"gain must be more than 0, got {self.gain:g}; turn the sign of control round instead")
        if self.kind == "exp" and self.low < 0.0:
            raise ConfigError("kind = 'exp' multiplies the weight, so low must be 0 or more")

    def describe(self, name: str) -> str:
        """Write how the weight of this name moves."""
        of = f"the running mean of {self.of}" if self.average else str(self.of)
        moved = (
            f"{name}*exp({number_text(self.gain)}*({of}))"
            if self.kind == "exp"
            else f"{name} + {number_text(self.gain)}*({of})"
        )
        bounds = [
            f"{word} {number_text(bound)}"
            for word, bound in (("at least", self.low), ("at most", self.high))
            if abs(bound) < MAX_NUMBER
        ]
        return f"{moved} after each step" + (f", {' and '.join(bounds)}" if bounds else "")


@attrs.frozen(cache_hash=True)
class Weight(_AddsItself):
    """A named weight of a term: constant, on a linear schedule, or balanced against another term.

    Args:
        name: The name that prints in the equation.
        to: The value, or the value at the end of the schedule.
        start: The value at the start of the schedule; None for a constant weight.
        over: The share of the stage, in [0, 1], over which the value goes from `start` to `to`.
        cycles: How often the schedule repeats in the stage (cyclical annealing, Fu et al. 2019); `over` is then a
            share of one cycle.
        against: The term that a balanced weight is measured against, as it prints: "log p(x|z)". `to` and `start`
            are then the relative strength r: the weight is set while the run trains so that the gradient of the term
            that it multiplies has r times the norm of the gradient of this term.
        control: What drives the weight from step to step; `to` is then the value that it begins with.
        after: The share of the stage, or of one cycle, at which the value begins to go; with `over = 0` it is a step.

    Raises:
        ConfigError: No schedule and no strength is like that.

    >>> Weight("lambda", to=10, start=0, over=0.5).at(0.25)
    5.0
    >>> print(Weight("lambda", to=0.5, against="log p(x|z)").describe())
    lambda holds the gradient of its term at r times that of log p(x|z), r = 0.5
    """

    name: str
    to: float
    start: float | None = None
    over: float = 0.0
    cycles: int = 1
    against: str = attrs.field(default="", converter=str)
    control: Control | None = None
    after: float = 0.0

    def __attrs_post_init__(self) -> None:
        if wrong := self._problem():
            raise ConfigError(f"weight {self.name}: {wrong}")

    def _problem(self) -> str:
        if max(abs(self.to), abs(self.start or 0.0)) > MAX_NUMBER:
            return f"must be at most {MAX_NUMBER:g} in size"
        if not 0.0 <= self.over <= 1.0:
            return f"over is a share of the stage, 0 to 1, got {self.over:g}"
        if not 0.0 <= self.after <= 1.0:
            return f"after is a share of the stage, 0 to 1, got {self.after:g}"
        if self.after + self.over > 1.0 + 1e-9:
            return f"its schedule ends at {self.after + self.over:g} of the stage; after + over is at most 1"
        if self.cycles < 1:
            return f"cycles is 1 or more, got {self.cycles}"
        if self.start is None and (self.over or self.after or self.cycles > 1):
            return "give start, from which it goes to its value"
        if self.against and self.after:
            return "a balanced weight has no 'after'"
        if self.control is not None and (self.against or self.start is not None):
            return "a weight that is driven has no schedule and is not balanced"
        if self.control is not None and not self.control.low <= self.to <= self.control.high:
            return f"begins at {self.to:g}, which is not between {self.control.low:g} and {self.control.high:g}"
        if self.control is not None and self.control.kind == "exp" and self.to <= 0:
            return f"kind = 'exp' multiplies the weight, so it begins above 0, got {self.to:g}"
        if self.against and not self.over and (self.start or self.cycles > 1):
            return "over: say over which share of the stage r goes from start to its value"
        if self.against and (least := min(self.to, self.start or 0.0)) < 0:
            return f"a strength r is 0 or more, got {least:g}; subtract the term instead"
        return ""

    @property
    def ramps(self) -> bool:
        """Whether the value or the strength follows a schedule."""
        return self.start is not None and self.over + self.after > 0.0

    @property
    def is_balanced(self) -> bool:
        """Whether the value is measured against another term's gradient."""
        return bool(self.against)

    @property
    def moves(self) -> bool:
        """Whether the value changes during the stage."""
        return self.ramps or self.is_measured

    @property
    def is_measured(self) -> bool:
        """Whether the value comes from what a run measures: the weight is balanced or driven."""
        return self.is_balanced or self.control is not None

    def at(self, progress: float) -> float:
        """Return the value at `progress`, in [0, 1], through the stage; for a balanced weight its strength r."""
        if self.start is None or progress >= 1.0:
            return float(self.to)
        gone = progress * self.cycles % 1.0 - self.after
        if gone < 0.0:
            return float(self.start)
        if self.over == 0.0 or gone >= self.over:
            return float(self.to)
        return self.start + (self.to - self.start) * gone / self.over

    def __mul__(self, term: Expr | float | Weight) -> Any:
        return Weights((self,)) * term

    def __rmul__(self, scale: float) -> Weights:
        return Weights((float(scale), self))

    def __neg__(self) -> Weights:
        return Weights((-1.0, self))

    def describe(self) -> str:
        """Write the line that follows the equation: the name, and the value or how it changes."""
        if self.control is not None:
            return f"{self.name} = {number_text(self.to)} at first, then {self.control.describe(self.name)}"
        if not self.is_balanced:
            return f"{self.name} = {self._described()}"
        return f"{self.name} holds the gradient of its term at r times that of {self.against}, r = {self._described()}"

    def _described(self) -> str:
        if not self.ramps:
            return f"{self.to:g}"
        period = "the stage" if self.cycles == 1 else f"each of {self.cycles} parts of the stage"
        if self.after and not self.over:
            return f"{self.start:g}, and {self.to:g} after the first {100 * self.after:g}% of {period}"
        if self.after:
            share = f"{100 * self.over:g}% of {period}, after its first {100 * self.after:g}%"
            return f"{self.start:g} to {self.to:g} over {share}"
        return f"{self.start:g} to {self.to:g} over the first {100 * self.over:g}% of {period}"

    def __str__(self) -> str:
        return self.name


@attrs.frozen
class Weights(_AddsItself):
    """A product of weights without a term yet, such as -lambda or 2 * lambda."""

    factors: tuple[float | Weight, ...]

    def __mul__(self, term: Expr | float | Weight) -> Any:
        if not isinstance(term, Expr):
            return Weights((*self.factors, term if isinstance(term, Weight) else float(term)))
        for factor in reversed(self.factors):
            term = _weighted(factor, term)
        return term

    def __neg__(self) -> Weights:
        return Weights((-1.0, *self.factors))


# --- terms: one number per row ---------------------------------------------------------------------------------------


@attrs.frozen(cache_hash=True)
class Constant(Expr):
    """A number that is the same in every row."""

    value: float

    def __str__(self) -> str:
        return number_text(self.value)


@attrs.frozen(cache_hash=True)
class Sum(Expr):
    """A sum of terms; a difference is a sum with a term of weight -1."""

    terms: tuple[Expr, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        """The summands."""
        return self.terms

    def __str__(self) -> str:
        first, *rest = map(_signed, self.terms)
        text = ("-" if first[0] < 0 else "") + first[1]
        return text + "".join((" - " if sign < 0 else " + ") + body for sign, body in rest)


@attrs.frozen(cache_hash=True)
class Weighted(Expr):
    """A number or a named weight times a term."""

    weight: float | Weight
    term: Expr

    @property
    def children(self) -> tuple[Expr, ...]:
        """The one term."""
        return (self.term,)

    def __str__(self) -> str:
        sign, body = _signed(self)
        return ("-" if sign < 0 else "") + body


def _signed(expr: Expr) -> tuple[int, str]:
    """Return the sign of a summand and its text without the sign."""
    if isinstance(expr, Constant):
        return (-1 if expr.value < 0 else 1), number_text(abs(expr.value))
    if not isinstance(expr, Weighted):
        return 1, f"({expr})" if isinstance(expr, Sum) else str(expr)
    if isinstance(expr.weight, Weight) and expr.term == Constant(1.0):
        return 1, expr.weight.name  # a weight that stands alone
    sign, body = _signed(expr.term)
    if isinstance(expr.weight, Weight):
        return sign, f"{expr.weight}*{body}"
    scale = abs(expr.weight)
    return (-sign if expr.weight < 0 else sign), body if scale == 1 else f"{number_text(scale)}*{body}"


def number_text(value: float) -> str:
    """Write a number as short as possible, but so that it reads back as the same number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


POINTWISE = ("log_sigmoid", "sigmoid", "tanh", "exp", "log", "abs", "square", "softplus", "relu")
_PRINTED = {"log_sigmoid": "log s", "sigmoid": "s"}


@attrs.frozen(cache_hash=True)
class Pointwise(Expr):
    """A function, one of POINTWISE, of each row's number."""

    function: str
    term: Expr

    def __attrs_post_init__(self) -> None:
        assert self.function in POINTWISE, self.function

    @property
    def children(self) -> tuple[Expr, ...]:
        """The one term."""
        return (self.term,)

    def __str__(self) -> str:
        return f"{_PRINTED.get(self.function, self.function)}({self.term})"


def log_sigmoid(term: Expr) -> Pointwise:
    """Return the log of the logistic sigmoid of a term, log s(t) = -log(1 + exp(-t)).

    >>> print(log_sigmoid(-Constant(2.0)))
    log s(-2)
    """
    return Pointwise("log_sigmoid", term)


def sigmoid(term: Expr) -> Pointwise:
    """Return the logistic sigmoid of a term, s(t) = 1 / (1 + exp(-t)).

    >>> print(sigmoid(-Constant(2.0)))
    s(-2)
    """
    return Pointwise("sigmoid", term)


def tanh(term: Expr) -> Pointwise:
    """Return the hyperbolic tangent of a term."""
    return Pointwise("tanh", term)


def exp(term: Expr) -> Pointwise:
    """Return the exponential of a term."""
    return Pointwise("exp", term)


def log(term: Expr) -> Pointwise:
    """Return the natural logarithm of a term, which must be positive. A log-density is `joint.log("x|z")`."""
    return Pointwise("log", term)


def absolute(term: Expr) -> Pointwise:
    """Return the absolute value of a term."""
    return Pointwise("abs", term)


def square(term: Expr) -> Pointwise:
    """Return the square of a term."""
    return Pointwise("square", term)


def softplus(term: Expr) -> Pointwise:
    """Return the softplus of a term, log(1 + exp(t))."""
    return Pointwise("softplus", term)


def relu(term: Expr) -> Pointwise:
    """Return the positive part of a term, max(t, 0)."""
    return Pointwise("relu", term)


@attrs.frozen(cache_hash=True)
class Clip(Expr):
    """A term between bounds: outside of them it is the nearer bound, and has no gradient.

    Raises:
        ConfigError: The lower bound is not below the upper one.
    """

    term: Expr
    low: float
    high: float

    def __attrs_post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"{self}: the lower bound must be less than the upper one")
        if max(abs(self.low), abs(self.high)) > MAX_NUMBER:
            raise ConfigError(f"{self}: bounds must be at most {MAX_NUMBER:g} in size")

    @property
    def children(self) -> tuple[Expr, ...]:
        """The one term."""
        return (self.term,)

    def __str__(self) -> str:
        return f"clip({self.term}, {number_text(self.low)}, {number_text(self.high)})"


def clip(term: Expr, low: float, high: float) -> Clip:
    """Return a term between bounds.

    >>> print(clip(Constant(3.0), -1, 1))
    clip(3, -1, 1)
    """
    return Clip(term, float(low), float(high))


@attrs.frozen(cache_hash=True)
class Stop(Expr):
    """A term whose value counts and whose gradient does not."""

    term: Expr

    @property
    def children(self) -> tuple[Expr, ...]:
        """The one term."""
        return (self.term,)

    def __str__(self) -> str:
        return f"stop({self.term})"


def summands(expr: Expr) -> Iterator[tuple[tuple[float | Weight, ...], Expr]]:
    """Yield the terms of an expression, each with the weights that multiply it; the terms are no sums themselves.

    >>> [(weights, str(term)) for weights, term in summands(2 * (Constant(1) - 3 * Constant(4)))]
    [((2.0,), '1'), ((2.0, -1.0, 3.0), '4')]
    """
    if isinstance(expr, Sum):
        for term in expr.terms:
            yield from summands(term)
    elif isinstance(expr, Weighted):
        for weights, term in summands(expr.term):
            yield (expr.weight, *weights), term
    else:
        yield (), expr
