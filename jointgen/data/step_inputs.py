"""The inputs of one step besides the parameters: raw rows, named noise, and how far the run is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs
from torch import Tensor

from jointgen.contracts.noise import Noise
from jointgen.objectives.algebra import Weight

RawRows = Mapping[str, Mapping[str, Any]]
"""Data source -> variable -> (B, ...) raw rows as the source yields them; or an Observation, where rows have been
observed already."""


class Peers(Protocol):
    """The processes that share the batch of a step, as `jointgen.runtime.workers.Workers`."""

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""

    def gather_with_gradient(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes in order of rank, (n, *shape) -> (n of all, *shape)."""


class Alone:
    """A process that has all rows of the batch."""

    rank = 0

    def gather_with_gradient(self, rows: Tensor) -> Tensor:
        """Return the rows as they are."""
        return rows


ALONE = Alone()


@attrs.frozen
class StepInputs:
    """The inputs of a program besides the parts.

    Args:
        data: The raw rows of this process's share of the batch.
        noise: The named noise of the step.
        rows: B, the number of rows in `data`.
        step: The number of the step, counted from 0.
        progress: How much of the stage is done, in [0, 1]; weights that follow a schedule read it.
        pair_block: Re-pairings shift rows within blocks of so many; 0: the whole batch is one block.
        scales: The measured scales of balanced weights, and the values of driven ones, by name, () each.
        peers: The processes that share the batch.
        batches: By the size of each global batch that a data source has of its own, the number of its rows in `data`.
            Without an entry, as on the few rows of a check or in an evaluation, they are as many as all others.
        source_rows: How many rows each data source has; where it is not known, a batch is taken for all of it.
        past: Draws of the past by the name of their history (`jointgen.engine.histories.PastRows`).
    """

    data: RawRows
    noise: Noise
    rows: int
    step: int = 0
    progress: float = 1.0
    pair_block: int = 0
    scales: Mapping[str, Tensor] = attrs.field(factory=dict)
    peers: Peers = ALONE
    batches: Mapping[int, int] = attrs.field(factory=dict)
    source_rows: Mapping[str, int] = attrs.field(factory=dict)
    past: Mapping[str, Any] = attrs.field(factory=dict)

    def of_batch(self, batch: int) -> StepInputs:
        """The inputs of what is computed from a batch of this size: with its number of rows."""
        rows = self.batches.get(batch, self.rows)
        return self if rows == self.rows else attrs.evolve(self, rows=rows)

    def at(self, weight: Weight) -> Any:
        """The value of a weight at this point of the stage; of a balanced one, r times its scale, a () tensor."""
        if weight.control is not None:
            return self.scales[weight.name]
        value = weight.at(self.progress)
        return value * self.scales[weight.name] if weight.is_balanced else value

    def split(self, k: int) -> list[StepInputs]:
        """Split the rows of every source into k micro-batches of equal size.

        A micro-batch is to these inputs what one of k further processes would be to the global batch: it has the noise
        of its own rows, so that the gradients add up to those of the whole.
        """
        if k == 1:
            return [self]
        rows, batches = self.rows // k, {batch: rows // k for batch, rows in self.batches.items()}

        def part_of(x: Any, m: int) -> Any:
            size = len(x) // k
            return x[m * size : (m + 1) * size]

        data = [{part: {v: part_of(x, m) for v, x in raw.items()} for part, raw in self.data.items()} for m in range(k)]
        return [
            attrs.evolve(self, data=data[m], noise=self.noise.part(m, k), rows=rows, batches=batches) for m in range(k)
        ]
