"""The language of objectives: import what the paper writes and combine it with ``+``, ``-`` and ``*``.

**The one idea.** There are two joint distributions over the data x and the code z,

    q(x,z) = q(x) q(z|x)      the data, then the encoder
    p(x,z) = p(z) p(x|z)      the prior, then the decoder

and a model is trained by maximising expectations of terms under these joints, or under products of their marginals.
Where a log-density is not available, a critic that learns a log-ratio of two such distributions takes its place. So
an objective is an expression. It is written as in the paper, and it prints as it is written. The evidence lower bound
(Kingma & Welling 2014, eq. 3):

>>> print(E(q.xz, p.log_x_given_z + p.log_z - q.log_z_given_x))
E[q(x,z)](log p(x|z) + log p(z) - log q(z|x))

The symmetric objective of AS-VAE (Pu et al. 2017, eq. 11), with its two learned log-ratios (eqs. 5 and 6):

>>> f1 = log_ratio(q.xz, p.x * p.z, name="f1")
>>> f2 = log_ratio(p.xz, q.x * q.z, name="f2")
>>> asvae = Objective.of(E(q.xz, p.log_x_given_z - f1) + E(p.xz, q.log_z_given_x - f2))
>>> print(asvae)
maximise E[q(x,z)](log p(x|z) - f1) + E[p(x,z)](log q(z|x) - f2)
f1 = log-ratio q(x,z) : p(x)p(z)
f2 = log-ratio p(x,z) : q(x)q(z)

The text is read back by `parse`, and recipes hold it. Nothing here imports torch: these are declarations, which
`jointgen.compiler` lowers to a plan and `jointgen.engine` runs.

**What there is**, in the order in which to read the modules:

- `distributions`: conditionals, joints, marginals and products of marginals; log-densities `joint.log("x|z")` and `kl`.
- `algebra`: what every term can do, `+`, `-`, weights, and pointwise functions such as `log_sigmoid` and `stop`.
- `components`: registered components under names of an equation's own, `named`.
- `values`: what terms are about: variables, new draws of conditionals `joint.draw("x|z", "mean")`, `stop`.
- `expressions`: `log_ratio` and `score` (critics), `cycle`, and the expectation `E`.
- `aggregates`: densities by the rows of the batch, `log_aggregate`.
- `batch_terms`: summands that are one number for the whole batch, `divergence`, `statistic`, `log_mean_exp`.
- `bounds`: `elbo`, the evidence lower bound of any two joints.
- `schedules`: how often updates run.
- `objective`: `Update` (what one optimizer maximises), `Objective` (updates in an order), `Stage` (a period of a run).
- `parse`: the way from text to expressions.
- `tables`: tables of recipes that describe weights and critics, for the settings of an objective.
- `recipe_text`: the objective "expression", a recipe's equation, and the way from an objective back to text.

See also `docs/concepts/objectives.md`.
"""

from jointgen.objectives.aggregates import AggregateDensity, log_aggregate
from jointgen.objectives.algebra import (
    MAX_DRAWS,
    POINTWISE,
    Clip,
    Constant,
    Control,
    Expr,
    Pointwise,
    Stop,
    Sum,
    Weight,
    Weighted,
    absolute,
    clip,
    exp,
    log,
    log_sigmoid,
    relu,
    sigmoid,
    softplus,
    square,
    tanh,
)
from jointgen.objectives.batch_terms import BatchTerm, Divergence, LogMeanExp, divergence, log_mean_exp, statistic
from jointgen.objectives.bounds import elbo
from jointgen.objectives.components import Named, named
from jointgen.objectives.distributions import (
    KL,
    Conditional,
    Joint,
    LogDensity,
    Marginal,
    Mixture,
    Product,
    joint_from_text,
    kl,
    p,
    q,
)
from jointgen.objectives.estimators import Estimate, estimate
from jointgen.objectives.expressions import (
    Apply,
    E,
    Expectation,
    Ratio,
    Standardized,
    apply,
    cycle,
    log_ratio,
    score,
    standardized,
)
from jointgen.objectives.gates import Figure, Gate, above, below
from jointgen.objectives.objective import Objective, Order, Stage, Update, as_stages
from jointgen.objectives.parse import Vocabulary, parse, parse_product, parse_ratio_sides, parse_view
from jointgen.objectives.parse_gate import parse_gate
from jointgen.objectives.schedules import Pace, TimesRule
from jointgen.objectives.tables import (
    BalanceTable,
    CriticTable,
    WeightTable,
    check_one_ramp,
    non_negative_weight,
    table_of,
    weight_of,
)
from jointgen.objectives.values import Argument, Features, StoppedValue, Value, features, stop

__all__ = [
    "KL",
    "MAX_DRAWS",
    "POINTWISE",
    "AggregateDensity",
    "Apply",
    "Argument",
    "BalanceTable",
    "BatchTerm",
    "Clip",
    "Conditional",
    "Constant",
    "Control",
    "CriticTable",
    "Divergence",
    "E",
    "Estimate",
    "Expectation",
    "Expr",
    "Features",
    "Figure",
    "Gate",
    "Joint",
    "LogDensity",
    "LogMeanExp",
    "Marginal",
    "Mixture",
    "Named",
    "Objective",
    "Order",
    "Pace",
    "Pointwise",
    "Product",
    "Ratio",
    "Stage",
    "Standardized",
    "Stop",
    "StoppedValue",
    "Sum",
    "TimesRule",
    "Update",
    "Value",
    "Vocabulary",
    "Weight",
    "WeightTable",
    "Weighted",
    "above",
    "absolute",
    "apply",
    "as_stages",
    "below",
    "check_one_ramp",
    "clip",
    "cycle",
    "divergence",
    "elbo",
    "estimate",
    "exp",
    "features",
    "joint_from_text",
    "kl",
    "log",
    "log_aggregate",
    "log_mean_exp",
    "log_ratio",
    "log_sigmoid",
    "named",
    "non_negative_weight",
    "p",
    "parse",
    "parse_gate",
    "parse_product",
    "parse_ratio_sides",
    "parse_view",
    "q",
    "relu",
    "score",
    "sigmoid",
    "softplus",
    "square",
    "standardized",
    "statistic",
    "stop",
    "table_of",
    "tanh",
    "weight_of",
]
