"""One torch optimizer for each group of parts that are always trained together and share a table of settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import nn

from jointgen.config.optimizers import OptimizerTable
from jointgen.contracts.optimizers import built_optimizers
from jointgen.errors import ConfigError, suggest
from jointgen.registry.faults import attributing, described
from jointgen.text import listed

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe
    from jointgen.compiler.parts import Parts


@attrs.frozen
class OptimizerGroup:
    """Parts that one optimizer trains: the same updates train them throughout, with the same settings.

    Args:
        table: The settings.
        stages: The numbers of the stages in which they are trained.
    """

    parts: tuple[str, ...]
    table: OptimizerTable
    stages: tuple[int, ...]

    @property
    def key(self) -> str:
        """Its name in a checkpoint. An optimizer of another kind, or with more moments, cannot resume from it."""
        settings, stage = self.table.settings, f" in stage {self.table.stage}" if self.table.stage else ""
        return f"{type(settings).__name__} with {settings.moments} moments of {'+'.join(self.parts)}{stage}"

    def is_kept(self, stage: int) -> bool:
        """Whether a stage keeps its moments: from the first of its own stages to the last."""
        return self.stages[0] <= stage <= self.stages[-1]

    def rate(self, step: int, ends: Sequence[int]) -> float:
        """The learning rate of a step in a run whose stages end at `ends`; a stage's settings count from its start."""
        if not self.table.stage:
            return self.table.settings.rate(step, ends[-1])
        (stage,) = self.stages
        begin = ends[stage - 1] if stage else 0
        return self.table.settings.rate(step - begin, ends[stage] - begin)


def optimizer_groups(compiled: CompiledRecipe) -> list[OptimizerGroup]:
    """Group the parts that are trained. A part is in several groups where stages train it by other settings."""
    trained_by: dict[tuple[str, OptimizerTable], list[tuple[int, str]]] = {}
    for stage, plan in enumerate(compiled.plans):
        for update in plan.updates:
            for part in update.trains:
                table = compiled.optimizer_of(part, stage)
                trained_by.setdefault((part, table), []).append((stage, update.name))
    together: dict[tuple[OptimizerTable, tuple[tuple[int, str], ...]], list[str]] = {}
    for (part, table), updates in trained_by.items():
        together.setdefault((table, tuple(updates)), []).append(part)
    return [
        OptimizerGroup(tuple(parts), table, tuple(dict.fromkeys(stage for stage, _ in updates)))
        for (table, updates), parts in together.items()
    ]


@attrs.define
class BuiltGroup:
    """A group of parts and torch's optimizers of their parameters: mostly one.

    Args:
        group: The group.
        build: Builds the optimizers anew, without moments.
    """

    group: OptimizerGroup
    build: Callable[[], list[torch.optim.Optimizer]]
    optimizers: list[torch.optim.Optimizer] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.optimizers = self.build()

    def state_dict(self) -> dict[str, Any]:
        """The state of the optimizer; of several, by number."""
        if len(self.optimizers) == 1:
            return self.optimizers[0].state_dict()
        return {str(number): one.state_dict() for number, one in enumerate(self.optimizers)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, but for the settings. Raises ValueError where it does not fit."""
        states = [state] if len(self.optimizers) == 1 else [state[str(n)] for n in range(len(self.optimizers))]
        for optimizer, one in zip(self.optimizers, states, strict=True):
            settings = [{k: v for k, v in g.items() if k not in ("params", "lr")} for g in optimizer.param_groups]
            optimizer.load_state_dict(dict(one))
            for group, own in zip(optimizer.param_groups, settings, strict=True):
                group.update(own)
            _to_parameter_layout(optimizer)


class Optimizers:
    """The optimizers of a run. Parts are grouped by the updates that train them, so an update steps what it trained."""

    def __init__(self, compiled: CompiledRecipe, parts: Parts):
        self._groups = []
        self._stage = 0
        for one in optimizer_groups(compiled):
            if parameters := parts.parameters(one.parts):
                what = f"{described(compiled.registry, 'optimizer', one.table.settings)}, of {listed(one.parts)},"
                self._groups.append(BuiltGroup(one, partial(_build, one.table.settings, parameters, what)))

    def begin(self, stage: int) -> None:
        """Begin a stage: forget the moments that no stage needs any more."""
        self._stage = stage
        for built in self._groups:
            if not built.group.is_kept(stage):
                built.optimizers = built.build()

    def of(self, trains: Iterable[str]) -> list[torch.optim.Optimizer]:
        """Return the optimizers of an update of this stage that trains these parts."""
        wanted = set(trains)
        return [one for built in self._current() if wanted >= set(built.group.parts) for one in built.optimizers]

    def _current(self) -> list[BuiltGroup]:
        return [built for built in self._groups if self._stage in built.group.stages]

    def set_rates(self, step: int, ends: Sequence[int]) -> None:
        """Set the rates of step `step`, counted from 0, in a run whose stages end at `ends`.

        They are plain numbers, which torch's fused kernels take as arguments, so nothing waits for the device.
        """
        for built in self._current():
            rate = built.group.rate(step, ends)
            for held in (group for one in built.optimizers for group in one.param_groups):
                held["lr"] = rate

    def rates(self) -> dict[str, float]:
        """The rates of the last step by "lr/TABLE", for the log, of all that this stage trains."""
        groups = {built.group.table.name: built.optimizers[0].param_groups[0] for built in self._current()}
        return {f"lr/{name}": group["lr"] for name, group in groups.items()}

    def state_dict(self) -> dict[str, Any]:
        """The state of each group's optimizers, by its key."""
        return {built.group.key: built.state_dict() for built in self._groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the moments; the settings stay the recipe's, which may have changed since.

        Raises:
            ConfigError: The recipe has another kind of optimizer now, or groups the parts in another way.
        """
        for built in self._groups:
            if built.group.key not in state:
                raise ConfigError(f"it has no optimizer {built.group.key!r}{suggest(built.group.key, state)}")
            try:
                built.load_state_dict(state[built.group.key])
            except ValueError as error:
                raise ConfigError(f"its optimizer {built.group.key!r} does not fit: {error}") from None


def _build(settings: Any, parameters: list[nn.Parameter], what: str) -> list[torch.optim.Optimizer]:
    with attributing(what):
        return built_optimizers(settings, parameters)


def _to_parameter_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give each moment the layout of its parameter, which files do not keep and fused kernels need.

    A number has no layout, and one beside a parameter that is a number may be the count of steps, of another type.
    """
    for parameter, state in optimizer.state.items():
        tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
        moments = {k: v for k, v in tensors.items() if v.dim() > 1 and v.shape == parameter.shape}
        state |= {k: torch.empty_like(parameter).copy_(v) for k, v in moments.items()}
