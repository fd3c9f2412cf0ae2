"""Units and small maths: nats, bits per dimension, log-mean-exp."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def bits_per_dim(nll_nats: float, size: int, log_det_to_data: float = 0.0) -> float:
    """(nll + log_det_to_data) / (D ln 2), for discrete data with bin width 1 (docs/numbers.md).

    Zero nats on [0, 1)^D, the uniform density, is 8 bits per dimension for 8-bit data:

    >>> bits_per_dim(0.0, 2, log_det_to_data=2 * math.log(256))
    8.0
    """
    return (nll_nats + log_det_to_data) / (size * math.log(2))


def log_mean_exp(x: Tensor, dim: int) -> Tensor:
    """log of the mean of exp(x) over `dim`, without overflow."""
    return torch.logsumexp(x, dim) - math.log(x.shape[dim])


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, accurate at both ends (Maechler, 2012)."""
    near_zero = x > -math.log(2)
    # where() evaluates both branches, so each is given a harmless argument where it is not used
    small = torch.where(near_zero, x, -1.0)
    large = torch.where(near_zero, -1.0, x)
    return torch.where(near_zero, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))
