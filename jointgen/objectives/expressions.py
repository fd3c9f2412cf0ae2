"""Critics, terms on values, and expectations. Torch-free.

Where a log-density is not available, a learned log-ratio of two distributions takes its place
(docs/concepts/objectives.md). The model's side of adversarially learned inference (Dumoulin et al. 2017), with the
labels swapped:

>>> from jointgen.objectives import log_sigmoid, p, q
>>> f = log_ratio(q.xz, p.xz, name="f")
>>> print(E(q.xz, log_sigmoid(-f)) + E(p.xz, log_sigmoid(f)))
E[q(x,z)](log s(-f)) + E[p(x,z)](log s(f))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import attrs

from jointgen.errors import ConfigError, suggest
from jointgen.objectives.algebra import MAX_DRAWS, Expr, Tree, Weight, check_size, summands
from jointgen.objectives.components import Slot, as_component, name_of
from jointgen.objectives.distributions import (
    Conditional,
    Distribution,
    Joint,
    Marginal,
    Mixture,
    Product,
    as_distribution,
    names,
)
from jointgen.objectives.schedules import Times, as_times
from jointgen.objectives.values import Argument, Value, as_argument


@attrs.frozen(cache_hash=True)
class Standardized:
    """A view of a variable: (value - mean) / scale, with the moments of its conditional, which carry no gradient.

    Where r(z|x) is the Gaussian with the moments of q(z|x), draws of r are seen as N(0, I), and those of q by how they
    differ from it (Mescheder et al. 2017, section 3.3).
    """

    joint: Joint
    factor: Conditional

    def __str__(self) -> str:
        return f"standardized {self.joint.name}({self.factor})"


def standardized(joint: Joint, text: str) -> Standardized:
    """Return a critic's view of a variable in units of a conditional's moments.

    >>> from jointgen.objectives import q
    >>> r = q.matched("z|x", name="r")
    >>> t = log_ratio(q.xz, r.xz, name="t", view={"z": standardized(r, "z|x")})
    """
    return Standardized(joint, joint.factor(text))


CriticView = str | Standardized | Argument
"""How a critic sees a variable: by the name of a reading, standardised, or as another value, such as features."""


@attrs.frozen(cache_hash=True)
class Apply(Expr):
    """A term of values, such as the cycle term l1(x, mean p(x|z)).

    Args:
        term: A registered term or its name, any attrs class with `__call__`, or a function of as many tensors as there
            are values, (B, *shape) each -> (B,).
        values: The values.
    """

    term: Any = attrs.field(converter=as_component, hash=False)
    values: tuple[Argument, ...]
    component_slots: ClassVar[tuple[Slot, ...]] = (Slot("term", "term"),)

    @property
    def children(self) -> tuple[Argument, ...]:
        """The values."""
        return self.values

    def __str__(self) -> str:
        return f"{name_of(self.term)}({', '.join(map(str, self.values))})"


def apply(term: Any, *values: Argument | str) -> Apply:
    """Return a registered term of values; a name stands for the variable of this name.

    >>> from jointgen.objectives import q, stop
    >>> print(apply("l2", stop(q.draw("z|x", "mean")), "z"))
    l2(stop(mean q(z|x)), z)
    """
    return Apply(term, tuple(map(as_argument, values)))


def cycle(joint: Joint, text: str, *, distance: Any = "l1", reading: str = "mean") -> Apply:
    """Return the distance of a variable to its reconstruction by a conditional.

    Args:
        joint: The joint that reconstructs.
        text: Its factor, such as "x|z".
        distance: A registered term of two values, its name ("l1", "l2"), or a function of one's own.
        reading: Which reading of the reconstruction.

    >>> from jointgen.objectives import p, q
    >>> print(E(q.xz, cycle(p, "x|z")))
    E[q(x,z)](l1(x, mean p(x|z)))
    """
    factor = joint.factor(text)
    (variable,) = factor.out
    return Apply(distance, (Value(variable), Value(variable, reading, joint, factor)))


def _view(view: Mapping[str, CriticView] | tuple[tuple[str, CriticView], ...]) -> tuple[tuple[str, CriticView], ...]:
    return tuple(sorted(view.items() if isinstance(view, Mapping) else view, key=lambda item: item[0]))


@attrs.frozen
class AsWritten:
    """In the place of a critic's loss where the objective writes the critic's update itself.

    What the critic then estimates is known to who wrote it: that of an f-GAN is a function of the log-ratio, say.
    """

    is_ratio = False

    def __str__(self) -> str:
        return "as its update is written"


Side = Literal["positive", "negative"]
SIDES: tuple[Side, Side] = ("positive", "negative")
"""The sides of a ratio: draws of its numerator are its critic's positives, those of its denominator its negatives."""


