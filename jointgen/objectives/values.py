"""Values: what a term is about, an argument of a density takes, or a critic sees. Torch-free.

A value is a variable of the expectation, a new draw of a conditional, or the features of a network. A draw and a
network may be given other values than the variables that they are written with, so values nest:

>>> from jointgen.objectives import p, q
>>> print(q.draw("z|x", "mean", at={"x": p.draw("x|z", "mean")}))
mean q(z|x=mean p(x|z))
>>> print(stop(q.draw("z|x")))
stop(q(z|x))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, overload

import attrs

from jointgen.errors import ConfigError, suggest
from jointgen.objectives.algebra import Expr, Stop, Tree

if TYPE_CHECKING:
    from jointgen.objectives.distributions import Conditional, Joint
    from jointgen.objectives.expressions import Ratio

Arguments = tuple[tuple[str, "Argument"], ...]
"""The values that take the place of variables, by the variable's name; a variable that is absent stands for itself."""

Layer = int | Literal["last", "all"]
"""Which features of a network: those of its nth layer, from 1, of its last one, or all of them side by side."""


class Argument(Tree):
    """A value, (rows, ...)."""

    __slots__ = ()


def as_argument(value: Argument | str) -> Argument:
    """Return a value as it is, and a name as the variable of this name."""
    return Value(value) if isinstance(value, str) else value


def arguments(at: Mapping[str, Argument | str] | Arguments) -> Arguments:
    """Return what takes the place of each variable in one normal form: by name, without x in the place of x."""
    named = at.items() if isinstance(at, Mapping) else at
    pairs = ((variable, as_argument(value)) for variable, value in named)
    return tuple(sorted((pair for pair in pairs if pair[1] != Value(pair[0])), key=lambda pair: pair[0]))


def show_argument(variable: str, value: Argument) -> str:
    """Write what takes the place of a variable: "x=mean p(x|z)", and "stop(x)" for x itself without its gradient."""
    return str(value) if value in (Value(variable), StoppedValue(Value(variable))) else f"{variable}={value}"


def check_arguments(asker: object, at: Arguments, given: Sequence[str]) -> None:
    """Raise a ConfigError where a value takes the place of something that is no argument."""
    for variable, _ in at:
        if variable not in given:
            raise ConfigError(f"{asker}: {variable!r} is no argument that a value can take the place of"
                              f"{suggest(variable, given)}")  # fmt: skip


@attrs.frozen(cache_hash=True)
class Value(Argument):
    """The value of a variable.

    Args:
        variable: The variable.
        reading: Which reading of the draw: "sample", "mean", "relaxed", whatever the family offers.
        joint, factor: None for the draw of the expectation itself; a factor of a joint for a new draw of it, given the
            draw of the expectation.
        at: What the factor is given in the place of the variables that it is conditioned on.
    """

    variable: str
    reading: str = "sample"
    joint: Joint | None = None
    factor: Conditional | None = None
    at: Arguments = attrs.field(converter=arguments, default=())

    def __attrs_post_init__(self) -> None:
        if self.factor is not None and self.factor.moments and self.reading not in ("sample", "mean"):
            raise ConfigError(f"{self}: a matched Gaussian has the readings sample and mean")
        if self.factor is not None and self.factor.is_root:
            raise ConfigError(f"{self} is a root, which only an expectation draws, as in E[q(x)p(z)](...)")
        check_arguments(self, self.at, () if self.factor is None else self.factor.given)

    @property
    def children(self) -> tuple[Argument, ...]:
        """The values that it is given."""
        return tuple(value for _, value in self.at)

    def __str__(self) -> str:
        whole = self.factor is None or self.joint is None
        name = self.variable if whole else f"{self.joint.name}({self.factor.show(self.at)})"  # type: ignore[union-attr]
        return name if self.reading == "sample" else f"{self.reading} {name}"


@attrs.frozen(cache_hash=True)
class StoppedValue(Argument):
    """A value through which no gradient flows. Write it with `stop`."""

    value: Argument

    @property
    def children(self) -> tuple[Argument, ...]:
        """The one value."""
        return (self.value,)

    def __str__(self) -> str:
        return f"stop({self.value})"


