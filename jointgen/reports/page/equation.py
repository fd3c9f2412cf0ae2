"""Typesets the objective and the joints for the page."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from jointgen.reports.explain.descriptions import (
    component_names,
    describe_critic,
    describe_order,
    describe_schedule,
    split_sum,
)

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe

SIGNS = {"-": "\N{MINUS SIGN}", "*": "\N{DOT OPERATOR}", "|": "\N{THIN SPACE}|\N{THIN SPACE}"}
TOKEN = re.compile(r"E\[(?P<over>[^\[\]]*)\]|(?P<sigmoid>s(?=\())|(?P<word>[^\W\d]\w*)|(?P<sign>[-*|])|.", re.DOTALL)


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
    """Write the text of an expression as HTML: 𝔼 with its joint below, symbols slanted, functions upright.

    >>> print(typeset("E[q(x)](-f1)"))
    <b class="e">𝔼</b><sub><i>q</i>(<i>x</i>)</sub>(−<i>f</i><sub>1</sub>)
    """
    html = Markup("")
    for match in TOKEN.finditer(text):
        if match["over"] is not None:
            html += Markup('<b class="e">𝔼</b><sub>{}</sub>').format(typeset(match["over"]))
        elif match["sigmoid"]:
            html += Markup('<span class="fn">σ</span>')
        elif match["word"]:
            html += _typeset_word(match["word"])
        else:
            html += escape(SIGNS.get(match[0], match[0]))
    return html


def _typeset_word(word: str) -> Markup:
    """Slants x and lambda, which are symbols, writes the number of f1 as an index, and leaves log upright."""
    letters = word.rstrip("0123456789")
    symbol = letters if len(letters) == 1 else None
    if symbol is None:
        try:  # Unicode's name of the Greek letter lambda is "lamda"
            symbol = unicodedata.lookup(f"GREEK SMALL LETTER {letters.replace('lambda', 'lamda')}")
        except KeyError:
            return Markup('<span class="fn">{}</span>').format(word)
    index = Markup("<sub>{}</sub>").format(word[len(letters) :]) if letters != word else Markup("")
    return Markup("<i>{}</i>").format(symbol) + index