@attrs.frozen(cache_hash=True)
class Ratio(Expr):
    """A critic of two distributions over the same variables, which learns to tell draws of one from the other.

    A critic that stands in an objective contributes an update of its own, see `Objective.complete`.

    Args:
        name: The name that prints, which is also that of the critic's part and of its update.
        num: The numerator; its draws are the positives.
        den: The denominator; its draws are the negatives.
        kind: "log_ratio" estimates log num/den in nats; "score" is a Wasserstein, hinge or least-squares critic, which
            must not be read as a log-ratio. "critic": neither is known, since its update is written by hand; an
            objective finds this out when it is completed.
        loss: The critic's loss, a registered component or its name.
        known: An expression that is added to the critic's output, for a part of the log-ratio that can be written
            down. Its parameters take no gradient; in the model's update its gradient flows through the samples.
        view: How the critic sees a variable: {"x": "relaxed"}, or standardised. Without one it sees the sample.
        penalties: Registered components or their names, such as "r1".
        times: How often the critic's update runs in a step, a number or rules, as in `Update`; each time after the
            first it has draws of its own.
        history: How many draws of the denominator are kept, see `Expectation`; 0 for new ones alone.

    Raises:
        ConfigError: The two sides are over different variables, or a view does not fit.
    """

    name: str
    num: Distribution = attrs.field(converter=as_distribution)
    den: Distribution = attrs.field(converter=as_distribution)
    kind: Literal["log_ratio", "score", "critic"] = "log_ratio"
    loss: Any = "logistic"
    known: Expr | None = None
    view: tuple[tuple[str, CriticView], ...] = attrs.field(converter=_view, default=())
    penalties: tuple[Any, ...] = ()
    times: Times = attrs.field(converter=as_times, default=1)
    history: int = 0

    def __attrs_post_init__(self) -> None:
        if self.known is not None:
            check_size(self.known)
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
        """The variables that the critic sees, in alphabetical order."""
        return tuple(sorted(self.num.variables))

    @property
    def children(self) -> tuple[Tree, ...]:
        """The known part, where there is one, and the values that the critic sees in the place of variables."""
        values = tuple(seen for _, seen in self.view if isinstance(seen, Argument))
        return values if self.known is None else (self.known, *values)

    @property
    def definition(self) -> str:
        """The line that follows the equation: "f = log-ratio q(x,z) : p(x,z)"."""
        return f"{self.name} = {self.kind.replace('_', '-')} {self.num} : {self.den}"

    def reading(self, variable: str) -> CriticView:
        """Return how the critic sees a variable."""
        return dict(self.view).get(variable, "sample")

    def __str__(self) -> str:
        return self.name


def log_ratio(
    num: Marginal | Product | Mixture, den: Marginal | Product | Mixture, *, name: str, **options: Any
) -> Ratio:
    """Return a critic that estimates log num/den, in nats. The options are those of `Ratio`.

    >>> from jointgen.objectives import p, q
    >>> log_ratio(q.xz, p.x * p.z, name="f1").definition
    'f1 = log-ratio q(x,z) : p(x)p(z)'
    """
    return Ratio(name, num, den, "log_ratio", **options)


