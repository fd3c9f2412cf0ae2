"""The networks of PixelCNN: the gated one with two stacks, and that of PixelCNN++.

Both turn an image, (B, C, H, W) scaled to [-1, 1], into features of every pixel that depend on the pixels before it
alone. `vertical` computes what rows above say, `horizontal` the rest; a Cursor lets both run on a row or a pixel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jointgen_families.autoregressive.streams import CausalConv, Cursor, shifted_down, shifted_right


class TwoStreams(nn.Module):
    """The base of the networks. A subclass has the two streams.

    Args:
        width: F, the number of features.
    """

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def vertical(self, above: Tensor, context: Tensor, at: Cursor | None = None) -> list[Tensor]:
        """Return what the horizontal stream takes from the vertical one, (B, ..., h, w) each.

        Args:
            above: The image moved down by a row, with a channel of ones, (B, C + 1, h, w).
            context: What every gated layer is given, (B, K, 1, 1) or (B, K, h, w).
            at: The row that is drawn; None for a whole image.
        """
        raise NotImplementedError

    def horizontal(self, left: Tensor, vertical: list[Tensor], context: Tensor, at: Cursor | None = None) -> Tensor:
        """Return the features of each pixel, (B, F, h, w); `left` is the image moved right by a pixel, with ones."""
        raise NotImplementedError

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return the features of each pixel of whole images, (B, C, H, W) -> (B, F, H, W)."""
        left, above = with_ones(shifted_right(x)), with_ones(shifted_down(x))
        return self.horizontal(left, self.vertical(above, context), context)


def with_ones(x: Tensor) -> Tensor:
    """Append a channel of ones, by which a layer tells its image from what pads it."""
    return F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0)


def of_context(context: int, outputs: int) -> nn.Conv2d:
    """Build the linear map of the context that a layer adds before its gate (van den Oord et al. 2016, eq. 4 and 5)."""
    return nn.Conv2d(context, outputs, 1, bias=False)


# --- gated PixelCNN --------------------------------------------------------------------------------------------------


def gated(x: Tensor) -> Tensor:
    """Return tanh(a) sigmoid(b) for the halves of the channels (van den Oord et al. 2016, eq. 2)."""
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


class GatedNet(TwoStreams):
    """Gated PixelCNN (van den Oord et al., NIPS 2016, figure 2): residual in the horizontal stack, skips to the end.

    Args:
        channels: C of the image.
        width: F, the number of features.
        blocks: The number of layers after the first one.
        kernel: n, odd: the vertical stack sees (n + 1) / 2 rows of n columns, the horizontal one (n + 1) / 2 columns.
        context: K, the numbers that each layer is given besides.
    """

    def __init__(self, channels: int, width: int, blocks: int, kernel: int, context: int):
        super().__init__(width)
        sizes = [channels + 1, *[width] * blocks]
        self.layers = nn.ModuleList(
            GatedLayer(n, width, kernel, context, is_first=i == 0, is_last=i == blocks) for i, n in enumerate(sizes)
        )

    def vertical(self, above: Tensor, context: Tensor, at: Cursor | None = None) -> list[Tensor]:
        """See `TwoStreams.vertical`: the halves of each layer's gate."""
        found, v = [], above
        for layer in cast(Iterable[GatedLayer], self.layers):
            halves = layer.to_vertical(v, at)
            found.append(layer.link(halves, at))
            if layer.vertical_context is not None:
                v = gated(halves + layer.vertical_context(context))
        return found

    def horizontal(self, left: Tensor, vertical: list[Tensor], context: Tensor, at: Cursor | None = None) -> Tensor:
        """See `TwoStreams.horizontal`: the sum of the layers' skips."""
        h, total = left, None
        for layer, linked in zip(cast(Iterable[GatedLayer], self.layers), vertical, strict=True):
            out = gated(layer.to_horizontal(h, at) + linked + layer.horizontal_context(context))
            skip = layer.skip(out, at)
            total = skip if total is None else total + skip
            if layer.out is not None:
                h = layer.out(out, at) if layer.is_first else h + layer.out(out, at)
        assert total is not None
        return F.elu(total)


class GatedLayer(nn.Module):
    """One layer of both stacks of a `GatedNet`. The first has no residual, and the last hands on its skip alone."""

    def __init__(self, inputs: int, width: int, kernel: int, context: int, *, is_first: bool, is_last: bool):
        super().__init__()
        half, self.is_first = (kernel + 1) // 2, is_first
        self.to_vertical = CausalConv(inputs, 2 * width, half, kernel, is_vertical=True)
        self.link = CausalConv(2 * width, 2 * width)
        self.to_horizontal = CausalConv(inputs, 2 * width, 1, half)
        self.vertical_context = None if is_last else of_context(context, 2 * width)
        self.horizontal_context = of_context(context, 2 * width)
        self.out = None if is_last else CausalConv(width, width, start_scale=1.0 if is_first else 0.1)
        self.skip = CausalConv(width, width)


