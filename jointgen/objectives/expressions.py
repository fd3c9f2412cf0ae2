"""The objective language: expressions that print as the equation they are. Declarations only, torch-free.

An objective is an expectation of terms under joints, or under products of their marginals; where a density is
not available, a learned log-ratio takes its place (docs/objectives.md):

    f = log_ratio(q.xz, p.xz, name="f")
    E(q.xz, log_sigmoid(-f)) + E(p.xz, log_sigmoid(f))   # prints E[q(x,z)](log s(-f)) + E[p(x,z)](log s(f))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from jointgen.errors import ConfigError
from jointgen.objectives.algebra import Expr
from jointgen.objectives.distributions import Conditional, Joint, Marginal, Product, as_product


@attrs.frozen(cache_hash=True)
class Value:
    """The value of a variable at the point, or of a fresh draw of `factor` given the point; in one reading."""

    variable: str
    reading: str = "sample"
    joint: Joint | None = None
    factor: Conditional | None = None

    def __attrs_post_init__(self) -> None:
        if self.factor is not None and self.factor.moments and self.reading not in ("sample", "mean"):
            raise ConfigError(f"{self}: a matched Gaussian has the readings sample and mean")

    def __str__(self) -> str:
        name = self.variable if self.factor is None or self.joint is None else f"{self.joint.name}({self.factor})"
        return name if self.reading == "sample" else f"{self.reading} {name}"


@attrs.frozen(cache_hash=True)
class Standardized:
    """A view of a variable: (value - mean) / scale by the moments of its conditional, which carry no gradient.

    Where r(z|x) is the matched Gaussian of q(z|x), draws of r are seen as N(0, I), and draws of q by how they differ.
    """

    joint: Joint
    factor: Conditional

    def __str__(self) -> str:
        return f"standardized {self.joint.name}({self.factor})"


def standardized(joint: Joint, text: str) -> Standardized:
    """A critic's view of z by the moments of r(z|x): `log_ratio(..., view={"z": standardized(r, "z|x")})`."""
    return Standardized(joint, joint.factor(text))


Seen = str | Standardized
"""How a critic sees a variable: a reading's name, or standardised."""


@attrs.frozen(cache_hash=True)
class Apply(Expr):
    """A registered term on values, such as the cycle term l1(x, mean p(x|z))."""

    term: Any
    values: tuple[Value, ...]

    def __str__(self) -> str:
        name = self.term if isinstance(self.term, str) else type(self.term).__name__.lower()
        return f"{name}({', '.join(map(str, self.values))})"


def cycle(joint: Joint, text: str, *, distance: Any = "l1", reading: str = "mean") -> Apply:
    """distance(x, x') with x' a reading of joint(x|z) at the point: `cycle(p, "x|z")` under q(x,z) rebuilds x."""
    factor = joint.factor(text)
    (variable,) = factor.out
    return Apply(distance, (Value(variable), Value(variable, reading, joint, factor)))


def _view(view: Mapping[str, Seen] | tuple[tuple[str, Seen], ...]) -> tuple[tuple[str, Seen], ...]:
    return tuple(sorted(view.items() if isinstance(view, Mapping) else view, key=lambda item: item[0]))


@attrs.frozen(cache_hash=True)
class Ratio(Expr):
    """A critic over the variables of `num` and `den`; its positives are draws of `num`.

    kind: "log_ratio" estimates log num/den in nats; "score" is a Wasserstein, hinge or least-squares critic,
        which must not be read as one.
    loss, penalties: registered components or their names.
    known: an expression added to the logit, held in the critic's update; in the model's update its gradient
        flows through the samples only.
    view: which reading of a variable the critic sees, {"x": "relaxed"}, or that it sees it standardised;
        "sample" where nothing is said.
    times: how often its update runs in a step, each time after the first on draws of its own.
    """

    name: str
    num: Product = attrs.field(converter=as_product)
    den: Product = attrs.field(converter=as_product)
    kind: Literal["log_ratio", "score"] = "log_ratio"
    loss: Any = "logistic"
    known: Expr | None = None
    view: tuple[tuple[str, Seen], ...] = attrs.field(converter=_view, default=())
    penalties: tuple[Any, ...] = ()
    times: int = 1

    def __attrs_post_init__(self) -> None:
        if set(self.num.variables) != set(self.den.variables):
            raise ConfigError(f"ratio {self.definition}: the two sides are over different variables")
        for variable, seen in self.view:
            if variable not in self.variables:
                raise ConfigError(f"ratio {self.definition}: view names {variable!r}, which the critic does not see")
            if isinstance(seen, Standardized) and seen.factor.out != (variable,):
                raise ConfigError(f"ratio {self.definition}: {seen} is a view of {seen.factor.out[0]}, not {variable}")
        if self.known is not None and self.kind == "score":
            raise ConfigError(f"{self.definition}: a known part belongs to a log-ratio, not to a score")

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(sorted(self.num.variables))

    @property
    def children(self) -> tuple[Expr, ...]:
        return () if self.known is None else (self.known,)

    @property
    def definition(self) -> str:
        return f"{self.name} = {self.kind.replace('_', '-')} {self.num} : {self.den}"

    def reading(self, variable: str) -> Seen:
        return dict(self.view).get(variable, "sample")

    def __str__(self) -> str:
        return self.name


def log_ratio(num: Marginal | Product, den: Marginal | Product, *, name: str, **options: Any) -> Ratio:
    """Estimates log num/den in nats; draws of `num` are its positives. Options: see Ratio."""
    return Ratio(name, num, den, "log_ratio", **options)


def score(num: Marginal | Product, den: Marginal | Product, *, name: str, loss: Any, **options: Any) -> Ratio:
    """A critic that scores draws of `num` above draws of `den`, without being a log-ratio. Options: see Ratio."""
    return Ratio(name, num, den, "score", loss, **options)


# --- expectations ----------------------------------------------------------------------------------------------------


@attrs.frozen(cache_hash=True)
class Expectation(Expr):
    """E over a joint, a marginal or a product of marginals, of a term.

    k draws of everything but the roots per row, reduced by "mean" or "logmeanexp" (IWAE).
    """

    over: Product = attrs.field(converter=as_product)
    term: Expr
    k: int = 1
    reduce: Literal["mean", "logmeanexp"] = "mean"

    def __attrs_post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"{self}: k must be at least 1")
        if any(isinstance(inner, Expectation) for inner in self.term.walk()):
            raise ConfigError(f"{self}: an expectation stands inside another")

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.term,)

    @property
    def sign(self) -> str:
        """E[q(x,z); k=5 logmeanexp]: the expectation without its term."""
        reduce = "" if self.reduce == "mean" else f" {self.reduce}"
        draws = "" if self.k == 1 and not reduce else f"; k={self.k}{reduce}"
        return f"E[{self.over}{draws}]"

    def __str__(self) -> str:
        return f"{self.sign}({self.term})"


def E(  # noqa: N802 - the paper's sign
    over: Marginal | Product, term: Expr, *, k: int = 1, reduce: Literal["mean", "logmeanexp"] = "mean"
) -> Expr:
    """E[over](term): the paper's expectation sign."""
    return Expectation(over, term, k, reduce)
