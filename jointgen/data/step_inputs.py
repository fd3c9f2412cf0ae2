"""What a step sees: raw rows, named noise, and where in the run it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from torch import Tensor

from jointgen.contracts.noise import Noise
from jointgen.objectives.algebra import Weight

Raw = Mapping[str, Mapping[str, Any]]
"""source part -> variable -> raw rows (B, ...), as a data source yields them; or an Observation where they are
observed already."""


@attrs.frozen
class StepInputs:
    """What a program needs besides the parts: raw data, named noise, and where in the run it stands.

    scales: of balanced weights by name, () each.
    """

    data: Raw
    noise: Noise
    rows: int
    step: int = 0
    progress: float = 1.0
    pair_block: int = 0
    scales: Mapping[str, Tensor] = attrs.field(factory=dict)

    def at(self, weight: Weight) -> Any:
        """The weight's value at this point of the stage, a number; of a balanced one a tensor, r times its scale."""
        value = weight.at(self.progress)
        return value * self.scales[weight.name] if weight.is_balanced else value

    def split(self, k: int) -> list[StepInputs]:
        """k micro-batches, which are to this moment what k further processes would be to the global batch."""
        if k == 1:
            return [self]
        rows = self.rows // k
        data = [
            {part: {v: x[m * rows : (m + 1) * rows] for v, x in raw.items()} for part, raw in self.data.items()}
            for m in range(k)
        ]
        return [attrs.evolve(self, data=data[m], noise=self.noise.part(m, k), rows=rows) for m in range(k)]
