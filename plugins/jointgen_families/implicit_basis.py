"""Implicit distributions with known mean and variance: a sum of learned noises with weights that depend on x."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, get_args

import attrs
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from jointgen.plugin import (
    Capabilities,
    NoiseSource,
    ReadyDraw,
    Space,
    at_least_float32,
    in_float64,
    positive,
    valid_layers,
    valid_size,
)
from jointgen_families.correlated import CorrelatedGaussian
from jointgen_families.gaussian import DiagonalGaussian
from jointgen_families.location_scale import check_real
from jointgen_families.means import MeanModule

POINTS = 256
"""The number of points of fixed noise over which moments are taken."""
MIN_LOG_SCALE = -7.0
"""The least log scale of the matched Gaussian, so that a draw in its units stays finite where the noises are zero."""
TINY = 1e-30  # variances are kept above it, where their logarithm is finite
CovarianceName = Literal["full", "diagonal"]


class BasisDistribution:
    """B distributions of z = z0 + sum_i a_i v_i(eps_i), without a density.

    Args:
        z0: The part without noise, (B, D).
        a: The weights of the m noises, (B, m, D), positive.
        noises: The networks v_i.
        module: The family's module.
    """

    def __init__(self, z0: Tensor, a: Tensor, noises: Noises, module: ImplicitBasisModule):
        self.z0, self.a, self.noises = z0, a, noises
        self.mean_v, self.cov_v = noises.moments()
        self.space, self.covariance = module.space, module.covariance

    @property
    def mean(self) -> Tensor:
        """The mean z0 + sum_i a_i E v_i, (B, *shape)."""
        return self._shaped(self.z0 + (self.a * self.mean_v).sum(1))

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """Draw by m noises of size e for each row."""
        eps = noise.normal(*self.noises.eps_shape)  # (B, m, e)
        v = rearrange(self.noises(rearrange(eps, "b m e -> m b e")), "m b d -> b m d")
        return ReadyDraw(sample=self._shaped(self.z0 + (self.a * v).sum(1)), mean=self.mean)

    @torch.no_grad()
    def moments(self) -> DiagonalGaussian | CorrelatedGaussian:
        """Return the Gaussian of mean z0 + sum_i a_i E v_i and covariance sum_i a_i a_i' * Cov v_i, without a gradient.

        Variances are summed as logarithms, and the correlation of shares of them, so that nothing overflows. This is
        done in float64, whatever the networks run in, so that a correlation of 1 stays 1.
        """
        log_scale_v = 0.5 * self.cov_v.diagonal(dim1=1, dim2=2).clamp_min(TINY).log()  # (m, D)
        log_parts = in_float64(self.a).clamp_min(TINY).log() + log_scale_v  # (B, m, D)
        log_scale = 0.5 * torch.logsumexp(2 * log_parts, 1)  # (B, D)
        mean, shaped = self.mean, self._shaped(log_scale.clamp_min(MIN_LOG_SCALE)).to(self.z0)
        if self.covariance == "diagonal":
            return DiagonalGaussian(mean, shaped, self.space)
        per_unit = torch.exp(-log_scale_v)
        correlation_v = self.cov_v * per_unit.unsqueeze(1) * per_unit.unsqueeze(2)
        share = torch.exp(log_parts - log_scale.unsqueeze(1))  # (B, m, D), squares sum to 1
        correlation = torch.einsum("bmi,bmj,mij->bij", share, share, correlation_v)
        return CorrelatedGaussian(mean, shaped, correlation, self.space)

    def _shaped(self, flat: Tensor) -> Tensor:
        return flat.unflatten(1, self.space.shape)


@attrs.frozen
class ImplicitBasis:
    """z = z0(x) + sum_{i <= basis} a_i(x) v_i(eps_i), eps_i ~ N(0, I): AVB's encoder for adaptive contrast.

    The trunk outputs z0 and a > 0. The v_i are small networks of noise alone, so E v_i and Cov v_i do not depend on x:

        mean(x) = z0 + sum_i a_i E v_i,     cov(x) = sum_i a_i a_i' * Cov v_i     (* by elements).

    (Mescheder et al. 2017, section 3.3.) There is no density.

    Args:
        basis: The number of noises m.
        noise: The size of each eps_i.
        hidden: The widths of each v_i; none makes them linear.
        init_scale: The standard deviation of z at the start, at a zero output of the trunk.
        covariance: The covariance of the Gaussian that adaptive contrast compares with. diagonal, as in the paper,
            leaves correlations to the critic, which sees few of them: measured on MNIST, codes grew 27 nats of
            correlation that the estimate did not see (benchmarks/README.md).
    """

    basis: int = attrs.field(default=16, validator=valid_size)
    noise: int = attrs.field(default=4, validator=valid_size)
    hidden: list[int] = attrs.field(factory=lambda: [64, 64], validator=valid_layers)
    init_scale: float = attrs.field(default=1.0, validator=positive)
    covariance: CovarianceName = attrs.field(default="full", validator=attrs.validators.in_(get_args(CovarianceName)))

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self._check(space)
        return Capabilities(
            {"sample": "exact", "mean": "exact"}, own_density="none", foreign_density="none", moments=True
        )

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Return the shape of the parameters that the trunk must output, without the batch axis."""
        self._check(space)
        return ((1 + self.basis) * space.shape[0], *space.shape[1:])

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        self._check(space)
        return ImplicitBasisModule(self, space)

    def _check(self, space: Space) -> None:
        check_real("implicit_basis", space)


