"""What each step sees: this process's rows of the global batch, and the named noise of the step."""

from __future__ import annotations

from torch import Tensor

from jointgen.data import Loader
from jointgen.distributed import Workers
from jointgen.evaluate import Split, renamed
from jointgen.interfaces import Rows
from jointgen.noise import Noise
from jointgen.program import (
    Moment,
)
from jointgen.recipe import Recipe


class Feed:
    """The training split of a run, step by step: a pure function of (seed, step), so there is nothing to checkpoint.

    repeats: how often a step may ask for rows of its own (an update that runs several times).
    Raises ConfigError for a batch that the data or the processes cannot have.
    """

    def __init__(self, recipe: Recipe, split: Split, workers: Workers, repeats: int = 1):
        self._recipe, self._split, self._workers, self._repeats = recipe, split, workers, repeats
        self._loaders = {part: self._loader(part, rows) for part, rows in split.sources.items()}

    def _loader(self, part: str, rows: Rows) -> Loader:
        rank, world = self._workers.rank, self._workers.world
        name, order = f"the training split of {part}", "order of rows" + (f" of {part}" if part != "data" else "")
        return Loader(rows, self._recipe.train.batch, self._recipe.seed, rank=rank, world=world, name=name, order=order)

    def moment(self, step: int, progress: float, repetition: int) -> Moment:
        """The data and noise of one repetition of a step. progress: how much of its stage is done, in [0, 1)."""
        train = self._recipe.train
        at_home = self._noise(step, repetition, "cpu")
        data = {part: self._rows(part, step * self._repeats + repetition, at_home) for part in self._loaders}
        noise, rows = self._noise(step, repetition, self._workers.device), train.batch // self._workers.world
        return Moment(data, noise, rows, step, progress, train.pair_block)

    def _rows(self, part: str, batch: int, noise: Noise) -> dict[str, Tensor]:
        values = renamed(self._loaders[part].batch(batch, noise), self._split.variables[part])
        return {v: self._workers.sent(t) for v, t in values.items()}

    def _noise(self, step: int, repetition: int, device: object) -> Noise:
        workers = self._workers
        return Noise(
            self._recipe.seed,
            f"{step}.{repetition}",
            rank=workers.rank,
            world=workers.world,
            device=str(device),
            dtype=workers.dtype,
        )
