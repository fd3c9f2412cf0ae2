"""Adversarially learned inference: one critic between the joints, its labels swapped for the model."""

from __future__ import annotations

from typing import Literal

import attrs

from jointgen.objectives import (
    CriticTable,
    E,
    Expr,
    Objective,
    Order,
    WeightTable,
    cycle,
    log_sigmoid,
    non_negative_weight,
    p,
    q,
    weight_of,
)


@attrs.frozen
class ALI:
    """E_q log s(-f) + E_p log s(f), f = log-ratio q(x,z) : p(x,z): what the critic minimises, so that the gradient
    does not vanish. The authors' code takes both gradients at the same point (`ali/algorithms.py`)."""

    critic: CriticTable = attrs.field(factory=CriticTable)

    def objective(self) -> Objective:
        return Objective.of(swapped_labels(self.critic), order=order_of(self.critic))


@attrs.frozen
class ALICE:
    """ALI less `weight` (a number, or a table { start, to, over, cycles }) times the distance of x to its
    reconstruction."""

    weight: float | WeightTable = attrs.field(default=1.0, validator=non_negative_weight)
    distance: Literal["l1", "l2"] = "l1"
    critic: CriticTable = attrs.field(factory=CriticTable)

    def objective(self) -> Objective:
        loop = E(q.xz, cycle(p, "x|z", distance=self.distance))
        c = weight_of("c", self.weight)
        return Objective.of(swapped_labels(self.critic) - c * loop, order=order_of(self.critic))


def swapped_labels(critic: CriticTable) -> Expr:
    f = critic.log_ratio("f", q.xz, p.xz)
    return E(q.xz, log_sigmoid(-f)) + E(p.xz, log_sigmoid(f))


def order_of(critic: CriticTable) -> Order:
    """Several critic steps take turns with the model's."""
    return "same point" if critic.steps == 1 else "critics, model"
