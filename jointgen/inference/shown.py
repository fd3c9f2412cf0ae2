"""A model in a few lines, as text and as HTML: its joints, what its variables look like, the sizes of its parts."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from jointgen.objectives.typesetting import as_html

if TYPE_CHECKING:
    import torch

    from jointgen.compiler.compiled_recipe import CompiledRecipe
    from jointgen.compiler.parts import Parts


def model_text(compiled: CompiledRecipe, parts: Parts, device: torch.device, checkpoint: str) -> str:
    """Describe a model, a line for each joint and variable, and one for its parameters."""
    joints = [
        f"{joint} by {', '.join(factor.computed_by for factor in joint.factors)}"
        for joint in compiled.binding.joints.values()
    ]
    variables = [f"{name}: {about}" for name, about in _variables(compiled).items()]
    return "\n  ".join([_title(compiled, device, checkpoint), *joints, *variables, f"parameters: {_sizes(parts)}"])


def model_html(compiled: CompiledRecipe, parts: Parts, device: torch.device, checkpoint: str) -> str:
    """Describe a model as a table, for a notebook."""
    rows = [
        (as_html(str(joint)), ", ".join(html.escape(factor.computed_by) for factor in joint.factors))
        for joint in compiled.binding.joints.values()
    ]
    rows += [(as_html(name), html.escape(about)) for name, about in _variables(compiled).items()]
    rows.append(("parameters", html.escape(_sizes(parts))))
    cells = "".join(
        f'<tr><td style="text-align:left">{a}</td><td style="text-align:left">{b}</td></tr>' for a, b in rows
    )
    return f"<div><b>{html.escape(_title(compiled, device, checkpoint))}</b><table>{cells}</table></div>"


def _title(compiled: CompiledRecipe, device: torch.device, checkpoint: str) -> str:
    return ", ".join(filter(None, [f"Model of {compiled.recipe.name}", checkpoint, f"on {device}"]))


def _variables(compiled: CompiledRecipe) -> dict[str, str]:
    binding = compiled.binding
    data = {v for joint in binding.joints.values() for v in binding.data_roots(joint)}
    drawn = dict.fromkeys(v for joint in binding.joints.values() for v in joint.variables)
    return {name: f"{binding.spaces[name]}{', data' if name in data else ''}" for name in drawn}


def _sizes(parts: Parts) -> str:
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in parts.modules.items()}
    listed = ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)
    return f"{listed}, in all {sum(sizes.values()):,}" if listed else "none"
