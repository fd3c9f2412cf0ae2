"""Figures of a critic's two sides, from its outputs on the rows of a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jointgen.contracts.critics import decision_boundary
from jointgen.contracts.numerics import log_mean_exp
from jointgen.objectives.expressions import Ratio

if TYPE_CHECKING:
    from jointgen.compiler.plan import Side

SATURATED = math.log(99.0)
"""The logit from which a row's probability is above 0.99: it has a hundredth, or less, of its gradient left."""


def critic_figures(ratio: Ratio, sides: Mapping[Side, Tensor]) -> dict[str, Tensor]:
    """Scalars by NAME/FIGURE, from the critic's whole outputs (rows,) on its sides, known part included.

    Of a log-ratio, positive_log_mean_exp is log E_a exp(-f), negative_log_mean_exp is log E_b exp(f), and saturation
    the share of rows of both sides on whose right side the sigmoid is beyond 0.99.
    """
    found: dict[str, Tensor] = {}
    for side, f in sides.items():
        found |= {f"{side}_{what}": value for what, value in _of_side(ratio, f, 1 if side == "positive" else -1)}
    found["max_abs"] = torch.cat(list(sides.values())).abs().max()
    if _is_log_ratio(ratio):
        rightly = [f if side == "positive" else -f for side, f in sides.items()]
        found["saturation"] = (torch.cat(rightly) > SATURATED).to(found["max_abs"].dtype).mean()
    return {f"{ratio.name}/{what}": value for what, value in found.items()}


def _of_side(ratio: Ratio, f: Tensor, sign: int) -> list[tuple[str, Tensor]]:
    found = [("mean", f.mean())]
    boundary = decision_boundary(ratio.loss)
    if boundary is not None:
        found.append(("accuracy", (sign * (f - boundary) > 0).to(f.dtype).mean()))
    if _is_log_ratio(ratio):
        found.append(("log_mean_exp", log_mean_exp(-sign * f, 0)))
    return found


def _is_log_ratio(ratio: Ratio) -> bool:
    return ratio.kind == "log_ratio"
