"""Adversarial variational Bayes: a critic learns the rate log q(z|x) - log p(z), so q(z|x) needs no density."""

from __future__ import annotations

import attrs

from jointgen.objectives import CriticTable, E, Objective, p, q, standardized


@attrs.frozen
class AVB:
    """Adversarial variational Bayes (Mescheder et al. 2017).

    Plain: E_q[log p(x|z) - t], where t is the learned log-ratio of q(x,z) and q(x)p(z). At its optimum it is the rate,
    log q(z|x) - log p(z) (eqs. 3.3 and 3.7).

    With adaptive contrast: E_q[log p(x|z) + log p(z) - log r(z|x) - t], where r(z|x) is the Gaussian with the moments
    of q(z|x), and t is the learned log-ratio of q(x,z) and r(x,z) = q(x) r(z|x). The critic sees z in units of these
    moments, and has to learn only by how much q(z|x) differs from a Gaussian (section 3.3).

    As in the authors' code, both gradients are taken at the same point. The report "elbo_estimate" has t in place of
    the rate, so it is no bound. "elbo_matched", the bound of the same decoder with r in place of q, is one: how far the
    estimate lies above it says how much the critic may have missed.

    Args:
        adaptive_contrast: Which of the two; for families that know the moments of their draws.
        critic: The settings of the critic. With several steps, model and critic take turns.
    """

    adaptive_contrast: bool = False
    critic: CriticTable = attrs.field(factory=CriticTable)

    def objective(self) -> Objective:
        """Return the objective with these settings."""
        order = self.critic.order("model, critics")
        if not self.adaptive_contrast:
            estimate = E(q.xz, p.log_x_given_z - self.critic.log_ratio("t", q.xz, q.x * p.z))
            return Objective.of(estimate, order=order, reports=(("elbo_estimate", estimate),))
        r = q.matched("z|x", name="r")
        t = self.critic.log_ratio("t", q.xz, r.xz, view={"z": standardized(r, "z|x")})
        term = p.log_x_given_z + p.log_z - r.log_z_given_x
        estimate, matched = E(q.xz, term - t), E(r.xz, term)
        reports = (("elbo_estimate", estimate), ("elbo_matched", matched))
        return Objective.of(estimate, order=order, reports=reports)
