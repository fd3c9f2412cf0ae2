"""One torch optimizer for each group of parts that are always trained together and share a table of settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import nn

from jointgen.optimizer_tables import SGD, Adam, AdamW, Rate, RMSprop
from jointgen.parts import Parts
from jointgen.prepare import Prepared

_TORCH: Mapping[type[Rate], type[torch.optim.Optimizer]] = {
    Adam: torch.optim.Adam,
    AdamW: torch.optim.AdamW,
    SGD: torch.optim.SGD,
    RMSprop: torch.optim.RMSprop,
}
_FUSED = (Adam, AdamW, SGD)  # torch's RMSprop has no fused form


@attrs.frozen
class Group:
    """`parts` with the table of this name in the recipe."""

    parts: tuple[str, ...]
    table: str
    settings: Rate
    optimizer: torch.optim.Optimizer

    @property
    def key(self) -> str:
        """What a checkpoint calls it: another kind of optimizer, or one that keeps more, cannot go on from it."""
        return f"{type(self.settings).__name__} with {self.settings.moments} moments of {'+'.join(self.parts)}"


class Optimizers:
    """Groups parts by the updates that train them, over all stages, so that an update steps just what it trained."""

    def __init__(self, prepared: Prepared, parts: Parts):
        self._groups = []
        for (_, table), names in _together(prepared).items():
            if parameters := parts.parameters(names):
                settings = prepared.optimizer_of(names[0])[1]
                self._groups.append(Group(tuple(names), table, settings, _build(settings, parameters)))

    def of(self, trains: Iterable[str]) -> list[torch.optim.Optimizer]:
        """The optimizers of an update that trains these parts."""
        wanted = set(trains)
        return [group.optimizer for group in self._groups if wanted >= set(group.parts)]

    def set_rates(self, step: int, steps: int) -> None:
        """The rates of step `step`, counted from 0, in a run of `steps`.

        Plain numbers, which torch's fused kernels take as arguments: nothing waits for the device.
        """
        for group in self._groups:
            for held in group.optimizer.param_groups:
                held["lr"] = group.settings.rate(step, steps)

    def rates(self) -> dict[str, float]:
        """lr/TABLE: the rate of the last step, for the log."""
        return {f"lr/{group.table}": group.optimizer.param_groups[0]["lr"] for group in self._groups}

    def state(self) -> dict[str, Any]:
        return {group.key: group.optimizer.state_dict() for group in self._groups}

    def load(self, state: Mapping[str, Any]) -> None:
        """The moments; the settings stay the recipe's, which may have been changed. KeyError for other groups."""
        for group in self._groups:
            held = group.optimizer.param_groups
            settings = [{k: v for k, v in one.items() if k not in ("params", "lr")} for one in held]
            group.optimizer.load_state_dict(state[group.key])
            for one, own in zip(group.optimizer.param_groups, settings, strict=True):
                one.update(own)
            _lay_out(group.optimizer)


def _together(prepared: Prepared) -> dict[tuple[frozenset[tuple[int, str]], str], list[str]]:
    """(the updates, as (stage, name), and the table) -> the parts that have both in common."""
    trained_by: dict[str, set[tuple[int, str]]] = {}
    for stage, plan in enumerate(prepared.plans):
        for update in plan.updates:
            for part in update.trains:
                trained_by.setdefault(part, set()).add((stage, update.name))
    groups: dict[tuple[frozenset[tuple[int, str]], str], list[str]] = {}
    for part, updates in trained_by.items():
        groups.setdefault((frozenset(updates), prepared.optimizer_of(part)[0]), []).append(part)
    return groups


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
