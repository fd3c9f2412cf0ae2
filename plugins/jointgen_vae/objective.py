"""The evidence lower bound, and the tighter bound by K samples."""

from __future__ import annotations

import attrs

from jointgen.objectives import (
    MAX_DRAWS,
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
from jointgen.plugin import between, fraction


@attrs.frozen
class VAE:
    """The evidence lower bound E_q[log p(x|z) + log p(z) - log q(z|x)] (Kingma & Welling 2014, eq. 3).

    Args:
        beta: The weight of the rate, log q(z|x) - log p(z): a number, or a table { start, to, over, cycles }. With 1
            this is the bound; with another it is the beta-VAE (Higgins et al. 2017).
        warm_up: The share of the run over which a number `beta` rises from 0.
        analytic: Whether the rate is KL(q(z|x) : p(z)) in closed form (eq. 10), for families that have it.
    """

    beta: float | WeightTable = attrs.field(default=1.0, validator=non_negative_weight)
    warm_up: float = attrs.field(default=0.0, validator=fraction)
    analytic: bool = False

    def __attrs_post_init__(self) -> None:
        check_one_ramp(self.beta, self.warm_up, "beta", "warm_up")

    def objective(self) -> Objective:
        """Return the objective with these settings."""
        if not self.analytic and self.beta == 1.0 and self.warm_up == 0.0:
            return Objective.of(elbo(q, p))
        rate = kl(q.log_z_given_x, p.log_z) if self.analytic else q.log_z_given_x - p.log_z
        return Objective.of(E(q.xz, p.log_x_given_z - weight_of("beta", self.beta, self.warm_up) * rate))


@attrs.frozen
class IWAE:
    """The K-sample bound E log 1/K sum_k p(x, z_k) / q(z_k|x), z_k ~ q(z|x) (Burda et al. 2016, eq. 8).

    Args:
        k: The number of samples; the bound rises with it.
        beta: The power of p(z) / q(z|x), as a table to warm up with (Soenderby et al. 2016). A bound once it is 1.
    """

    k: int = attrs.field(default=5, validator=between(1, MAX_DRAWS))
    beta: float | WeightTable = attrs.field(default=1.0, validator=non_negative_weight)

    def objective(self) -> Objective:
        """Return the objective with these settings."""
        if self.beta == 1.0:
            log_w = p.log_x_given_z + p.log_z - q.log_z_given_x
        else:
            log_w = p.log_x_given_z - weight_of("beta", self.beta) * (q.log_z_given_x - p.log_z)
        return Objective.of(E(q.xz, log_w, k=self.k, reduce="logmeanexp"))