def score(
    num: Marginal | Product | Mixture, den: Marginal | Product | Mixture, *, name: str, loss: Any, **options: Any
) -> Ratio:
    """Return a critic that scores draws of `num` above those of `den` without being a log-ratio.

    Args:
        num: The distribution whose draws score high.
        den: The distribution whose draws score low.
        name: The critic's name.
        loss: A registered critic loss that gives no log-ratio, or its name: "wasserstein", "hinge".
        options: See `Ratio`.
    """
    return Ratio(name, num, den, "score", loss, **options)


# --- expectations ----------------------------------------------------------------------------------------------------


MEAN = "mean"
"""The reduction of an expectation that names none."""


def _reduction(held: Any) -> Any:
    return None if held is None or held == MEAN else as_component(held)


@attrs.frozen(cache_hash=True)
class Expectation(Expr):
    """The expectation of a term over a joint, a marginal, a product of marginals or a mixture. Write it with `E`.

    Args:
        over: What the variables are drawn from.
        term: The term, one number per draw.
        k: The number of draws for each row.
        reduce: How the k values of a row become one: a registered reduction or its name; None for their mean.
        wrt: The variables whose draws the reduction looks at; none for those that it looks at by itself.
        sums: The variables that take every value in place of a draw.
        history: So many draws of the past are kept, and each draw that a critic sees is one of them with probability
            1/2 (Shrivastava et al. 2017); 0 for new draws alone.

    Raises:
        ConfigError: k is less than 1, an expectation stands inside another, `wrt` does not fit, or a variable is summed
            over that it does not draw.
    """

    over: Distribution = attrs.field(converter=as_distribution)
    term: Expr
    k: int = 1
    reduce: Any = attrs.field(default=None, converter=_reduction, hash=False)
    wrt: tuple[str, ...] = attrs.field(default=(), converter=names)
    sums: tuple[str, ...] = attrs.field(default=(), converter=names)
    history: int = 0
    component_slots: ClassVar[tuple[Slot, ...]] = (Slot("reduce", "reduction"),)
    is_summand: ClassVar[bool] = True

    def __attrs_post_init__(self) -> None:
        check_size(self.term)
        check_sums(self.over, self.sums)
        if not 1 <= self.k <= MAX_DRAWS:
            raise ConfigError(f"{self}: k must be from 1 to {MAX_DRAWS:,}")
        if not 0 <= self.history <= MAX_DRAWS:
            raise ConfigError(f"{self}: a history has from 1 to {MAX_DRAWS:,} draws")
        if self.history and (self.k > 1 or self.sums):
            raise ConfigError(f"{self}: a history goes with one draw for each row, and with no sum")
        if self.wrt and self.reduce is None:
            raise ConfigError(f"{self}: a mean looks at no variable; write k={self.k}, or another reduction")
        for variable in self.wrt:
            if variable not in self.over.variables:
                raise ConfigError(f"{self}: {self.over} has no {variable!r}{suggest(variable, self.over.variables)}")
        if any(inner.is_summand for inner in self.term.walk()):
            raise ConfigError(f"{self}: an expectation stands inside another")

    @property
    def children(self) -> tuple[Expr, ...]:
        """The term."""
        return (self.term,)

    @property
    def components(self) -> tuple[tuple[float, Expectation], ...]:
        """The expectations over the components of a mixture, with their shares; over a product itself alone."""
        return tuple((share, attrs.evolve(self, over=product)) for share, product in self.over.components)

    @property
    def terms(self) -> Iterable[tuple[tuple[float | Weight, ...], Expr]]:
        """The terms with their weights. A mean is taken term by term; any other reduction is of one term."""
        return summands(self.term) if self.reduce is None else [((), self.term)]

    @property
    def sign(self) -> str:
        """The expectation without its term, such as "E[q(x,z); k=5 logmeanexp]"."""
        reduce = "" if self.reduce is None else f" {name_of(self.reduce)}"
        reduce += f"({', '.join(self.wrt)})" if self.wrt else ""
        draws = "" if self.k == 1 and not reduce else f"; k={self.k}{reduce}"
        sums = f"; sum {', '.join(self.sums)}" if self.sums else ""
        history = f"; history {self.history}" if self.history else ""
        return f"E[{self.over}{sums}{draws}{history}]"

    def __str__(self) -> str:
        return f"{self.sign}({self.term})"


