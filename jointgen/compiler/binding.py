"""What a recipe and its objectives bind, before anything is built: joints, Spaces, what each part can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import nn

from jointgen.compiler.gradient_paths import PartTraits
from jointgen.config.recipe import Recipe
from jointgen.config.structure import placed
from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.distributions import PriorThroughParts
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError, suggest
from jointgen.objectives.distributions import Conditional, Joint
from jointgen.objectives.expressions import Ratio
from jointgen.objectives.objective import Objective
from jointgen.registry.components import Registry


@attrs.frozen
class Binding:
    """What a recipe and its objectives bind, before anything is built: enough to plan, explain and check."""

    recipe: Recipe
    joints: Mapping[str, Joint]
    ratios: Mapping[str, Ratio]
    spaces: Mapping[str, Space]
    traits: Mapping[str, PartTraits]
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
        found = [(j, f) for j in self.joints.values() for f in j.own if f.part == part]
        return min(found, key=lambda pair: pair[1].moments)  # the part itself before what is matched to it


def bind(recipe: Recipe, objectives: Sequence[Objective], registry: Registry | None = None) -> Binding:
    """Matches the objectives' joints with the recipe's parts. Collects problems instead of raising the first.

    registry: for problems that name the families that would fit.
    """
    joints: dict[str, Joint] = {}
    ratios: dict[str, Ratio] = {}
    problems: list[str] = []
    for objective in objectives:
        problems += _add_all(joints, objective.joints, "joint") + _add_all(ratios, objective.ratios, "ratio")
    spaces = _spaces(recipe, joints, problems)
    capabilities, traits = _capabilities(recipe, joints, spaces, problems, registry)
    problems += _unused(recipe, joints, traits)
    for name in ratios:
        traits[name] = PartTraits("critic")
        if recipe.discriminators.get(name, recipe.discriminator) is None:
            problems.append(
                f"discriminator: missing; the objective trains a critic {name!r}, {ratios[name].definition}"
            )
    for name in recipe.discriminators:
        if name not in ratios:
            problems.append(f"discriminators.{name}: the objective has no ratio of this name{suggest(name, ratios)}")
    return Binding(recipe, joints, ratios, spaces, traits, capabilities, tuple(problems))


def _add_all(held: dict[str, Any], new: Mapping[str, Any], what: str) -> list[str]:
    clashes = [name for name, item in new.items() if held.setdefault(name, item) != item]
    return [f"objective: two stages define the {what} {name!r} differently" for name in clashes]


def _unused(recipe: Recipe, joints: Mapping[str, Joint], traits: Mapping[str, PartTraits]) -> Iterable[str]:
    """Named parts and variables that the objective does not have, which otherwise would be ignored in silence."""
    for kind in ("sources", "priors", "encoders", "decoders"):
        for name in getattr(recipe, kind):
            if name not in traits:
                yield f"{kind}.{name}: the objective uses no part of this name{suggest(name, traits)}"
    variables = {v for joint in joints.values() for v in joint.variables}
    for variable in recipe.latents:
        if variable not in variables:
            yield f"latents.{variable}: the objective has no variable of this name{suggest(variable, variables)}"
        elif variable in _drawn_by_roots(joints):
            yield f"latents.{variable}: a data source or prior says what {variable!r} looks like; remove this key"


def _spaces(recipe: Recipe, joints: Mapping[str, Joint], problems: list[str]) -> dict[str, Space]:
    """Every variable's Space: from the data sources, the priors, and the recipe's `latents`."""
    spaces: dict[str, Space] = {}
    for name, size in recipe.latents.items():
        spaces[name] = Space((size,) if isinstance(size, int) else tuple(size))
    for joint in joints.values():
        for factor in joint.own:
            if factor.is_root:
                spaces.update(_root_spaces(recipe, joint, factor, problems))
    inner = [factor for joint in joints.values() for factor in joint.factors if not factor.is_root]
    for variable in sorted({v for factor in inner for v in factor.out} - set(spaces) - _drawn_by_roots(joints)):
        problems.append(f"latents.{variable}: missing; no data source and no prior says what {variable!r} looks like")
    return spaces


def _drawn_by_roots(joints: Mapping[str, Joint]) -> set[str]:
    """Variables whose lack of a Space has been told as the lack of their source or prior."""
    return {v for joint in joints.values() for factor in joint.factors if factor.is_root for v in factor.out}


def _root_spaces(recipe: Recipe, joint: Joint, factor: Conditional, problems: list[str]) -> dict[str, Space]:
    sources, priors = recipe.all_sources(), recipe.all_priors()
    written = f"{joint.name}({factor})"
    if factor.part in priors:
        return {factor.out[0]: priors[factor.part].space}
    if factor.part not in sources:
        table = "prior" if factor.part == "prior" else f"priors.{factor.part}"
        problems.append(
            f"{table}: missing; the objective draws {written} from it; give it, or sources.{factor.part}, a data "
            f"source whose rows take its place{_known(sources, priors)}"
        )
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
    recipe: Recipe,
    joints: Mapping[str, Joint],
    spaces: Mapping[str, Space],
    problems: list[str],
    registry: Registry | None,
) -> tuple[dict[str, Capabilities], dict[str, PartTraits]]:
    capabilities: dict[str, Capabilities] = {}
    traits: dict[str, PartTraits] = {}
    for joint in joints.values():
        for factor in joint.own:
            if factor.moments and factor.part in traits:
                continue  # told once, as the part itself
            if factor.is_root:
                trait, can = _of_root(recipe, joint, factor, joints, spaces, problems)
            else:
                trait, can = _of_conditional(recipe, joint, factor, spaces.get(factor.out[0]), problems, registry)
            traits[factor.part] = trait
            if can is not None:
                capabilities[factor.part] = can
    return capabilities, traits


def _of_root(
    recipe: Recipe,
    joint: Joint,
    factor: Conditional,
    joints: Mapping[str, Joint],
    spaces: Mapping[str, Space],
    problems: list[str],
) -> tuple[PartTraits, Capabilities | None]:
    prior = recipe.all_priors().get(factor.part)
    if prior is None:
        return PartTraits("data"), None
    through = prior.through if isinstance(prior, PriorThroughParts) else ()
    try:
        below = [_gone_through(recipe, part, factor, joints, spaces) for part in through]
        can = prior.capabilities(prior.space, *below)
        module = build_prior(prior, through, joints, spaces)
    except ConfigError as error:
        problems += [placed(table_of(recipe, factor.part), problem, prior) for problem in error.problems]
        return PartTraits("prior", through=through), None
    trainable = any(True for _ in module.parameters())
    return PartTraits("prior", can.paths, trainable=trainable, through=through), can


def _gone_through(
    recipe: Recipe, part: str, root: Conditional, joints: Mapping[str, Joint], spaces: Mapping[str, Space]
) -> Capabilities:
    """What a part that a prior goes through can do. Raises ConfigError where a prior cannot go through it."""
    found = _conditionals(joints)
    if part not in found:
        raise ConfigError(f"goes through {part!r}, which is no conditional of the objective{suggest(part, found)}")
    joint, factor = found[part]
    if factor.out != root.out:
        raise ConfigError(f"goes through {part!r}, which draws {', '.join(factor.out)} and not {', '.join(root.out)}")
    trait, can = _of_conditional(recipe, joint, factor, spaces.get(factor.out[0]), [], None)
    if trait.noise_input:
        raise ConfigError(f"goes through {part!r}, whose network takes noise, which a prior does not give it")
    return can or Capabilities()


def _conditionals(joints: Mapping[str, Joint]) -> dict[str, tuple[Joint, Conditional]]:
    """part -> the factor that it computes."""
    return {f.part: (joint, f) for joint in joints.values() for f in joint.factors if not f.is_root}


def build_prior(
    prior: Any, through: Sequence[str], joints: Mapping[str, Joint], spaces: Mapping[str, Space]
) -> nn.Module:
    """The prior's module, told the Spaces of the inputs of each part that it goes through."""
    given = [_conditionals(joints)[part][1].given for part in through]
    with torch.random.fork_rng(devices=[]):
        return prior.build(*({v: spaces[v] for v in variables} for variables in given))


