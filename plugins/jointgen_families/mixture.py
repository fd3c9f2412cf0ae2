"""Mixtures of diagonal Gaussians, with an exact sample path."""

from __future__ import annotations

import math
from typing import get_args

import attrs
import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from jointgen.plugin import (
    LOG_2PI,
    Capabilities,
    NoiseSource,
    ReadyDraw,
    Space,
    at_least_float32,
    between,
    positive,
    valid_log_scale,
    valid_size,
)
from jointgen_families.gaussian import DiagonalGaussian
from jointgen_families.location_scale import check_init_scale, check_real
from jointgen_families.means import MeanModule, MeanName, check_mean
from jointgen_families.precision import without_autocast

BLOCK_SIZE = 64  # dimensions whose mutual effects are held in one triangular matrix: memory B x D x 64


class MixtureOfGaussians:
    """B mixtures sum_k w_k N(mean_k, scale_k^2), each over the whole vector.

    Args:
        log_weights: The logarithms of the weights, normalised, (B, K).
        means: The components' means, (B, K, *shape).
        log_scales: The logarithms of their standard deviations, (B, K, *shape).
        space: The Space of the variable, for the bins of quantised data.
    """

    def __init__(self, log_weights: Tensor, means: Tensor, log_scales: Tensor, space: Space):
        self.log_weights, self.means, self.log_scales, self.space = log_weights, means, log_scales, space

    @property
    def mean(self) -> Tensor:
        """The mean sum_k w_k mean_k, (B, *shape)."""
        return (self.log_weights.exp()[:, :, None] * self.means.flatten(2)).sum(1).view_as(self.means[:, 0])

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log sum_k w_k N(v; mean_k, scale_k^2), (B, *shape) -> (B,) nats."""
        return self._mixed(self._components.log_prob(self._for_each(value)))

    def log_prob_bins(self, value: Tensor) -> Tensor:
        """Return log sum_k w_k P_k, P_k the mass of the value's bin under component k, (B, *shape) -> (B,) nats."""
        return self._mixed(self._components.log_prob_bins(self._for_each(value)))

    @property
    def _components(self) -> DiagonalGaussian:
        """B * K rows."""
        means, log_scales = (rearrange(x, "b k ... -> (b k) ...") for x in (self.means, self.log_scales))
        return DiagonalGaussian(means, log_scales, self.space)

    def _for_each(self, value: Tensor) -> Tensor:
        return repeat(value, "b ... -> (b k) ...", k=self.log_weights.shape[1])

    def _mixed(self, log_prob: Tensor) -> Tensor:
        """(B * K,) -> (B,)."""
        return torch.logsumexp(self.log_weights + rearrange(log_prob, "(b k) -> b k", k=self.log_weights.shape[1]), 1)

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """Draw a component by one uniform number and a point of it by D normal ones, with the path of `with_path`."""
        u = noise.uniform()
        eps = noise.normal(*self.means.shape[2:])
        with torch.no_grad():
            # the last component takes what rounding leaves of the sum of the weights
            chosen = (u[:, None] >= self.log_weights.exp().cumsum(1)[:, :-1]).sum(1)
            rows = torch.arange(chosen.shape[0], device=chosen.device)
            point = self.means[rows, chosen] + self.log_scales[rows, chosen].exp() * eps
        path = with_path(point.flatten(1), self.log_weights, self.means.flatten(2), self.log_scales.flatten(2))
        return ReadyDraw(sample=path.view_as(point), mean=self.mean)


# --- the sample path -------------------------------------------------------------------------------------------------