class ImplicitBasisModule(MeanModule):
    """The family's module: (B, *outputs) -> BasisDistribution."""

    def __init__(self, config: ImplicitBasis, space: Space):
        super().__init__(space, "linear")
        self.space, self.covariance = space, config.covariance
        self.start = config.init_scale / math.sqrt(config.basis)
        self.noises = Noises(config.basis, [config.noise, *config.hidden, space.size])

    def forward(self, params: Tensor) -> BasisDistribution:
        """Return the distribution of each row."""
        outputs = rearrange(at_least_float32(params), "b (n c) ... -> b n c ...", c=self.space.shape[0])
        z0, raw = outputs[:, 0], outputs[:, 1:]  # (B, *shape), (B, m, *shape)
        a = self.start * _positive(rearrange(raw, "b m ... -> b m (...)"))
        return BasisDistribution(self.mean_of(z0).flatten(1), a, self.noises, self)


def _positive(u: Tensor) -> Tensor:
    """Return elu(u) + 1 without its rounding to 0: exp(u) below 0, 1 + u above (the authors also shift u by 5)."""
    return u.clamp(max=0.0).exp() + F.relu(u)


class Noises(nn.Module):
    """The networks v_1 ... v_m with ELUs, each of its own noise, run side by side: (m, N, e) -> (m, N, D).

    Their moments are taken over a fixed set of noise, the same for every row, process and run. The authors take them
    over the batch, but then rows would depend on one another, and N processes would differ from one. The set is
    symmetric and has unit covariance, so that the moments of a linear v are exact.

    Args:
        basis: The number of networks m.
        sizes: The size e of each noise, the hidden widths, and D.
    """

    points: Tensor

    def __init__(self, basis: int, sizes: list[int]):
        super().__init__()
        self.eps_shape = (basis, sizes[0])
        self.register_buffer("points", fixed_noise(sizes[0]), persistent=False)
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList(torch.randn(basis, i, o) / math.sqrt(i) for i, o in pairs)
        self.biases = nn.ParameterList(torch.zeros(basis, 1, o) for _, o in pairs)
        self._start_at_unit_moments()

    def forward(self, eps: Tensor) -> Tensor:
        """Return v of the noise eps, (m, N, e) -> (m, N, D)."""
        *inner, last = zip(self.biases, self.weights, strict=True)
        h = eps
        for bias, weight in inner:
            h = F.elu(torch.baddbmm(bias, h, weight))
        return torch.baddbmm(last[0], h, last[1])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean (m, D) of v over the fixed noise, and the covariance (m, D, D), which carries no gradient."""
        v = self(self.points.expand(self.eps_shape[0], -1, -1))  # (m, POINTS, D)
        mean = v.mean(1, keepdim=True)
        apart = in_float64((v - mean).detach())
        return mean.squeeze(1), apart.mT @ apart / POINTS

    @torch.no_grad()
    def _start_at_unit_moments(self) -> None:
        mean, cov = self.moments()
        scale = cov.diagonal(dim1=1, dim2=2).sqrt().unsqueeze(1).to(mean)
        self.biases[-1].sub_(mean.unsqueeze(1)).div_(scale)
        self.weights[-1].div_(scale)


def fixed_noise(size: int) -> Tensor:
    """Return normal numbers and their negatives, (POINTS, size), whose covariance is I: a pure function of `size`."""
    half = torch.randn(POINTS // 2, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance = half.T @ half / len(half)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), half.T, upper=False).T
    return torch.cat([white, -white]).to(torch.get_default_dtype())
