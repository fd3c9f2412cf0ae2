"""Typesets the objective and the joints for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from jointgen.objectives.typesetting import as_html, split_sum
from jointgen.reports.explain.descriptions import (
    component_names,
    describe_critic,
    describe_order,
    describe_schedule,
)

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe


def equations(compiled: CompiledRecipe) -> list[dict[str, Any]]:
    """Typesets what each stage of the run maximises, with its critics and weights."""
    ends = [0, *compiled.boundaries()]
    stages = []
    for i, (stage, plan) in enumerate(zip(compiled.stages, compiled.plans, strict=True)):
        objective = stage.objective
        several = len(compiled.stages) > 1
        updates = [
            {
                "name": update.name,
                "trains": ", ".join(update.trains),
                "lines": [typeset(line) for line in split_sum(str(update.update.maximize))],
                "notes": list(describe_schedule(update.update)),
            }
            for update in plan.updates
        ]
        ratios = [
            {
                "name": typeset(ratio.name),
                "over": typeset(str(ratio.num)),
                "under": typeset(str(ratio.den)),
                "kind": ratio.kind,
                "notes": "; ".join(describe_critic(ratio)),
            }
            for ratio in objective.ratios.values()
        ]
        stages.append(
            {
                "title": f"{stage.name}: steps {ends[i] + 1:,} to {ends[i + 1]:,}" if several else "",
                "updates": updates,
                "ratios": ratios,
                "weights": [typeset(weight.describe()) for weight in objective.weights.values()],
                "order": describe_order(objective) if len(objective.updates) > 1 else "",
                "reports": [(name, typeset(str(expr))) for name, expr in objective.reports],
            }
        )
    return stages


def joints(compiled: CompiledRecipe) -> list[dict[str, Any]]:
    """Typesets each joint, with the part and the components that compute each factor of it."""
    return [
        {
            "equation": typeset(str(joint)),
            "factors": [
                (typeset(joint.written(factor)), factor.computed_by, component_names(compiled, factor.part))
                for factor in joint.factors
            ],
        }
        for joint in compiled.binding.joints.values()
    ]


def typeset(text: str) -> Markup:
    """Write the text of an expression as HTML, see `jointgen.objectives.typesetting.as_html`."""
    return Markup(as_html(text))
