"""Objectives written as text in a recipe, in the notation that expressions print (docs/objectives.md)."""

from jointgen import Registrar, hookimpl


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Register the objectives of this package."""
    registry.objective(
        "expression", "jointgen.objectives.recipe_text:Expression", summary="an equation of your own, written as text"
    )
