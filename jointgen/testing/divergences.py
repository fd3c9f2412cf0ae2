"""Checks of closed-form divergences: KL(self || other) against quadrature."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jointgen.errors import ConfigError
from jointgen.registry.discovery import load_plugins
from jointgen.testing.check import Promises, expect, expect_close, expect_finite, expect_shape, promise, skip
from jointgen.testing.densities import can_integrate, expect_gradients
from jointgen.testing.laws import Law
from jointgen.testing.quadrature import grid_of

DIVERGENCES: Promises = []


def has_kl(law: Law) -> bool:
    """Return whether the law declares a KL in closed form."""
    return bool(law.can.kl_to)


@promise(DIVERGENCES, lambda law: has_kl(law) and can_integrate(law))
def kl_to_is_the_integral(law: Law) -> None:
    module = law.built()
    for other in others(law):
        q_row, p_row = law.params(1)[0], other.params(2)[1]
        grid = grid_of(law, module, q_row)
        q = law.at(module, q_row.expand(len(grid.points), *q_row.shape))
        p = other.at(other.built(), p_row.expand(len(grid.points), *p_row.shape))
        with torch.no_grad():
            log_q, log_p, kl = q.log_prob(grid.points), p.log_prob(grid.points), q.kl_to(p)
        expect_shape("kl_to", kl, (len(grid.points),))
        inside = log_q > -50.0  # beyond, q log q is nothing and log p may be minus infinity
        integral = (grid.weights * log_q.exp() * (log_q - log_p))[inside].sum()
        expect_close(f"kl_to({other}) and the integral of q (log q - log p)", kl[0], integral, 5e-3)


@promise(DIVERGENCES, has_kl)
def kl_to_itself_is_zero_and_its_gradients_are_its_slopes(law: Law) -> None:
    module = law.built()
    for other in others(law):
        if type(other.config) is type(law.config):
            same = law.at(module, law.params(3))
            expect_close("kl_to itself", same.kl_to(same), torch.zeros(3), 1e-9)
        p = other.at(other.built(), other.params(2).flip(0))
        expect_finite("kl_to", law.at(module, law.params(2)).kl_to(p))
        if not law.is_prior:
            _expect_slopes(law, module, p)


def _expect_slopes(law: Law, module: nn.Module, p: Any) -> None:
    def kl(params: Tensor) -> Tensor:
        return law.at(module, params).kl_to(p)

    expect_gradients("kl_to", kl, {"params": law.params(2)})


def others(law: Law) -> list[Law]:
    """Return the laws of the families and priors that `kl_to` names, on the same variable."""
    registry = load_plugins().registry
    found = []
    for name in law.can.kl_to:
        kinds = [kind for kind in ("family", "prior") if name in registry.names(kind)]
        expect(kinds, f"kl_to declares {name!r}, which is no registered family or prior")
        found += [other for kind in kinds if (other := _other(law, kind, registry.get(kind, name).load())) is not None]
    return found or skip(f"none of {', '.join(law.can.kl_to)} can be built for {law.space} with default settings")


def _other(law: Law, kind: str, cls: Any) -> Law | None:
    if isinstance(law.config, cls):
        return law
    try:
        if kind == "prior":
            prior = cls(size=list(law.space.shape))
            return Law(prior, prior.space, is_prior=True)
        config = cls()
        config.capabilities(law.space)
        return Law(config, law.space)
    except (TypeError, ConfigError):  # other settings than a size, or it does not serve the variable
        return None
