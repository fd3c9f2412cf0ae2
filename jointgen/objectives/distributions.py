"""Joint distributions as products of conditionals, their marginals, and their log-densities. Torch-free.

The two joints of every model with one code are here, `q` and `p`. Other models write their own:

>>> labelled = joint_from_text("p", "p(y) p(z) p(x|y,z)", {"p(y)": "data"})
>>> print(labelled.log("x|y,z"))
log p(x|y,z)
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Mapping
from typing import Any

import attrs

from jointgen.errors import ConfigError, suggest
from jointgen.objectives.algebra import MAX_NESTING, Expr, number_text
from jointgen.objectives.values import (
    Argument,
    Arguments,
    StoppedValue,
    Value,
    arguments,
    as_argument,
    check_arguments,
    show_argument,
)


def names(value: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names in a text with commas, or in a sequence, as a tuple.

    >>> names("x, z")
    ('x', 'z')
    """
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return tuple(value)


@attrs.frozen(cache_hash=True)
class Conditional:
    """A factor of a joint: the distribution of `out` given `given`.

    Args:
        out: The variables that it draws.
        given: The variables that it is conditioned on; none for a root.
        part: The part of the model that computes it: an encoder or decoder or, for a root, a prior or a data source.
        of: The joint from which this joint takes the factor over, as r(x,z) = q(x) r(z|x) takes q(x). Both then have
            the same draw of it.
        moments: Whether this is, in place of the part's distribution, the Gaussian with its mean and covariance,
            which carries no gradient to the part (adaptive contrast, Mescheder et al. 2017, section 3.3).

    >>> print(Conditional("x", "y, z"))
    x|y,z
    """

    out: tuple[str, ...] = attrs.field(converter=names)
    given: tuple[str, ...] = attrs.field(converter=names, default=())
    part: str = attrs.field(default="", kw_only=True)
    of: str = attrs.field(default="", kw_only=True)
    moments: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.moments and self.is_root:
            raise ConfigError(f"{self} is a root; moments are matched to a conditional such as q(z|x)")

    @property
    def is_root(self) -> bool:
        """Whether it is conditioned on nothing: a prior or a data source."""
        return not self.given

    @property
    def computed_by(self) -> str:
        """The part as a recipe writes it: "encoder", or "moments of encoder"."""
        return f"{_MOMENTS}{self.part}" if self.moments else self.part

    def show(self, at: Arguments = ()) -> str:
        """Write the factor, with the values in `at` in the place of their variables."""
        instead = dict(at)

        def listed(variables: tuple[str, ...]) -> str:
            return ",".join(show_argument(v, instead[v]) if v in instead else v for v in variables)

        return listed(self.out) + (f"|{listed(self.given)}" if self.given else "")

    def __str__(self) -> str:
        return self.show()


