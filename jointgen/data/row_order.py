"""The order of the rows: a pure function of (seed, step).

Nothing of it needs a checkpoint, and any number of processes sees the same global batches. Epochs are concatenated:
every row is seen exactly once in an epoch, and a batch may end one epoch and begin the next. A batch that is larger
than the split has several epochs, each in an order of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jointgen.contracts.noise import Noise
from jointgen.contracts.sources import Rows
from jointgen.errors import ConfigError


class RowOrder:
    """The order in which training reads the rows of an opened split.

    Args:
        rows: The rows; only their number counts.
        batch: Rows of the global batch; each of `world` processes takes its own slice of it.
        seed: Of the run.
        rank: This process's number.
        world: The number of processes.
        name: What messages call the split.
        order: The name of the noise that shuffles. Two sources with one name would have their rows paired.

    Raises:
        ConfigError: The split has no row, or the batch does not divide over the processes.
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
        if not len(rows):
            raise ConfigError(f"{name} has no row", "train", "batch")
        if batch < 1 or batch % world:
            raise ConfigError(f"{batch} does not divide over {world} process(es)", "train", "batch")
        self._batch, self._rows, self._seed, self._rank, self._world = batch, rows, seed, rank, world
        self._noise_name, self._orders = order, dict[int, Tensor]()

    def rows_of(self, batch_index: int) -> Tensor:
        """The row numbers of this process's share of a batch.

        Args:
            batch_index: The number of the global batch, counted from 0.

        Returns:
            (batch / world,) int64.
        """
        own = self._batch // self._world
        first = batch_index * self._batch + self._rank * own
        epoch, start = divmod(first, len(self._rows))
        taken = [self._order(epoch)[start : start + own]]
        while missing := own - sum(map(len, taken)):
            epoch += 1
            taken.append(self._order(epoch)[:missing])
        return taken[0] if len(taken) == 1 else torch.cat(taken)

    def _order(self, epoch: int) -> Tensor:
        """The (rows,) int64 permutation of an epoch. Two epochs are remembered, since a batch can need both."""
        if epoch not in self._orders:
            generator = Noise(self._seed, f"epoch {epoch}").generator(self._noise_name)
            kept = {known: order for known, order in self._orders.items() if abs(known - epoch) == 1}
            self._orders = {**kept, epoch: torch.randperm(len(self._rows), generator=generator)}
        return self._orders[epoch]
