"""Figures of a critic's two sides, from its outputs on the rows of a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from jointgen.contracts.critics import decision_boundary
from jointgen.contracts.numerics import log_mean_exp
from jointgen.objectives.expressions import Ratio, Side

SATURATED_LOGIT = math.log(99.0)
"""The logit from which a row's probability is above 0.99: it has a hundredth, or less, of its gradient left."""


Outputs = Sequence[tuple[float, Tensor]]
"""The whole outputs of a critic on one side, (rows,), the known part of the ratio included: of each component of a
mixture with its share, and of another distribution with share 1."""


def critic_figures(ratio: Ratio, sides: Mapping[Side, Outputs]) -> dict[str, Tensor]:
    """Describe what a critic puts out.

    Args:
        ratio: The ratio that the critic estimates.
        sides: What it puts out on each side.

    Returns:
        Scalars by "NAME/FIGURE". Each side has its mean and, where the critic's loss has a decision boundary, its
        accuracy; both sides together have max_abs. A log-ratio f = log a/b also has positive_log_mean_exp, which is
        log E_a exp(-f), negative_log_mean_exp, which is log E_b exp(f) (both are 0 where f is right), and saturation:
        the share of rows that the sigmoid puts on their right side with more than 0.99.
    """
    found: dict[str, Tensor] = {}
    is_log_ratio, boundary = ratio.kind == "log_ratio", decision_boundary(ratio.loss)
    right = {side: outputs if side == "positive" else _negated(outputs) for side, outputs in sides.items()}
    for side, outputs in sides.items():
        found[f"{side}_mean"] = _mean(outputs)
        if boundary is not None:
            sign = 1 if side == "positive" else -1
            found[f"{side}_accuracy"] = _mean([(share, _above(sign * (f - boundary), 0.0)) for share, f in outputs])
        if is_log_ratio:
            found[f"{side}_log_mean_exp"] = _log_mean_exp(_negated(right[side]))
    found["max_abs"] = torch.cat([f for outputs in sides.values() for _, f in outputs]).abs().max()
    if is_log_ratio:
        saturated = [[(share, _above(f, SATURATED_LOGIT)) for share, f in outputs] for outputs in right.values()]
        if any(len(outputs) > 1 for outputs in saturated):
            shares = torch.stack([_mean(outputs) for outputs in saturated])
        else:
            shares = torch.cat([outputs[0][1] for outputs in saturated])
        found["saturation"] = shares.mean()
    return {f"{ratio.name}/{figure}": value for figure, value in found.items()}


def _negated(outputs: Outputs) -> Outputs:
    return [(share, -f) for share, f in outputs]


def _above(values: Tensor, bound: float) -> Tensor:
    return (values > bound).to(values.dtype)


def _mean(outputs: Outputs) -> Tensor:
    """The mean over a side."""
    if len(outputs) == 1:
        return outputs[0][1].mean()
    return torch.stack([share * f.mean() for share, f in outputs]).sum()


def _log_mean_exp(outputs: Outputs) -> Tensor:
    """The log of the mean of exp over a side."""
    if len(outputs) == 1:
        return log_mean_exp(outputs[0][1], 0)
    return torch.stack([math.log(share) + log_mean_exp(f, 0) for share, f in outputs]).logsumexp(0)
