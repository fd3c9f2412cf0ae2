"""Tables of recipes for the settings of an objective: how a weight is found, and what critics share. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from jointgen.config.fields import PenaltyField, below_one, between, fraction, non_negative, positive, valid_count
from jointgen.errors import ConfigError, suggest
from jointgen.objectives.algebra import MAX_NUMBER, Control, Expr, Weight
from jointgen.objectives.distributions import Marginal, Mixture, Product, as_distribution
from jointgen.objectives.expressions import CriticView, Ratio, log_ratio
from jointgen.objectives.objective import Order


@attrs.frozen(repr=False)
class WeightTable:
    """The table of a weight that goes linearly from `start` to `to`.

    Args:
        to: The last value.
        start: The first value.
        over: The share of the stage over which it changes, in [0, 1].
        cycles: How often the schedule repeats; `over` is then a share of one cycle (cyclical annealing, Fu et al.
            2019).
        after: The share of the stage, or of one cycle, at which it begins to change; with `over = 0` it steps there.
    """

    to: float
    start: float
    over: float = attrs.field(validator=fraction)
    cycles: int = attrs.field(default=1, validator=valid_count)
    after: float = attrs.field(default=0.0, validator=fraction)

    def named(self, name: str) -> Weight:
        """Return the weight that the table describes, with a name."""
        return Weight(name, self.to, self.start, self.over, self.cycles, after=self.after)

    def __repr__(self) -> str:
        """Write the table as a recipe has it."""
        cycles = f", cycles = {self.cycles}" if self.cycles > 1 else ""
        after = f", after = {self.after:g}" if self.after else ""
        return f"{{ start = {self.start:g}, to = {self.to:g}, over = {self.over:g}{cycles}{after} }}"


@attrs.frozen
class BalanceTable:
    """The table of a weight that is independent of scale.

    It holds the gradient of the term that it multiplies at `r` times the gradient of another term. Both gradients are
    taken with respect to the outputs of the network of one conditional, and compared by their norms per row.

    Args:
        r: The relative strength.
        against: The other term, of the same update, as the equation prints it without its weights. Where it stands in
            several expectations, with the one that is meant: "E[q(x,z)] log p(x|z)".
        start, over, cycles: the schedule of r, as in `WeightTable`.
    """

    r: float = attrs.field(validator=non_negative)
    against: str = "log p(x|z)"
    start: float = attrs.field(default=0.0, validator=non_negative)
    over: float = attrs.field(default=0.0, validator=fraction)
    cycles: int = attrs.field(default=1, validator=valid_count)

    def __attrs_post_init__(self) -> None:
        if not self.against.strip():
            raise ConfigError("name a term of the objective, such as 'log p(x|z)'", "against")
        if not self.over and (self.start or self.cycles > 1):
            raise ConfigError("say over which share of the stage r goes from start to its value", "over")


@attrs.frozen
class ControlTable:
    """The table of a weight that figures of the run drive from step to step, see `Control`.

    Args:
        control: The expression that drives it, of terms that updates compute.
        gain, kind, low, high, average: as in `Control`.
        start: The value that it begins with; by default 0, and 1 where kind is "exp".
    """

    control: str
    gain: float = attrs.field(validator=positive)
    kind: Literal["add", "exp"] = "add"
    start: float | None = None
    low: float | None = None
    high: float | None = None
    average: float = attrs.field(default=0.0, validator=below_one)

    def named(self, name: str, control: Expr) -> Weight:
        """Return the weight that the table describes, with a name and the expression that was read."""
        is_exp = self.kind == "exp"
        low = (0.0 if is_exp else -MAX_NUMBER) if self.low is None else self.low
        high = MAX_NUMBER if self.high is None else self.high
        start = (1.0 if is_exp else 0.0) if self.start is None else self.start
        return Weight(name, start, control=Control(control, self.gain, self.kind, low, high, self.average))


def weight_of(name: str, value: float | WeightTable | BalanceTable, ramp: float = 0.0) -> Weight:
    """Return the named weight that a setting of an objective stands for.

    Args:
        name: The name that prints.
        value: A number, or a table.
        ramp: The share of the stage over which a number, or an r without a schedule of its own, rises from 0.

    >>> weight_of("lambda", 10.0, ramp=0.5).at(0.25)
    5.0
    """
    if isinstance(value, WeightTable):
        return value.named(name)
    to, against = (value.r, value.against) if isinstance(value, BalanceTable) else (value, "")
    if isinstance(value, BalanceTable) and value.over:
        return Weight(name, to, value.start, value.over, value.cycles, against=against)
    return Weight(name, to, 0.0 if ramp else None, ramp, against=against)


def table_of(weight: Weight) -> float | WeightTable | BalanceTable | ControlTable:
    """Return the number or the table that a weight was made from."""
    if (control := weight.control) is not None:
        low = None if control.low == (0.0 if control.kind == "exp" else -MAX_NUMBER) else control.low
        high = None if control.high == MAX_NUMBER else control.high
        return ControlTable(str(control.of), control.gain, control.kind, weight.to, low, high, control.average)
    if weight.is_balanced:
        return BalanceTable(weight.to, weight.against, weight.start or 0.0, weight.over, weight.cycles)
    if weight.start is None:
        return weight.to
    return WeightTable(weight.to, weight.start, weight.over, weight.cycles, weight.after)


def non_negative_weight(instance: Any, attribute: Any, value: float | WeightTable | BalanceTable) -> None:
    """Validate for attrs that a weight is never negative. A balanced one never is."""
    ends = {"start = ": value.start, "to = ": value.to} if isinstance(value, WeightTable) else {"": value}
    for key, number in ends.items():
        if isinstance(number, int | float) and number < 0:
            raise ValueError(f"{attribute.name!r} must be >= 0, got {key}{number}")
        if isinstance(number, int | float) and number > MAX_NUMBER:
            raise ValueError(f"{attribute.name!r} must be <= {MAX_NUMBER:g}, got {key}{number}")


def check_one_ramp(value: float | WeightTable | BalanceTable, ramp: float, name: str, ramp_name: str) -> None:
    """Raise a ConfigError where both a table and a ramp say how a weight changes."""
    if ramp and (isinstance(value, WeightTable) or (isinstance(value, BalanceTable) and value.over)):
        raise ConfigError(f"{name} says itself how it changes; leave one of the two out", ramp_name)


@attrs.frozen
class CriticTable:
    """The settings that all critics of an objective share. An objective keeps them in its field `critic`.

    Args:
        view: How a critic sees a variable: {x = "relaxed"}.
        penalties: Penalties on the critic, such as r1.
        steps: How often the critic's update runs in a step.
    """

    view: dict[str, str] = attrs.field(factory=dict)
    penalties: list[PenaltyField] = attrs.field(factory=list)
    steps: int = attrs.field(default=1, validator=between(1, 1000))

    def order(self, alternating: Order) -> Order:
        """Return "same point" where the critic runs once a step, and `alternating` where it runs more often."""
        return "same point" if self.steps == 1 else alternating

    def log_ratio(
        self,
        name: str,
        num: Marginal | Product | Mixture,
        den: Marginal | Product | Mixture,
        view: Mapping[str, CriticView] | None = None,
        **options: Any,
    ) -> Ratio:
        """Return a log-ratio whose critic has these settings. Views of variables that it does not see are left out.

        Args:
            name: The critic's name.
            num: The numerator, whose draws are the positives.
            den: The denominator.
            view: Views that the objective itself asks for; the recipe's come first.
            options: See `Ratio`.

        Raises:
            ConfigError: The recipe names a view of a variable that the joints do not have.
        """
        sides = (*as_distribution(num).marginals, *as_distribution(den).marginals)
        known = {variable for marginal in sides for variable in marginal.joint.variables}
        for variable in self.view:
            if variable not in known:
                raise ConfigError(f"no variable {variable!r}{suggest(variable, known)}", "critic", "view")
        seen = as_distribution(num).variables
        view = {**(view or {}), **{variable: seen_as for variable, seen_as in self.view.items() if variable in seen}}
        return log_ratio(num, den, name=name, view=view, penalties=tuple(self.penalties), times=self.steps, **options)
