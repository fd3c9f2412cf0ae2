"""The recipe's way to say a weight: a number, or a table of how it is found over a stage. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from jointgen.config.fields import PenaltyField, fraction, non_negative, positive
from jointgen.errors import ConfigError, suggest
from jointgen.objectives.algebra import Weight
from jointgen.objectives.distributions import Marginal, Product, as_product
from jointgen.objectives.expressions import Ratio, Seen, log_ratio


@attrs.frozen(repr=False)
class WeightTable:
    """Goes linearly from `start` to `to` over the first `over` (a share) of its stage.

    cycles: of each of so many equal parts of the stage instead (cyclical annealing, Fu et al. 2019).
    """

    to: float
    start: float
    over: float = attrs.field(validator=fraction)
    cycles: int = attrs.field(default=1, validator=positive)

    def named(self, name: str) -> Weight:
        """The weight of this name that the table describes."""
        return Weight(name, self.to, self.start, self.over, self.cycles)

    def __repr__(self) -> str:
        """As a recipe has it."""
        cycles = f", cycles = {self.cycles}" if self.cycles > 1 else ""
        return f"{{ start = {self.start:g}, to = {self.to:g}, over = {self.over:g}{cycles} }}"


@attrs.frozen
class BalanceTable:
    """A weight free of scale: it holds the gradient of the term that it weighs at `r` times that of another.

    Both are gradients with respect to what the network of one conditional puts out, norms per row.

    against: the other term, of the same update, as the equation prints it and without the weights before it.
    start, over, cycles: r may ramp, as a number may (`WeightTable`).
    """

    r: float = attrs.field(validator=non_negative)
    against: str = "log p(x|z)"
    start: float = attrs.field(default=0.0, validator=non_negative)
    over: float = attrs.field(default=0.0, validator=fraction)
    cycles: int = attrs.field(default=1, validator=positive)

    def __attrs_post_init__(self) -> None:
        if not self.against.strip():
            raise ConfigError("name a term of the objective, such as 'log p(x|z)'", "against")
        if not self.over and (self.start or self.cycles > 1):
            raise ConfigError("say over which share of the stage r goes from start to its value", "over")


def weight_of(name: str, value: float | WeightTable | BalanceTable, ramp: float = 0.0) -> Weight:
    """The named weight. `ramp`: a number, or an r that says nothing else, is reached from 0 over so much of the
    stage."""
    if isinstance(value, WeightTable):
        return value.named(name)
    to, against = (value.r, value.against) if isinstance(value, BalanceTable) else (value, "")
    if isinstance(value, BalanceTable) and value.over:
        return Weight(name, to, value.start, value.over, value.cycles, against=against)
    return Weight(name, to, 0.0 if ramp else None, ramp, against=against)


def table_of(weight: Weight) -> float | WeightTable | BalanceTable:
    """The way back."""
    if weight.is_balanced:
        return BalanceTable(weight.to, weight.against, weight.start or 0.0, weight.over, weight.cycles)
    if weight.start is None:
        return weight.to
    return WeightTable(weight.to, weight.start, weight.over, weight.cycles)


def non_negative_weight(instance: Any, attribute: Any, value: float | WeightTable | BalanceTable) -> None:
    """Validator: the weight is >= 0 throughout. A balanced one always is."""
    ends = {"start = ": value.start, "to = ": value.to} if isinstance(value, WeightTable) else {"": value}
    for key, number in ends.items():
        if isinstance(number, int | float) and number < 0:
            raise ValueError(f"{attribute.name!r} must be >= 0, got {key}{number}")


def check_one_ramp(value: float | WeightTable | BalanceTable, ramp: float, name: str, ramp_name: str) -> None:
    """Raise a ConfigError where both a table and a ramp say how a weight changes."""
    if ramp and (isinstance(value, WeightTable) or (isinstance(value, BalanceTable) and value.over)):
        raise ConfigError(f"{name} says itself how it changes; leave one of the two out", ramp_name)


@attrs.frozen
class CriticTable:
    """What every critic of an objective shares.

    view: which reading of a variable it sees, {x = "relaxed"}.  penalties: components, such as r1.
    steps: how often its update runs in a step.
    """

    view: dict[str, str] = attrs.field(factory=dict)
    penalties: list[PenaltyField] = attrs.field(factory=list)
    steps: int = attrs.field(default=1, validator=positive)

    def log_ratio(
        self,
        name: str,
        num: Marginal | Product,
        den: Marginal | Product,
        view: Mapping[str, Seen] | None = None,
        **options: Any,
    ) -> Ratio:
        """A log-ratio whose critic has these settings; views of variables that it does not see are left out.

        view: the objective's own, where the recipe says nothing else.

        Raises ConfigError for a view of a variable that its joints do not have.
        """
        seen = as_product(num).variables
        there = {v for side in (num, den) for marginal in as_product(side).marginals for v in marginal.joint.variables}
        for variable in self.view:
            if variable not in there:
                raise ConfigError(f"no variable {variable!r}{suggest(variable, there)}", "critic", "view")
        view = {**(view or {}), **{variable: how for variable, how in self.view.items() if variable in seen}}
        return log_ratio(num, den, name=name, view=view, penalties=tuple(self.penalties), times=self.steps, **options)
