"""Reductions of the K log-weights log w_k = log p(x, z_k) - log q(z_k|x) of a row: bounds, and estimators of gradients.

Bounds are functions of the values: IWAE's (Burda et al. 2016), Renyi's (Li & Turner 2016), CIWAE's and MIWAE's
(Rainforth et al. 2018). Estimators have IWAE's value and another gradient with the same expectation: DReG (Tucker et
al. 2019) and VIMCO (Mnih & Rezende 2016).
"""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from jointgen.plugin import MAX_SIZE, ConfigError, TermDraws, between, fraction, log_mean_exp


@attrs.frozen
class Mean:
    """The mean over the draws, which an expectation has that names no reduction."""

    def __call__(self, terms: Tensor) -> Tensor:
        """(B, K) -> (B,)."""
        return terms.mean(1)


@attrs.frozen
class LogMeanExp:
    """log 1/K sum_k exp t_k: of log-weights, the bound of IWAE (Burda et al. 2016, eq. 8)."""

    def __call__(self, terms: Tensor) -> Tensor:
        """(B, K) -> (B,)."""
        return log_mean_exp(terms, 1)

    def weighted(self, terms: Tensor, log_weights: Tensor) -> Tensor:
        """Return log sum_k w_k exp t_k, (B, K) -> (B,)."""
        return torch.logsumexp(terms + log_weights, 1)


@attrs.frozen
class Renyi:
    """1/(1 - alpha) log 1/K sum_k exp((1 - alpha) t_k) (Li & Turner 2016, eq. 6).

    Args:
        alpha: The order of the divergence. 0 is IWAE's bound, 1 the mean; below 0 it is no bound from below.
    """

    alpha: float = attrs.field(default=0.5, validator=between(-1e3, 1e3))

    def __call__(self, terms: Tensor) -> Tensor:
        """(B, K) -> (B,)."""
        if self.alpha == 1.0:
            return terms.mean(1)
        return log_mean_exp((1 - self.alpha) * terms, 1) / (1 - self.alpha)

    def weighted(self, terms: Tensor, log_weights: Tensor) -> Tensor:
        """Return 1/(1 - alpha) log sum_k w_k exp((1 - alpha) t_k), (B, K) -> (B,)."""
        if self.alpha == 1.0:
            return (log_weights.exp() * terms).sum(1)
        return torch.logsumexp((1 - self.alpha) * terms + log_weights, 1) / (1 - self.alpha)


@attrs.frozen
class CIWAE:
    """beta ELBO + (1 - beta) IWAE (Rainforth et al. 2018, section 4).

    Args:
        beta: The share of the ELBO.
    """

    beta: float = attrs.field(default=0.5, validator=fraction)

    def __call__(self, terms: Tensor) -> Tensor:
        """(B, K) -> (B,)."""
        return self.beta * terms.mean(1) + (1 - self.beta) * log_mean_exp(terms, 1)


@attrs.frozen
class MIWAE:
    """The mean of the bounds of `groups` groups of K / groups draws each (Rainforth et al. 2018, section 4).

    As the objective of the encoder beside IWAE's with all K draws for the decoder it is PIWAE.

    Args:
        groups: The number of groups; it divides K.
    """

    groups: int = attrs.field(default=8, validator=between(1, MAX_SIZE))

    def check_draws(self, k: int) -> None:
        """Refuse a number of draws that does not divide into groups."""
        if k % self.groups:
            raise ConfigError(f"{k} draws do not divide into groups = {self.groups}")

    def __call__(self, terms: Tensor) -> Tensor:
        """(B, K) -> (B,)."""
        return log_mean_exp(terms.unflatten(1, (self.groups, -1)), 2).mean(1)


# --- estimators of the gradient of IWAE's bound ----------------------------------------------------------------------


@attrs.frozen
class DReG:
    """IWAE's bound with the doubly reparameterised gradient (Tucker et al. 2019, eq. 8).

    With w'_k = w_k / sum_j w_j the encoder has the gradient sum_k w'_k^2 d log w_k / dz_k dz_k / dphi, where log w_k is
    differentiated through z_k alone, and everything else has IWAE's, sum_k w'_k d log w_k. Its signal does not vanish
    as K grows. With K = 1 it is the gradient of Roeder et al. 2017 ("sticking the landing").
    """

    needs_path: ClassVar[bool] = True
    needs_density: ClassVar[bool] = False
    holds_draws: ClassVar[bool] = True
    gradient: ClassVar[str] = (
        "the draws' parts get the weights squared times the slope in the draw, through the draw alone; "
        "all others get the weighted mean"
    )

    def __call__(self, terms: Tensor) -> Tensor:
        """(B, K) -> (B,)."""
        return log_mean_exp(terms, 1)

    def surrogate(self, draws: TermDraws) -> Tensor:
        """Return a number of each row with this gradient, (B,)."""
        weights = draws.terms.detach().softmax(1)
        total = (weights * draws.terms).sum(1)
        for name, slope in draws.slopes().items():
            total = total + (weights.square() * along(draws.by_row(draws.paths[name]), slope)).sum(1)
        return total