def with_path(point: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Return the same point, as a function of the parameters that keeps F_d(z_d | z_<d) fixed for every d, (B, D).

    Implicit reparameterisation (Graves 2016, eq. 12; Figurnov, Mohamed & Mnih 2018, eq. 9), with F_d the conditional
    distribution function of the mixture. With r_k the weight of component k given z_<d, f_d = sum_k r_k N_k(z_d) the
    conditional density and rho_k its share of f_d, dF_d = 0 says, with t_k = (z_d - mean_k) / scale_k,

        dz_d = sum_k rho_k (dmean_k + t_k dscale_k) - sum_k c_k d log(w_k prod_{j<d} N_k(z_j)),
        c_k  = r_k (Phi(t_k) - F_d) / f_d.

    All of rho, t and c are known once the point is, so only dz_<d on the right has to be solved for: D steps of
    K numbers each, here by blocks of dimensions.

    Args:
        point: The point that was drawn, (B, D).
        log_weights: The logarithms of the weights, (B, K).
        means: The components' means, (B, K, D).
        log_scales: The logarithms of their standard deviations, (B, K, D).
    """
    if not torch.is_grad_enabled():
        return point
    with without_autocast(point):  # triangular systems are not solved in bfloat16
        t, rho, c = _at(point, log_weights, means, log_scales)
        # the gradient of `moved` is dz with z_<d left where it is; c sums to 0 over k, so weights need no normaliser
        log_r = log_weights[:, :, None] + _before(_log_normal(point, means, log_scales))
        moved = (rho * (means + t * log_scales.exp()) - c * log_r).sum(1)
        slope = -t * torch.exp(-log_scales.detach())  # d log N_k(z_j) / dz_j
        return point + _solve(c, slope, moved - moved.detach())


def _log_normal(point: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Return log N_k(z_d), (B, K, D)."""
    standard = (point[:, None] - means) * torch.exp(-log_scales)
    return -0.5 * standard**2 - log_scales - 0.5 * LOG_2PI


def _before(x: Tensor) -> Tensor:
    """Return the sums over the dimensions before each one, (..., D) -> (..., D); the first is 0."""
    return F.pad(x.cumsum(-1), (1, 0))[..., :-1]


@torch.no_grad()
def _at(point: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (t, rho, c), (B, K, D) each, by logarithms and the nearer tail, so that they are finite far out."""
    log_normal = _log_normal(point, means, log_scales)
    log_r = torch.log_softmax(log_weights[:, :, None] + _before(log_normal), 1)
    log_joint = log_r + log_normal
    log_f = torch.logsumexp(log_joint, 1, keepdim=True)
    t = (point[:, None] - means) * torch.exp(-log_scales)
    below, above = (log_r + torch.special.log_ndtr(side) for side in (t, -t))
    is_low = torch.logsumexp(below, 1, keepdim=True) < torch.logsumexp(above, 1, keepdim=True)
    tail = torch.exp(torch.where(is_low, below, above) - log_f)  # r_k Phi_k / f, or r_k (1 - Phi_k) / f
    c = tail - log_r.exp() * tail.sum(1, keepdim=True)
    return t, torch.exp(log_joint - log_f), torch.where(is_low, c, -c)


def _solve(c: Tensor, s: Tensor, moved: Tensor) -> Tensor:
    """Solve dz_d = moved_d - sum_k c_kd sum_{j<d} s_kj dz_j for dz, with c and s (B, K, D) and moved (B, D)."""
    felt = torch.zeros_like(c[:, :, 0])  # (B, K): sum over the blocks before of s_kj dz_j
    done = []
    for c_block, s_block, block in zip(
        c.split(BLOCK_SIZE, 2), s.split(BLOCK_SIZE, 2), moved.split(BLOCK_SIZE, 1), strict=True
    ):
        within = torch.einsum("bkd,bkj->bdj", c_block, s_block)  # solve_triangular takes what is below the diagonal
        known = block - torch.einsum("bkd,bk->bd", c_block, felt)
        solved = torch.linalg.solve_triangular(within, known[:, :, None], upper=False, unitriangular=True)[:, :, 0]
        felt = felt + torch.einsum("bkj,bj->bk", s_block, solved)
        done.append(solved)
    return torch.cat(done, 1)


# --- the family ------------------------------------------------------------------------------------------------------


@attrs.frozen
class Mixture:
    """A mixture of diagonal Gaussians over the whole vector, for encoders, decoders and learned priors.

    A draw with a gradient costs D steps of K numbers, which is quick for codes and slow for large images.

    Args:
        components: The number of components K.
        spread: The root mean square of the components' means at the start, as a multiple of init_scale.
        init_scale: The standard deviation of every component at a zero output, in the variable's units.
        min_log_scale: Log scales are clamped to this from below.
        max_log_scale: Log scales are clamped to this from above.
        mean: Linear, or sigmoid for a variable of known range (before the spread is added).
    """

    components: int = attrs.field(default=10, validator=valid_size)
    spread: float = attrs.field(default=1.0, validator=between(0.0, 1e6))
    init_scale: float = attrs.field(default=1.0, validator=positive)
    min_log_scale: float = attrs.field(default=-6.0, validator=valid_log_scale)
    max_log_scale: float = attrs.field(default=3.0, validator=valid_log_scale)
    mean: MeanName = attrs.field(default="linear", validator=attrs.validators.in_(get_args(MeanName)))

    @init_scale.validator
    def _within_bounds(self, attribute: attrs.Attribute[float], value: float) -> None:
        check_init_scale(value, self.min_log_scale, self.max_log_scale)

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self._check(space)
        return Capabilities({"sample": "exact", "mean": "exact"}, bin_mass=space.bins is not None)

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Return the shape of the trunk's output: weights, then means, then log scales, along the first axis."""
        self._check(space)
        return self.components * (2 * space.shape[0] + 1), *space.shape[1:]

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        self._check(space)
        return MixtureModule(self, space)

    def _check(self, space: Space) -> None:
        check_real("mixture", space)
        check_mean(self.mean, space)


class MixtureModule(MeanModule):
    """The family's module: (B, *outputs) -> MixtureOfGaussians.

    The logit of a weight is the mean of the trunk's output for it over an image's positions.
    """

    def __init__(self, config: Mixture, space: Space):
        super().__init__(space, config.mean)
        self.config, self.space = config, space
        self.apart = nn.Parameter(config.spread * config.init_scale * spread_out(config.components, space))

    def forward(self, params: Tensor) -> MixtureOfGaussians:
        """Return the distribution of each row."""
        k, shape = self.config.components, self.space.shape
        params = at_least_float32(params)
        logits, out, log_scale = params.split([k, k * shape[0], k * shape[0]], 1)
        means = self.mean_of(rearrange(out, "b (k c) ... -> b k c ...", k=k)) + self.apart
        log_scale = rearrange(log_scale, "b (k c) ... -> b k c ...", k=k) + math.log(self.config.init_scale)
        log_scale = log_scale.clamp(self.config.min_log_scale, self.config.max_log_scale)
        log_weights = rearrange(logits, "b k ... -> b k (...)").mean(2).log_softmax(1)
        return MixtureOfGaussians(log_weights, means, log_scale, self.space)


def spread_out(components: int, space: Space) -> Tensor:
    """Return rows of a cosine transform, (K, *shape), of mean 0 and mean square 1 over the components.

    No two components start equal, because equal ones would get equal gradients and stay equal.
    """
    frequency = 1 + torch.arange(space.size) % max(1, components - 1)  # 1 .. K-1
    phase = (torch.arange(components)[:, None] + 0.5) * frequency / components
    pattern = math.sqrt(2) * torch.cos(math.pi * phase) if components > 1 else torch.zeros(1, space.size)
    return pattern.view(components, *space.shape)
