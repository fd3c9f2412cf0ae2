"""What each step sees: this process's rows of the global batch, and the named noise of the step."""

from __future__ import annotations

from torch import Tensor

from jointgen.config.recipe import Recipe
from jointgen.contracts.noise import Noise
from jointgen.contracts.sources import Rows, augmentation_of
from jointgen.data.device import DeviceRows, resides
from jointgen.data.row_order import RowOrder
from jointgen.data.split import Split, renamed
from jointgen.data.step_inputs import StepInputs
from jointgen.runtime.workers import Workers


class TrainingBatches:
    """The training split of a run, step by step: a pure function of (seed, step), so there is nothing to checkpoint.

    repeats: how often a step may ask for rows of its own (an update that runs several times).
    Raises ConfigError for a batch that the data or the processes cannot have, and for data that must stay on the
    device and does not fit.
    """

    def __init__(self, recipe: Recipe, split: Split, workers: Workers, repeats: int = 1):
        self._recipe, self._split, self._workers, self._repeats = recipe, split, workers, repeats
        loaders = {part: self._loader(part, rows) for part, rows in split.sources.items()}
        resident = resides(recipe.train.resident, split.sources.values(), workers.device)
        self._fetch = {
            part: DeviceRows(rows, loaders[part].rows_of, workers.device, resident=resident)
            for part, rows in split.sources.items()
        }
        self._augment = {part: augmentation_of(rows) for part, rows in split.sources.items()}

    def _loader(self, part: str, rows: Rows) -> RowOrder:
        rank, world = self._workers.rank, self._workers.world
        name, order = f"the training split of {part}", "order of rows" + (f" of {part}" if part != "data" else "")
        return RowOrder(
            rows, self._recipe.train.batch, self._recipe.seed, rank=rank, world=world, name=name, order=order
        )

    def moment(self, step: int, progress: float, repetition: int) -> StepInputs:
        """The data and noise of one repetition of a step. progress: how much of its stage is done, in [0, 1)."""
        train, noise = self._recipe.train, self._noise(step, repetition)
        rows = train.batch // self._workers.world
        data = {part: self._rows(part, step * self._repeats + repetition, noise, rows) for part in self._fetch}
        return StepInputs(data, noise, rows, step, progress, train.pair_block)

    def _rows(self, part: str, number: int, noise: Noise, rows: int) -> dict[str, Tensor]:
        values = self._augment[part](self._fetch[part](number), noise.named("augment", rows))
        return renamed(values, self._split.variables[part])

    def _noise(self, step: int, repetition: int) -> Noise:
        workers = self._workers
        return Noise(
            self._recipe.seed,
            f"{step}.{repetition}",
            rank=workers.rank,
            world=workers.world,
            device=workers.device,
            dtype=workers.dtype,
        )
