"""Estimators: terms that run parts of the model themselves, for gradients that no expression says."""

from __future__ import annotations

from typing import ClassVar

import attrs
from torch import Tensor

from jointgen.plugin import Law, NoiseSource


@attrs.frozen
class Reinforce:
    """The ELBO with the gradient of REINFORCE (Williams 1992), f d log q(z|x) / d phi, which needs no path.

    Args:
        baseline: What is subtracted from f in the gradient of q, in nats. It lowers the variance and changes no
            expectation.
    """

    trains: ClassVar[tuple[str, ...]] = ("posterior", "likelihood")
    reads: ClassVar[tuple[str, ...]] = ("prior",)
    needs: ClassVar[dict[str, tuple[str, ...]]] = {"posterior": ("foreign density",)}

    baseline: float = 0.0

    def __call__(
        self, x: Tensor, z: Tensor, *, noise: NoiseSource, posterior: Law, likelihood: Law, prior: Law
    ) -> Tensor:
        """Return the ELBO at draws z of the posterior, to be maximised, (B,) nats."""
        z = z.detach()
        log_q = posterior(x).log_prob(z)
        bound = likelihood(z).log_prob(x) + prior().log_prob(z) - log_q.detach()
        return bound + (bound.detach() - self.baseline) * (log_q - log_q.detach())
