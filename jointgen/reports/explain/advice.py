"""What experience says about an objective before it is trained. Torch-free but for what declares the parts."""

from __future__ import annotations

from collections.abc import Iterable

from jointgen.compiler.binding import Binding
from jointgen.objectives.distributions import Marginal, Product
from jointgen.objectives.expressions import Ratio
from jointgen.objectives.objective import Objective


def advice_on(objective: Objective, binding: Binding) -> Iterable[str]:
    """The objective's own note; where it has none, a remark on each log-ratio that a classifier may not carry."""
    if objective.note:
        yield objective.note
        return
    for ratio in objective.ratios.values():
        if text := on_ratio(ratio, binding):
            yield text


def on_ratio(ratio: Ratio, binding: Binding) -> str:
    """On a log-ratio between a joint and a product of marginals, without a known part; otherwise an empty text."""
    joint, product = _sides(ratio)
    if joint is None or ratio.known is not None or ratio.kind == "score":
        return ""
    shared = [m for m in product.marginals if m.joint == joint.joint and _is_data(m, binding)]
    return _rate(ratio, joint, product, shared) if shared else _mutual_information(ratio)


def _sides(ratio: Ratio) -> tuple[Marginal | None, Product]:
    """(the side that is one joint, the side that is a product), or None first."""
    for one, other in ((ratio.num, ratio.den), (ratio.den, ratio.num)):
        if len(one.marginals) == 1 and len(other.marginals) > 1:
            return one.marginals[0], other
    return None, ratio.den


def _is_data(marginal: Marginal, binding: Binding) -> bool:
    drawing = [marginal.joint.drawn_by(v) for v in marginal.variables]
    return all(f.is_root and binding.traits[f.part].kind == "data" for f in drawing)


def _mutual_information(ratio: Ratio) -> str:
    return (
        f"{ratio.definition} compares a joint with a product of marginals: at the optimum it is about the mutual "
        "information, tens to hundreds of nats, which a logistic critic cannot carry, with a known part or without. "
        "Compare like with like: a joint with a joint, or a marginal with a marginal."
    )


def _rate(ratio: Ratio, joint: Marginal, product: Product, shared: list[Marginal]) -> str:
    """Both sides draw x from the data, as in AVB."""
    common = {v for marginal in shared for v in marginal.variables}
    inferred = ",".join(v for v in joint.variables if v not in common)
    rest = "".join(str(marginal) for marginal in product.marginals if marginal not in shared)
    sides = [f"log {joint.joint.name}({inferred}|{','.join(sorted(common))})", f"log {rest}"]
    optimum = " - ".join(sides if joint in ratio.num.marginals else reversed(sides))
    return (
        f"{ratio.definition}: both sides share {''.join(map(str, shared))}, so at the optimum it is {optimum}. It "
        "carries the rate, often tens of nats, and what the critic lags behind by is not charged to the model. "
        "Give the critic several updates a step, or a Gaussian near the joint to compare with (adaptive contrast)."
    )
