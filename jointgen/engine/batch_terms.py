"""Terms of the whole batch as functions of the values of a program, on the rows of all processes with gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from jointgen.compiler.lowered import DivergenceOfRows
from jointgen.contracts.numerics import at_least_float32
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.program import Program, Values

Rows = Callable[[StepInputs, Values], Tensor]
"""(the inputs of a step, the values of a program) -> one number per row, (B,), or one for all, ()."""


def log_mean_exp_function(terms: Sequence[tuple[float, Rows]]) -> Rows:
    """Make the function log E[exp(term)] over the rows of all processes, ().

    Args:
        terms: For each component of the distribution its share, and the term at its draws.
    """

    def log_mean_exp(inputs: StepInputs, values: Values) -> Tensor:
        found = []
        for share, rows in terms:
            every = inputs.peers.gather_with_gradient(rows(inputs, values))
            found.append(every.logsumexp(0) + math.log(share / len(every)))
        return found[0] if len(found) == 1 else torch.stack(found).logsumexp(0)

    return log_mean_exp


def divergence_function(lowered: DivergenceOfRows, program: Program) -> Rows:
    """Make the function that evaluates a divergence of the rows of all processes, ()."""
    sides = [[program.index[node] for node in side] for side in lowered.sides]
    measure, title = lowered.measure, lowered.title

    def compare(inputs: StepInputs, values: Values) -> Tensor:
        samples = [inputs.peers.gather_with_gradient(_joined([values[i] for i in side])) for side in sides]
        noise = inputs.noise.shared(title, 1)
        with torch.autocast(samples[0].device.type, enabled=False):  # products in bfloat16 are too coarse to compare
            found: Tensor = measure(*samples, noise=noise)
        return found

    return compare


def _joined(values: list[Tensor]) -> Tensor:
    """One value as it is, (n, *shape); several flattened side by side, (n, D)."""
    exact = [at_least_float32(value) for value in values]
    return exact[0] if len(exact) == 1 else torch.cat([value.flatten(1) for value in exact], 1)