def E(  # noqa: N802 - the paper's sign
    over: Marginal | Product | Mixture,
    term: Expr,
    *,
    k: int = 1,
    reduce: Any = MEAN,
    wrt: str | Iterable[str] = (),
    sums: str | Iterable[str] = (),
    history: int = 0,
) -> Expr:
    """Return the expectation of a term, estimated by the mean over the rows of a batch.

    Args:
        over: What the variables of the term are drawn from: a joint, marginal or product of marginals, or a mixture.
        term: The term, (B,) per draw.
        k: The number of draws per row, of all variables but those of roots.
        reduce: How the k values of a row become one: "mean", or a registered reduction or its name, such as
            "logmeanexp" of IWAE (Burda et al. 2016, eq. 8).
        wrt: The variables whose draws the reduction looks at. A prior's variable is then drawn k times as well.
        sums: Variables that take every value in place of a draw, each weighed by its probability
            (docs/concepts/discrete.md).
        history: How many draws of the past are kept; a critic sees one of them in place of a new draw with probability
            1/2 (docs/concepts/schedules.md).

    >>> from jointgen.objectives import p, q
    >>> log_w = p.log_x_given_z + p.log_z - q.log_z_given_x
    >>> print(E(q.xz, log_w, k=5, reduce="logmeanexp"))
    E[q(x,z); k=5 logmeanexp](log p(x|z) + log p(z) - log q(z|x))
    >>> print(E(q.xz, p.log_x_given_z + p.log_z, k=5, reduce="stein", wrt="z"))
    E[q(x,z); k=5 stein(z)](log p(x|z) + log p(z))
    """
    return Expectation(over, term, k, reduce, wrt, sums, history)


def check_sums(over: Distribution, sums: tuple[str, ...]) -> None:
    """Raise ConfigError unless every component of a distribution draws the variables that are summed over."""
    for variable in sums:
        for _, product in over.components:
            factors = [f for m in product.marginals for f in m.joint.ancestors(m.variables)]
            drawn = {v: factor for factor in factors for v in factor.out}
            if variable not in drawn:
                raise ConfigError(f"sum {variable}: {product} draws no {variable!r}{suggest(variable, drawn)}")
            if len(drawn[variable].out) > 1:
                raise ConfigError(f"sum {variable}: {drawn[variable]} draws several variables at once")
    if len(set(sums)) < len(sums):
        raise ConfigError(f"sum {', '.join(sums)}: names each variable once")


@attrs.frozen(cache_hash=True)
class PenaltyOf(Expr):
    """A penalty on a critic, computed from its positives and negatives. It stands only in that critic's update.

    Args:
        ratio: The ratio of the critic.
        penalty: The component.
        at: The sides that it is computed at where they are components of mixtures, "q(x) : p(x)".
    """

    ratio: Ratio
    penalty: Any
    at: str = ""

    @property
    def children(self) -> tuple[Expr, ...]:
        """The ratio whose critic is penalised."""
        return (self.ratio,)

    @property
    def components(self) -> tuple[tuple[float, PenaltyOf], ...]:
        """The penalty for each pair of components of the two sides, with the share of the pair.

        So a penalty is an expectation over independent draws of both sides, and a mixture of one is no other penalty.
        """
        positives, negatives = self.ratio.num.components, self.ratio.den.components
        if len(positives) == len(negatives) == 1:
            return ((1.0, self),)
        return tuple(
            (a * b, PenaltyOf(attrs.evolve(self.ratio, num=num, den=den), self.penalty, f"{num} : {den}"))
            for a, num in positives
            for b, den in negatives
        )

    def __str__(self) -> str:
        return f"{type(self.penalty).__name__}({self.ratio}{f' at {self.at}' if self.at else ''})"
