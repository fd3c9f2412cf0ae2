"""Adversarially learned inference: one critic tells the two joints apart, and the model is trained to fool it."""

from __future__ import annotations

from typing import Literal

import attrs

from jointgen.objectives import (
    CriticTable,
    E,
    Expr,
    Objective,
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
    """Adversarially learned inference (Dumoulin et al. 2017, eq. 3).

    The critic f learns the log-ratio of q(x,z) and p(x,z); encoder and decoder maximise E_q log s(-f) + E_p log s(f),
    with s the sigmoid: the critic's own loss with the labels swapped, whose gradient does not vanish (section 2.1).
    As in the authors' code, both gradients are taken at the same point.

    Args:
        critic: The settings of the critic. With several steps, critic and model take turns.
    """

    critic: CriticTable = attrs.field(factory=CriticTable)

    def objective(self) -> Objective:
        """Return the objective with these settings."""
        return Objective.of(swapped_labels(self.critic), order=self.critic.order("critics, model"))


@attrs.frozen
class ALICE:
    """ALI with cycle consistency (Li et al. 2017, eq. 7): less `weight` times the distance of x to its reconstruction.

    Args:
        weight: A number, or a table { start, to, over, cycles }.
        distance: How x and its reconstruction are compared.
        critic: The settings of the critic, as in `ALI`.
    """

    weight: float | WeightTable = attrs.field(default=1.0, validator=non_negative_weight)
    distance: Literal["l1", "l2"] = "l1"
    critic: CriticTable = attrs.field(factory=CriticTable)

    def objective(self) -> Objective:
        """Return the objective with these settings."""
        reconstruction = E(q.xz, cycle(p, "x|z", distance=self.distance))
        c = weight_of("c", self.weight)
        return Objective.of(swapped_labels(self.critic) - c * reconstruction, order=self.critic.order("critics, model"))


def swapped_labels(critic: CriticTable) -> Expr:
    """Return E_q log s(-f) + E_p log s(f), with f = log q(x,z) / p(x,z) learned by a critic."""
    f = critic.log_ratio("f", q.xz, p.xz)
    return E(q.xz, log_sigmoid(-f)) + E(p.xz, log_sigmoid(f))