@attrs.frozen(cache_hash=True)
class Joint:
    """A joint distribution: a product of conditionals, each conditioned on variables of factors before it only.

    Conditionals alone, without a root, may be conditioned on anything. They draw nothing by themselves and are given
    values: mean a(x|h=mean a(h|x)).

    `joint.on("x", "z")` is a marginal and `joint.log("x|z")` a log-density. Where the variables have names of one
    letter, attributes are short forms of both: `q.xz`, `q.x`, `q.log_z_given_x`.

    Args:
        name: The name that prints, such as "q".
        factors: The conditionals, in the order in which they can be drawn.

    Raises:
        ConfigError: A factor is conditioned on a variable that none before it draws, or draws one a second time.

    >>> print(q)
    q(x,z) = q(x) q(z|x)
    >>> print(q.xz, q.x * p.z, p.log_x_given_z)
    q(x,z) q(x)p(z) log p(x|z)
    """

    name: str
    factors: tuple[Conditional, ...]

    def __attrs_post_init__(self) -> None:
        if len(self.factors) > MAX_NESTING:
            raise ConfigError(f"joint {self.name} has {len(self.factors):,} factors; at most {MAX_NESTING} are drawn")
        seen: set[str] = set()
        for factor in self.factors:
            missing = [v for v in factor.given if v not in seen]
            if missing and self.has_root:
                raise ConfigError(f"joint {self}: {factor} is given {missing[0]!r}, which no factor before it draws")
            twice = [v for v in factor.out if v in seen]
            if twice:
                raise ConfigError(f"joint {self}: {twice[0]!r} is drawn by two factors")
            seen.update(factor.out)

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables, in the order in which they are drawn."""
        return tuple(v for factor in self.factors for v in factor.out)

    @property
    def everything(self) -> Marginal:
        """The marginal over all variables, in alphabetical order."""
        return self.on(*sorted(self.variables))

    def on(self, *variables: str, **copies: str) -> Marginal:
        """Return the marginal over some variables, and over copies of some under other names.

        >>> print(q.on("x", w="x"))
        q(x,x as w)
        """
        return Marginal(self, (*variables, *copies), tuple(copies.items()))

    def factor(self, text: str) -> Conditional:
        """Return the factor that is written "x|z"; the order of variables does not matter.

        Raises:
            ConfigError: There is no such factor; the message names those there are.
        """
        out, _, given = text.partition("|")
        wanted = (set(names(out)), set(names(given)))
        for factor in self.factors:
            if (set(factor.out), set(factor.given)) == wanted:
                return factor
        known = [f"{self.name}({f})" for f in self.factors]
        raise ConfigError(f"{self.name}({text}) is no factor of {self}{suggest(f'{self.name}({text})', known)}")

    def written(self, factor: Conditional) -> str:
        """Write a factor with the name of the joint that it belongs to: "q(x)"."""
        return f"{factor.of or self.name}({factor})"

    @property
    def own(self) -> tuple[Conditional, ...]:
        """The factors that are not taken over from another joint."""
        return tuple(factor for factor in self.factors if not factor.of)

    def owned(self, joints: Container[str]) -> tuple[Conditional, ...]:
        """The factors that are taken over from none of these joints: its own, and those that only it knows."""
        return tuple(factor for factor in self.factors if factor.of not in joints)

    @property
    def has_root(self) -> bool:
        """Whether it can be drawn. A joint without a root has conditionals to use as values, as in `a(h|x) a(x|h)`."""
        return any(factor.is_root for factor in self.factors)

    def matched(self, text: str, name: str) -> Joint:
        """Return this joint with one factor replaced by the Gaussian of its moments: r(x,z) = q(x) r(z|x).

        Factors that do not depend on what this factor draws are taken over, so that q(x) and r(x) are the same rows.

        Args:
            text: The factor, "z|x"; its family must know the moments of its draws.
            name: The name of the new joint.
        """
        factor = self.factor(text)
        moved = set(factor.out)
        factors = []
        for one in self.factors:
            if one == factor:
                factors.append(attrs.evolve(one, moments=True, of=""))
            elif moved & set(one.given):
                moved |= set(one.out)
                factors.append(attrs.evolve(one, of=""))
            else:
                factors.append(attrs.evolve(one, of=one.of or self.name))
        return Joint(name, tuple(factors))

    def drawn_by(self, variable: str) -> Conditional:
        """Return the factor that draws a variable."""
        return next(factor for factor in self.factors if variable in factor.out)

    def log(
        self,
        text: str,
        *,
        stop: str | Iterable[str] = (),
        at: Mapping[str, Argument | str] | None = None,
        hold: bool = False,
        mass: bool = False,
    ) -> LogDensity:
        """Return a log-density as a term, in nats.

        Args:
            text: The factor, such as "x|z" or "z".
            stop: Variables, the factor's own or those it is conditioned on, through which no gradient flows.
            at: Values in the place of some of these variables; a name stands for the variable of this name.
            hold: Whether no gradient reaches the parameters of the factor's part.
            mass: Whether the exact probability of the quantisation bin that the value lies in takes the place of
                the density.

        >>> print(q.log("z|x", stop="x"))
        log q(z|stop(x))
        >>> print(q.log("z|x", at={"x": p.draw("x|z", "mean")}))
        log q(z|x=mean p(x|z))
        """
        return LogDensity(self, self.factor(text), _stopped(at or {}, names(stop)), hold, mass)

    def draw(self, text: str, reading: str = "sample", *, at: Mapping[str, Argument | str] | None = None) -> Value:
        """Return a new draw of a conditional as a value.

        Args:
            text: The factor, such as "x|z".
            reading: Which reading of the draw, such as "mean".
            at: Values in the place of the variables that it is given.

        >>> print(q.draw("z|x", "mean", at={"x": "z"}))
        mean q(z|x=z)
        """
        factor = self.factor(text)
        return Value(factor.out[0], reading, self, factor, at or {})

    def ancestors(self, variables: Iterable[str]) -> tuple[Conditional, ...]:
        """Return the factors that must be drawn, in order, to have these variables."""
        needed = set(variables)
        for factor in reversed(self.factors):
            if needed & set(factor.out):
                needed |= set(factor.given)
        return tuple(factor for factor in self.factors if needed & set(factor.out))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name.startswith("log_"):
            out, _, given = name[4:].partition("_given_")
            return self.log(",".join(out) + ("|" + ",".join(given) if given else ""))
        return self.on(*name)

    def __str__(self) -> str:
        return f"{self.name}({','.join(sorted(self.variables))}) = {self.product}"

    @property
    def product(self) -> str:
        """The factors as text, such as "q(x) q(z|x)"."""
        return " ".join(map(self.written, self.factors))


@attrs.frozen(cache_hash=True)
class Marginal:
    """The distribution of some of a joint's variables, such as q(x,z) or p(x). Marginals multiply to a `Product`.

    Args:
        joint: The joint.
        variables: The variables, by the names that terms and critics know them by.
        copies: The variables that are another one under a further name, each with its name in the joint: ("w", "x") in
            q(x,x as w), of which both are the same draw.
        each: Whether every number of the variable is drawn independently of the others, by its own marginal:
            prod q(z), the product of the q(z_j).
    """

    joint: Joint
    variables: tuple[str, ...]
    copies: tuple[tuple[str, str], ...] = ()
    each: bool = False

    def __attrs_post_init__(self) -> None:
        for variable in self.drawn:
            if variable not in self.joint.variables:
                raise ConfigError(f"{self}: no variable {variable!r} in {self.joint}")
        if len(set(self.variables)) != len(self.variables) or not self.variables:
            raise ConfigError(f"{self}: names each variable once")
        if self.each and len(self.variables) > 1:
            raise ConfigError(f"{self}: prod is of one variable; write prod q(z) prod q(w) for two")
        if not self.joint.has_root:
            raise ConfigError(f"{self}: {self.joint} has no root, so that nothing can be drawn from it")

    @property
    def drawn(self) -> tuple[str, ...]:
        """The joint's own names of the variables: those that are copied in the place of their copies."""
        return tuple(map(self.original, self.variables))

    def original(self, variable: str) -> str:
        """Return the joint's own name of a variable."""
        return dict(self.copies).get(variable, variable)

    @property
    def by_dimension(self) -> Marginal:
        """The product of the marginals of every number of the variable: prod q(z)."""
        return attrs.evolve(self, each=True)

    def __mul__(self, other: Marginal | Product) -> Product:
        return Product((self,)) * other

    def __rmul__(self, share: float) -> Mixture:
        return share * Product((self,))

    def __str__(self) -> str:
        copies = dict(self.copies)
        listed = (f"{copies[v]} as {v}" if v in copies else v for v in self.variables)
        return f"{'prod ' if self.each else ''}{self.joint.name}({','.join(listed)})"


