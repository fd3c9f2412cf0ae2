"""Objectives written as text in a recipe, in the notation that expressions print (DESIGN.md section 2)."""

from jointgen import hookimpl
from jointgen.registry.components import Registrar


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    registry.objective(
        "expression", "jointgen_expression.objective:Expression", summary="an equation of your own, written as text"
    )
