"""Aggregate densities as operations of a program, on the rows of all processes with gradient."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from jointgen.compiler.aggregates import AggregateNode
from jointgen.contracts.numerics import at_least_float32
from jointgen.data.step_inputs import StepInputs

if TYPE_CHECKING:
    from jointgen.engine.program import Operation


def aggregate_operation(node: AggregateNode, family: nn.Module, outputs: int, value: int) -> Operation:
    """Make the operation of an aggregate density.

    Args:
        node: The node.
        family: The family's module, which makes distributions of a network's outputs.
        outputs, value: Where the network's outputs and the values stand in the list of values.
    """

    def density(inputs: StepInputs, values: list[Any]) -> Tensor:
        every = inputs.peers.gather_with_gradient(at_least_float32(values[outputs]))  # (M, *outputs)
        points: Tensor = values[value]  # (n, *shape), k for each row of this process
        m, n = len(every), len(points)
        laws = family(every.repeat(n, *[1] * (every.ndim - 1)))
        spread = points.repeat_interleave(m, 0)
        if node.each:
            log_probs = laws.log_prob_each(spread).flatten(1).unflatten(0, (n, m))  # (n, M, D)
        else:
            log_probs = laws.log_prob(spread).unflatten(0, (n, m)).unsqueeze(2)  # (n, M, 1)
        shares = log_shares(inputs, n, m, node).to(log_probs)
        return (log_probs + shares.unsqueeze(2)).logsumexp(1).sum(1)

    return density


def log_shares(inputs: StepInputs, n: int, m: int, node: AggregateNode) -> Tensor:
    """The logarithm of the share of each of the m rows of the batch in the density at each of n values, (n, m).

    The shares of a value sum to 1: 1/N for its own row and (1 - 1/N) / (m - 1) for every other, where the source has N
    rows, or 1/m for all where the value is a draw of none.
    """
    device = inputs.noise.device
    rows = max(inputs.source_rows.get(node.source, m), m)
    if not node.own or m == 1:
        return torch.full((n, m), -math.log(m), device=device, dtype=inputs.noise.dtype)
    others = math.log((rows - 1) / (rows * (m - 1)))
    own = torch.arange(n, device=device) // (n // inputs.rows) + inputs.peers.rank * inputs.rows
    is_own = own.unsqueeze(1) == torch.arange(m, device=device)
    shares = torch.full((n, m), others, device=device, dtype=inputs.noise.dtype)
    return shares.masked_fill(is_own, -math.log(rows))
