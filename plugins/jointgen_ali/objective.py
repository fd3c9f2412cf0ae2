"""Adversarially learned inference: one critic between the joints, its labels swapped for the model."""

from __future__ import annotations

from typing import Literal

import attrs

from jointgen.config import non_negative
from jointgen.objectives import E, Expr, Objective, Weight, cycle, log_ratio, log_sigmoid, p, q


def swapped_labels() -> Expr:
    """E_q log s(-f) + E_p log s(f): what the critic minimises, so that the gradient does not vanish."""
    f = log_ratio(q.xz, p.xz, name="f")
    return E(q.xz, log_sigmoid(-f)) + E(p.xz, log_sigmoid(f))


@attrs.frozen
class ALI:
    """The authors' code takes both gradients at the same point (`ali/algorithms.py`)."""

    def objective(self) -> Objective:
        return Objective.of(swapped_labels(), order="same point")


@attrs.frozen
class ALICE:
    """ALI less `weight` times the distance of x to its reconstruction."""

    weight: float = attrs.field(default=1.0, validator=non_negative)
    distance: Literal["l1", "l2"] = "l1"

    def objective(self) -> Objective:
        c = Weight("c", self.weight)
        loop = E(q.xz, cycle(p, "x|z", distance=self.distance))
        return Objective.of(swapped_labels() - c * loop, order="same point")
