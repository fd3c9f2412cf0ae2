"""Adversarial variational Bayes: the rate log q(z|x) - log p(z) is learned by a critic that sees the same x twice."""

from __future__ import annotations

import attrs

from jointgen.objectives import CriticTable, E, Objective, p, q


@attrs.frozen
class AVB:
    """E_q [log p(x|z) - t], t = log-ratio q(x,z) : q(x)p(z), whose optimum is log q(z|x) - log p(z).

    Both gradients are taken at the same point, as the authors' code does; several critic steps take turns.
    """

    critic: CriticTable = attrs.field(factory=CriticTable)

    def objective(self) -> Objective:
        t = self.critic.log_ratio("t", q.xz, q.x * p.z)
        estimate = E(q.xz, p.log_x_given_z - t)  # with t for the rate it is no bound (papers.md section 3)
        order = "same point" if self.critic.steps == 1 else "model, critics"
        return Objective.of(estimate, order=order, reports=(("elbo_estimate", estimate),))
