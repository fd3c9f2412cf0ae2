"""The recipe's way to say a weight: a number, or a table of how it changes over a stage. Torch-free."""

from __future__ import annotations

from typing import Any

import attrs

from jointgen.config import fraction, positive
from jointgen.objectives.algebra import Weight


@attrs.frozen(repr=False)
class WeightTable:
    """Goes linearly from `start` to `to` over the first `over` (a share) of its stage.

    cycles: of each of so many equal parts of the stage instead (cyclical annealing, Fu et al. 2019).
    """

    to: float
    start: float
    over: float = attrs.field(validator=fraction)
    cycles: int = attrs.field(default=1, validator=positive)

    def __repr__(self) -> str:
        """As a recipe has it."""
        cycles = f", cycles = {self.cycles}" if self.cycles > 1 else ""
        return f"{{ start = {self.start:g}, to = {self.to:g}, over = {self.over:g}{cycles} }}"


def weight_of(name: str, value: float | WeightTable, ramp: float = 0.0) -> Weight:
    """The named weight. `ramp`: a number is reached from 0 over so much of the stage."""
    if isinstance(value, WeightTable):
        return Weight(name, value.to, value.start, value.over, value.cycles)
    return Weight(name, value, start=0.0, over=ramp) if ramp else Weight(name, value)


def table_of(weight: Weight) -> float | WeightTable:
    """The way back."""
    if weight.start is None:
        return weight.to
    return WeightTable(weight.to, weight.start, weight.over, weight.cycles)


def non_negative_weight(instance: Any, attribute: Any, value: float | WeightTable) -> None:
    """Validator: the weight is >= 0 throughout."""
    ends = {"start = ": value.start, "to = ": value.to} if isinstance(value, WeightTable) else {"": value}
    for key, number in ends.items():
        if isinstance(number, int | float) and number < 0:
            raise ValueError(f"{attribute.name!r} must be >= 0, got {key}{number}")


def check_one_ramp(value: float | WeightTable, ramp: float, name: str, ramp_name: str) -> None:
    """ValueError where both a table and a ramp say how a weight changes."""
    if ramp and isinstance(value, WeightTable):
        raise ValueError(f"{ramp_name}: {name} says itself how it changes; leave one of the two out")
