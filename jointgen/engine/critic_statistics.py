"""Figures of a critic's two sides, from its outputs on the rows of a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from jointgen.contracts.critics import decision_boundary
from jointgen.contracts.numerics import log_mean_exp
from jointgen.objectives.expressions import Ratio, Side

SATURATED_LOGIT = math.log(99.0)
"""The logit from which a row's probability is above 0.99: it has a hundredth, or less, of its gradient left."""


def critic_figures(ratio: Ratio, sides: Mapping[Side, Tensor]) -> dict[str, Tensor]:
    """Describe what a critic puts out.

    Args:
        ratio: The ratio that the critic estimates.
        sides: The whole outputs of the critic on each side, (rows,), known part included.

    Returns:
        Scalars by "NAME/FIGURE". Each side has its mean and, where the critic's loss has a decision boundary, its
        accuracy; both sides together have max_abs. A log-ratio f = log a/b also has positive_log_mean_exp, which is
        log E_a exp(-f), negative_log_mean_exp, which is log E_b exp(f) (both are 0 where f is right), and saturation:
        the share of rows that the sigmoid puts on their right side with more than 0.99.
    """
    found: dict[str, Tensor] = {}
    is_log_ratio, boundary = ratio.kind == "log_ratio", decision_boundary(ratio.loss)
    right = {side: f if side == "positive" else -f for side, f in sides.items()}  # positive where the critic is right
    for side, f in sides.items():
        found[f"{side}_mean"] = f.mean()
        if boundary is not None:
            sign = 1 if side == "positive" else -1
            found[f"{side}_accuracy"] = (sign * (f - boundary) > 0).to(f.dtype).mean()
        if is_log_ratio:
            found[f"{side}_log_mean_exp"] = log_mean_exp(-right[side], 0)
    found["max_abs"] = torch.cat(list(sides.values())).abs().max()
    if is_log_ratio:
        is_saturated = torch.cat(list(right.values())) > SATURATED_LOGIT
        found["saturation"] = is_saturated.to(found["max_abs"].dtype).mean()
    return {f"{ratio.name}/{figure}": value for figure, value in found.items()}
