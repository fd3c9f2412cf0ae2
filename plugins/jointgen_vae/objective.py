"""The evidence lower bound and its K-sample tightening."""

from __future__ import annotations

import attrs

from jointgen.config import fraction, non_negative, positive
from jointgen.objectives import E, Objective, Weight, elbo, kl, p, q


@attrs.frozen
class VAE:
    """E_q [log p(x|z) + log p(z) - log q(z|x)] (AS-VAE eq 1).

    beta weights the rate (1: the bound itself); it goes from 0 over the first `warm_up` of the run.
    analytic: KL(q(z|x) : p(z)) in closed form, for families that have it.
    """

    beta: float = attrs.field(default=1.0, validator=non_negative)
    warm_up: float = attrs.field(default=0.0, validator=fraction)
    analytic: bool = False

    def objective(self) -> Objective:
        if not self.analytic and self.beta == 1.0 and self.warm_up == 0.0:
            return Objective.of(elbo(q, p))
        rate = kl(q.log_z_given_x, p.log_z) if self.analytic else q.log_z_given_x - p.log_z
        beta = Weight("beta", self.beta, start=0.0, over=self.warm_up)
        return Objective.of(E(q.xz, p.log_x_given_z - beta * rate))


@attrs.frozen
class IWAE:
    """E log 1/K sum_k p(x, z_k) / q(z_k|x), z_k ~ q(z|x): a bound that rises with K."""

    k: int = attrs.field(default=5, validator=positive)

    def objective(self) -> Objective:
        log_w = p.log_x_given_z + p.log_z - q.log_z_given_x
        return Objective.of(E(q.xz, log_w, k=self.k, reduce="logmeanexp"))
