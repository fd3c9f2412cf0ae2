"""The batches of a training run: for each step, this process's rows and the step's named noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from jointgen.config.recipe import Recipe
from jointgen.contracts.augmentations import augmented_rows
from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.contracts.sources import Augmentation, augmentation_of
from jointgen.data.device import DeviceRows, resides
from jointgen.data.row_order import RowOrder
from jointgen.data.split import Split, under_joint_names
from jointgen.data.step_inputs import StepInputs
from jointgen.errors import ConfigError, Problem, Problems, placing
from jointgen.registry.faults import attributing
from jointgen.runtime.workers import Workers


def too_few_rows(recipe: Recipe, counts: Mapping[str, int]) -> tuple[list[Problem], list[str]]:
    """Look for data sources with fewer rows than a step takes of them.

    Rows of such a source repeat within a step, where it stands beside others: a few labelled rows beside many without
    labels. Where no source has enough, the batch is too large.

    Args:
        recipe: The recipe.
        counts: The training rows of each data source that the objective draws from.

    Returns:
        The problems, and what is remarkable, a line each.
    """
    few = {part: rows for part, rows in counts.items() if 0 < rows < recipe.batch_of(part)}
    problems, remarks = [], []
    for part, rows in few.items():
        batch = recipe.batch_of(part)
        if len(few) == len(counts):
            path = (*recipe.path_of(part), "batch") if recipe.sampling(part).batch else ("train", "batch")
            message = f"{batch} is more than the {rows} rows of the training split of {part}; set it to {rows} or fewer"
            problems.append(Problem(message, *path))
        else:
            remarks.append(f"{part}: a step takes {batch} of its {rows} rows, so that rows repeat within it")
    return problems, remarks


class BatchNumbers:
    """Numbers the batches of a run, of which each step takes as many as `batches_of` says.

    >>> numbers = BatchNumbers(lambda step: 100 if step < 2 else 5)
    >>> [numbers.first_of(step) for step in (0, 1, 2, 3, 1)]
    [0, 100, 200, 205, 100]
    """

    def __init__(self, batches_of: Callable[[int], int]):
        self._batches_of = batches_of
        self._step, self._first = 0, 0

    def first_of(self, step: int) -> int:
        """Return the number of the first batch of a step, counted from 0."""
        if step < self._step:
            self._step, self._first = 0, 0
        while self._step < step:  # a step of training goes on from the one before it
            self._first += self._batches_of(self._step)
            self._step += 1
        return self._first


def augmentation_by_recipe(recipe: Recipe, split: Split, part: str) -> Augmentation | None:
    """Return what augments the rows of a data source as its table's key ``augment`` says; None where it says nothing.

    Raises:
        ConfigError: The source has no images.
        ComponentError: An augmentation does not return images of the same shape; it is tried on the first row.
    """
    by = recipe.sampling(part).augment
    if not by:
        return None
    spaces = recipe.all_sources()[part].spaces()
    images = {variable: space for variable, space in spaces.items() if space.is_image}
    if not images:
        has = ", ".join(f"{variable}: {space}" for variable, space in spaces.items())
        raise ConfigError(f"changes images, and this source has {has}")

    def augment(values: dict[str, Tensor], noise: NoiseSource) -> dict[str, Tensor]:
        changed = {variable: augmented_rows(by, values[variable], space, noise) for variable, space in images.items()}
        return {**values, **changed}

    augment(split.sources[part].take(torch.zeros(1, dtype=torch.int64)), Noise(0, "trial").named("augment", 1))
    return augment


class TrainingBatches:
    """The training split of a run, step by step: a pure function of (seed, step), so it has no state to save.

    Args:
        recipe: The run's.
        split: The training split.
        workers: The processes that share each batch.
        batches_of: The number of a step -> how many batches it may ask for (an update that runs several times asks for
            several). A batch belongs to one step and one repetition in it, and none is left out.

    Raises:
        ConfigError: The batch is too large for all of the data or does not divide over the processes, or the data must
            stay on the device and does not fit.
    """

    def __init__(
        self, recipe: Recipe, split: Split, workers: Workers, batches_of: Callable[[int], int] = lambda step: 1
    ):
        self._recipe, self._split, self._workers, self._numbers = recipe, split, workers, BatchNumbers(batches_of)
        problems, self.remarks = too_few_rows(recipe, {part: len(rows) for part, rows in split.sources.items()})
        Problems(problems).raise_any()
        resident = resides(recipe.train.resident, split.sources.values(), workers.device)
        self._augment = {part: augmentation_of(rows) for part, rows in split.sources.items()}
        self._device_rows, self._by_recipe = {}, {}
        for part, rows in split.sources.items():
            with placing(*recipe.path_of(part), "augment"), attributing(f"the augmentation of {part}"):
                self._by_recipe[part] = augmentation_by_recipe(recipe, split, part)
            order = RowOrder(
                rows,
                recipe.batch_of(part),
                recipe.seed,
                rank=workers.rank,
                world=workers.world,
                name=f"the training split of {part}",
                order="order of rows" if part == "data" else f"order of rows of {part}",
            )
            self._device_rows[part] = DeviceRows(rows, order.rows_of, workers.device, resident=resident)

    def inputs(self, step: int, progress: float, repetition: int) -> StepInputs:
        """The inputs of one repetition of a step.

        Args:
            step: Counted from 0.
            progress: How much of the stage is done, in [0, 1).
            repetition: Counted from 0; each has rows and noise of its own.
        """
        train, workers = self._recipe.train, self._workers
        noise = Noise(
            self._recipe.seed,
            f"{step}.{repetition}",
            rank=workers.rank,
            world=workers.world,
            device=workers.device,
            dtype=workers.dtype,
        )
        batches = {size: size // workers.world for size in map(self._recipe.batch_of, self._device_rows)}
        number = self._numbers.first_of(step) + repetition
        data: dict[str, dict[str, Tensor]] = {}
        for part, device_rows in self._device_rows.items():
            of_source = batches[self._recipe.batch_of(part)]
            values = self._augment[part](device_rows(number), noise.named("augment", of_source))
            if (by_recipe := self._by_recipe[part]) is not None:
                values = by_recipe(values, noise.named(f"augment of {part}", of_source))
            data[part] = under_joint_names(values, self._split.variables[part])
        rows = train.batch // workers.world
        return StepInputs(
            data,
            noise,
            rows,
            step,
            progress,
            train.pair_block,
            peers=workers,
            batches=batches,
            source_rows={part: len(source) for part, source in self._split.sources.items()},
        )
