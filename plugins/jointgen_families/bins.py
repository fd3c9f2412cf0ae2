"""Quantisation bins, and the exact log masses that Gaussians and logistics put on them (docs/concepts/densities.md)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from jointgen.plugin import LOG_2PI, Space, log1mexp, place_in_bin


class Bins:
    """The bins of a quantised variable: bin i is [low + i w, low + (i + 1) w], with w the width and i in 0..count - 1.

    >>> bins = Bins(Space((1,), low=0.0, high=1.0, bins=4))
    >>> bins.level(torch.tensor([0.1, 0.3, 1.5]))
    tensor([0., 1., 3.])
    """

    def __init__(self, space: Space):
        low, width = space.low, space.bin_width
        assert low is not None and width is not None and space.bins is not None, f"no bins in {space}"
        self.low, self.width, self.count = low, width, space.bins

    def level(self, value: Tensor) -> Tensor:
        """Return the index of each value's bin; a value outside the range counts to the bin at that edge."""
        return ((value - self.low) / self.width).floor().clamp(0, self.count - 1)

    def centre(self, level: Tensor) -> Tensor:
        """Return the centres of bins."""
        return self.low + (level + 0.5) * self.width

    def within(self, level: Tensor, u: Tensor) -> Tensor:
        """Return the points of bins at the fractions u in [0, 1), as dequantised data is made."""
        return self.low + place_in_bin(level, u) * self.width


# --- Gaussian --------------------------------------------------------------------------------------------------------

# A bin this narrow against sigma, and this close to the mean, is integrated by the midpoint rule. Both forms are
# then within 1e-5 nats of the truth in float32: the rule's error grows as (m delta)^4, the other's as 1 / (m delta).
NARROW, NEAR = 0.05, 0.3
SQRT2 = math.sqrt(2)


def log_bin_mass(m: Tensor, delta: Tensor) -> Tensor:
    """Return log[Phi(m + delta/2) - Phi(m - delta/2)], elementwise, finite wherever m^2 and (m delta) are.

    Args:
        m: The bin's centre, standardised, (centre - mean) / sigma.
        delta: Its width over sigma, > 0.
    """
    m = m.abs()  # the mass is even in m
    narrow = (delta < NARROW) & (m * delta < NEAR)
    inside = ~narrow & (m < delta / 2)
    # where() differentiates every branch, so each is given harmless arguments where it is not used
    midpoint = _midpoint(torch.where(narrow, m, 0.0), torch.where(narrow, delta, NARROW))
    around = _around_mean(torch.where(inside, m, 0.0), torch.where(inside, delta, 1.0))
    tail = _in_tail(torch.where(narrow | inside, 1.0, m), torch.where(narrow | inside, 1.0, delta))
    return torch.where(narrow, midpoint, torch.where(inside, around, tail))


def _midpoint(m: Tensor, delta: Tensor) -> Tensor:
    """Return log phi(m) + log delta + log1p((m^2 - 1) delta^2 / 24)."""
    return -0.5 * (m**2 + LOG_2PI) + torch.log(delta) + torch.log1p((m**2 - 1) * delta**2 / 24)


def _around_mean(m: Tensor, delta: Tensor) -> Tensor:
    """Return log 1/2 (erf(a / sqrt 2) + erf(b / sqrt 2)) for a bin [-a, b] about the mean, where nothing cancels.

    (torch 2.15 differentiates log_ndtr wrongly far out in float32, and 0 x inf becomes NaN there.)
    """
    a, b = delta / 2 + m, delta / 2 - m
    return torch.log(0.5 * (torch.erf(a / SQRT2) + torch.erf(b / SQRT2)))


def _in_tail(m: Tensor, delta: Tensor) -> Tensor:
    """Return log Phi(-b) + log1mexp(log Phi(-a) - log Phi(-b)) for a bin [-a, -b], b >= 0.

    With Phi(-t) = erfcx(t / sqrt 2) exp(-t^2 / 2) / 2 the squares' part of the difference is -m delta exactly;
    far out the difference of the two logarithms themselves would round to nothing.
    """
    a, b = m + delta / 2, m - delta / 2
    log_a, log_b = (torch.log(torch.special.erfcx(t / SQRT2)) for t in (a, b))
    return log_b - math.log(2) - b**2 / 2 + log1mexp(log_a - log_b - m * delta)


# --- logistic --------------------------------------------------------------------------------------------------------


def logistic_log_mass(m: Tensor, delta: Tensor) -> Tensor:
    """Return log[s(B) - s(A)] for A, B = m -+ delta/2, s the sigmoid, elementwise; finite wherever m and delta are.

    It is log s(B) + log s(-A) + log(1 - e^(A - B)), three terms <= 0, so that nothing cancels
    (docs/concepts/densities.md).
    m, delta: as in `log_bin_mass`.
    """
    return F.logsigmoid(m + delta / 2) + F.logsigmoid(delta / 2 - m) + log1mexp(-delta)


def extended_logistic_log_mass(m: Tensor, delta: Tensor, level: Tensor, count: int) -> Tensor:
    """Return the same, but with the lowest bin down to -inf and the highest up to +inf, as in PixelCNN++."""
    is_lowest, is_highest = level == 0, level == count - 1
    to_upper_end = F.logsigmoid(m + delta / 2).masked_fill(is_highest, 0.0)
    from_lower_end = F.logsigmoid(delta / 2 - m).masked_fill(is_lowest, 0.0)
    return to_upper_end + from_lower_end + log1mexp(-delta).masked_fill(is_lowest | is_highest, 0.0)
