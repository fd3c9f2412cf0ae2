"""Build the networks, families, priors and critics of a recipe, and start them at the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jointgen.compiler.binding import Binding
from jointgen.compiler.features import in_build_order
from jointgen.compiler.network_inputs import seen_value
from jointgen.compiler.parts import ConditionalPart, Parts
from jointgen.compiler.value_spaces import space_of
from jointgen.contracts.distributions import PriorOfVariable, StartsAtMean, StartsAtRows, StartsAtValues
from jointgen.contracts.noise import Noise
from jointgen.contracts.observation import example
from jointgen.contracts.space import Space
from jointgen.errors import ComponentError, ConfigError, Problem, Problems, placing
from jointgen.objectives.values import Argument, Value
from jointgen.registry.faults import attributing, said
from jointgen.runtime.global_rng import seeded
from jointgen.runtime.memory import GIB, AllocationLimit, is_out_of_memory, machine_memory

TRAINING_SHARE = 8
"""Training holds so many times the parameters: gradients, moments, averages, and both in float64 at the start."""


def build(binding: Binding, *, trains: bool = False) -> Parts:
    """Build the modules on the CPU, initialised from the recipe's seed whatever was drawn before.

    Args:
        binding: What they compute.
        trains: Whether this machine is to train them, which takes several times the memory that they take.

    Raises:
        ConfigError: Every network that cannot serve its shapes, or that this machine has no memory for.
        ComponentError: A component raises where it is built, or builds no module.
    """
    recipe = binding.recipe
    modules: dict[str, nn.Module] = {}
    problems = Problems()
    for name, trait in binding.traits.items():
        if trait.kind != "data" and ("." in name or not name or hasattr(nn.ModuleDict(), name)):
            table = "ratios" if trait.kind == "critic" else f"{binding.recipe.path_of(name)[0]}"
            problems.add("torch takes no such name for a part; give it another", table, name)
    problems.raise_any()
    limit = machine_memory() // (TRAINING_SHARE if trains else 1)
    has = f"this machine has {_in_gib(machine_memory())}"
    if trains:
        has += f", of which the parameters may take an eighth, {_in_gib(limit)}, because training takes the rest"

    def too_large(size: int) -> str:
        return f"the model takes at least {_in_gib(size)} with it; {has}"

    with seeded(recipe.seed), AllocationLimit(limit, too_large):
        for name in in_build_order(binding.traits, binding.sees_features_of()):
            trait = binding.traits[name]
            with problems.collect():
                if trait.kind == "prior":
                    modules[name] = _build_prior(binding, name)
                elif trait.kind == "conditional":
                    modules[name] = _build_conditional(binding, name, modules)
                elif trait.kind == "critic":
                    modules[name] = _build_critic(binding, name, modules)
    for name, module in modules.items():
        lazy = [inner for inner, layer in module.named_modules() if is_lazy(layer)]
        if lazy:
            problems.add(
                f"its layer {lazy[0]!r} is a lazy one; give it its size, which the Spaces of its inputs say", name
            )
            continue
        size = sum(held.numel() * held.element_size() for held in (*module.parameters(), *module.buffers()))
        if size > limit:
            shared = binding.traits[name].kind == "critic" and name not in recipe.discriminators
            path = ("discriminator",) if shared else recipe.path_of(name)
            problems.add(too_large(size), *path)  # made of tensors that nothing asked for by their size
        for inner, layer in module.named_modules():
            if isinstance(layer, nn.modules.dropout._DropoutNd):  # its masks depend on what ran before the run
                kind = type(layer).__name__
                problems.add(f"its layer {inner!r} is torch's {kind}; use jointgen.plugin.Dropout", name)
    problems.raise_any()
    through = {name: trait.through for name, trait in binding.traits.items() if trait.through}
    seen = {name: tuple(_spaces_seen(binding, name, modules).values()) for name in binding.sees_features_of()}
    return Parts(nn.ModuleDict(modules), binding.spaces, through, inputs=_inputs(binding), seen_spaces=seen)


def is_lazy(layer: nn.Module) -> bool:
    """Return whether a layer waits for rows to know its size. What trains, copies or saves it would have none."""
    return any(nn.parameter.is_lazy(parameter) for parameter in layer.parameters(recurse=False))


def _inputs(binding: Binding) -> dict[str, tuple[Argument, ...]]:
    return {name: trait.input for name, trait in binding.traits.items() if trait.input}


def _spaces_seen(binding: Binding, name: str, built: Mapping[str, nn.Module]) -> dict[str, Space]:
    """The Spaces of what the network of a conditional or a critic sees, by the name of the variable or value."""
    seen: Mapping[str, Argument]
    if (ratio := binding.ratios.get(name)) is not None:
        views = {variable: ratio.reading(variable) for variable in ratio.variables}
        seen = {v: view if isinstance(view, Argument) else Value(v) for v, view in views.items()}
    else:
        trait, (_, factor) = binding.traits[name], binding.factor_of(name)
        variables = trait.seen(factor.given)
        seen = {str(value): value for value in trait.input} or {v: Value(v) for v in variables}
    return {shown: _space_of(value, binding, built) for shown, value in seen.items()}


@torch.no_grad()
def _space_of(value: Argument, binding: Binding, built: Mapping[str, nn.Module]) -> Space:
    """The Space of what a network sees; features are looked at, by a run of the networks that make them."""
    if (space := space_of(value, binding.spaces)) is not None:
        return space
    parts = Parts(nn.ModuleDict(dict(built)), binding.spaces, inputs=_inputs(binding))
    noise = Noise(0, "features")
    rows = {variable: example(space, noise.named(variable, 2)) for variable, space in binding.spaces.items()}
    parts.modules.eval()
    shape = seen_value(parts, value, rows).shape[1:]
    parts.modules.train()
    return Space(tuple(shape))


def _in_gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"


def _build_prior(binding: Binding, name: str) -> nn.Module:
    """Build a prior from the Spaces of the inputs of each conditional that it goes through."""
    prior = binding.recipe.all_priors()[name]
    with placing(*binding.recipe.path_of(name)):
        if isinstance(prior, PriorOfVariable):
            space = binding.spaces[binding.factor_of(name)[1].out[0]]
            module = _built(binding.named(name), lambda: prior.build_for(space))
        else:
            module = _built(binding.named(name), lambda: prior.build(*binding.inputs_of_prior(name)))
        if not binding.traits[name].trainable and any(True for _ in module.parameters()):
            raise ConfigError("its module has parameters, so its Capabilities must say trainable=True")
    return module


def _build_conditional(binding: Binding, name: str, built: Mapping[str, nn.Module]) -> ConditionalPart:
    table, path = binding.recipe.all_conditionals()[name], binding.recipe.path_of(name)
    _, factor = binding.factor_of(name)
    space = binding.spaces[factor.out[0]]
    with placing(*path, "input"):
        inputs = _spaces_seen(binding, name, built)
    if binding.traits[name].noise_input:
        inputs["eps"] = Space((binding.traits[name].noise_input,))
    network, family = binding.named(name, "network"), binding.named(name, "family")
    with placing(*path, "family"), attributing(family):
        outputs = tuple(table.family.outputs(space))
    with placing(*path, "network"):
        trunk = _built(network, lambda: table.network.build(inputs, outputs))
    with placing(*path, "family"):
        return ConditionalPart(trunk, _built(family, lambda: table.family.build(space)))


def _build_critic(binding: Binding, name: str, built: Mapping[str, nn.Module]) -> nn.Module:
    recipe = binding.recipe
    config = recipe.discriminators.get(name, recipe.discriminator)
    assert config is not None, "bind() found it"
    path = ("discriminators", name) if name in recipe.discriminators else ("discriminator",)
    try:
        inputs = _spaces_seen(binding, name, built)
        module = _built(binding.named(name), lambda: config.build(inputs))
    except ConfigError as error:
        problems = [Problem(f"{p.message} (critic {name!r})", *path, *p.path) for p in error.problems]
        raise ConfigError(problems) from None
    return module


def _built(named: str, build: Callable[[], Any]) -> nn.Module:
    with attributing(named):
        try:
            module = build()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise ConfigError(f"takes more memory than this machine gives: {said(error)}") from error
    if not isinstance(module, nn.Module):
        raise ComponentError(f"{named}: build() gives a {type(module).__name__}, it must be a torch.nn.Module")
    return module


@torch.no_grad()
def start_at_data(parts: Parts, binding: Binding, rows: Mapping[str, Tensor]) -> None:
    """Let what models the data begin at its mean, and priors at rows of it, where they can.

    Args:
        parts: The modules.
        binding: What they compute.
        rows: Rows of the data by variable, (N, *shape).
    """
    for name, trait in binding.traits.items():
        if trait.kind not in ("prior", "conditional"):
            continue
        part: Any = parts.modules[name]
        with attributing(binding.named(name)):
            if isinstance(part, StartsAtRows):
                part.start_at_rows(rows)
            variable = binding.factor_of(name)[1].out[0]
            module = part.family if trait.kind == "conditional" else part
            if variable in rows and isinstance(module, StartsAtMean):
                module.start_at(rows[variable].mean(0))
            if variable in rows and isinstance(module, StartsAtValues):
                module.start_at_values(rows[variable])
