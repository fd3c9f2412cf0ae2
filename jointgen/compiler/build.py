"""Build the networks, families, priors and critics of a recipe, and start them at the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jointgen.compiler.binding import Binding, build_prior, table_of
from jointgen.compiler.parts import ConditionalPart, Parts
from jointgen.config.structure import placed
from jointgen.contracts.distributions import StartsAtMean, StartsAtRows
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.runtime.global_rng import seeded


def build(binding: Binding) -> Parts:
    """Modules on the CPU, initialised from the recipe's seed whatever was drawn before.

    Raises ConfigError with every network that cannot serve its shapes.
    """
    modules: dict[str, nn.Module] = {}
    problems: list[str] = []
    with seeded(binding.recipe.seed):
        for name, trait in binding.traits.items():
            try:
                if trait.kind == "prior":
                    prior = binding.recipe.all_priors()[name]
                    modules[name] = build_prior(prior, trait.through, binding.joints, binding.spaces)
                elif trait.kind == "conditional":
                    modules[name] = _build_conditional(binding, name)
                elif trait.kind == "critic":
                    modules[name] = _build_critic(binding, name)
            except ConfigError as error:
                problems += error.problems
    problems += [line for name, module in modules.items() for line in _global_randomness(name, module)]
    if problems:
        raise ConfigError(problems)
    through = {name: trait.through for name, trait in binding.traits.items() if trait.through}
    return Parts(nn.ModuleDict(modules), binding.spaces, through)


def _build_critic(binding: Binding, name: str) -> nn.Module:
    recipe = binding.recipe
    config = recipe.discriminators.get(name, recipe.discriminator)
    assert config is not None, "declare() found it"
    where = f"discriminators.{name}" if name in recipe.discriminators else "discriminator"
    inputs = {v: binding.spaces[v] for v in binding.ratios[name].variables}
    return _built(where, config, f" (critic {name!r})", inputs)


def _global_randomness(name: str, module: nn.Module) -> Iterable[str]:
    """torch's own dropout draws its masks from a global generator, so a run would depend on what ran before it."""
    for inner, layer in module.named_modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            yield f"{name}: its layer {inner!r} is torch's {type(layer).__name__}; use jointgen.plugin.Dropout"


def _build_conditional(binding: Binding, name: str) -> ConditionalPart:
    table = binding.recipe.all_conditionals()[name]
    _, factor = binding.factor_of(name)
    space = binding.spaces[factor.out[0]]
    inputs = {v: binding.spaces[v] for v in factor.given}
    if binding.traits[name].noise_input:
        inputs["eps"] = Space((binding.traits[name].noise_input,))
    trunk = _built(f"{table_of(binding.recipe, name)}.network", table.network, "", inputs, table.family.outputs(space))
    return ConditionalPart(trunk, table.family.build(space))


def _built(where: str, network: Any, note: str, *arguments: Any) -> nn.Module:
    """`network.build(*arguments)`, with its key path added to what it raises."""
    try:
        return network.build(*arguments)
    except ConfigError as error:
        raise ConfigError([placed(where, problem, network) + note for problem in error.problems]) from None


@torch.no_grad()
def start_at_data(parts: Parts, binding: Binding, rows: Mapping[str, Tensor]) -> None:
    """Decoders begin at the data's mean and priors with rows of it, where they can: `rows` by variable, (N, *shape)."""
    for name, trait in binding.traits.items():
        if trait.kind not in ("prior", "conditional"):
            continue
        part: Any = parts.modules[name]
        if isinstance(part, StartsAtRows):
            part.start_at_rows(rows)
        if trait.kind == "conditional":
            variable = binding.factor_of(name)[1].out[0]
            if variable in rows and isinstance(part.family, StartsAtMean):
                part.family.start_at(rows[variable].mean(0))
