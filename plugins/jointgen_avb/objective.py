"""Adversarial variational Bayes: the rate log q(z|x) - log p(z) is learned by a critic that sees the same x twice."""

from __future__ import annotations

import attrs

from jointgen.objectives import CriticTable, E, Expr, Objective, p, q, standardized


@attrs.frozen
class AVB:
    """E_q [log p(x|z) - t], t = log-ratio q(x,z) : q(x)p(z), whose optimum is log q(z|x) - log p(z).

    adaptive_contrast: E_q [log p(x|z) + log p(z) - log r(z|x) - t], r(z|x) the Gaussian with the moments of q(z|x),
        t = log-ratio q(x,z) : r(x,z), r(x,z) = q(x) r(z|x). The critic sees z in r's units and learns only by how
        much q(z|x) is no Gaussian (section 3.3). For families that have the moments of their draws.

    Both gradients are taken at the same point, as the authors' code does; several critic steps take turns.
    """

    adaptive_contrast: bool = False
    critic: CriticTable = attrs.field(factory=CriticTable)

    def objective(self) -> Objective:
        less_rate = self._contrasted() if self.adaptive_contrast else -self.critic.log_ratio("t", q.xz, q.x * p.z)
        estimate = E(q.xz, p.log_x_given_z + less_rate)  # with t in the rate it is no bound (papers.md section 3)
        order = "same point" if self.critic.steps == 1 else "model, critics"
        return Objective.of(estimate, order=order, reports=(("elbo_estimate", estimate),))

    def _contrasted(self) -> Expr:
        """log p(z) - log q(z|x) as log p(z) - log r(z|x) - t."""
        r = q.matched("z|x", name="r")
        t = self.critic.log_ratio("t", q.xz, r.xz, view={"z": standardized(r, "z|x")})
        return p.log_z - r.log_z_given_x - t
