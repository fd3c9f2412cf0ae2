"""How large a prepared model is: parameters by part, and the memory that training holds throughout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
from torch import Tensor

from jointgen.prepare import Prepared


@attrs.frozen
class Sizes:
    """parameters: by part, parts without any left out.  memory: bytes by purpose, activations not counted."""

    parameters: Mapping[str, int]
    memory: Mapping[str, int]


def sizes_of(prepared: Prepared) -> Sizes:
    """Of the parts as built, for the updates of every stage: optimizers keep moments of what any of them trains."""
    modules = prepared.parts.modules
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    trained = {part for plan in prepared.plans for update in plan.updates for part in update.trains}
    weights = _bytes([*modules.parameters(), *modules.buffers()])
    gradients = {part: _bytes(prepared.parts.parameters([part])) for part in trained}
    moments = sum(prepared.optimizer_of(part)[1].moments * size for part, size in gradients.items())
    memory = {"weights": weights, "gradients": sum(gradients.values()), "optimizers": moments}
    if prepared.recipe.train.ema:
        memory["average (EMA)"] = weights
    return Sizes({name: n for name, n in counts.items() if n}, memory)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
