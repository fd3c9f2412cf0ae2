"""`jointgen.losses`: the losses of a recipe, update by update, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import attrs
import torch
from torch import Tensor, nn
from torch.autograd.function import Function

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.contracts.noise import Noise
from jointgen.contracts.observation import raw_of
from jointgen.data.batches import TrainingBatches
from jointgen.data.split import Split, open_split
from jointgen.data.step_inputs import RawRows, StepInputs
from jointgen.engine.balance_scales import BalanceScales
from jointgen.engine.drivers import DrivenState
from jointgen.engine.histories import Histories
from jointgen.engine.optimizers import Optimizers
from jointgen.engine.step import PendingUpdate, Step, move
from jointgen.errors import ConfigError, Problems, suggest
from jointgen.inference.model import Model
from jointgen.objectives.objective import Objective, Stage
from jointgen.runtime.console import printed_for_caller
from jointgen.runtime.ranks import world_size
from jointgen.runtime.workers import Workers
from jointgen.training.check import check_run
from jointgen.training.run import objective_problems, read_given
from jointgen.training.setup import check_gradients, place_parts, start_at_mean
from jointgen.training.state import RunProgress, Stateful

BatchOfData = Tensor | Mapping[str, Any]
"""The rows of a batch: of the one variable that the data has, or by variable."""


def losses(
    recipe: str | Path | Mapping[str, Any],
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    objective: Objective | Sequence[Stage] | None = None,
    device: str = "cpu",
    data: Any = None,
) -> Losses:
    """Build a model and hand out the losses of its updates, for a training loop of one's own.

    The parts are those that `jointgen.run` starts with: built from the recipe's seed, decoders at the mean of the data,
    gradients checked. What a step computes is the same too: weights that ramp, are balanced or driven, `every`,
    `times`, gates, `stop` and `hold`, stages, constraints. Averages of weights, checkpoints, evaluations and the log
    are left to the caller.

    Args:
        recipe: The path of a recipe, the name of one that comes with jointgen, or a recipe as nested dicts.
        overrides: Settings that replace the recipe's, as in `jointgen.run`.
        objective: An objective composed in Python, or its stages, in place of the recipe's.
        device: The device to train on.
        data: The data, or where it lies, as in `jointgen.run`.

    Returns:
        The losses, a `torch.nn.Module` that holds the model.

    Raises:
        ConfigError: As `jointgen.run` raises it.

    Example:
        >>> losses = jointgen.losses("recipes/quickstart.toml")    # doctest: +SKIP
        >>> for _ in range(losses.steps):                          # doctest: +SKIP
        ...     for update in losses():
        ...         update.loss.backward()
        ...         update.step()
    """
    if world_size() > 1:
        raise ConfigError(f"jointgen.losses is for one process, and a launcher has started {world_size()}")
    objective_problems(objective).raise_any()
    with printed_for_caller():
        resolved, registry, data_paths = read_given(recipe, overrides, objective, data)
        workers = Workers.start(device, resolved.train.precision)
        checked = check_run(resolved, registry, processes=1, data_paths=data_paths)
        if checked.warm is not None:
            message = "jointgen.losses starts as built; load weights into losses.model.networks"
            raise ConfigError(message, "train", "init_from")
        compiled = checked.compiled
        split = open_split(compiled.binding, "train")
        start_at_mean(compiled, split)
        check_gradients(compiled, split)
        return Losses(compiled, split, workers)


class Losses(nn.Module):
    """The losses of a recipe's updates, step by step; `jointgen.losses` makes it.

    Calling it makes one step: it yields the updates of the step in their order, each as often as it is due. Between two
    of them the caller moves the parameters. Its `state_dict` holds the weights and all that later steps depend on,
    but for the state of the optimizers.

    Attributes:
        model: The model that is trained, to sample from or to save.
        step: The number of the next step, from 0.
        steps: How many steps the recipe has.
        optimizers: The recipe's optimizers, whose state is to be saved if `UpdateLoss.step` uses them.
    """

    def __init__(self, compiled: CompiledRecipe, split: Split, workers: Workers):
        super().__init__()
        self._compiled, self._split = compiled, split
        parts = place_parts(compiled, workers)
        self.model = Model(compiled, parts, workers.device)
        self.step, self._ends = 0, compiled.boundaries()
        self.steps = self._ends[-1]
        self.optimizers = Optimizers(compiled, parts)
        self._work_on(workers, {})

    def _work_on(self, workers: Workers, states: Mapping[str, Any]) -> None:
        """Make what knows the device, and give it its state of before, if it has one."""
        self._workers, self._steps = workers, dict[int, Step]()
        self._batches = TrainingBatches(self._compiled.recipe, self._split, workers, self._compiled.batches_of)
        self._scales, self._driven = BalanceScales(workers.device), DrivenState(workers.device)
        self._histories = Histories(workers.device)
        for name, state in states.items():
            self._stateful[name].load_state_dict(state)

    @property
    def _stateful(self) -> dict[str, Stateful]:
        """What later steps depend on besides the weights."""
        return {"balance": self._scales, "driven": self._driven, "histories": self._histories}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the model, as `.to` of every module does, and what the steps know."""
        super()._apply(fn, recurse)
        device = self.model.device
        if device != self._workers.device:
            states = {name: held.state_dict() for name, held in self._stateful.items()}
            self._work_on(Workers.start(str(device), self._workers.precision), states)
        return self

    @property
    def trained(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that each update trains, by its name, to make optimizers of."""
        found: dict[str, list[nn.Parameter]] = {}
        for plan in self._compiled.plans:
            for update in plan.updates:
                held = found.setdefault(update.name, [])
                held += [p for p in self.model.parts.parameters(update.trains) if all(p is not one for one in held)]
        return found

    def forward(self, batch: BatchOfData | None = None) -> Iterator[UpdateLoss]:
        """Make a step.

        Args:
            batch: The rows, (B, *shape) by variable, as tensors or arrays: whole numbers are levels of a variable that
                has some, or class numbers; floats are values in model space. Of data with one variable, its rows.
                None: those that `jointgen.run` takes in this step.

        Yields:
            The loss of each update that is due. The parameters may be moved before the next is asked for. The step is
            over, and `step` counts it, once all have been taken.

        Raises:
            ConfigError: All steps of the recipe have been made, or the rows do not fit.
        """
        if self.step >= self.steps:
            raise ConfigError(f"all {self.steps} steps of the recipe have been made; train.steps says how many")
        progress = RunProgress(self.step, 0.0, self._ends, self._ends)
        stage = progress.stage
        self.optimizers.begin(stage)
        self.optimizers.set_rates(self.step, self._ends)
        if batch is None:
            inputs = partial(self._batches.inputs, self.step, progress.fraction_of(stage))
        else:
            inputs = partial(self._inputs_of, self._rows_of(batch), progress.fraction_of(stage))
        self.model.train()
        for one in self._step(stage).pending_updates(inputs):
            for parameter in one.update.params:
                parameter.requires_grad_(True).grad = None
            yield UpdateLoss(one, self._compiled.recipe.train.clip, self.optimizers.of(one.update.plan.trains))
        self.model.requires_grad_(True)
        self.step += 1

    def _step(self, stage: int) -> Step:
        if stage not in self._steps:
            train = self._compiled.recipe.train
            self._steps[stage] = Step(
                self._compiled.plans[stage],
                self.model.parts,
                self._workers,
                {},
                micro_batches=train.micro_batches,
                scales=self._scales,
                driven=self._driven,
                histories=self._histories,
            )
        return self._steps[stage]

    # --- batches of the caller's

    def _rows_of(self, batch: BatchOfData) -> RawRows:
        """Bring rows of the caller's to what data sources yield."""
        variables = {v: part for part, names in self._split.variables.items() for v in names}
        if not isinstance(batch, Mapping):
            if len(variables) != 1:
                raise ConfigError(f"the data has several variables, {', '.join(variables)}: give their rows by name")
            batch = {next(iter(variables)): batch}
        problems, found, counts = Problems(), dict[str, dict[str, Tensor]](), dict[str, int]()
        for name in variables.keys() - batch.keys():
            problems.add("missing; its rows are needed", name)
        for name, values in batch.items():
            if name not in variables:
                problems.add(f"is no variable of the data{suggest(name, variables)}", str(name))
                continue
            with problems.collect():
                raw = raw_of(self.model.input(name).read(values), self.model.spaces[name])
                found.setdefault(variables[name], {})[name] = raw.to(self._workers.device)
                counts[name] = len(raw)
        if len(set(counts.values())) > 1:
            problems.add(f"expected as many rows of each variable, got {counts}")
        parts = self._compiled.recipe.train.micro_batches
        if any(count % parts for count in counts.values()):
            problems.add(f"{max(counts.values())} rows do not divide into {parts}", "train", "micro_batches")
        problems.raise_any()
        return found

    def _inputs_of(self, data: RawRows, progress: float, repetition: int) -> StepInputs:
        recipe, workers = self._compiled.recipe, self._workers
        rows = next(len(raw) for values in data.values() for raw in values.values())
        block = recipe.train.pair_block
        return StepInputs(
            data,
            Noise(recipe.seed, f"{self.step}.{repetition}", device=workers.device, dtype=workers.dtype),
            rows,
            self.step,
            progress,
            block if rows % block == 0 else 0,
            source_rows={part: len(source) for part, source in self._split.sources.items()},
        )

    # --- saving

    def get_extra_state(self) -> dict[str, Any]:
        """Return what `state_dict` holds besides the weights."""
        return {"step": self.step, **{name: held.state_dict() for name, held in self._stateful.items()}}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_extra_state` returned."""
        self.step = state["step"]
        for name, held in self._stateful.items():
            held.load_state_dict(state[name])


@attrs.frozen(eq=False)
class UpdateLoss:
    """The loss of one update at one point of the training."""

    _pending: PendingUpdate
    _clip: float | None
    _optimizers: list[torch.optim.Optimizer]

    @property
    def name(self) -> str:
        """The name of the update, such as "model" or "f"."""
        return self._pending.update.plan.name

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that it trains."""
        return self._pending.update.params

    @property
    def figures(self) -> dict[str, Tensor]:
        """The loss and the mean of each of its terms, as they are logged, () each, without a gradient."""
        return self._pending.figures

    @property
    def loss(self) -> Tensor:
        """The loss, (), to be minimised.

        Its backward pass adds the gradient of the update, which has been taken at this point, to those of its
        parameters, and to no others. The loss may be scaled or added to others before.
        """
        found: Tensor = _WithGradient.apply(
            self._pending.figures[f"{self.name}/loss"], self._pending.gradients, *self.parameters
        )
        return found

    def step(self) -> None:
        """Move the parameters as the recipe does: clip their gradients (`train.clip`), and step its optimizers."""
        move(self.parameters, self._optimizers, self._clip)


class _WithGradient(Function):
    """A number whose gradient by some parameters is known."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *scale: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(scale[0] * gradient for gradient in ctx.gradients)
