"""Small numerical functions: units, stable logarithms and precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)
"""log(2 pi), which stands in the log-density of every Gaussian."""


def bits_per_dim(nll_nats: float, size: int, log_det_to_data: float = 0.0) -> float:
    """Return a negative log-likelihood in bits per dimension, for data with bins of width 1 (docs/concepts/numbers.md).

    Args:
        nll_nats: The negative log-density of a row in model space, nats.
        size: The number of dimensions D.
        log_det_to_data: `Space.log_det_to_data`, nats.

    Returns:
        (nll_nats + log_det_to_data) / (D log 2).

    Zero nats on [0, 1)^D, the uniform density, is 8 bits per dimension for 8-bit data:

    >>> bits_per_dim(0.0, 2, log_det_to_data=2 * math.log(256))
    8.0
    """
    return (nll_nats + log_det_to_data) / (size * math.log(2))


def log_mean_exp(x: Tensor, dim: int) -> Tensor:
    """Return the log of the mean of exp(x) over `dim`, without overflow.

    >>> log_mean_exp(torch.tensor([1000.0, 1000.0]), 0)
    tensor(1000.)
    """
    return torch.logsumexp(x, dim) - math.log(x.shape[dim])


def log1mexp(x: Tensor) -> Tensor:
    """Return log(1 - exp(x)) for x < 0, accurate at both ends (Maechler, 2012)."""
    near_zero = x > -math.log(2)
    # where() evaluates both branches, so each is given a harmless argument where it is not used
    small = torch.where(near_zero, x, -1.0)
    large = torch.where(near_zero, -1.0, x)
    return torch.where(near_zero, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))


def at_least_float32(x: Tensor) -> Tensor:
    """Return x in float32 where it is in a coarser type, such as the bfloat16 that autocast gives, and else as it is.

    bfloat16 is too coarse for densities and losses.
    """
    return x if x.dtype in (torch.float32, torch.float64) else x.to(torch.promote_types(x.dtype, torch.float32))
