"""Laws of a number in {0, 1, 2}, as sources whose rows have it exactly as often as the law says.

So the mean over a batch is the expectation, and what a critic learns is known to the last digit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jointgen.compiler.gradient_paths import PartTraits
from jointgen.contracts.noise import Noise
from jointgen.data.step_inputs import StepInputs
from jointgen.objectives import Conditional, Joint
from support.networks import DOUBLE

ROWS = {"q": (6, 3, 3), "r": (3, 6, 3), "s": (2, 2, 8)}
"""How many of twelve rows are 0, 1 and 2."""
COUNTS = {name: torch.tensor(counts, dtype=DOUBLE) / 12 for name, counts in ROWS.items()}
"""The laws, (3,) each."""
JOINTS = {name: Joint(name, (Conditional("x", part=f"source_{name}"),)) for name in ROWS}


SOURCES = {f"source_{name}": PartTraits("data") for name in ROWS}


class Cells(nn.Module):
    """A critic with a free output for each of three values."""

    def __init__(self, outputs: Tensor):
        super().__init__()
        self.outputs = nn.Parameter(outputs.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs[x[:, 0].long()]


def exact_rows() -> StepInputs:
    """All twelve rows of each source, so that a mean over the batch is the expectation."""
    values = torch.arange(3, dtype=DOUBLE)
    data = {f"source_{n}": {"x": values.repeat_interleave(torch.tensor(c)).unsqueeze(1)} for n, c in ROWS.items()}
    return StepInputs(data, Noise(0, dtype=DOUBLE), 12)