def _of_conditional(
    recipe: Recipe,
    joint: Joint,
    factor: Conditional,
    space: Space | None,
    problems: list[str],
    registry: Registry | None,
) -> tuple[PartTraits, Capabilities | None]:
    table = recipe.all_conditionals().get(factor.part)
    if table is None:
        problems.append(_missing_table(recipe, joint, factor))
    elif space is not None:
        try:
            can: Capabilities = table.family.capabilities(space)
            return PartTraits("conditional", can.paths, can.noise_input), can
        except ConfigError as error:
            where = f"{table_of(recipe, factor.part)}.family"
            fitting = _that_serve(space, type(table.family), registry)
            problems += [placed(where, problem, table.family) + fitting for problem in error.problems]
    return PartTraits("conditional"), None


def _missing_table(recipe: Recipe, joint: Joint, factor: Conditional) -> str:
    kind = "encoder" if joint.name == "q" else "decoder"
    computes = f"missing; it computes {joint.name}({factor})"
    if factor.part == kind:
        return f"{kind}: {computes}"
    return f"{kind}s.{factor.part}: {computes}{suggest(factor.part, recipe.all_conditionals())}"


def _that_serve(space: Space, own: type, registry: Registry | None) -> str:
    """Families for a variable in `space`, where the recipe's own serves it with no settings."""
    if registry is None or _serves(own, space):
        return ""
    names = [component.name for component, family in registry.loadable("family") if _serves(family, space)]
    return f"; families that serve it: {', '.join(names)}" if names else "; no registered family serves it"


def _serves(family: type, space: Space) -> bool:
    """Whether the family with its default settings takes a variable in `space`."""
    try:
        config: Any = family()
        config.capabilities(space)
    except (TypeError, ConfigError):  # it has settings without defaults, or does not serve this Space
        return False
    return True


def table_of(recipe: Recipe, part: str) -> str:
    """The key path of a part's table."""
    for kind in ("encoders", "decoders", "priors"):
        if part in getattr(recipe, kind):
            return f"{kind}.{part}"
    return part
