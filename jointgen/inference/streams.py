"""Streams of rows or draws, batch by batch, with noise by the numbers of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor

from jointgen.contracts.noise import Noise
from jointgen.data.split import Split
from jointgen.data.step_inputs import StepInputs
from jointgen.inference.model import Model


@attrs.frozen
class Stream:
    """So many rows of a split, or so many draws of p; `split` then has the rows of p's data roots, if it has any.

    size: rows of a batch.
    """

    name: str
    n: int
    split: Split | None
    size: int

    @property
    def key(self) -> str:
        return f"{self.name}-{self.n}by{self.size}"

    @property
    def starts(self) -> dict[int, int]:
        """The first row of each batch, and how many it has."""
        return {start: min(self.size, self.n - start) for start in range(0, self.n, self.size)}

    def batch(self, model: Model, start: int, seed: int) -> Batch:
        """With noise by the numbers of the rows: how the work is shared out is no matter, nor in how large batches."""
        index = torch.arange(start, start + self.starts[start])
        data = {} if self.split is None else self.split.take(index % len(self.split), model.device)
        noise = Noise(seed, self.name, device=model.device, dtype=model.dtype).of_rows(start, len(index))
        return Batch(data, noise, len(index), index=index, source=self.split)


@attrs.frozen(eq=False)
class Batch(StepInputs):
    """See jointgen.contracts.metrics.Batch."""

    index: Tensor = attrs.field(factory=lambda: torch.empty(0, dtype=torch.long))
    source: Split | None = None
    _memo: dict[str, Any] = attrs.field(factory=dict, init=False)

    def recall(self, key: str, compute: Callable[[], Any]) -> Any:
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]


def batches(model: Model, split: Split, size: int, seed: int) -> Iterator[Batch]:
    """A whole split."""
    stream = Stream(split.name, len(split), split, size)
    return (stream.batch(model, start, seed) for start in stream.starts)
