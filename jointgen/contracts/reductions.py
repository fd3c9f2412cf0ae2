"""Reductions: how the values of a term at the K draws of a row become one number, and with which gradient.

`E[q(x,z); k=5 NAME(z)](term)` evaluates the term at K draws of z for each row of the batch and hands the values to the
reduction NAME.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor


class Reduction(Protocol):
    """A function of the K values of a row. Its gradient is its derivative, unless it is a `GradientReduction`."""

    def __call__(self, terms: Tensor) -> Tensor:
        """Return the figure of each row, (B, K) -> (B,). Rows must not mix."""


@runtime_checkable
class GradientReduction(Reduction, Protocol):
    """A reduction that makes the gradient in the draws itself.

    The term is evaluated at the draws cut from their path, so the derivative of its values in them is there to take,
    and what their parameters learn is only what `surrogate` says.
    """

    @property
    def needs_path(self) -> bool:
        """Whether it uses the draws with their path, so that the family must have one."""

    @property
    def needs_density(self) -> bool:
        """Whether it uses the log-density of the draws under the conditionals that made them."""

    @property
    def holds_draws(self) -> bool:
        """Whether the density of the draws is held where it stands in the term, so that it gives no gradient.

        The gradient of a reparameterised score takes its place, an identity of log weights alone: the term must have
        the log-density of each draw of a conditional once, with the weight -1.
        """

    @property
    def gradient(self) -> str:
        """The gradient in words, for `jointgen explain`."""

    def surrogate(self, draws: TermDraws) -> Tensor:
        """Return numbers whose gradient is that of the reduction, (B,); their value does not count.

        Rows must not mix.
        """


@runtime_checkable
class ChecksDraws(Protocol):
    """A reduction that does not take every number of draws."""

    def check_draws(self, k: int) -> None:
        """Raise ConfigError where the reduction takes no k draws."""


@runtime_checkable
class WeightedReduction(Reduction, Protocol):
    """A reduction that can also be taken over values of unequal weights, as an exact sum over labels has them."""

    def weighted(self, terms: Tensor, log_weights: Tensor) -> Tensor:
        """Return the figure of each row, (B, K) -> (B,). Equal weights give what calling it gives.

        Args:
            terms: The values of the term, (B, K).
            log_weights: The logarithms of their weights, (B, K), whose exponentials have the sum 1 in each row. The
                gradient flows into them.
        """


@attrs.frozen
class TermDraws:
    """The K draws of each row, and the values of the term at them.

    Args:
        terms: The values, (B, K), with their gradient to all that is no draw.
        points: The draws by variable as leaves, (B K, *shape) each.
        paths: The draws by variable with their path, (B K, *shape) each; empty unless `needs_path`.
        log_density: The log-density of the draws at the leaves, with its gradient, (B, K) nats; None unless
            `needs_density`.
    """

    terms: Tensor
    points: Mapping[str, Tensor]
    paths: Mapping[str, Tensor]
    log_density: Tensor | None = None

    def by_row(self, draws: Tensor) -> Tensor:
        """Return draws, or what has their shape, as (B, K, *shape)."""
        return draws.unflatten(0, self.terms.shape)

    def slopes(self) -> dict[str, Tensor]:
        """Return the derivative of each value in its own draw, by variable, (B, K, *shape) each, without a graph."""
        found = torch.autograd.grad(
            self.terms.sum(), list(self.points.values()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return {name: self.by_row(slope) for name, slope in zip(self.points, found, strict=True)}


def as_gradient_reduction(reduction: object) -> GradientReduction | None:
    """Return a reduction that makes its gradient itself, and None for any other."""
    return reduction if isinstance(reduction, GradientReduction) else None