@overload
def stop(term: Expr) -> Stop: ...
@overload
def stop(term: Argument | str) -> StoppedValue: ...
def stop(term: Expr | Argument | str) -> Stop | StoppedValue:
    """Cut every gradient of a term, of a value, or of the variable of this name.

    To cut only that through an argument of a density, see `Joint.log(..., stop="x")`.
    """
    return Stop(term) if isinstance(term, Expr) else StoppedValue(as_argument(term))


@attrs.frozen(cache_hash=True)
class Features(Argument):
    """The features of a network: what its layers make of values. Write it with `features`.

    Args:
        layer: The features of the nth layer, from 1, those of the last one, or all of them, flat and side by side.
        ratio: The ratio whose critic it is; None for a conditional.
        joint, factor: The conditional whose trunk it is.
        at: Values in the place of the variables that the network sees.

    Raises:
        ConfigError: There is no such layer, or a value takes the place of what the network does not see.
    """

    layer: Layer = "last"
    ratio: Ratio | None = None
    joint: Joint | None = None
    factor: Conditional | None = None
    at: Arguments = attrs.field(converter=arguments, default=())

    def __attrs_post_init__(self) -> None:
        if isinstance(self.layer, int) and self.layer < 1:
            raise ConfigError(f"features[{self.layer}]: layers are counted from 1")
        if self.factor is not None and self.factor.moments:
            raise ConfigError(f"{self}: a matched Gaussian has no network")
        check_arguments(self, self.at, self.given)

    @property
    def part(self) -> str:
        """The part whose network it is."""
        return self.ratio.name if self.ratio is not None else self.factor.part  # type: ignore[union-attr]

    @property
    def given(self) -> tuple[str, ...]:
        """The variables that the network sees, in the order in which they print."""
        return self.ratio.num.variables if self.ratio is not None else self.factor.given  # type: ignore[union-attr]

    @property
    def children(self) -> tuple[Tree, ...]:
        """The ratio, and the values that the network is given."""
        values = tuple(value for _, value in self.at)
        return values if self.ratio is None else (self.ratio, *values)

    def __str__(self) -> str:
        if self.factor is not None and self.joint is not None:
            return f"{show_layer(self.layer)} {self.joint.name}({self.factor.show(self.at)})"
        instead = dict(self.at)
        shown = [self._shown(variable, instead.get(variable, Value(variable))) for variable in self.given]
        return f"{show_layer(self.layer)} {self.part}({','.join(shown)})"

    def _shown(self, variable: str, value: Argument) -> str:
        """A value stands in its place by itself, unless it is another of the variables that the critic sees."""
        is_other = isinstance(value, Value) and value.factor is None and value.variable in self.given
        return f"{variable}={value}" if is_other and value != Value(variable) else str(value)


def show_layer(layer: Layer) -> str:
    """Write which features: "features", "features[2]" or "features[*]"."""
    return {"last": "features", "all": "features[*]"}.get(str(layer), f"features[{layer}]")


def features(of: Ratio | Value, layer: Layer = "last", *, at: Mapping[str, Argument | str] | None = None) -> Features:
    """Return the features of a critic, or of the trunk of a conditional, as a value.

    They train the network where an update trains it anyway, and nothing else: in the model's update a critic is held.

    Args:
        of: A ratio, or a draw of the conditional, such as `q.draw("z|x")`, which gives its arguments, too.
        layer: The nth layer, from 1, "last" or "all".
        at: Values in the place of the variables that the network sees.

    >>> from jointgen.objectives import log_ratio, p, q
    >>> f = log_ratio(q.x, p.x, name="f")
    >>> print(features(f, 2, at={"x": p.draw("x|z", "mean")}), features(q.draw("z|x"), "all"))
    features[2] f(mean p(x|z)) features[*] q(z|x)
    """
    if isinstance(of, Value):
        return Features(layer, None, of.joint, of.factor, {**dict(of.at), **(at or {})})
    return Features(layer, of, at=at or {})


def unstopped(at: Arguments) -> Arguments:
    """Return the same values with nothing stopped. They are the same numbers, so they name the same noise."""

    def one(value: Argument) -> Argument:
        if isinstance(value, StoppedValue):
            return one(value.value)
        return attrs.evolve(value, at=unstopped(value.at)) if isinstance(value, Value | Features) else value

    return arguments(tuple((variable, one(value)) for variable, value in at))
