"""Constraints on the parameters of a part, applied after each of its optimizer steps."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import in_float64, positive


@attrs.frozen
class ClipWeights:
    """Every parameter stays in [-bound, bound] (Arjovsky et al. 2017, algorithm 1).

    Args:
        bound: The largest size of a parameter. Biases and gains of normalisations are parameters, too.
    """

    bound: float = attrs.field(default=0.01, validator=positive)

    def __call__(self, module: nn.Module) -> None:
        """Clip in place; see `jointgen.plugin.Constraint`."""
        for parameter in module.parameters():
            parameter.clamp_(-self.bound, self.bound)


@attrs.frozen
class UnitRows:
    """The weights of every unit have norm 1: each row of a matrix, each filter of a convolution.

    Biases and other vectors stay as they are.
    """

    def __call__(self, module: nn.Module) -> None:
        """Divide each row by its norm, in place; see `jointgen.plugin.Constraint`."""
        for parameter, rows in _matrices(module):
            norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            parameter.copy_((rows / norms.clamp(min=1e-12)).reshape(parameter.shape))


@attrs.frozen
class OrthonormalRows:
    """The rows of every matrix are orthonormal; its columns, where it has fewer of them.

    The nearest such matrix is taken, the polar factor U V^T of the singular value decomposition U S V^T. A convolution
    counts as the matrix that has a row for each filter.
    """

    def __call__(self, module: nn.Module) -> None:
        """Take the nearest such matrix, in place; see `jointgen.plugin.Constraint`."""
        for parameter, rows in _matrices(module):
            u, _, vh = torch.linalg.svd(in_float64(rows), full_matrices=False)
            parameter.copy_((u @ vh).reshape(parameter.shape))


def _matrices(module: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every parameter with two axes or more, and its values as a matrix, (rows, columns)."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            yield parameter, parameter.flatten(1)