@attrs.frozen(cache_hash=True)
class Product:
    """A product of independent marginals over different variables, such as p(x)p(z)."""

    marginals: tuple[Marginal, ...]

    def __attrs_post_init__(self) -> None:
        twice = [v for v in self.variables if self.variables.count(v) > 1]
        if twice:
            raise ConfigError(f"{self}: {twice[0]!r} stands in two factors of the product")

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables of all marginals, in the order of the marginals."""
        return tuple(v for marginal in self.marginals for v in marginal.variables)

    @property
    def components(self) -> tuple[tuple[float, Product], ...]:
        """The product as a mixture of one: (1, itself)."""
        return ((1.0, self),)

    def __mul__(self, other: Marginal | Product) -> Product:
        return Product(self.marginals + as_product(other).marginals)

    def __rmul__(self, share: float) -> Mixture:
        return Mixture(((share, self),))

    def __str__(self) -> str:
        return "".join(f" {marginal}" if marginal.each else str(marginal) for marginal in self.marginals).strip()


def as_product(over: Marginal | Product) -> Product:
    """Return a product as it is, and a marginal as a product of one."""
    return over if isinstance(over, Product) else Product((over,))


@attrs.frozen(cache_hash=True)
class Mixture:
    """A mixture of distributions over the same variables: a draw is of one of them, of each with its share.

    It stands as a side of a ratio or under an expectation, where its shares must sum to 1:

    >>> print(0.5 * q.x + 0.5 * p.x)
    0.5 q(x) + 0.5 p(x)

    Args:
        components: Each with its share. An expectation over the mixture is the sum of those over its components,
            weighted by the shares, and has a full batch of each: no component is drawn at random.
    """

    components: tuple[tuple[float, Product], ...]

    def __attrs_post_init__(self) -> None:
        products = [product for _, product in self.components]
        for share, product in self.components:
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < math.inf:
                raise ConfigError(f"{self}: a share is a number above 0, got {share}")
            if set(product.variables) != set(products[0].variables):
                raise ConfigError(f"{self}: {products[0]} and {product} are over different variables")
            if products.count(product) > 1:
                raise ConfigError(f"{self}: {product} stands in it twice; add up its shares")

    @property
    def marginals(self) -> tuple[Marginal, ...]:
        """The marginals of all components."""
        return tuple(marginal for _, product in self.components for marginal in product.marginals)

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables, in the order of the first component."""
        return self.components[0][1].variables

    def __add__(self, other: Mixture | Marginal | Product) -> Mixture:
        more = other.components if isinstance(other, Mixture) else as_product(other).components
        return Mixture((*self.components, *more))

    def __radd__(self, other: Marginal | Product) -> Mixture:
        return Mixture(as_product(other).components) + self

    def __str__(self) -> str:
        return " + ".join(f"{number_text(share)} {product}" for share, product in self.components)


