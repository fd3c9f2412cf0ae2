"""Terms that a registered estimator computes from values and from parts of the model themselves. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import attrs

from jointgen.errors import ConfigError
from jointgen.objectives.algebra import Expr
from jointgen.objectives.components import Slot, as_component, name_of
from jointgen.objectives.distributions import LogDensity
from jointgen.objectives.values import Argument, as_argument


@attrs.frozen(cache_hash=True)
class Estimate(Expr):
    """A term that an estimator makes of values and laws: reinforce(x, stop(z); q(z|x), p(x|z), p(z)).

    Args:
        estimator: A registered estimator or its name, or any attrs class of this form; see `jointgen.plugin.Estimator`.
        values: The values that it is handed.
        laws: The conditionals and priors that it is handed, first those that it trains, then those that it reads.

    Raises:
        ConfigError: It is handed no value, or other laws than it takes.
    """

    estimator: Any = attrs.field(converter=as_component, hash=False)
    values: tuple[Argument, ...]
    laws: tuple[LogDensity, ...]
    component_slots: ClassVar[tuple[Slot, ...]] = (Slot("estimator", "estimator"),)

    def __attrs_post_init__(self) -> None:
        if not self.values:
            raise ConfigError(f"{self}: hand it at least one value, as in {name_of(self.estimator)}(x; ..)")
        for law in self.laws:
            if law.at or law.hold or law.mass:
                raise ConfigError(f"{self}: a law stands as it is, with no value in the place of a variable")
        if (component := self.component) is None:
            return
        if not hasattr(component, "trains") or not hasattr(component, "reads"):
            raise ConfigError(f"{name_of(self.estimator)} says not what it trains and reads, so it is no estimator")
        if len(self.laws) != len(self.roles):
            takes = [f"{r} (trained)" for r in component.trains] + [f"{r} (read)" for r in component.reads]
            raise ConfigError(f"{self}: it is handed {len(self.laws)} laws; it takes {', '.join(takes) or 'none'}")

    @property
    def component(self) -> Any:
        """The estimator itself; None where only its name is known."""
        return None if isinstance(self.estimator, str) else getattr(self.estimator, "component", self.estimator)

    @property
    def roles(self) -> tuple[str, ...]:
        """The estimator's names for its laws, in their order."""
        return (*self.component.trains, *self.component.reads)

    @property
    def children(self) -> tuple[Argument, ...]:
        """The values."""
        return self.values

    @property
    def written_laws(self) -> tuple[str, ...]:
        """The laws as they print, such as "p(x|z)"."""
        return tuple(f"{law.joint.name}({law.factor.show(law.at)})" for law in self.laws)

    def describe(self) -> Iterator[str]:
        """Say which laws the estimator trains and which it reads."""
        written = self.written_laws
        trained, read = written[: len(self.component.trains)], written[len(self.component.trains) :]
        does = [f"{verb} {', '.join(laws)}" for verb, laws in (("trains", trained), ("reads", read)) if laws]
        yield f"{name_of(self.estimator)} computes its own gradient; it {' and '.join(does)}"

    def __str__(self) -> str:
        return f"{name_of(self.estimator)}({', '.join(map(str, self.values))}; {', '.join(self.written_laws)})"


def estimate(estimator: Any, *values: Argument | str, laws: Iterable[LogDensity]) -> Estimate:
    """Return the term that an estimator makes of values and laws.

    Args:
        estimator: A registered estimator, its name, or an attrs class of one's own.
        values: The values; a name stands for the variable of this name.
        laws: The laws in the estimator's order, by their log-densities.

    >>> from jointgen.objectives import E, p, q, stop
    >>> laws = [q.log_z_given_x, p.log_x_given_z, p.log_z]
    >>> print(E(q.xz, estimate("reinforce", "x", stop("z"), laws=laws)))
    E[q(x,z)](reinforce(x, stop(z); q(z|x), p(x|z), p(z)))
    """
    return Estimate(estimator, tuple(map(as_argument, values)), tuple(laws))
