"""Adversarial variational Bayes: the rate log q(z|x) - log p(z) is learned by a critic that sees the same x twice."""

from __future__ import annotations

import attrs

from jointgen.config import positive
from jointgen.objectives import E, Objective, log_ratio, p, q


@attrs.frozen
class AVB:
    """E_q [log p(x|z) - t], t = log-ratio q(x,z) : q(x)p(z), whose optimum is log q(z|x) - log p(z).

    Both gradients are taken at the same point, as the authors' code does; `critic_steps` above 1 takes turns.
    """

    critic_steps: int = attrs.field(default=1, validator=positive)

    def objective(self) -> Objective:
        t = log_ratio(q.xz, q.x * p.z, name="t", times=self.critic_steps)
        estimate = E(q.xz, p.log_x_given_z - t)  # with t for the rate it is no bound (papers.md section 3)
        order = "same point" if self.critic_steps == 1 else "model, critics"
        return Objective.of(estimate, order=order, reports=(("elbo_estimate", estimate),))
