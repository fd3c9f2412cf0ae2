"""The evidence lower bound and its K-sample tightening."""

from __future__ import annotations

import attrs

from jointgen.objectives import (
    E,
    Objective,
    WeightTable,
    check_one_ramp,
    elbo,
    kl,
    non_negative_weight,
    p,
    q,
    weight_of,
)
from jointgen.plugin import fraction, positive


@attrs.frozen
class VAE:
    """E_q [log p(x|z) + log p(z) - log q(z|x)] (AS-VAE eq 1).

    beta weights the rate (1: the bound itself); it goes from 0 over the first `warm_up` of the run, or as a table
    says: { start, to, over, cycles }.
    analytic: KL(q(z|x) : p(z)) in closed form, for families that have it.
    """

    beta: float | WeightTable = attrs.field(default=1.0, validator=non_negative_weight)
    warm_up: float = attrs.field(default=0.0, validator=fraction)
    analytic: bool = False

    def __attrs_post_init__(self) -> None:
        check_one_ramp(self.beta, self.warm_up, "beta", "warm_up")

    def objective(self) -> Objective:
        if not self.analytic and self.beta == 1.0 and self.warm_up == 0.0:
            return Objective.of(elbo(q, p))
        rate = kl(q.log_z_given_x, p.log_z) if self.analytic else q.log_z_given_x - p.log_z
        return Objective.of(E(q.xz, p.log_x_given_z - weight_of("beta", self.beta, self.warm_up) * rate))


@attrs.frozen
class IWAE:
    """E log 1/K sum_k p(x, z_k) / q(z_k|x), z_k ~ q(z|x): a bound that rises with K.

    beta: a power of p(z) / q(z|x), as a table to warm up with (Soenderby et al. 2016). A bound once it is 1.
    """

    k: int = attrs.field(default=5, validator=positive)
    beta: float | WeightTable = attrs.field(default=1.0, validator=non_negative_weight)

    def objective(self) -> Objective:
        if self.beta == 1.0:
            log_w = p.log_x_given_z + p.log_z - q.log_z_given_x
        else:
            log_w = p.log_x_given_z - weight_of("beta", self.beta) * (q.log_z_given_x - p.log_z)
        return Objective.of(E(q.xz, log_w, k=self.k, reduce="logmeanexp"))
