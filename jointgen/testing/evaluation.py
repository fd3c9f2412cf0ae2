"""Expressions of a critic's output, evaluated outside a plan; and a tiny model for what needs a whole one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from jointgen.compiler.compiled_recipe import CompiledRecipe, compile_recipe
from jointgen.compiler.lowering import lower_tree
from jointgen.compiler.nodes import CriticNode
from jointgen.compiler.parts import Parts
from jointgen.config.recipe import read_recipe
from jointgen.contracts.metrics import ModelView
from jointgen.contracts.noise import Noise
from jointgen.data.split import open_split
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.terms import term_function
from jointgen.inference.model import Model
from jointgen.objectives import Expr
from jointgen.registry.components import Registry
from jointgen.registry.discovery import load_plugins


def pointwise(expr: Expr) -> Callable[[Tensor], Tensor]:
    """Return an expression of one ratio as a function of its critic's outputs, (B,) -> (B,)."""
    output = CriticNode("f", ())
    term = term_function(lower_tree(expr, lambda ratio, held: output), {output: 0})

    def of(f: Tensor) -> Tensor:
        inputs = StepInputs({}, Noise(0, dtype=f.dtype), len(f))
        return torch.as_tensor(term(inputs, [f]), dtype=f.dtype).expand(f.shape)

    return of


# --- a tiny model ----------------------------------------------------------------------------------------------------

TABLES: dict[str, Any] = {
    "data": {"type": "digits"},
    "prior": {"type": "normal", "size": 2},
    "encoder": {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "gaussian"}},
    "decoder": {
        "network": {"type": "mlp", "hidden": [6]},
        "family": {"type": "gaussian", "scale": "global", "init_scale": 0.5},
    },
    "discriminator": {"type": "mlp", "hidden": [6]},
    "objective": {"type": "vae"},
    "train": {"steps": 1, "batch": 8},
}
"""The tiny recipe: Gaussian parts, which have every ability, and quantised images, which every metric can measure."""


def tiny(objective: Any = None, tables: Mapping[str, Any] | None = None) -> CompiledRecipe:
    """Compile the tiny recipe.

    Args:
        objective: An objective component, in place of the recipe's.
        tables: Changes to the recipe.
    """
    registry: Registry = load_plugins().registry
    recipe = read_recipe({**TABLES, **(tables or {})}, registry=registry)
    return compile_recipe(recipe if objective is None else attrs.evolve(recipe, objective=objective), registry)


def raw_rows(compiled: CompiledRecipe, rows: int) -> dict[str, dict[str, Tensor]]:
    """Return the first raw rows of every data source, by the joints' names of the variables."""
    return open_split(compiled.binding, "train").take(torch.arange(rows))


def tiny_model(tables: Mapping[str, Any] | None = None) -> ModelView:
    """Return an untrained model of the tiny recipe, as a metric sees it.

    Args:
        tables: Changes to the recipe, such as ``{"objective": {"type": "ali"}}``.
    """
    return model_of(tiny(tables=tables)).view


def model_of(compiled: CompiledRecipe) -> Model:
    parts: Parts = compiled.parts
    return Model(compiled, parts)
