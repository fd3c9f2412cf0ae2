"""Parts: the networks, families, priors and critics of a recipe, built and checked against what the objective needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from jointgen.capabilities import Capabilities
from jointgen.errors import ConfigError, suggest
from jointgen.interfaces import Distribution
from jointgen.objectives.distributions import Conditional, Joint
from jointgen.objectives.expressions import Ratio
from jointgen.objectives.objective import Objective
from jointgen.plan import Traits
from jointgen.recipe import Recipe
from jointgen.space import Space


class ConditionalPart(nn.Module):
    """`out | given`: a trunk network, and the family that turns its output into a distribution."""

    def __init__(self, trunk: nn.Module, family: nn.Module):
        super().__init__()
        self.trunk, self.family = trunk, family

    def forward(self, *inputs: Tensor, k: int = 1) -> Distribution:
        """(B, *shape) for each given variable -> B * k distributions, each row's parameters repeated k times."""
        params = self.trunk(*inputs)  # (B, *outputs)
        return self.family(params if k == 1 else params.repeat_interleave(k, 0))


@attrs.frozen
class Parts:
    """The built model: modules by part name (conditionals, priors, critics), Spaces by variable."""

    modules: nn.ModuleDict
    spaces: Mapping[str, Space]

    def named(self, names: Iterable[str]) -> list[nn.Module]:
        return [self.modules[name] for name in names if name in self.modules]

    def parameters(self, names: Iterable[str]) -> list[nn.Parameter]:
        return [parameter for module in self.named(names) for parameter in module.parameters()]


@attrs.frozen
class Declared:
    """What a recipe and its objectives declare, before anything is built: enough to plan, explain and check."""

    recipe: Recipe
    joints: Mapping[str, Joint]
    ratios: Mapping[str, Ratio]
    spaces: Mapping[str, Space]
    traits: Mapping[str, Traits]
    capabilities: Mapping[str, Capabilities]
    problems: tuple[str, ...]

    def variables_of(self, source: str) -> dict[str, str]:
        """Which of a data source's variables the joints draw: the joints' name -> the source's."""
        offered = self.recipe.all_sources()[source].spaces()
        drawn = {v for j in self.joints.values() for f in j.factors if f.part == source for v in f.out}
        return {v: v if v in offered else next(iter(offered)) for v in sorted(drawn)}

    @property
    def data_parts(self) -> list[str]:
        return [name for name, trait in self.traits.items() if trait.kind == "data"]

    def factor_of(self, part: str) -> tuple[Joint, Conditional]:
        return next((j, f) for j in self.joints.values() for f in j.factors if f.part == part)


def declare(recipe: Recipe, objectives: Sequence[Objective]) -> Declared:
    """Matches the objectives' joints with the recipe's parts. Collects problems instead of raising the first."""
    joints: dict[str, Joint] = {}
    ratios: dict[str, Ratio] = {}
    problems: list[str] = []
    for objective in objectives:
        problems += _add_all(joints, objective.joints, "joint") + _add_all(ratios, objective.ratios, "ratio")
    spaces = _spaces(recipe, joints, problems)
    capabilities, traits = _capabilities(recipe, joints, spaces, problems)
    for name in ratios:
        traits[name] = Traits("critic")
        if recipe.discriminators.get(name, recipe.discriminator) is None:
            problems.append(
                f"discriminator: missing; the objective trains a critic {name!r}, {ratios[name].definition}"
            )
    for name in recipe.discriminators:
        if name not in ratios:
            problems.append(f"discriminators.{name}: the objective has no ratio of this name{suggest(name, ratios)}")
    return Declared(recipe, joints, ratios, spaces, traits, capabilities, tuple(problems))


def _add_all(held: dict[str, Any], new: Mapping[str, Any], what: str) -> list[str]:
    clashes = [name for name, item in new.items() if held.setdefault(name, item) != item]
    return [f"objective: two stages define the {what} {name!r} differently" for name in clashes]


def _spaces(recipe: Recipe, joints: Mapping[str, Joint], problems: list[str]) -> dict[str, Space]:
    """Every variable's Space: from the data sources, the priors, and the recipe's `latents`."""
    spaces: dict[str, Space] = {}
    for name, size in recipe.latents.items():
        spaces[name] = Space((size,) if isinstance(size, int) else tuple(size))
    for joint in joints.values():
        for factor in joint.factors:
            if factor.is_root:
                spaces.update(_root_spaces(recipe, joint, factor, problems))
    for variable in sorted({v for joint in joints.values() for v in joint.variables} - set(spaces)):
        problems.append(f"latents.{variable}: missing; no data source and no prior says what {variable!r} looks like")
    return spaces


