"""Kernels of two values, as pointwise terms. Their averages over independent pairs make the MMD (Gretton et al. 2012).

Squared distances are measured in units of 2 D, the mean squared distance of two draws of a standard normal in D
dimensions, so that a scale means the same for every size of code.
"""

from __future__ import annotations

import attrs
from torch import Tensor

from jointgen.plugin import positive, sum_event


def of_distance(kernel: str, squared: Tensor, scale: float) -> Tensor:
    """Return a kernel's values from squared distances in units of 2 D, element by element.

    Args:
        kernel: "rbf" for exp(-r/s), "imq" for s/(s + r), the inverse multiquadratic of WAE (Tolstikhin et al. 2018).
        squared: The squared distances r.
        scale: The scale s.
    """
    return (-squared / scale).exp() if kernel == "rbf" else scale / (scale + squared)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Return |a - b|^2 / 2 D of each row, (B, *shape) twice -> (B,)."""
    return sum_event((a - b).square()) / (2 * a[0].numel())


@attrs.frozen
class RBF:
    """The Gaussian kernel exp(-|a - b|^2 / (2 D s)).

    Args:
        scale: s; 1 where two draws of a standard normal are one unit apart on average.
    """

    scale: float = attrs.field(default=1.0, validator=positive)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the kernel of each row, (B, *shape) twice -> (B,)."""
        return of_distance("rbf", _apart(a, b), self.scale)


@attrs.frozen
class IMQ:
    """The inverse multiquadratic kernel C / (C + |a - b|^2) with C = 2 D s (Tolstikhin et al. 2018, section 4).

    Args:
        scale: s; 1 where two draws of a standard normal are one unit apart on average.
    """

    scale: float = attrs.field(default=1.0, validator=positive)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the kernel of each row, (B, *shape) twice -> (B,)."""
        return of_distance("imq", _apart(a, b), self.scale)
