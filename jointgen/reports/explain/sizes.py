"""Counts the parameters of a recipe's parts, and the memory that training holds throughout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import attrs
from torch import Tensor

from jointgen.engine.optimizers import optimizer_groups

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe


@attrs.frozen
class Sizes:
    """The size of a compiled recipe.

    Args:
        parameters: The number of parameters by part; parts without any are left out.
        memory: Bytes by purpose, without activations.
    """

    parameters: Mapping[str, int]
    memory: Mapping[str, int]


def sizes_of(compiled: CompiledRecipe) -> Sizes:
    """Count parameters and memory of the parts as built, for the updates of all stages."""
    modules = compiled.parts.modules
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    weights = _bytes([*modules.parameters(), *modules.buffers()])
    trained = {part for plan in compiled.plans for update in plan.updates for part in update.trains}
    gradients = {part: _bytes(compiled.parts.parameters([part])) for part in trained}

    # Optimizers may come and go with the stages: the stage in which they keep most counts.
    groups = [
        (g, sum(g.table.settings.moments * gradients[part] for part in g.parts)) for g in optimizer_groups(compiled)
    ]
    stages = range(len(compiled.stages))
    moments = max(sum(size for group, size in groups if group.is_kept(stage)) for stage in stages)

    memory = {"weights": weights, "gradients": sum(gradients.values()), "optimizers": moments}
    if compiled.recipe.train.ema:
        memory["average (EMA)"] = weights
    return Sizes({name: n for name, n in counts.items() if n}, memory)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