def _root_spaces(recipe: Recipe, joint: Joint, factor: Conditional, problems: list[str]) -> dict[str, Space]:
    sources, priors = recipe.all_sources(), recipe.all_priors()
    written = f"{joint.name}({factor})"
    if factor.part in priors:
        return {factor.out[0]: priors[factor.part].space}
    if factor.part not in sources:
        table = "prior" if factor.part == "prior" else f"priors.{factor.part}"
        problems.append(f"{table}: missing; the objective draws {written} from it{_known(sources, priors)}")
        return {}
    offered = sources[factor.part].spaces()
    if len(offered) == 1 and len(factor.out) == 1:
        return {factor.out[0]: next(iter(offered.values()))}  # a source with one variable takes the joint's name for it
    for variable in factor.out:
        if variable not in offered:
            where = "data" if factor.part == "data" else f"sources.{factor.part}"
            problems.append(f"{where}: yields no {variable!r}, which {written} draws{suggest(variable, offered)}")
    return {v: offered[v] for v in factor.out if v in offered}


def _known(*tables: Mapping[str, Any]) -> str:
    names = sorted(name for table in tables for name in table)
    return f"; the recipe has {', '.join(names)}" if names else ""


def _capabilities(
    recipe: Recipe, joints: Mapping[str, Joint], spaces: Mapping[str, Space], problems: list[str]
) -> tuple[dict[str, Capabilities], dict[str, Traits]]:
    capabilities: dict[str, Capabilities] = {}
    traits: dict[str, Traits] = {}
    for joint in joints.values():
        for factor in joint.factors:
            try:
                _declare_part(recipe, joint, factor, spaces, capabilities, traits, problems)
            except ConfigError as error:
                problems += [f"{_table_of(recipe, factor.part)}.family: {p}" for p in error.problems]
    return capabilities, traits


def _declare_part(
    recipe: Recipe,
    joint: Joint,
    factor: Conditional,
    spaces: Mapping[str, Space],
    capabilities: dict[str, Capabilities],
    traits: dict[str, Traits],
    problems: list[str],
) -> None:
    name, variable = factor.part, factor.out[0]
    if factor.is_root:
        prior = recipe.all_priors().get(name)
        if prior is None:
            traits[name] = Traits("data")
            return
        capabilities[name] = prior.capabilities(prior.space)
        trainable = any(True for _ in prior.build().parameters())
        traits[name] = Traits("prior", capabilities[name].paths, trainable=trainable)
        return
    table = recipe.all_conditionals().get(name)
    if table is None:
        kind = "encoder" if joint.name == "q" else "decoder"
        problems.append(f"{name if name == kind else f'{kind}s.{name}'}: missing; it computes {joint.name}({factor})")
        traits[name] = Traits("conditional")
        return
    traits[name] = Traits("conditional")
    if variable in spaces:
        capabilities[name] = table.family.capabilities(spaces[variable])
        traits[name] = Traits("conditional", capabilities[name].paths, capabilities[name].noise_input)


def _table_of(recipe: Recipe, part: str) -> str:
    """The key path of a part's table."""
    for kind in ("encoders", "decoders", "priors"):
        if part in getattr(recipe, kind):
            return f"{kind}.{part}"
    return part


def build(declared: Declared) -> Parts:
    """Modules on the CPU, initialised from the recipe's seed whatever was drawn before.

    Raises ConfigError with every network that cannot serve its shapes.
    """
    recipe, spaces = declared.recipe, declared.spaces
    modules: dict[str, nn.Module] = {}
    problems: list[str] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        for name, trait in declared.traits.items():
            try:
                if trait.kind == "prior":
                    modules[name] = recipe.all_priors()[name].build()
                elif trait.kind == "conditional":
                    modules[name] = _build_conditional(declared, name)
                elif trait.kind == "critic":
                    config = recipe.discriminators.get(name, recipe.discriminator)
                    assert config is not None, "declare() found it"
                    modules[name] = config.build({v: spaces[v] for v in declared.ratios[name].variables})
            except ConfigError as error:
                where = (
                    _table_of(recipe, name) + ".network" if trait.kind == "conditional" else f"discriminator ({name})"
                )
                problems += [f"{where}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return Parts(nn.ModuleDict(modules), spaces)


def _build_conditional(declared: Declared, name: str) -> ConditionalPart:
    table = declared.recipe.all_conditionals()[name]
    _, factor = declared.factor_of(name)
    space = declared.spaces[factor.out[0]]
    inputs = {v: declared.spaces[v] for v in factor.given}
    if declared.traits[name].noise_input:
        inputs["eps"] = Space((declared.traits[name].noise_input,))
    return ConditionalPart(table.network.build(inputs, table.family.outputs(space)), table.family.build(space))


def start_at_data(parts: Parts, declared: Declared, means: Mapping[str, Tensor]) -> None:
    """Decoders begin at the data's mean where their family can: `means` by variable, (*shape)."""
    for name, trait in declared.traits.items():
        if trait.kind != "conditional":
            continue
        variable = declared.factor_of(name)[1].out[0]
        part: Any = parts.modules[name]
        family = part.family
        if variable in means and hasattr(family, "start_at"):
            with torch.no_grad():
                family.start_at(means[variable])