# --- PixelCNN++ ------------------------------------------------------------------------------------------------------


def concat_elu(x: Tensor) -> Tensor:
    """Return elu of x and of -x, side by side, (B, F, ...) -> (B, 2F, ...)."""
    return F.elu(torch.cat([x, -x], 1))


class GatedResNet(nn.Module):
    """The gated residual block of PixelCNN++ (`openai/pixel-cnn`, nn.gated_resnet), without its dropout.

    Args:
        width: F, the number of features.
        shape: (rows, columns) of its two convolutions.
        context: K.
        side: The number of features of another stream, or of a shortcut, that it is given; 0 for none.
        is_vertical: Which stream it is of.
    """

    def __init__(self, width: int, shape: tuple[int, int], context: int, side: int = 0, *, is_vertical: bool):
        super().__init__()
        self.first = CausalConv(2 * width, width, *shape, is_vertical=is_vertical)
        self.side = CausalConv(2 * side, width) if side else None
        self.second = CausalConv(2 * width, 2 * width, *shape, is_vertical=is_vertical, start_scale=0.1)
        self.context = of_context(context, 2 * width)

    def forward(self, x: Tensor, context: Tensor, side: Tensor | None = None, at: Cursor | None = None) -> Tensor:
        """Return x + a sigmoid(b), (B, F, h, w)."""
        y = self.first(concat_elu(x), at)
        if self.side is not None and side is not None:
            y = y + self.side(concat_elu(side), at)
        a, b = (self.second(concat_elu(y), at) + self.context(context)).chunk(2, 1)
        return x + a * torch.sigmoid(b)


class ResidualNet(TwoStreams):
    """The network of PixelCNN++ (Salimans et al. 2017) at one resolution: shortcuts from its first half to its second.

    The paper's network halves the resolution twice on its way up. This one keeps it, so that every layer can be cached
    by pixels, and has the paper's shortcuts between the layers of its halves.

    Args:
        channels: C of the image.
        width: F, the number of features.
        blocks: The number of blocks of each stream in each half.
        context: K, the numbers that each block is given besides.
    """

    def __init__(self, channels: int, width: int, blocks: int, context: int):
        super().__init__(width)
        inputs = channels + 1
        self.above = CausalConv(inputs, width, 2, 3, is_vertical=True)
        self.row_above = CausalConv(inputs, width, 1, 3, is_vertical=True)
        self.left = CausalConv(inputs, width, 2, 1)
        shape, flat = (2, 3), (2, 2)

        def stack(shape: tuple[int, int], side: int, *, is_vertical: bool) -> nn.ModuleList:
            return nn.ModuleList(
                GatedResNet(width, shape, context, side, is_vertical=is_vertical) for _ in range(blocks)
            )

        self.up_vertical = stack(shape, 0, is_vertical=True)
        self.up_horizontal = stack(flat, width, is_vertical=False)
        self.down_vertical = stack(shape, width, is_vertical=True)
        self.down_horizontal = stack(flat, 2 * width, is_vertical=False)

    def vertical(self, above: Tensor, context: Tensor, at: Cursor | None = None) -> list[Tensor]:
        """See `TwoStreams.vertical`: the row above, and the output of each block."""
        v = self.above(above, at)
        kept, found = [v], [self.row_above(above, at)]
        for block in self.up_vertical:
            v = block(v, context, at=at)
            kept.append(v)
            found.append(v)
        kept.pop()
        for block in self.down_vertical:
            v = block(v, context, kept.pop(), at)
            found.append(v)
        return found

    def horizontal(self, left: Tensor, vertical: list[Tensor], context: Tensor, at: Cursor | None = None) -> Tensor:
        """See `TwoStreams.horizontal`."""
        row_above, *streams = vertical
        n = len(self.up_horizontal)
        h = row_above + self.left(left, at)
        kept = [h]
        for block, v in zip(self.up_horizontal, streams[:n], strict=True):
            h = block(h, context, v, at)
            kept.append(h)
        kept.pop()
        for block, v in zip(self.down_horizontal, streams[n:], strict=True):
            h = block(h, context, torch.cat([v, kept.pop()], 1), at)
        return F.elu(h)
