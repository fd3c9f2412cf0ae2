"""Writes formulas as MathML, which browsers typeset without a script or a network."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

FUNCTION = re.compile(r"<mi>(log|exp|sup|inf)</mi>(?=<m[inf])")


def typeset(formula: str, display: str = "inline") -> str:
    """Return a LaTeX formula as MathML, with what the converter lacks: `aligned`, and the space after functions."""
    for command in ("begin", "end"):
        formula = formula.replace(rf"\{command}{{aligned}}", rf"\{command}{{align*}}")
    return FUNCTION.sub(r'\g<0><mspace width="0.17em"/>', convert(formula, display=display))


def inline(writer: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    writer.body.append(typeset(node.astext()))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own; one that is wider than the page scrolls."""
    writer.body.append(f'<div class="formula">{typeset(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
