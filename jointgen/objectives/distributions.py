"""Joints as products of conditionals, their marginals, products of those, and their log-densities. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from jointgen.errors import ConfigError, suggest
from jointgen.objectives.algebra import Expr


def names(value: str | Iterable[str]) -> tuple[str, ...]:
    """ "x, z" or ("x", "z") -> ("x", "z")."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return tuple(value)


@attrs.frozen(cache_hash=True)
class Conditional:
    """`out | given`, computed by `part`: an encoder or decoder, or for a root a prior or a data source.

    of: the joint whose draw this is, where a joint takes a factor over from another: r(x,z) = q(x) r(z|x).
    moments: not the part's distribution but the Gaussian of its mean and (co)variance, which carries no gradient to
        the part (adaptive contrast, Mescheder et al. 2017).
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
        return not self.given

    @property
    def computed_by(self) -> str:
        """encoder, or moments of encoder."""
        return f"{_MOMENTS}{self.part}" if self.moments else self.part

    def show(self, stop: frozenset[str] = frozenset()) -> str:
        def listed(variables: tuple[str, ...]) -> str:
            return ",".join(f"stop({v})" if v in stop else v for v in variables)

        return listed(self.out) + (f"|{listed(self.given)}" if self.given else "")

    def __str__(self) -> str:
        return self.show()


@attrs.frozen(cache_hash=True)
class Joint:
    """A named joint distribution: a product of conditionals, each given only variables that stand before it.

    `joint.on("x", "z")` is a marginal, `joint.log("x|z")` a log-density term. With one-letter variables there is
    sugar for both: `q.xz`, `q.x`, `q.log_z_given_x`.
    """

    name: str
    factors: tuple[Conditional, ...]

    def __attrs_post_init__(self) -> None:
        seen: set[str] = set()
        for factor in self.factors:
            missing = [v for v in factor.given if v not in seen]
            if missing:
                raise ConfigError(f"joint {self}: {factor} is given {missing[0]!r}, which no factor before it draws")
            twice = [v for v in factor.out if v in seen]
            if twice:
                raise ConfigError(f"joint {self}: {twice[0]!r} is drawn by two factors")
            seen.update(factor.out)

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(v for factor in self.factors for v in factor.out)

    @property
    def everything(self) -> Marginal:
        """The joint over all its variables, sorted as a reader writes them: x before z."""
        return self.on(*sorted(self.variables))

    def on(self, *variables: str) -> Marginal:
        return Marginal(self, tuple(variables))

    def factor(self, text: str) -> Conditional:
        """The factor written "x|z" (variables in any order). Raises ConfigError naming the factors there are."""
        out, _, given = text.partition("|")
        wanted = (set(names(out)), set(names(given)))
        for factor in self.factors:
            if (set(factor.out), set(factor.given)) == wanted:
                return factor
        known = [f"{self.name}({f})" for f in self.factors]
        raise ConfigError(f"{self.name}({text}) is no factor of {self}{suggest(f'{self.name}({text})', known)}")

    def written(self, factor: Conditional) -> str:
        """q(x): the factor with its joint's name."""
        return f"{factor.of or self.name}({factor})"

    @property
    def own(self) -> tuple[Conditional, ...]:
        """The factors that are not taken over from another joint."""
        return tuple(factor for factor in self.factors if not factor.of)

    def matched(self, text: str, name: str) -> Joint:
        """This joint with the factor "z|x" replaced by the Gaussian of its moments: r(x,z) = q(x) r(z|x).

        What does not depend on z is this joint's own draw, so q(x) and r(x) are the same rows.
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
        return next(factor for factor in self.factors if variable in factor.out)

    def log(self, text: str, *, stop: str | Iterable[str] = (), hold: bool = False, mass: bool = False) -> LogDensity:
        """The term log p(x|z). `stop` cuts the gradient through these arguments, `hold` that of the parameters."""
        return LogDensity(self, self.factor(text), frozenset(names(stop)), hold, mass)

    def ancestors(self, variables: Iterable[str]) -> tuple[Conditional, ...]:
        """The factors that must be drawn, in order, to have these variables."""
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
        return " ".join(map(self.written, self.factors))


@attrs.frozen(cache_hash=True)
class Marginal:
    """A joint seen on some of its variables, q(x,z) or p(x)."""

    joint: Joint
    variables: tuple[str, ...]

    def __attrs_post_init__(self) -> None:
        for variable in self.variables:
            if variable not in self.joint.variables:
                raise ConfigError(f"{self}: no variable {variable!r} in {self.joint}")
        if len(set(self.variables)) != len(self.variables) or not self.variables:
            raise ConfigError(f"{self}: names each variable once")

    def __mul__(self, other: Marginal | Product) -> Product:
        return Product((self,)) * other

    def __str__(self) -> str:
        return f"{self.joint.name}({','.join(self.variables)})"


@attrs.frozen(cache_hash=True)
class Product:
    """Independent marginals over different variables, such as p(x)p(z)."""

    marginals: tuple[Marginal, ...]

    def __attrs_post_init__(self) -> None:
        twice = [v for v in self.variables if self.variables.count(v) > 1]
        if twice:
            raise ConfigError(f"{self}: {twice[0]!r} stands in two factors of the product")

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(v for marginal in self.marginals for v in marginal.variables)

    def __mul__(self, other: Marginal | Product) -> Product:
        return Product(self.marginals + as_product(other).marginals)

    def __str__(self) -> str:
        return "".join(map(str, self.marginals))


def as_product(over: Marginal | Product) -> Product:
    return over if isinstance(over, Product) else Product((over,))


_CONDITIONAL = re.compile(r"\s*(\w+)\s*\(([^()|]*)(?:\|([^()]*))?\)\s*")


_MOMENTS = "moments of "


def joint_from_text(
    name: str, text: str, parts: dict[str, str] | None = None, others: Mapping[str, Joint] | None = None
) -> Joint:
    """ "q(x) q(z|x)" -> Joint. `parts` maps "q(z|x)" to the part that computes it (default: see `default_part`).

    A part may be "moments of encoder". `others`: joints whose factors this one may take over, as in "q(x) r(z|x)".
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
            factors.append(_computed(conditional, name, parts or {}))
        position = match.end()
    for written in parts or {}:
        if written not in {f"{name}({f})" for f in factors if not f.of} and written.startswith(f"{name}("):
            raise ConfigError(f"{written} is no factor of {text}")
    return Joint(name, tuple(factors))


