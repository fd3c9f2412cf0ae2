"""How large a compiled model is: parameters by part, and the memory that training holds throughout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import attrs
from torch import Tensor

from jointgen.engine.optimizers import shared

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe


@attrs.frozen
class Sizes:
    """parameters: by part, parts without any left out.  memory: bytes by purpose, activations not counted."""

    parameters: Mapping[str, int]
    memory: Mapping[str, int]


def sizes_of(compiled: CompiledRecipe) -> Sizes:
    """Of the parts as built, for the updates of every stage."""
    modules = compiled.parts.modules
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    trained = {part for plan in compiled.plans for update in plan.updates for part in update.trains}
    weights = _bytes([*modules.parameters(), *modules.buffers()])
    gradients = {part: _bytes(compiled.parts.parameters([part])) for part in trained}
    memory = {"weights": weights, "gradients": sum(gradients.values()), "optimizers": _moments(compiled, gradients)}
    if compiled.recipe.train.ema:
        memory["average (EMA)"] = weights
    return Sizes({name: n for name, n in counts.items() if n}, memory)


def _moments(compiled: CompiledRecipe, gradients: Mapping[str, int]) -> int:
    """Bytes in the stage in which optimizers keep most."""
    kept = [(one, sum(one.table.settings.moments * gradients[part] for part in one.parts)) for one in shared(compiled)]
    return max(sum(size for one, size in kept if one.is_kept(stage)) for stage in range(len(compiled.stages)))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
