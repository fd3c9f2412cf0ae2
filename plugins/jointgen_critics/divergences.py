"""Divergences of two samples and statistics of one, from the rows of a whole batch."""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from jointgen.plugin import NoiseSource, positive, valid_size
from jointgen_critics.kernels import of_distance


def _off_diagonal_mean(matrix: Tensor) -> Tensor:
    """The mean of a square matrix without its diagonal, (n, n) -> ()."""
    n = len(matrix)
    return (matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))


@attrs.frozen
class MMD:
    """The squared maximum mean discrepancy, by its U-statistic (Gretton et al. 2012, eq. 3).

    The estimate is unbiased: it is zero on average where the distributions are equal, so it is often negative there,
    and must not be clipped. Distances are in units of 2 D, see `jointgen_critics.kernels`.

    Args:
        kernel: "imq", the inverse multiquadratic of WAE, or "rbf", the Gaussian of InfoVAE.
        scales: The scales of the kernels that are summed. The default is that of WAE's code.
    """

    sides: ClassVar[int] = 2
    vanishes: ClassVar[str] = "on average"

    kernel: Literal["imq", "rbf"] = "imq"
    scales: tuple[float, ...] = attrs.field(
        default=(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), validator=positive, converter=tuple
    )

    def __call__(self, a: Tensor, b: Tensor, *, noise: NoiseSource) -> Tensor:
        """Return the estimate, (n, *shape) and (m, *shape) -> ()."""
        a, b = a.flatten(1), b.flatten(1)
        own = _off_diagonal_mean(self._kernel(a, a)) + _off_diagonal_mean(self._kernel(b, b))
        return own - 2 * self._kernel(a, b).mean()

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        squared = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
        # rounding makes a row's distance to itself a little negative
        apart = squared.clamp(min=0.0) / (2 * a.shape[1])
        first, *others = (of_distance(self.kernel, apart, scale) for scale in self.scales)
        return sum(others, start=first)


@attrs.frozen
class FeatureMeans:
    """The distance of the means of two samples: feature matching (Salimans et al. 2016, section 3.1).

    Args:
        norm: "l2" for the sum of squared differences of the means, "l1" for that of absolute ones.
    """

    sides: ClassVar[int] = 2
    vanishes: ClassVar[str] = "at equal samples"

    norm: Literal["l2", "l1"] = "l2"

    def __call__(self, a: Tensor, b: Tensor, *, noise: NoiseSource) -> Tensor:
        """Return the distance, (n, *shape) and (m, *shape) -> ()."""
        apart = a.mean(0) - b.mean(0)
        return (apart.square() if self.norm == "l2" else apart.abs()).sum()


@attrs.frozen
class SlicedWasserstein:
    """The squared sliced Wasserstein-2 distance: the mean over directions of that of the projections.

    Rabin et al. 2011; as a penalty on codes, Kolouri et al. 2019 (sliced-Wasserstein autoencoder). Quantile
    is compared with quantile; of samples of unequal size, at as many levels as the larger has rows.

    Args:
        projections: The number of directions, drawn anew in each step.
    """

    sides: ClassVar[int] = 2
    vanishes: ClassVar[str] = "at equal samples"

    projections: int = attrs.field(default=50, validator=valid_size)

    def __call__(self, a: Tensor, b: Tensor, *, noise: NoiseSource) -> Tensor:
        """Return the distance, (n, *shape) twice -> ()."""
        a, b = a.flatten(1), b.flatten(1)
        directions = noise.normal(a.shape[1], self.projections)[0].to(a.dtype)  # (D, projections)
        directions = directions / directions.norm(dim=0)
        levels = torch.arange(max(len(a), len(b)), device=a.device)
        a, b = ((x @ directions).sort(0).values[levels * len(x) // len(levels)] for x in (a, b))
        return (a - b).square().mean()


@attrs.frozen
class PullingAway:
    """The mean squared cosine between different rows (Zhao et al. 2017, eq. 4): EBGAN's pulling-away term."""

    sides: ClassVar[int] = 1
    vanishes: ClassVar[str] = "nowhere"

    def __call__(self, a: Tensor, *, noise: NoiseSource) -> Tensor:
        """Return the statistic, (n, *shape) -> ()."""
        a = a.flatten(1)
        unit = a / a.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return _off_diagonal_mean((unit @ unit.T).square())


@attrs.frozen
class Covariance:
    """How far the covariance of a sample is from the identity (Kumar et al. 2018, DIP-VAE, eqs. 6 and 7).

    The sum over i != j of Cov_ij^2, plus `diagonal` times that over i of (Cov_ii - 1)^2. Of draws of q(z) this is
    DIP-VAE-II, of the means of q(z|x), `covariance(q(z); mean z)`, DIP-VAE-I.

    Args:
        diagonal: The weight of the variances. The paper has 10 for DIP-VAE-I and 1 for DIP-VAE-II.
    """

    sides: ClassVar[int] = 1
    vanishes: ClassVar[str] = "nowhere"

    diagonal: float = attrs.field(default=1.0, validator=positive)

    def __call__(self, a: Tensor, *, noise: NoiseSource) -> Tensor:
        """Return the statistic, (n, *shape) -> ()."""
        apart = a.flatten(1) - a.flatten(1).mean(0)
        covariance = apart.T @ apart / (len(apart) - 1)  # (D, D); torch.cov does not compile
        variances = covariance.diagonal()
        off = covariance.square().sum() - variances.square().sum()
        return off + self.diagonal * (variances - 1).square().sum()
