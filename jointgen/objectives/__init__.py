"""Objectives as equations: import what the paper writes and combine it with + - * (see DESIGN.md section 2).

>>> f1 = log_ratio(q.xz, p.x * p.z, name="f1")
>>> print(E(q.xz, p.log_x_given_z - f1))
E[q(x,z)](log p(x|z) - f1)
"""

from jointgen.objectives.algebra import (
    POINTWISE,
    Constant,
    Expr,
    Pointwise,
    Stop,
    Sum,
    Weight,
    Weighted,
    absolute,
    exp,
    log_sigmoid,
    relu,
    softplus,
    square,
    stop,
)
from jointgen.objectives.bounds import elbo
from jointgen.objectives.critics import CriticTable
from jointgen.objectives.distributions import (
    KL,
    Conditional,
    Joint,
    LogDensity,
    Marginal,
    Product,
    joint_from_text,
    kl,
    p,
    q,
)
from jointgen.objectives.expressions import (
    Apply,
    E,
    Expectation,
    Ratio,
    Standardized,
    Value,
    cycle,
    log_ratio,
    score,
    standardized,
)
from jointgen.objectives.objective import Objective, Order, Stage, Update, as_stages
from jointgen.objectives.parse import Vocabulary, parse, parse_product, parse_ratio_sides, parse_view
from jointgen.objectives.weights import WeightTable, check_one_ramp, non_negative_weight, table_of, weight_of

__all__ = [
    "KL",
    "POINTWISE",
    "Apply",
    "Conditional",
    "Constant",
    "CriticTable",
    "E",
    "Expectation",
    "Expr",
    "Joint",
    "LogDensity",
    "Marginal",
    "Objective",
    "Order",
    "Pointwise",
    "Product",
    "Ratio",
    "Stage",
    "Standardized",
    "Stop",
    "Sum",
    "Update",
    "Value",
    "Vocabulary",
    "Weight",
    "WeightTable",
    "Weighted",
    "absolute",
    "as_stages",
    "check_one_ramp",
    "cycle",
    "elbo",
    "exp",
    "joint_from_text",
    "kl",
    "log_ratio",
    "log_sigmoid",
    "non_negative_weight",
    "p",
    "parse",
    "parse_product",
    "parse_ratio_sides",
    "parse_view",
    "q",
    "relu",
    "score",
    "softplus",
    "square",
    "standardized",
    "stop",
    "table_of",
    "weight_of",
]
