"""Streams of rows that an evaluation goes through, batch by batch, with noise by the numbers of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import torch
from torch import Tensor

from jointgen.contracts.metrics import Batch, ModelView
from jointgen.contracts.noise import Noise

if TYPE_CHECKING:
    from jointgen.data.split import Split

T = TypeVar("T")


@attrs.frozen(eq=False)
class StreamBatch(Batch):
    """A `Batch` of a stream: raw rows, their noise and numbers, and the split that they are of, if any."""

    data: Mapping[str, Mapping[str, Tensor]]
    noise: Noise
    rows: int
    index: Tensor
    split: Split | None
    _memo: dict[str, Any] = attrs.field(factory=dict, init=False)

    def recall(self, key: str, compute: Callable[[], T]) -> T:
        """See `Batch.recall`."""
        if key not in self._memo:
            self._memo[key] = compute()
        found: T = self._memo[key]
        return found

    def labels(self, source: str = "") -> dict[str, Tensor]:
        """See `Batch.labels`."""
        return self.split.labels(self.index % len(self.split), source) if self.split else {}


@attrs.frozen
class Stream:
    """Some rows of a split, or some draws of p.

    Args:
        name: The name of the split, or "draws". It names the noise.
        n: The number of rows or draws.
        split: The rows; of "draws", those of p's data roots, if it has any.
        size: The number of rows of a batch.
    """

    name: str
    n: int
    split: Split | None
    size: int

    @property
    def key(self) -> str:
        """Identifies the stream within an evaluation, also in the names of files."""
        return f"{self.name}-{self.n}by{self.size}"

    @property
    def starts(self) -> dict[int, int]:
        """The first row of each batch, and how many rows it has."""
        return {start: min(self.size, self.n - start) for start in range(0, self.n, self.size)}

    def batch(self, model: ModelView, start: int, seed: int) -> StreamBatch:
        """Take the batch that begins at a row.

        Its noise depends on the rows' numbers, not on how large the batch is or which process takes it.
        """
        index = torch.arange(start, start + self.starts[start])
        data = {} if self.split is None else self.split.take(index % len(self.split), model.device)
        noise = Noise(seed, self.name, device=model.device, dtype=model.dtype).of_rows(start, len(index))
        return StreamBatch(data, noise, len(index), index, self.split)


def batches(model: ModelView, split: Split, size: int, seed: int) -> Iterator[StreamBatch]:
    """The batches of a whole split, in order."""
    stream = Stream(split.name, len(split), split, size)
    return (stream.batch(model, start, seed) for start in stream.starts)
