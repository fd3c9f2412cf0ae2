"""One torch optimizer for each group of parts that are always trained together and share a table of settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import nn

from jointgen.config.optimizers import SGD, Adam, AdamW, Rate, RMSprop, Table
from jointgen.errors import ConfigError, suggest

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe
    from jointgen.compiler.parts import Parts

_TORCH: Mapping[type[Rate], type[torch.optim.Optimizer]] = {
    Adam: torch.optim.Adam,
    AdamW: torch.optim.AdamW,
    SGD: torch.optim.SGD,
    RMSprop: torch.optim.RMSprop,
}
_FUSED = (Adam, AdamW, SGD)  # torch's RMSprop has no fused form


@attrs.frozen
class Shared:
    """Parts that one optimizer trains in `stages`, by its `table`: those that the same updates train throughout."""

    parts: tuple[str, ...]
    table: Table
    stages: tuple[int, ...]

    @property
    def key(self) -> str:
        """What a checkpoint calls it: another kind of optimizer, or one that keeps more, cannot go on from it."""
        settings, stage = self.table.settings, f" in stage {self.table.stage}" if self.table.stage else ""
        return f"{type(settings).__name__} with {settings.moments} moments of {'+'.join(self.parts)}{stage}"

    def is_kept(self, stage: int) -> bool:
        """Whether its moments are there in a stage: from the first of its own to the last."""
        return self.stages[0] <= stage <= self.stages[-1]

    def rate(self, step: int, ends: Sequence[int]) -> float:
        """Of step `step` of a run whose stages end at `ends`: where the run stands, or its own stage."""
        if not self.table.stage:
            return self.table.settings.rate(step, ends[-1])
        (stage,) = self.stages
        begin = ends[stage - 1] if stage else 0
        return self.table.settings.rate(step - begin, ends[stage] - begin)


def shared(compiled: CompiledRecipe) -> list[Shared]:
    """Every part that is trained, once for each table that it has over the stages."""
    trained_by: dict[tuple[str, Table], list[tuple[int, str]]] = {}
    for stage, plan in enumerate(compiled.plans):
        for update in plan.updates:
            for part in update.trains:
                table = compiled.optimizer_of(part, stage)
                trained_by.setdefault((part, table), []).append((stage, update.name))
    together: dict[tuple[Table, tuple[tuple[int, str], ...]], list[str]] = {}
    for (part, table), updates in trained_by.items():
        together.setdefault((table, tuple(updates)), []).append(part)
    return [
        Shared(tuple(parts), table, tuple(dict.fromkeys(stage for stage, _ in updates)))
        for (table, updates), parts in together.items()
    ]


@attrs.frozen
class Group:
    """What is shared, and torch's optimizer of it."""

    of: Shared
    optimizer: torch.optim.Optimizer


class Optimizers:
    """Groups parts by the updates that train them, over all stages, so that an update steps just what it trained."""

    def __init__(self, compiled: CompiledRecipe, parts: Parts):
        self._groups = []
        self._stage = 0
        for one in shared(compiled):
            if parameters := parts.parameters(one.parts):
                self._groups.append(Group(one, _build(one.table.settings, parameters)))

    def begin(self, stage: int) -> None:
        """Forgets the moments that no stage needs any more."""
        self._stage = stage
        for group in self._groups:
            if not group.of.is_kept(stage):
                group.optimizer.state.clear()

    def of(self, trains: Iterable[str]) -> list[torch.optim.Optimizer]:
        """The optimizers of an update of this stage that trains these parts."""
        wanted = set(trains)
        return [group.optimizer for group in self._current() if wanted >= set(group.of.parts)]

    def _current(self) -> list[Group]:
        return [group for group in self._groups if self._stage in group.of.stages]

    def set_rates(self, step: int, ends: Sequence[int]) -> None:
        """The rates of step `step`, counted from 0, in a run whose stages end at `ends`.

        Plain numbers, which torch's fused kernels take as arguments: nothing waits for the device.
        """
        for group in self._current():
            for held in group.optimizer.param_groups:
                held["lr"] = group.of.rate(step, ends)

    def rates(self) -> dict[str, float]:
        """lr/TABLE: the rate of the last step, for the log, of all that this stage trains."""
        return {f"lr/{group.of.table.name}": group.optimizer.param_groups[0]["lr"] for group in self._current()}

    def state_dict(self) -> dict[str, Any]:
        return {group.of.key: group.optimizer.state_dict() for group in self._groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the moments; the settings stay the recipe's, which may have changed since.

        Raises:
            ConfigError: the recipe has another kind of optimizer now, or groups the parts in another way.
        """
        for group in self._groups:
            if group.of.key not in state:
                raise ConfigError(f"it has no optimizer {group.of.key!r}{suggest(group.of.key, state)}")
            held = group.optimizer.param_groups
            settings = [{k: v for k, v in one.items() if k not in ("params", "lr")} for one in held]
            try:
                group.optimizer.load_state_dict(state[group.of.key])
            except ValueError as error:
                raise ConfigError(f"its optimizer {group.of.key!r} does not fit: {error}") from None
            for one, own in zip(group.optimizer.param_groups, settings, strict=True):
                one.update(own)
            _lay_out(group.optimizer)


def _build(settings: Rate, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Fused, which is several times faster on a CPU too; where torch has no fused form, foreach."""
    how = {"fused": True} if isinstance(settings, _FUSED) else {"foreach": True}
    make: Any = _TORCH[type(settings)]
    return make(parameters, lr=settings.lr, **settings.arguments(), **how)


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Gives each moment the layout of its parameter, which files do not keep and fused kernels need.

    A number has no layout, and one beside a parameter that is a number may be the count of steps, of another type.
    """
    for parameter, state in optimizer.state.items():
        tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
        moments = {k: v for k, v in tensors.items() if v.dim() > 1 and v.shape == parameter.shape}
        state |= {k: torch.empty_like(parameter).copy_(v) for k, v in moments.items()}
