"""Axes: over which summed variables, and over which draws, a value has rows for each row of the batch. Torch-free.

Without sums a value has one row, or k, for each row of the batch. Where an expectation is summed over a variable, what
depends on the variable has a row for each of its values, so a value of q(z|x,y) with k draws has B * C * k rows, laid
out as (B, C, k). What does not depend on it has fewer, and is repeated only where it meets what does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Axis = tuple[str, int]
"""The name of a summed variable, or DRAWS, and the number of its values."""
Axes = tuple[Axis, ...]
"""The axes of a value in order: summed variables as the expectation lists them, and the draws last."""
DRAWS = ""
"""The name of the axis of the k draws of an expectation."""


def size_of(axes: Axes) -> int:
    """Return the number of rows for each row of the batch.

    >>> size_of((("y", 10), (DRAWS, 5)))
    50
    """
    return math.prod(size for _, size in axes)


def draws_axis(k: int) -> Axes:
    """Return the axis of k draws; none where k is 1."""
    return ((DRAWS, k),) if k > 1 else ()


def merge_axes(found: Iterable[Axes], order: Sequence[str]) -> Axes:
    """Return all axes of several values, in the order of the summed variables.

    >>> merge_axes([((DRAWS, 5),), (("y", 10),)], order=["y"])
    (('y', 10), ('', 5))
    """
    sizes = dict(axis for axes in found for axis in axes)
    return tuple((name, sizes[name]) for name in (*order, DRAWS) if name in sizes)


def summed_in(axes: Axes) -> tuple[str, ...]:
    """Return the names of the summed variables among axes."""
    return tuple(name for name, _ in axes if name != DRAWS)
