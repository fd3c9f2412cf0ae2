"""The two recursions of the planar flow on K scalars, one for each direction.

A planar layer is z_k = z_{k-1} + u_k h_k with h_k = tanh(a_k), a_k = w_k . z_{k-1} + b_k (Rezende & Mohamed 2015,
eq 10). Since z_k = z_0 + sum_{j<=k} u_j h_j, all that the layers need of the D-dimensional vectors are the K numbers
w_k . z and the K x K products G_kj = w_k . u_j, whose diagonal is called c:

    forward   a_k = w_k . z_0 + b_k + sum_{j<k} G_kj h_j                          k = 1 ... K
    inverse   a_k + c_k h_k = w_k . z_K + b_k - sum_{j>k} G_kj h_j                k = K ... 1, one scalar equation each

Both give h, from which z_K = z_0 + sum h_k u_k and back. The forward recursion is triangular, so putting the last h
into the right-hand side for all k at once is exact after K rounds, and settles after a few where layers push little
on one another: rounds of one product each instead of K steps. The gradient of `start` from that of h, in both
directions, solves a linear triangular system.

Shapes: start, h and their gradients (B, K); G (B, K, K), or (K, K) for all rows; c (B, K) or (K,), >= -1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

MAX_ROUNDS = 64
"""The most rounds for one scalar equation; bisection alone ends after 56 in float64 (docs/concepts/densities.md)."""
ACCELERATOR_ROUNDS = 16
"""The number of rounds on an accelerator: enough for c up to 1000 in float64 (of 400,000 equations, 15 at most)."""


def may_look(x: Tensor) -> bool:
    """Return whether a loop may look at its values to stop early.

    On an accelerator each look waits for the device, and an exported program takes the same way for all values.
    """
    return x.device.type == "cpu" and not torch.compiler.is_exporting()


class Forwards:
    """The direction z_0 -> z_K, in which z moves by sign * sum h_k u_k."""

    sign = 1

    @staticmethod
    def order(layers: list[T]) -> list[T]:
        """Return the layers in the order in which they run."""
        return layers

    @staticmethod
    def solve(start: Tensor, G: Tensor, c: Tensor) -> Tensor:
        """Return h, to the last bit as K steps would compute it."""
        earlier = G.tril(-1)
        return _settled(lambda h: torch.tanh(start + _pushes(earlier, h)), torch.tanh(start))

    @staticmethod
    def gradients(grad_h: Tensor, h: Tensor, G: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of start, G and c from that of h."""
        slope = 1 - h * h  # dh_k / da_k
        g = _substituted(slope * grad_h, -slope[:, :, None] * G.mT, upper=True)
        return g, _outer(g, h, G).tril_(-1), torch.zeros_like(h)


class Backwards:
    """The inverse direction z_K -> z_0."""

    sign = -1

    @staticmethod
    def order(layers: list[T]) -> list[T]:
        """Return the layers in the order in which they run."""
        return layers[::-1]

    @staticmethod
    def solve(start: Tensor, G: Tensor, c: Tensor) -> Tensor:
        """Return h, one layer after the other, because rounds would solve every scalar equation again in each."""
        t, h = start.clone(), torch.empty_like(start)
        for k in reversed(range(t.shape[1])):
            own = t[:, k : k + 1]
            h[:, k : k + 1] = solve(own, c[..., k, None].expand_as(own)).tanh_()
            t[:, :k].addcmul_(h[:, k : k + 1], G[..., :k, k], value=-1)
        return h

    @staticmethod
    def gradients(grad_h: Tensor, h: Tensor, G: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of start, G and c from that of h, by the implicit function theorem.

        (1 + c_k s_k) da_k = d(right-hand side) - h_k dc_k and dh_k = s_k da_k, with s = 1 - h^2.
        """
        slope = (1 - h * h) / opened(h, c)
        g = _substituted(slope * grad_h, slope[:, :, None] * G.mT, upper=False)
        return g, _outer(g, h, G).triu_(1).neg_(), -g * h


Direction = type[Forwards] | type[Backwards]


def _pushes(G: Tensor, h: Tensor) -> Tensor:
    """Return sum_j G_kj h_j, (B, K)."""
    return h @ G.mT if G.ndim == 2 else (G @ h[:, :, None])[:, :, 0]


def _settled(step: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Iterate `step` to its fixed point: after i rounds of a triangular recursion, i of its K numbers are exact."""
    look = may_look(x)
    for _ in range(x.shape[1]):
        last, x = x, step(x)
        if look and torch.equal(x, last):
            break
    return x


def _substituted(x: Tensor, matrix: Tensor, upper: bool) -> Tensor:
    """Return g with g + (strictly triangular part of the matrix) g = x, (B, K)."""
    return torch.linalg.solve_triangular(matrix, x[:, :, None], upper=upper, unitriangular=True)[:, :, 0]


def _outer(g: Tensor, h: Tensor, G: Tensor) -> Tensor:
    """Return g_k h_j for every pair, summed over the rows if one G serves them all."""
    return g.mT @ h if G.ndim == 2 else g[:, :, None] * h[:, None, :]


def opened(h: Tensor, c: Tensor) -> Tensor:
    """Return 1 + c (1 - h^2), the factor by which a layer stretches along u, > 0 for c > -1."""
    square = h * h  # as h^2 + (1 + c)(1 - h^2), which does not cancel
    return (square + (1 + c) * (1 - square)).clamp_min(torch.finfo(h.dtype).tiny)


@torch.no_grad()
def solve(t: Tensor, c: Tensor) -> Tensor:
    """Solve a + c tanh(a) = t for a, elementwise, for c >= -1, to rounding: |residual| <= 4 eps (|t| + |c|).

    The left side rises in a, and the solution lies in [t - |c|, t + |c|]. Halley's step, Newton's with the second
    derivative (which h gives for nothing), kept within what is known, is taken where the residual is at most half of
    the last step times the slope; otherwise the bracket is halved. Keeping the step inside the bracket alone is not
    enough (docs/concepts/densities.md). Three rounds are typical, eight the most seen in training.
    """
    low, high = t - c.abs(), t + c.abs()
    rounding = 4 * torch.finfo(t.dtype).eps * (t.abs() + c.abs())
    a = t - c * torch.tanh(t / (1 + c).clamp_min(0.2))  # right for small a and for large
    last, look = high - low, may_look(t)
    for _ in range(MAX_ROUNDS if look else ACCELERATOR_ROUNDS):
        h = torch.tanh(a)
        residual = a + c * h - t
        is_off = residual.abs() > rounding
        if look and not bool(is_off.any()):
            break
        slope = opened(h, c)
        newton = residual / slope
        low, high = torch.where(residual < 0, a, low), torch.where(residual > 0, a, high)
        halley = (a - newton / (1 + newton * c * h * (1 - h * h) / slope)).clamp(low, high)
        is_safe = 2 * residual.abs() <= last * slope
        new = torch.where(is_off, torch.where(is_safe, halley, (low + high) / 2), a)
        last, a = (new - a).abs(), new
    return a
