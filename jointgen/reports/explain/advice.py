"""Gives advice on an objective before it is trained. Torch-free but for what declares the parts."""

from __future__ import annotations

from collections.abc import Iterable

from jointgen.compiler.binding import Binding
from jointgen.objectives.distributions import Marginal, Mixture
from jointgen.objectives.expressions import Ratio
from jointgen.objectives.objective import Objective


def advice_on(objective: Objective, binding: Binding) -> Iterable[str]:
    """Yield the objective's own note, or a warning on each log-ratio that a classifier may not be able to carry."""
    if objective.note:
        yield objective.note
        return
    for ratio in objective.ratios.values():
        if text := advice_on_ratio(ratio, binding):
            yield text


def advice_on_ratio(ratio: Ratio, binding: Binding) -> str:
    """Warns of a log-ratio between a joint and a product of marginals; empty for other ratios.

    At the optimum such a ratio is large, tens of nats or more, and a logistic critic learns only a few. A ratio with a
    known part learns the rest alone, and a score is no log-ratio: neither needs the warning. See
    docs/concepts/objectives.md.
    """
    if isinstance(ratio.num, Mixture) or isinstance(ratio.den, Mixture):
        return ""
    sides = ((ratio.num, ratio.den), (ratio.den, ratio.num))
    compared = [(a.marginals[0], b) for a, b in sides if len(a.marginals) == 1 and len(b.marginals) > 1]
    if not compared or ratio.known is not None or ratio.kind != "log_ratio":
        return ""
    joint, product = compared[0]

    def is_data(marginal: Marginal) -> bool:
        factors = [marginal.joint.drawn_by(v) for v in marginal.drawn]
        return all(factor.is_root and binding.traits[factor.part].kind == "data" for factor in factors)

    shared = [m for m in product.marginals if m.joint == joint.joint and is_data(m)]
    if not shared:
        return (
            f"{ratio.definition} compares a joint with a product of marginals: at the optimum it is about the mutual "
            "information, tens to hundreds of nats, which a logistic critic cannot carry, with a known part or "
            "without. Compare like with like: a joint with a joint, or a marginal with a marginal."
        )
    # Both sides draw x from the data, as in AVB (Mescheder et al. 2017): the ratio is log q(z|x) - log p(z).
    common = {v for marginal in shared for v in marginal.variables}
    inferred = ",".join(v for v in joint.variables if v not in common)
    rest = "".join(str(marginal) for marginal in product.marginals if marginal not in shared)
    terms = [f"log {joint.joint.name}({inferred}|{','.join(sorted(common))})", f"log {rest}"]
    optimum = " - ".join(terms if joint in ratio.num.marginals else reversed(terms))
    return (
        f"{ratio.definition}: both sides share {''.join(map(str, shared))}, so at the optimum it is {optimum}. It "
        "carries the rate, often tens of nats, and what the critic lags behind by is not charged to the model. Give "
        "the critic several updates a step, or a Gaussian near the joint to compare with (adaptive contrast)."
    )