Distribution = Product | Mixture
"""What an expectation can be over, and what a ratio can compare."""


def as_distribution(over: Marginal | Product | Mixture) -> Distribution:
    """Return a product or a mixture in its normal form: a mixture of one is this one.

    Raises:
        ConfigError: The shares of a mixture do not sum to 1.
    """
    if not isinstance(over, Mixture):
        return as_product(over)
    total = math.fsum(share for share, _ in over.components)
    if abs(total - 1.0) > MAX_ERROR_OF_SHARES:
        raise ConfigError(f"{over}: the shares of a mixture sum to 1, these sum to {number_text(total)}")
    return over if len(over.components) > 1 else over.components[0][1]


MAX_ERROR_OF_SHARES = 1e-5
"""By so much may the shares of a mixture miss 1: 0.33333 three times is a third."""


_CONDITIONAL = re.compile(r"\s*(\w+)\s*\(([^()|]*)(?:\|([^()]*))?\)\s*")


_MOMENTS = "moments of "


def joint_from_text(
    name: str, text: str, parts: dict[str, str] | None = None, others: Mapping[str, Joint] | None = None
) -> Joint:
    """Read a joint from its product of factors.

    Args:
        name: The joint's name, which is that of its factors.
        text: The product, such as "q(x) q(z|x)".
        parts: The part that computes a factor, by the factor as written: {"q(z|x)": "encoder"}. A part may be
            "moments of encoder", see `Conditional.moments`. Factors that are not named have their `default_part`.
        others: Joints whose factors this one may take over, as r takes q(x) in "q(x) r(z|x)".

    Raises:
        ConfigError: The text is no product of factors, or `parts` names a factor that is not in it.

    >>> joint_from_text("q", "q(x) q(z|x)") == q
    True
    """
    factors, position = [], 0
    while position < len(text.rstrip()):
        match = _CONDITIONAL.match(text, position)
        if match is None or match[1] not in {name, *(others or {})}:
            raise ConfigError(f"joint {name}: expected {name}(...) at {text[position:]!r}")
        conditional = Conditional(match[2], match[3] or ())
        if others and match[1] != name:
            factors.append(attrs.evolve(others[match[1]].factor(str(conditional)), of=match[1]))
        else:
            part = (parts or {}).get(f"{name}({conditional})") or default_part(name, conditional)
            moments = part.startswith(_MOMENTS)
            factors.append(attrs.evolve(conditional, part=part.removeprefix(_MOMENTS), moments=moments))
        position = match.end()
    for written in parts or {}:
        if written not in {f"{name}({f})" for f in factors if not f.of} and written.startswith(f"{name}("):
            raise ConfigError(f"{written} is no factor of {text}")
    return Joint(name, tuple(factors))


