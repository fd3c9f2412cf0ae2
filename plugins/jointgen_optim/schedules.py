"""Schedules: how far a learning rate has fallen, as a function of the step. See `jointgen.plugin.Schedule`."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs

from jointgen.plugin import ConfigError, between, positive, valid_count, valid_share


@attrs.frozen
class Constant:
    """A rate that never falls."""

    falls: ClassVar[bool] = False

    def fallen(self, done: float, steps: float) -> float:
        """Return 0."""
        return 0.0


@attrs.frozen
class Linear:
    """A fall on a line."""

    def fallen(self, done: float, steps: float) -> float:
        """Return the share of the fall that is done."""
        return done


@attrs.frozen
class Cosine:
    """A fall on half a cosine (Loshchilov & Hutter 2017).

    Args:
        cycles: How often it falls, each time from the full rate (warm restarts); all are equally long.
    """

    cycles: int = attrs.field(default=1, validator=valid_count)

    def fallen(self, done: float, steps: float) -> float:
        """Return how far the rate has fallen in its cycle."""
        if self.cycles > 1 and done < 1.0:
            step = round(done * steps, 6)  # a share is rounded, so that a restart could seem to be just before itself
            done = step * self.cycles / steps % 1.0
        return (1.0 - math.cos(math.pi * done)) / 2.0


@attrs.frozen
class Exponential:
    """A fall by the same factor in every step.

    Args:
        to: The share that is left at the end, of what falls.
    """

    to: float = attrs.field(default=0.01, validator=valid_share)

    def fallen(self, done: float, steps: float) -> float:
        """Return 1 - to^done."""
        return 1.0 - self.to**done


@attrs.frozen
class Polynomial:
    """A fall as a power of what is left; 1 is a line, 2 a parabola.

    Args:
        power: The power.
    """

    power: float = attrs.field(default=2.0, validator=[positive, between(0, 100)])

    def fallen(self, done: float, steps: float) -> float:
        """Return 1 - (1 - done)^power."""
        return 1.0 - (1.0 - done) ** self.power


@attrs.frozen
class Steps:
    """A fall by a factor at given places.

    Args:
        at: The places, as shares of the fall.
        factor: The factor at each of them.
    """

    at: tuple[float, ...] = attrs.field(default=(0.5, 0.75), validator=valid_share)
    factor: float = attrs.field(default=0.1, validator=valid_share)

    def __attrs_post_init__(self) -> None:
        if not self.at:
            raise ConfigError("must name a place, got none", "at")

    def fallen(self, done: float, steps: float) -> float:
        """Return 1 - factor^(places passed)."""
        return 1.0 - self.factor ** sum(done >= place for place in self.at)


@attrs.frozen
class InverseSqrt:
    """A fall as one by the root of the step (Vaswani et al. 2017).

    Args:
        after: So many steps after it begins, the rate is divided by the root of 2.
    """

    after: int = attrs.field(default=1000, validator=valid_count)

    def fallen(self, done: float, steps: float) -> float:
        """Return 1 - (1 + steps / after)^(-1/2)."""
        return 1.0 - (1.0 + done * steps / self.after) ** -0.5
