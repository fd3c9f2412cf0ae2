"""The equation as its objective prints it, typeset for a page."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from jointgen.compiler.plan import Plan, UpdatePlan
from jointgen.objectives.expressions import Ratio
from jointgen.objectives.objective import Objective
from jointgen.reports.explain.explain import about_critic, component_of, order_of, split_sum, when

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe

SIGNS = {"-": "\N{MINUS SIGN}", "*": "\N{DOT OPERATOR}", "|": "\N{THIN SPACE}|\N{THIN SPACE}"}
TOKEN = re.compile(r"E\[(?P<over>[^\[\]]*)\]|(?P<sigmoid>s(?=\())|(?P<word>[^\W\d]\w*)|(?P<sign>[-*|])|.", re.DOTALL)


def equations(compiled: CompiledRecipe) -> list[dict[str, Any]]:
    """What each stage of the run maximises, ready to be shown."""
    ends = [0, *compiled.boundaries()]
    several = len(compiled.stages) > 1
    return [
        {
            "title": f"{stage.name}: steps {ends[i] + 1:,} to {ends[i + 1]:,}" if several else "",
            **_equation(stage.objective, compiled.plans[i]),
        }
        for i, stage in enumerate(compiled.stages)
    ]


def _equation(objective: Objective, plan: Plan) -> dict[str, Any]:
    return {
        "updates": [_update(planned) for planned in plan.updates],
        "ratios": [_ratio(ratio) for ratio in objective.ratios.values()],
        "weights": [typeset(weight.describe()) for weight in objective.weights.values()],
        "order": order_of(objective) if len(objective.updates) > 1 else "",
        "reports": [(name, typeset(str(expr))) for name, expr in objective.reports],
    }


def _update(planned: UpdatePlan) -> dict[str, Any]:
    """A line for each expectation."""
    return {
        "name": planned.name,
        "trains": ", ".join(planned.trains),
        "lines": [typeset(line) for line in split_sum(str(planned.update.maximize))],
        "notes": list(when(planned.update)),
    }


def _ratio(ratio: Ratio) -> dict[str, Any]:
    return {
        "name": typeset(ratio.name),
        "over": typeset(str(ratio.num)),
        "under": typeset(str(ratio.den)),
        "is_ratio": ratio.kind == "log_ratio",
        "notes": "; ".join(about_critic(ratio)),
    }


def joints(compiled: CompiledRecipe) -> list[dict[str, Any]]:
    """Each joint distribution, and what computes each factor of it."""
    return [
        {
            "equation": typeset(str(joint)),
            "factors": [
                (typeset(joint.written(factor)), factor.computed_by, component_of(compiled, factor.part))
                for factor in joint.factors
            ],
        }
        for joint in compiled.binding.joints.values()
    ]


# --- typesetting -----------------------------------------------------------------------------------------------------


def typeset(text: str) -> Markup:
    """The text of an expression as HTML: 𝔼 with what it is over below, symbols slanted, functions upright.

    >>> print(typeset("E[q(x)](-f1)"))
    <b class="e">𝔼</b><sub><i>q</i>(<i>x</i>)</sub>(−<i>f</i><sub>1</sub>)
    """
    return Markup("").join(_token(match) for match in TOKEN.finditer(text))


def _token(match: re.Match[str]) -> Markup:
    if match["over"] is not None:
        return Markup('<b class="e">𝔼</b><sub>{}</sub>').format(typeset(match["over"]))
    if match["sigmoid"]:
        return Markup('<span class="fn">σ</span>')
    if match["word"]:
        return _word(match["word"])
    return escape(SIGNS.get(match[0], match[0]))


def _word(word: str) -> Markup:
    """x and lambda slanted, f1 with an index, log upright."""
    letters = word.rstrip("0123456789")
    index = Markup("<sub>{}</sub>").format(word[len(letters) :]) if letters != word else Markup("")
    if (symbol := _symbol(letters)) is not None:
        return Markup("<i>{}</i>").format(symbol) + index
    return Markup('<span class="fn">{}</span>').format(word)


def _symbol(letters: str) -> str | None:
    """A letter, or the Greek one of that name; None for other words."""
    if len(letters) == 1:
        return letters
    try:
        return unicodedata.lookup(f"GREEK SMALL LETTER {letters.replace('lambda', 'lamda')}")  # as Unicode has it
    except KeyError:
        return None
