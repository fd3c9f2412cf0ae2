"""How often updates run: the number of times in each step, which may change. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from jointgen.errors import ConfigError
from jointgen.objectives.gates import Gate

MOST_TIMES = 1_000
"""So often an update runs in one step, at the most."""
MOST_STEPS = 10**9
"""So many steps a rule speaks of, at the most."""


@attrs.frozen
class TimesRule:
    """One line of a schedule of `times`.

    Args:
        times: How often the update runs in a step for which the rule holds.
        until: The rule holds for so many steps from the start of the run; None: for all.
        every: The rule holds for steps whose number, counted from 0, this divides; None: for all.
    """

    times: int
    until: int | None = None
    every: int | None = None

    def __attrs_post_init__(self) -> None:
        for key, value, most in (
            ("times", self.times, MOST_TIMES),
            ("until", self.until, MOST_STEPS),
            ("every", self.every, MOST_STEPS),
        ):
            if value is not None and not 1 <= value <= most:
                raise ConfigError(f"must be from 1 to {most:,}, got {value}", key)

    def holds(self, step: int) -> bool:
        """Whether the rule holds for a step of the run, counted from 0."""
        return (self.until is None or step < self.until) and (self.every is None or step % self.every == 0)

    def __str__(self) -> str:
        every = f" in every {self.every:,}th step" if self.every is not None else ""
        until = f" in the first {self.until:,} steps" if self.until is not None else ""
        return f"{self.times}{every}{until}"


Times = int | tuple[TimesRule, ...]
"""How often an update runs in a step: a number, or rules of which the first that holds says it."""


def as_times(times: int | Iterable[TimesRule]) -> Times:
    """Return a number as it is, and rules as a tuple."""
    return times if isinstance(times, int) else tuple(times)


def check_times(times: Times) -> None:
    """Raise a ConfigError where a number is out of bounds, or where some step is left without a rule."""
    if isinstance(times, int):
        if not 1 <= times <= MOST_TIMES:
            raise ConfigError(f"must be from 1 to {MOST_TIMES:,}, got {times}", "times")
        return
    if not times:
        raise ConfigError("give a number, or one rule at least", "times")
    *others, last = times
    if last.until is not None or last.every is not None:
        raise ConfigError("the last rule holds for all other steps: give it times alone", "times")
    for number, rule in enumerate(others):
        if rule.until is None and rule.every is None:
            raise ConfigError("no rule after one without until and every is ever asked", "times", number)


def times_at(times: Times, step: int) -> int:
    """Return how often an update runs in a step of the run, counted from 0.

    >>> wgan = (TimesRule(100, until=25), TimesRule(100, every=500), TimesRule(5))
    >>> [times_at(wgan, step) for step in (0, 24, 25, 499, 500, 501)]
    [100, 100, 5, 5, 100, 5]
    """
    return times if isinstance(times, int) else next(rule.times for rule in times if rule.holds(step))


def most_times(times: Times) -> int:
    """Return how often an update runs in a step at the most."""
    return times if isinstance(times, int) else max(rule.times for rule in times)


def describe_times(times: Times) -> str:
    """Write a schedule in words, or a number.

    >>> describe_times((TimesRule(100, until=25), TimesRule(100, every=500), TimesRule(5)))
    '100 in the first 25 steps, 100 in every 500th step, otherwise 5'
    """
    if isinstance(times, int):
        return str(times)
    *others, last = times
    return ", ".join([*map(str, others), f"otherwise {last.times}"])


def _as_names(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen
class Pace:
    """How often the own update of a critic runs, which nobody writes out.

    Args:
        critic: The name of the ratio.
        every, times, when, unless: As in `Update`; times None: those of the ratio.
    """

    critic: str
    every: int = 1
    times: Times | None = attrs.field(converter=attrs.converters.optional(as_times), default=None)
    when: Gate | None = None
    unless: tuple[str, ...] = attrs.field(converter=_as_names, default=())
