"""The linear-Gaussian latent model, of which everything that other models estimate is known in closed form.

    z ~ N(0, I_Z)        x|z ~ N(W z + b, s^2 I_D)        x ~ N(b, W W' + s^2 I_D)

Source: Tipping and Bishop, Probabilistic Principal Component Analysis, J. R. Stat. Soc. B 61, 1999, section 3.
"""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from jointgen.plugin import LOG_2PI, Noise, Space, positive, valid_count, valid_seed
from jointgen_data.common import TensorRows, is_train


def _is_matrix(source: object, field: attrs.Attribute[list[list[float]]], value: list[list[float]]) -> None:
    if not value or not value[0] or len({len(row) for row in value}) != 1:
        raise ValueError(f"{field.name!r} must be D rows of Z numbers each, got rows of {[len(row) for row in value]}")


def _fits_weights(
    source: LinearGaussian, field: attrs.Attribute[list[float] | None], value: list[float] | None
) -> None:
    rows = len(source.weights)
    if value is not None and len(value) != rows:
        raise ValueError(f"{field.name!r} must have one number per row of 'weights' ({rows}), got {len(value)}")


@attrs.frozen
class LinearGaussian:
    """Vectors x (D,) of the linear-Gaussian model. Each method works in the dtype of its arguments.

    Args:
        weights: W, D rows of Z numbers.
        bias: b, D numbers; zeros by default.
        scale: The standard deviation s > 0 of x given z.
        rows: The number of rows of each split.
        seed: The seed from which the rows are drawn.

    >>> LinearGaussian([[2.0]]).log_density(torch.zeros(1, 1, dtype=torch.float64))  # N(0, 5): -1/2 log(10 pi)
    tensor([-1.7237], dtype=torch.float64)
    """

    weights: list[list[float]] = attrs.field(validator=_is_matrix)
    bias: list[float] | None = attrs.field(default=None, validator=_fits_weights)
    scale: float = attrs.field(default=1.0, validator=positive)
    rows: int = attrs.field(default=4096, validator=valid_count)
    seed: int = attrs.field(default=0, validator=valid_seed)

    def spaces(self) -> dict[str, Space]:
        """Return the Space of each variable."""
        return {"x": Space((len(self.weights),))}

    def count_rows(self, split: str) -> int:
        """Return the number of rows of the split."""
        is_train(split)
        return self.rows

    def open(self, split: str) -> TensorRows:
        """Open the split "train" or "test"."""
        noise = Noise(self.seed, "train" if is_train(split) else "test").named("linear_gaussian", self.rows)
        z = noise.normal(len(self.weights[0]))  # (N, Z)
        mean = self._mean(z)  # (N, D)
        return TensorRows({"x": mean + self.scale * noise.normal(mean.shape[1])})

    def log_prior(self, z: Tensor) -> Tensor:
        """Return log p(z), (B, Z) -> (B,) nats."""
        return -0.5 * (z.square() + LOG_2PI).sum(1)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log p(x|z), (B, D) and (B, Z) -> (B,) nats."""
        error = (x - self._mean(z)) / self.scale
        return -0.5 * (error.square() + LOG_2PI).sum(1) - x.shape[1] * math.log(self.scale)

    def log_density(self, x: Tensor) -> Tensor:
        """Return the exact log p(x), (B, D) -> (B,) nats."""
        W, b = self._parameters(x)
        covariance = W @ W.T + self.scale**2 * torch.eye(len(b)).to(x)
        root = torch.linalg.cholesky(covariance)
        error = torch.linalg.solve_triangular(root, (x - b).T, upper=False)  # (D, B)
        return -0.5 * (error.square() + LOG_2PI).sum(0) - root.diagonal().log().sum()

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean (B, Z) of the Gaussian p(z|x) and its covariance (Z, Z), the same for every x (B, D)."""
        W, b = self._parameters(x)
        covariance = torch.linalg.inv(self._precision(x))
        return (x - b) @ W @ covariance / self.scale**2, covariance

    def mutual_information(self) -> float:
        """Return I(x; z) in nats, which a log-ratio p(x,z) : p(x)p(z) has to carry on average."""
        return 0.5 * torch.logdet(self._precision(torch.zeros(1, dtype=torch.float64))).item()

    def elbo_gap_diagonal(self) -> float:
        """Return log p(x) - the best ELBO of Gaussians q with diagonal covariance, min KL(q(z|x) || p(z|x)), in nats.

        With posterior precision P the best q has variances 1 / P_ii, which leaves 1/2 (sum_i log P_ii - log det P).
        """
        P = self._precision(torch.zeros(1, dtype=torch.float64))
        return 0.5 * (P.diagonal().log().sum() - torch.logdet(P)).item()

    def _parameters(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return W (D, Z) and b (D,)."""
        W = torch.tensor(self.weights, dtype=like.dtype, device=like.device)
        return W, W.new_zeros(len(W)) if self.bias is None else W.new_tensor(self.bias)

    def _mean(self, z: Tensor) -> Tensor:
        """Return E[x|z] = W z + b, (B, Z) -> (B, D)."""
        W, b = self._parameters(z)
        return z @ W.T + b

    def _precision(self, like: Tensor) -> Tensor:
        """Return P = I + W'W / s^2, the inverse covariance of p(z|x), (Z, Z)."""
        W, _ = self._parameters(like)
        return torch.eye(W.shape[1]).to(W) + W.T @ W / self.scale**2
