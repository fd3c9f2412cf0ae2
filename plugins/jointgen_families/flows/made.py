"""MADE (Germain et al. 2015): networks whose i-th outputs see only the inputs before i, and their inversion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from zuko.nn import MaskedLinear, MaskedMLP

from jointgen_families.flows.chain import start_small


class MADE(nn.Module):
    """A network with two outputs per dimension; those of dimension i see x_1 .. x_(i-1) and the whole context.

    Every unit has a *level*: how many of x_1, x_2, .. must be known before it can be computed.

    Args:
        size: The number of dimensions D.
        context: The size of the context C.
        hidden: The widths of the hidden layers, of tanh. With fewer units than D, the last dimensions see only the
            first ones.
    """

    def __init__(self, size: int, context: int, hidden: Sequence[int]):
        super().__init__()
        before = torch.ones(size, size, dtype=torch.bool).tril(-1).repeat(2, 1)
        adjacency = torch.cat([before, torch.ones(2 * size, context, dtype=torch.bool)], 1)
        self.size, self.net = size, MaskedMLP(adjacency, hidden, activation=nn.Tanh)
        start_small(self.layers[-1])
        self.sizes: list[list[int]] = []
        for k, level in enumerate(self._levels(context)):
            self.register_buffer(f"order{k}", level.argsort(stable=True), persistent=False)
            self.sizes.append(level.bincount(minlength=size).tolist())

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return both outputs, (B, D) each, for x (B, D) and the context (B, C)."""
        first, second = self.net(torch.cat([x, context], 1)).chunk(2, 1)
        return first, second

    def solve(self, context: Tensor, invert: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """Return x with x_i = invert(i, *(i-th outputs at x)) for every i, (B, D).

        The D steps run one after another. Each computes only the units of its level, so that together they cost about
        one forward pass, forward and backward, where the textbook's D passes compute every unit D times.

        Args:
            context: The context, (B, C).
            invert: A function of i and of the i-th outputs, (B,) each, that returns x_i, (B,).
        """
        blocks, pending = self._by_level(len(context))
        values, found = context, []
        for level in range(self.size):
            for k, block in enumerate(blocks):
                waiting = torch.addmm(pending[k], values, block[level].t())
                values, pending[k] = waiting.tensor_split((self.sizes[k + 1][level],), 1)
                values = values if block is blocks[-1] else torch.tanh(values)
            found.append(invert(level, *values.unbind(1)))
            values = found[-1][:, None]
        return torch.stack(found, 1)

    @property
    def layers(self) -> list[MaskedLinear]:
        """The linear layers in order."""
        return [layer for layer in self.net if isinstance(layer, MaskedLinear)]

    def _levels(self, context: int) -> list[Tensor]:
        """Return the levels of the inputs, of every hidden layer, and of the outputs."""
        levels = [torch.cat([torch.arange(1, self.size + 1), torch.zeros(context, dtype=torch.long)])]
        for layer in self.layers[:-1]:
            levels.append((layer.mask * levels[-1]).amax(1))
        return [*levels, torch.arange(self.size).repeat(2)]

    def _by_level(self, rows: int) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Return each layer's weights from the units of a level to those of that level and later, and its biases."""
        blocks, biases = [], []
        for k, layer in enumerate(self.layers):
            sources, targets = self.get_buffer(f"order{k}"), self.get_buffer(f"order{k + 1}")
            weight = (layer.mask * layer.weight)[targets][:, sources]
            columns = weight.split(self.sizes[k], 1)
            done = [sum(self.sizes[k + 1][:level]) for level in range(self.size)]
            blocks.append([column[start:] for column, start in zip(columns, done, strict=False)])
            biases.append(layer.bias[targets].expand(rows, -1))
        return blocks, biases
