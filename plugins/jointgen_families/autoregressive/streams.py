"""Convolutions that see only what comes before them, and the caches from which they run on one row or one pixel.

An image is read in raster order. The *vertical* stream of a network has at row r what rows < r say, over their whole
width; the *horizontal* stream has at pixel (r, c) what the vertical one says and the pixels left of it in its row.
Neither has a blind spot (van den Oord et al. 2016, section 2.3). The image enters them shifted down by a row, and
right by a pixel, so that every convolution may include its own place.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CausalConv(nn.Module):
    """A convolution with weight normalisation over its own row, or pixel, and what is before it.

    Weight normalisation writes a filter as gain * direction / |direction|, and starts gain and bias such that the
    output over some rows of data has mean 0 and a given standard deviation (Salimans & Kingma 2016, eq. 2, 5 and 6).

    Args:
        inputs: The number of channels that it is given.
        outputs: The number of its own.
        rows: The height of its kernel: its own row and rows - 1 above it.
        columns: The width of its kernel.
        is_vertical: Whether the kernel is centred on its column, as the vertical stream's; otherwise it ends there.
        start_scale: The standard deviation at the start from data.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rows: int = 1,
        columns: int = 1,
        *,
        is_vertical: bool = False,
        start_scale: float = 1.0,
    ):
        super().__init__()
        assert columns % 2 or not is_vertical, "a kernel that is centred has an odd width"
        self.direction = nn.Parameter(torch.randn(outputs, inputs, rows, columns))
        self.gain = nn.Parameter(torch.full((outputs,), start_scale))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.start_scale, self.is_starting = start_scale, False
        self.above = rows - 1
        self.right = columns // 2 if is_vertical else 0
        self.left = columns - 1 - self.right

    def weight(self) -> Tensor:
        """Return the filters, (outputs, inputs, rows, columns)."""
        norm = self.direction.flatten(1).norm(dim=1)
        return self.direction * (self.gain / norm)[:, None, None, None]

    def forward(self, x: Tensor, at: Cursor | None = None) -> Tensor:
        """Convolve an image, or the row or pixel that a cursor is at.

        Args:
            x: (B, inputs, H, W); of a row (B, inputs, 1, W) and of a pixel (B, inputs, 1, 1).
            at: The cursor.

        Returns:
            (B, outputs, ...), as large as x.
        """
        if at is not None:
            return at.convolve(self, x)
        padded = F.pad(x, (self.left, self.right, self.above, 0)) if self.above or self.left else x
        if self.is_starting:
            self._start(padded)
        return F.conv2d(padded, self.weight(), self.bias)

    def _start(self, padded: Tensor) -> None:
        with torch.no_grad():
            self.gain.fill_(1.0)
            out = F.conv2d(padded, self.weight())
            spread = out.std((0, 2, 3)).clamp(min=1e-2)
            self.gain.copy_(self.start_scale / spread)
            self.bias.copy_(-out.mean((0, 2, 3)) * self.start_scale / spread)


class Cursor:
    """The place at which an image is being drawn, and what every convolution has been given so far.

    Each convolution then runs on one row (of the vertical stream) or one pixel at a time, so that a whole image takes
    as many multiplications as one pass of the network, and not one pass for each of its numbers.

    Args:
        height: H.
        width: W.
    """

    def __init__(self, height: int, width: int):
        self.height, self.width = height, width
        self.row = 0
        self.column: int | None = None
        self._given: dict[CausalConv, Tensor] = {}
        self._weights: dict[CausalConv, Tensor] = {}

    def convolve(self, conv: CausalConv, x: Tensor) -> Tensor:
        """The output of a convolution at this row, or at this pixel of it, from its inputs until now."""
        if conv not in self._weights:
            self._weights[conv] = conv.weight()
        weight, seen = self._weights[conv], self._window(conv, x)
        if self.column is None:
            return F.conv2d(seen, weight, conv.bias)
        return F.linear(seen.flatten(1), weight.flatten(1), conv.bias)[..., None, None]

    def _window(self, conv: CausalConv, x: Tensor) -> Tensor:
        """Keep what the convolution is given here, and return all that its kernel covers."""
        if not conv.above and not conv.left:
            return x
        if conv not in self._given:
            height, width = self.height + conv.above, self.width + conv.left + conv.right
            self._given[conv] = x.new_zeros(*x.shape[:2], height, width)
        given, rows = self._given[conv], slice(self.row, self.row + conv.above + 1)
        if self.column is None:
            given[:, :, self.row + conv.above, conv.left : conv.left + self.width] = x[:, :, 0]
            return given[:, :, rows]
        assert not conv.right, "a convolution of the vertical stream runs on rows"
        given[:, :, self.row + conv.above, conv.left + self.column] = x[:, :, 0, 0]
        return given[:, :, rows, self.column : self.column + conv.left + 1]


def shifted_down(x: Tensor) -> Tensor:
    """Return an image (B, C, H, W) moved down by a row, with zeros above it."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def shifted_right(x: Tensor) -> Tensor:
    """Return an image (B, C, H, W) moved right by a pixel, with zeros left of it."""
    return F.pad(x, (1, 0, 0, 0))[:, :, :, :-1]