def _computed(conditional: Conditional, joint: str, parts: Mapping[str, str]) -> Conditional:
    part = parts.get(f"{joint}({conditional})") or default_part(joint, conditional)
    return attrs.evolve(conditional, part=part.removeprefix(_MOMENTS), moments=part.startswith(_MOMENTS))


def default_part(joint: str, conditional: Conditional) -> str:
    """The usual names: q's roots are data and its conditionals the encoder; p's are the prior and the decoder."""
    if conditional.is_root:
        return "prior" if joint == "p" else "data"
    return "decoder" if joint == "p" else "encoder"


@attrs.frozen(cache_hash=True)
class LogDensity(Expr):
    """log p(x|z) at the point of the expectation, in nats.

    mass: the log of the exact probability of the quantisation bin that x lies in, instead of the density at x.
    """

    joint: Joint
    factor: Conditional
    stop: frozenset[str] = frozenset()
    hold: bool = False
    mass: bool = False

    def __attrs_post_init__(self) -> None:
        unknown = self.stop - {*self.factor.out, *self.factor.given}
        if unknown:
            raise ConfigError(
                f"log {self.joint.name}({self.factor}): stop names {sorted(unknown)[0]!r}, not an argument"
            )

    def __str__(self) -> str:
        text = f"log {'mass ' if self.mass else ''}{self.joint.name}({self.factor.show(self.stop)})"
        return f"hold({text})" if self.hold else text


@attrs.frozen(cache_hash=True)
class KL(Expr):
    """KL(q(z|x) : p(z)) in closed form, (B,) nats, given the variables that its factors condition on."""

    joint: Joint
    factor: Conditional
    other_joint: Joint
    other: Conditional

    def __attrs_post_init__(self) -> None:
        if set(self.factor.out) != set(self.other.out):
            raise ConfigError(f"{self}: the two sides are over different variables")

    def __str__(self) -> str:
        return f"KL({self.joint.name}({self.factor}) : {self.other_joint.name}({self.other}))"


def kl(a: LogDensity, b: LogDensity) -> KL:
    """`kl(q.log_z_given_x, p.log_z)`: KL(q(z|x) : p(z)), needs a family that has it in closed form."""
    return KL(a.joint, a.factor, b.joint, b.factor)


q = Joint("q", (Conditional("x", part="data"), Conditional("z", "x", part="encoder")))
p = Joint("p", (Conditional("z", part="prior"), Conditional("x", "z", part="decoder")))
