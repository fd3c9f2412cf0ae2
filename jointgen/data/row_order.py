"""Which rows a step sees, as a pure function of (seed, step): nothing to checkpoint, and any number of processes.

Epochs are concatenated: every row is seen exactly once per epoch, and a batch may end one epoch and begin the next.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jointgen.contracts.noise import Noise
from jointgen.contracts.sources import Rows
from jointgen.errors import ConfigError


class RowOrder:
    """The rows of the training batches of an opened split.

    `batch` is the global batch; each of `world` processes takes its own slice of it. `name` is how messages call
    the split. `order` names the order of its rows: two sources in one order would have their rows paired.
    """

    def __init__(
        self,
        rows: Rows,
        batch: int,
        seed: int,
        *,
        rank: int = 0,
        world: int = 1,
        name: str = "the training split",
        order: str = "order of rows",
    ):
        if batch > len(rows):
            raise ConfigError(f"train.batch: {batch} is more than the {len(rows)} rows of {name}")
        if batch < 1 or batch % world:
            raise ConfigError(f"train.batch: {batch} does not divide over {world} process(es)")
        self._batch, self._rows, self._seed, self._rank, self._world = batch, rows, seed, rank, world
        self._named, self._orders = order, dict[int, Tensor]()

    def rows_of(self, batch_index: int) -> Tensor:
        """(batch / world,) int64: this process's rows of global batch number `batch_index`, counted from 0."""
        own = self._batch // self._world
        first = batch_index * self._batch + self._rank * own
        epoch, start = divmod(first, len(self._rows))
        rows = self._order(epoch)[start : start + own]
        return rows if len(rows) == own else torch.cat([rows, self._order(epoch + 1)[: own - len(rows)]])

    def _order(self, epoch: int) -> Tensor:
        """(rows,) int64 permutation of one epoch. This one and the next are remembered: a batch can need both."""
        if epoch not in self._orders:
            generator = Noise(self._seed, f"epoch {epoch}").generator(self._named)
            kept = {known: order for known, order in self._orders.items() if abs(known - epoch) == 1}
            self._orders = {**kept, epoch: torch.randperm(len(self._rows), generator=generator)}
        return self._orders[epoch]