def default_part(joint: str, conditional: Conditional) -> str:
    """Return the usual part of a factor: "data" and "encoder", or "prior" and "decoder" in the joint p."""
    if conditional.is_root:
        return "prior" if joint == "p" else "data"
    return "decoder" if joint == "p" else "encoder"


@attrs.frozen(cache_hash=True)
class LogDensity(Expr):
    """A log-density such as log p(x|z), (B,) nats, at the draw of the expectation that it stands in. See `Joint.log`.

    Args:
        at: Values in the place of the factor's variables, `stop(x)` among them.

    Raises:
        ConfigError: `at` names a variable that is no argument of the factor.
    """

    joint: Joint
    factor: Conditional
    at: Arguments = attrs.field(converter=arguments, default=())
    hold: bool = False
    mass: bool = False

    def __attrs_post_init__(self) -> None:
        check_arguments(f"log {self.joint.name}({self.factor})", self.at, (*self.factor.out, *self.factor.given))

    @property
    def children(self) -> tuple[Argument, ...]:
        """The values that take the place of its variables."""
        return tuple(value for _, value in self.at)

    def __str__(self) -> str:
        text = f"log {'mass ' if self.mass else ''}{self.joint.name}({self.factor.show(self.at)})"
        return f"hold({text})" if self.hold else text


@attrs.frozen(cache_hash=True)
class KL(Expr):
    """A Kullback-Leibler divergence in closed form, (B,) nats, given the variables that its factors condition on."""

    joint: Joint
    factor: Conditional
    other_joint: Joint
    other: Conditional
    at: Arguments = attrs.field(converter=arguments, default=())
    other_at: Arguments = attrs.field(converter=arguments, default=())

    def __attrs_post_init__(self) -> None:
        if set(self.factor.out) != set(self.other.out):
            raise ConfigError(f"{self}: the two sides are over different variables")
        check_arguments(self, self.at, self.factor.given)
        check_arguments(self, self.other_at, self.other.given)

    @property
    def children(self) -> tuple[Argument, ...]:
        """The values that its two sides are given."""
        return tuple(value for _, value in (*self.at, *self.other_at))

    def __str__(self) -> str:
        one, other = self.factor.show(self.at), self.other.show(self.other_at)
        return f"KL({self.joint.name}({one}) : {self.other_joint.name}({other}))"


def kl(a: LogDensity, b: LogDensity) -> KL:
    """Return the Kullback-Leibler divergence of two conditionals, for families that have it in closed form.

    >>> print(kl(q.log_z_given_x, p.log_z))
    KL(q(z|x) : p(z))
    """
    return KL(a.joint, a.factor, b.joint, b.factor, a.at, b.at)


def _stopped(at: Mapping[str, Argument | str], stop: tuple[str, ...]) -> dict[str, Argument]:
    """Return the values with those of the variables in `stop` stopped."""
    instead = {variable: as_argument(value) for variable, value in at.items()}
    return instead | {variable: StoppedValue(instead.get(variable, Value(variable))) for variable in stop}


q = Joint("q", (Conditional("x", part="data"), Conditional("z", "x", part="encoder")))
"""q(x,z) = q(x) q(z|x): the data and the encoder."""
p = Joint("p", (Conditional("z", part="prior"), Conditional("x", "z", part="decoder")))
"""p(x,z) = p(z) p(x|z): the prior and the decoder."""
