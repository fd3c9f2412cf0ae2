"""One Adam for each group of parts that are always trained together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from jointgen.parts import Parts
from jointgen.prepare import Prepared
from jointgen.recipe import Adam


class Optimizers:
    """Groups parts by the updates that train them, over all stages, so that an update steps just what it trained."""

    def __init__(self, prepared: Prepared, parts: Parts):
        trained_by: dict[str, set[tuple[int, str]]] = {}
        for stage, plan in enumerate(prepared.plans):
            for update in plan.updates:
                for part in update.trains:
                    trained_by.setdefault(part, set()).add((stage, update.name))
        groups: dict[frozenset[tuple[int, str]], list[str]] = {}
        for part, updates in trained_by.items():
            groups.setdefault(frozenset(updates), []).append(part)
        self._groups: dict[tuple[str, ...], tuple[torch.optim.Adam, Adam]] = {}
        for names in map(tuple, groups.values()):
            if parameters := parts.parameters(names):
                critics = all(prepared.declared.traits[name].kind == "critic" for name in names)
                settings = prepared.recipe.optimizer.critics if critics else prepared.recipe.optimizer.model
                self._groups[names] = (_adam(parameters, settings), settings)

    def of(self, trains: Iterable[str]) -> list[torch.optim.Adam]:
        """The optimizers of an update that trains these parts."""
        wanted = set(trains)
        return [optimizer for names, (optimizer, _) in self._groups.items() if wanted >= set(names)]

    def set_rates(self, progress: float) -> None:
        for optimizer, settings in self._groups.values():
            for group in optimizer.param_groups:
                group["lr"] = settings.rate(progress)

    def state(self) -> dict[str, Any]:
        return {"+".join(names): optimizer.state_dict() for names, (optimizer, _) in self._groups.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        for names, (optimizer, _) in self._groups.items():
            optimizer.load_state_dict(state["+".join(names)])
            _lay_out(optimizer)


def _adam(parameters: list[Any], settings: Adam) -> torch.optim.Adam:
    fused = parameters[0].is_cuda
    return torch.optim.Adam(
        parameters, settings.lr, settings.betas, settings.eps, settings.weight_decay, fused=fused, foreach=not fused
    )


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Gives each moment the layout of its parameter, which files do not keep and fused kernels need."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                moments[name] = torch.empty_like(parameter).copy_(value)
