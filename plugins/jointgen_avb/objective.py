"""Adversarial variational Bayes: the rate log q(z|x) - log p(z) is learned by a critic that sees the same x twice."""

from __future__ import annotations

import attrs

from jointgen.objectives import CriticTable, E, Objective, p, q, standardized


@attrs.frozen
class AVB:
    """E_q [log p(x|z) - t], t = log-ratio q(x,z) : q(x)p(z), whose optimum is log q(z|x) - log p(z).

    adaptive_contrast: E_q [log p(x|z) + log p(z) - log r(z|x) - t], r(z|x) the Gaussian with the moments of q(z|x),
        t = log-ratio q(x,z) : r(x,z), r(x,z) = q(x) r(z|x). The critic sees z in r's units and learns only by how
        much q(z|x) is no Gaussian (section 3.3). For families that have the moments of their draws.

    Both gradients are taken at the same point, as the authors' code does; several critic steps take turns. The
    estimate has t in the rate, so it is no bound (docs/papers.md). elbo_matched, the ELBO with r in place of q,
    is one, of the same decoder: how far the estimate lies above it says what the critic may have missed.
    """

    adaptive_contrast: bool = False
    critic: CriticTable = attrs.field(factory=CriticTable)

    def objective(self) -> Objective:
        order = "same point" if self.critic.steps == 1 else "model, critics"
        if not self.adaptive_contrast:
            estimate = E(q.xz, p.log_x_given_z - self.critic.log_ratio("t", q.xz, q.x * p.z))
            return Objective.of(estimate, order=order, reports=(("elbo_estimate", estimate),))
        r = q.matched("z|x", name="r")
        t = self.critic.log_ratio("t", q.xz, r.xz, view={"z": standardized(r, "z|x")})
        term = p.log_x_given_z + p.log_z - r.log_z_given_x
        estimate, matched = E(q.xz, term - t), E(r.xz, term)
        reports = (("elbo_estimate", estimate), ("elbo_matched", matched))
        return Objective.of(estimate, order=order, reports=reports)
