"""Planar flows of any length, exact in both directions."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from jointgen.plugin import DensityKind, below_one, between, in_float64, positive, valid_depth
from jointgen_families.flows.distribution import Flow
from jointgen_families.flows.recursion import Backwards, Direction, Forwards, opened

LAYERS_PER_BLOCK = 20
"""The number of layers, each row with its own, that are computed at once.

Of 10, 20, 40 and 80 it is the fastest, or within a tenth of the fastest, for D from 16 to 784.
"""


class PlanarTransform:
    """K planar layers z + u' tanh(w . z + b), for each of B rows or one set for all (Rezende & Mohamed 2015, 4.1).

    u' = u + e w is u changed along w so that w . u' > -1 + margin, see `bent`.

    Args:
        u: (B, K, D), or (K, D) for all rows.
        w: (B, K, D) or (K, D).
        b: (B, K) or (K,).
        margin: Keeps w . u' above -1 + margin.
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor, margin: float = 0.0):
        self.u, self.w, self.b, self.margin = u, w, b, margin

    def forward(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        """Return z_K, (B, D), and log|det dz_K/dz_0|, (B,) nats."""
        return _Layers.apply(z0, self.u, self.w, self.b, self.margin, Forwards)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return z_0, (B, D), and log|det dz_K/dz_0| there, (B,) nats, differentiable once in everything.

        It computes in float64, because eighty layers can lose a dozen digits on the way back
        (docs/concepts/densities.md).
        """
        doubles = (in_float64(x) for x in (z, self.u, self.w, self.b))
        z0, log_det = _Layers.apply(*doubles, self.margin, Backwards)
        return z0.to(z), log_det.to(z)


def bent(t: Tensor, square: Tensor, margin: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return c = w . u' and e = (c - w . u) / |w|^2 with u' = u + e w, from t = w . u and |w|^2 of any shape.

    c = m(t) = -(1 - margin) + softplus(t + log(e^(1 - margin) - 1)): every layer is invertible. The published m
    (Rezende & Mohamed 2015, A.1), -1 + softplus(t), is -0.31 at 0, so that eighty fresh layers would shrink space by
    29 nats; this one is 0 at 0.
    """
    room = 1 - margin
    c = F.softplus(t + math.log(math.expm1(room))) - room
    return c, (c - t) / square.clamp_min(torch.finfo(t.dtype).tiny)


class _Layers(torch.autograd.Function):
    """All layers in one direction, as one function of autograd.

    It returns the transformed z, (B, D), and sum_k log(1 + c_k (1 - h_k^2)), (B,) nats (eq 12). A plain loop over the
    layers spends its time on moving (B, K, D) vectors. Here only matrix products touch them, one block of layers after
    the other (a block's products grow with its square), u' is never formed, and gradients are summed in place.
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, u: Tensor, w: Tensor, b: Tensor, margin: float, direction: Direction
    ) -> tuple[Tensor, Tensor]:
        """Return f(z0), (B, D), and log|det df/dz0|, (B,) nats."""
        log_det = z.new_zeros(z.shape[0])
        ctx.blocks = []
        block = LAYERS_PER_BLOCK if u.ndim == 3 else len(u)  # products that all rows share cost little
        for part in direction.order([slice(k, k + block) for k in range(0, b.shape[-1], block)]):
            layers = _Block(part, z, u[..., part, :], w[..., part, :], b[..., part], margin, direction)
            ctx.blocks.append(layers)
            z, log_det = z + direction.sign * layers.moved(), log_det + layers.log_det()
        ctx.save_for_backward(u, w, b)
        return z, log_det

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        u, w, b = ctx.saved_tensors
        grad_u, grad_w, grad_b = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (u, w, b))
        for block in reversed(ctx.blocks):
            own = grad_u[..., block.part, :], grad_w[..., block.part, :], grad_b[..., block.part]
            g = block.backward(g, grad_log_det, *own)
        return g, grad_u, grad_w, grad_b, None, None


class _Block:
    """Some consecutive layers in one direction, which the constructor runs."""

    def __init__(self, part: slice, z: Tensor, u: Tensor, w: Tensor, b: Tensor, margin: float, direction: Direction):
        self.part, self.z, self.u, self.w, self.direction = part, z, u, w, direction
        G, self.ww = w @ u.mT, w @ w.mT
        with torch.enable_grad():
            self.diagonals = t, square = tuple(_diagonal(x).clone().requires_grad_() for x in (G, self.ww))
            self.bent = bent(t, square, margin)
        self.c, self.e = (x.detach() for x in self.bent)
        self.G = G.addcmul_(self.ww, self.e[..., None, :])  # w_k . u'_j
        self.h = direction.solve(_along(w, z) + b, self.G, self.c)

    def moved(self) -> Tensor:
        """Return sum_k h_k u'_k, (B, D)."""
        return _combined(self.h, self.u).add_(_combined(self.h * self.e, self.w))

    def log_det(self) -> Tensor:
        """Return the block's log-determinant, (B,) nats."""
        return torch.log(opened(self.h, self.c)).sum(1)

    def backward(self, g: Tensor, grad_log_det: Tensor, grad_u: Tensor, grad_w: Tensor, grad_b: Tensor) -> Tensor:
        """Return the gradient of the block's input from that of its output, and write those of u, w and b."""
        u, w, h, e = self.u, self.w, self.h, self.e
        pushed = self.direction.sign * g
        share, along_w = grad_log_det[:, None] / opened(h, self.c), _along(w, pushed)
        grad_h = _along(u, pushed) + e * along_w - 2 * h * self.c * share
        grad_start, grad_G, grad_c = self.direction.gradients(grad_h, h, self.G, self.c)
        grad_c = _summed(grad_c + (1 - h * h) * share, self.c)
        grad_e = _summed(h * along_w, e) + (grad_G * self.ww).sum(-2)
        grad_diagonals = torch.autograd.grad(self.bent, self.diagonals, (grad_c, grad_e), retain_graph=True)
        grad_wu, grad_ww = grad_G, grad_G * e[..., None, :]
        for grad, own in zip((grad_wu, grad_ww), grad_diagonals, strict=True):
            _diagonal(grad).add_(own)
        _fill(grad_u, [(grad_wu.mT, w)], [(h, pushed)])
        _fill(grad_w, [(grad_wu, u), (grad_ww + grad_ww.mT, w)], [(h * e, pushed), (grad_start, self.z)])
        grad_b.copy_(_summed(grad_start, self.c))
        return g + _combined(grad_start, w)


def _diagonal(x: Tensor) -> Tensor:
    return x.diagonal(dim1=-2, dim2=-1)


def _summed(x: Tensor, like: Tensor) -> Tensor:
    """Sum a gradient (B, K) over the rows if they share what it belongs to."""
    return x.sum(0) if like.ndim == 1 else x


def _along(w: Tensor, z: Tensor) -> Tensor:
    """Return w_k . z, (B, K), for w (B, K, D) or (K, D) and z (B, D)."""
    return z @ w.mT if w.ndim == 2 else (w @ z[:, :, None])[:, :, 0]


def _combined(h: Tensor, u: Tensor) -> Tensor:
    """Return sum_k h_k u_k, (B, D), for h (B, K) and u (B, K, D) or (K, D)."""
    return h @ u if u.ndim == 2 else (h[:, None] @ u)[:, 0]


def _fill(total: Tensor, products: list[tuple[Tensor, Tensor]], outer: list[tuple[Tensor, Tensor]]) -> None:
    """Set `total`, (B, K, D), or (K, D) summed over rows, to the sum of the products a b and of the outer h_k g_d."""
    add = total.addmm_ if total.ndim == 2 else total.baddbmm_
    for number, (a, b) in enumerate(products):
        add(a, b, beta=min(number, 1))  # the first overwrites what was there
    if total.ndim == 2:
        for h, g in outer:
            add(h.mT, g)
    else:
        add(torch.stack([h for h, _ in outer], 2), torch.stack([g for _, g in outer], 1))


CONTEXT_SCALE = 0.03
"""The factor on what the trunk adds to u, w and b.

Unscaled outputs of a fresh trunk disturb eighty layers so much that the ELBO of an MNIST VAE was 7 nats lower after
2,000 steps (factor 1: -114.7, 0.1: -107.9, 0.03: -107.5; no flow: -110.9).
"""


@attrs.frozen
class Planar(Flow):
    """A planar flow of layers z + u tanh(w . z + b) (Rezende & Mohamed, ICML 2015).

    Args:
        base: The Gaussian that the flow starts from.
        length: The number of layers.
        amortized: Whether the trunk adds to u, w and b of every layer, 2 D + 1 numbers a layer, for each row.
        margin: w . u stays above -1 + margin; 0.2 makes inverses better conditioned and layers less expressive.
        init_scale: The standard deviation of u's entries at the start; a small one is near the identity.
    """

    name: ClassVar[str] = "planar"
    foreign_density: ClassVar[DensityKind] = "numeric"

    length: int = attrs.field(default=80, validator=valid_depth)
    amortized: bool = True
    margin: float = attrs.field(default=0.0, validator=below_one)
    init_scale: float = attrs.field(default=0.01, validator=[positive, between(0.0, 1000.0)])

    def context_size(self, size: int) -> int:
        """Return how many numbers the trunk outputs for the flow."""
        return self.length * (2 * size + 1) if self.amortized else 0

    def flow(self, size: int) -> nn.Module:
        """Build the flow's module, (B, context) -> Transform."""
        return PlanarModule(self, size)


class PlanarModule(nn.Module):
    """The flow's module: (B, K (2 D + 1)) -> PlanarTransform; (B, 0) if the layers depend on no input."""

    def __init__(self, config: Planar, size: int):
        super().__init__()
        self.config = config
        K = config.length
        self.u = nn.Parameter(config.init_scale * torch.randn(K, size))
        self.w = nn.Parameter(torch.randn(K, size) / math.sqrt(size))  # w . z ~ N(0, 1) for a standard normal z:
        self.b = nn.Parameter(torch.randn(K))  # where a tanh bends

    def forward(self, context: Tensor) -> PlanarTransform:
        """Return the transform of each row."""
        margin = self.config.margin
        if not self.config.amortized:
            return PlanarTransform(self.u, self.w, self.b, margin)
        K, D = self.u.shape
        u, w, b = (CONTEXT_SCALE * context).split([K * D, K * D, K], 1)
        return PlanarTransform(u.unflatten(1, (K, D)) + self.u, w.unflatten(1, (K, D)) + self.w, b + self.b, margin)