@attrs.frozen
class VIMCO:
    """IWAE's bound with a gradient for draws that have no path (Mnih & Rezende 2016, eqs. 7 to 11).

    The score of each draw is weighted by what the draw adds to the bound: the bound less that with the draw's weight
    replaced by the geometric mean of the others'.
    """

    needs_path: ClassVar[bool] = False
    needs_density: ClassVar[bool] = True
    holds_draws: ClassVar[bool] = False
    gradient: ClassVar[str] = (
        "the draws' parts get the score of each draw times what the draw adds to the bound, and need no path; "
        "all get the weighted mean"
    )

    def check_draws(self, k: int) -> None:
        """Refuse a single draw, which has no others to be compared with."""
        if k < 2:
            raise ConfigError("compares each draw with the others, so k must be at least 2")

    def __call__(self, terms: Tensor) -> Tensor:
        """(B, K) -> (B,)."""
        return log_mean_exp(terms, 1)

    def surrogate(self, draws: TermDraws) -> Tensor:
        """Return a number of each row with this gradient, (B,)."""
        assert draws.log_density is not None
        bound, terms = log_mean_exp(draws.terms, 1), draws.terms.detach()
        k = terms.shape[1]
        others = (terms.sum(1, keepdim=True) - terms) / (k - 1)
        each = torch.eye(k, dtype=torch.bool, device=terms.device)
        without = log_mean_exp(torch.where(each, others[:, :, None], terms[:, None, :]), 2)  # (B, K)
        return bound + ((bound.detach()[:, None] - without) * draws.log_density).sum(1)


# --- Stein variational gradient descent ------------------------------------------------------------------------------


@attrs.frozen
class Stein:
    """The draws move together along the Stein direction (Liu & Wang 2016; SteinVAE: Pu et al. 2017, section 3.1).

    phi_k = 1/K sum_j [k(z_j, z_k) g_j + repulsion d k(z_j, z_k) / dz_j] with g_j the slope of the term at the draw z_j.
    What made the draws follows phi: it needs a path and no density. All other parts get the mean of the term at the
    draws as they were. The kernel is exp(-|z - z'|^2 / h).

    Args:
        width: h; 0 for the median of the squared distances of the draws of a row over log(K + 1), in each step.
        repulsion: The weight of the kernel's slope, which keeps draws apart: 1 in theory, 100 in the released code of
            amortised SVGD.
    """

    width: float = attrs.field(default=0.0, validator=between(0.0, 1e6))
    repulsion: float = attrs.field(default=1.0, validator=between(0.0, 1e6))

    needs_path: ClassVar[bool] = True
    needs_density: ClassVar[bool] = False
    holds_draws: ClassVar[bool] = False
    gradient: ClassVar[str] = "the draws' parts follow the Stein direction of the K draws; all others get the mean"

    def __call__(self, terms: Tensor) -> Tensor:
        """(B, K) -> (B,)."""
        return terms.mean(1)

    def surrogate(self, draws: TermDraws) -> Tensor:
        """Return a number of each row with this gradient, (B,)."""
        flat = {name: draws.by_row(point).flatten(2) for name, point in draws.points.items()}
        slopes = [slope.flatten(2) for slope in draws.slopes().values()]
        moved = torch.cat([draws.by_row(draws.paths[name]).flatten(2) for name in flat], 2)
        phi = self.direction(torch.cat(list(flat.values()), 2).detach(), torch.cat(slopes, 2))
        return draws.terms.mean(1) + (moved * phi).sum(2).mean(1)

    def direction(self, z: Tensor, slope: Tensor) -> Tensor:
        """Return phi, (B, K, D), of draws and slopes, (B, K, D) each (Liu & Wang 2016, eq. 8)."""
        k = z.shape[1]
        apart = z[:, :, None] - z[:, None, :]  # (B, K, K, D): z_j - z_k
        squared = apart.square().sum(3)
        width = self._width(squared)
        kernel = torch.exp(-squared / width)  # symmetric
        repelled = (-2 / width * kernel)[..., None] * apart  # d k(z_j, z_k) / dz_j
        return (kernel @ slope + self.repulsion * repelled.sum(1)) / k

    def _width(self, squared: Tensor) -> Tensor:
        """(B, K, K) squared distances -> h, (B, 1, 1)."""
        k = squared.shape[1]
        if self.width or k == 1:
            return squared.new_full((len(squared), 1, 1), self.width or 1.0)
        j, i = torch.tril_indices(k, k, -1, device=squared.device).unbind()
        median = squared[:, j, i].median(1).values
        return (median / math.log(k + 1)).clamp(min=1e-12)[:, None, None]


def along(path: Tensor, slope: Tensor) -> Tensor:
    """Return the product with a slope, summed over the variable, (B, K, *shape) twice -> (B, K)."""
    return (path * slope).flatten(2).sum(2)
