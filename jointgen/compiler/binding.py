"""The binding: which part of a recipe computes each factor of an objective's joints, in which Space. Torch-free.

This is the first step of the compiler. It builds no module and reads no rows; what it finds is enough to plan, explain
and check a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from jointgen.compiler.features import check_input, in_build_order, parts_below, without_features
from jointgen.compiler.gradient_paths import PartTraits
from jointgen.compiler.used_factors import used_joints
from jointgen.compiler.value_spaces import misplaced_values
from jointgen.config.recipe import LatentTable, Recipe
from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.distributions import FamilyThroughParts, PriorOfVariable, PriorThroughParts
from jointgen.contracts.sources import RecordedData
from jointgen.contracts.space import Space
from jointgen.errors import ComponentError, ConfigError, KeyPath, Problem, Problems, dotted, suggest
from jointgen.objectives.distributions import Conditional, Joint
from jointgen.objectives.expressions import Ratio
from jointgen.objectives.objective import Objective
from jointgen.objectives.parse import Vocabulary, parse_values
from jointgen.objectives.values import Argument
from jointgen.registry.components import Registry
from jointgen.registry.faults import attributing, described


@attrs.frozen
class Binding:
    """A recipe whose parts are matched with the joints of its objectives.

    Args:
        joints: The joints of all stages, by name, with the factors that the objectives use.
        unused: The conditionals of these joints that no objective uses, as text; nothing computes them.
        ratios: The ratios of all stages, by name; each has a critic, which is a part of the same name.
        offered: For each data source that the joints draw from, the Spaces of the source's variables.
        recorded: What a run has recorded of its data, where these Spaces are from its record.
        spaces: The Space of each variable of the joints.
        traits: What the planner must know of each part.
        capabilities: What the family of each conditional, and each prior, declares that it can do.
        copies: The variables that marginals copy, by the name of the copy.
        problems: Every mismatch, with its key path. A part with a problem may be missing from the fields above.
        registry: Where components have their names from; None: what is installed.
    """

    recipe: Recipe
    joints: dict[str, Joint] = attrs.field(factory=dict)
    unused: list[str] = attrs.field(factory=list)
    ratios: dict[str, Ratio] = attrs.field(factory=dict)
    offered: dict[str, dict[str, Space]] = attrs.field(factory=dict)
    recorded: RecordedData | None = None
    spaces: dict[str, Space] = attrs.field(factory=dict)
    traits: dict[str, PartTraits] = attrs.field(factory=dict)
    capabilities: dict[str, Capabilities] = attrs.field(factory=dict)
    problems: Problems = attrs.field(factory=Problems)
    registry: Registry | None = None
    copies: dict[str, str] = attrs.field(factory=dict)

    def drop_unused(self, objectives: Sequence[Objective]) -> None:
        """Take the conditionals out of the joints that no objective uses."""
        priors = self.recipe.all_priors()
        roots = [f.part for joint in self.joints.values() for f in joint.factors if f.is_root and f.part in priors]
        through = [prior.through for part in roots if isinstance(prior := priors[part], PriorThroughParts)]
        expressions = [update.maximize for objective in objectives for update in objective.updates]
        expressions += [report for objective in objectives for _, report in objective.reports]
        families = [table.family for table in self.recipe.all_conditionals().values()]
        through += [family.merged_parts for family in families if isinstance(family, FamilyThroughParts)]
        used = used_joints(self.joints, expressions, {part for parts in through for part in parts})
        for name, joint in self.joints.items():
            left_out = [f for f in joint.own if f not in used[name].factors]
            self.unused.extend(joint.written(factor) for factor in left_out)
        self.joints.update(used)

    def sees_features_of(self) -> dict[str, list[str]]:
        """Return, for each part whose network sees features, the parts that make these."""
        return parts_below(self.traits, self.ratios)

    def named(self, part: str, role: Literal["", "network", "family"] = "") -> str:
        """Name a component by its key, itself and its package: "encoder.family: family 'student' of tails 0.1".

        Args:
            part: The part of the recipe.
            role: Which component of a conditional; "" for both, and for other parts, which have one.
        """
        recipe = self.recipe
        path = ("discriminator",) if part in self.ratios and part not in recipe.discriminators else recipe.path_of(part)
        if (table := recipe.all_conditionals().get(part)) is not None:
            kind = path[0].removesuffix("s") if isinstance(path[0], str) else "encoder"
            components = {"network": (kind, table.network), "family": ("family", table.family)}
            if role:
                return f"{dotted((*path, role))}: {described(self.registry, *components[role])}"
            return f"{dotted(path)}: {' and '.join(described(self.registry, *one) for one in components.values())}"
        if (prior := recipe.all_priors().get(part)) is not None:
            return f"{dotted(path)}: {described(self.registry, 'prior', prior)}"
        if (source := recipe.all_sources().get(part)) is not None:
            return f"{dotted(path)}: {described(self.registry, 'data', source)}"
        critic = recipe.discriminators.get(part, recipe.discriminator)
        return f"{dotted(path)}: {described(self.registry, 'discriminator', critic)}"

    @property
    def data_parts(self) -> list[str]:
        """The data sources that the joints draw from."""
        return [name for name, trait in self.traits.items() if trait.kind == "data"]

    def variables_of(self, source: str) -> dict[str, str]:
        """Map the joints' name of each variable that a data source gives to the source's own name for it."""
        offered = self.offered[source]
        drawn = {v for j in self.joints.values() for f in j.factors if f.part == source for v in f.out}
        return {v: v if v in offered else next(iter(offered)) for v in sorted(drawn)}

    def factor_of(self, part: str) -> tuple[Joint, Conditional]:
        """Return the factor that a part computes, and its joint."""
        found = [(j, f) for j in self.joints.values() for f in j.owned(self.joints) if f.part == part]
        return min(found, key=lambda pair: pair[1].moments)  # the part itself before what is matched to it

    def inputs_of_prior(self, part: str) -> list[dict[str, Space]]:
        """Return, for each conditional that a prior goes through, the Spaces of its inputs by variable."""
        factors = _conditionals(self.joints)
        return [{v: self.spaces[v] for v in factors[below].given} for below in self.traits[part].through]

    # --- questions about the graph: what is data, what is drawn, what can be reconstructed

    def joint(self, name: str, use: str) -> Joint:
        """The joint of this name. Raises ConfigError, which names the use, where the objective has none."""
        if name not in self.joints:
            raise ConfigError(
                f"{use} needs the joint {name!r}, which the objective does not name{suggest(name, self.joints)}"
            )
        return self.joints[name]

    def is_data(self, factor: Conditional) -> bool:
        """Whether a factor is a root that a data source draws, so that it has no density here."""
        return factor.is_root and self.traits[factor.part].kind == "data"

    def data_roots(self, joint: Joint) -> dict[str, str]:
        """The variables that a joint draws from data sources, with the source of each."""
        return {v: f.part for f in joint.factors if self.is_data(f) for v in f.out}

    def source_of(self, variable: str) -> str:
        """The data source that yields a variable: that of q where several joints have one each, else of p."""
        joints = sorted(self.joints.values(), key=lambda joint: {"q": 0, "p": 1}.get(joint.name, 2))
        return next(roots[variable] for joint in joints if variable in (roots := self.data_roots(joint)))

    @property
    def sources_of_q_and_p(self) -> list[str]:
        """The data sources that q and p draw from, whose rows are the model's data; all where these draw from none."""
        roots = [self.data_roots(self.joints[name]) for name in ("q", "p") if name in self.joints]
        return sorted({part for found in roots for part in found.values()}) or self.data_parts

    @property
    def observed(self) -> list[str]:
        """The variables that data sources yield and that the model draws, by a conditional or by a prior: x."""
        joints = [joint for joint in self.joints.values() if joint.has_root]
        drawn = {v for joint in joints for f in joint.factors if not self.is_data(f) for v in f.out}
        return sorted(v for v in drawn if any(v in self.data_roots(joint) for joint in self.joints.values()))

    @property
    def latents(self) -> list[str]:
        """The variables that q's conditionals draw and no data source yields: z. Empty without a joint q."""
        factors = self.joints["q"].factors if "q" in self.joints else ()
        data = {v for joint in self.joints.values() for v in self.data_roots(joint)}
        return [v for factor in factors if not factor.is_root for v in factor.out if v not in data]

    def generator_of(self, variable: str) -> Joint:
        """The joint in which the model draws an observed variable, by a conditional or by a prior."""
        joints = [j for j in self.joints.values() if j.has_root and variable in j.variables]
        return next(j for j in joints if not self.is_data(j.drawn_by(variable)))

    def can_reconstruct(self, variable: str) -> bool:
        """Whether q encodes the variable to codes from which p draws it again."""
        if not {"q", "p"} <= self.joints.keys() or variable not in self.joints["p"].variables:
            return False
        q, decoder = self.joints["q"], self.joints["p"].drawn_by(variable)
        codes = [v for f in q.factors if not f.is_root for v in f.out]
        known = {*self.joints["q"].variables, *self.data_roots(self.joints["p"])}
        if not set(decoder.given) <= known:  # such as the noise of InfoGAN, which nothing infers
            return False
        of_it = [v for v in decoder.given if v in codes and variable in {w for f in q.ancestors([v]) for w in f.out}]
        return variable in self.data_roots(q) and bool(of_it)


def bind(
    recipe: Recipe,
    objectives: Sequence[Objective],
    registry: Registry | None = None,
    recorded: RecordedData | None = None,
) -> Binding:
    """Match the objectives' joints with the recipe's parts.

    Args:
        recipe: The recipe that declares the parts.
        objectives: One for each stage.
        registry: Where to look for families that fit, to name them in problems.
        recorded: What a run has recorded of its data sources; others are asked for their Spaces.

    Returns:
        The binding; its `problems` are to be raised by the caller.
    """
    known = {part: dict(spaces) for part, spaces in recorded.spaces.items()} if recorded is not None else {}
    binding = Binding(recipe, registry=registry, offered=known, recorded=recorded)
    for objective in objectives:
        shared: list[tuple[dict[str, Any], Mapping[str, Any], str]] = [
            (binding.joints, objective.joints, "joint"),
            (binding.ratios, objective.ratios, "ratio"),
        ]
        for held, new, noun in shared:
            for name, item in new.items():
                if held.setdefault(name, item) != item:
                    binding.problems.add(f"two stages define the {noun} {name!r} differently", "objective")
        binding.copies.update(pair for marginal in objective.marginals for pair in marginal.copies)
    binding.drop_unused(objectives)
    _bind_spaces(binding)
    for joint in binding.joints.values():
        for factor in joint.owned(binding.joints):
            if not (factor.moments and factor.part in binding.traits):  # the part itself has been bound
                _bind_part(binding, joint, factor, registry)
    _refuse_unlike_uses(binding)
    _refuse_unused_tables(binding)
    _bind_critics(binding)
    for objective in objectives:
        binding.problems.extend(misplaced_values(objective.walk(), binding.spaces))
        binding.problems.extend(without_features(binding, objective.walk(), registry))
    inputs = [value for trait in binding.traits.values() for value in trait.input]
    binding.problems.extend(without_features(binding, (tree for value in inputs for tree in value.walk()), registry))
    with binding.problems.collect():
        in_build_order(binding.traits, binding.sees_features_of())
    return binding


# --- Spaces of variables ---------------------------------------------------------------------------------------------


def _bind_spaces(binding: Binding) -> None:
    """Find every variable's Space: from the data sources, from the priors, or from the recipe's `latents`."""
    spaces, joints = binding.spaces, binding.joints.values()
    for name, latent in binding.recipe.latents.items():
        if (space := _space_of(latent)) is not None:
            spaces[name] = space
    roots: dict[str, list[Root]] = {}  # by variable, those that say what it looks like
    for joint in joints:
        for factor in joint.owned(binding.joints):
            if factor.is_root:
                for variable, space in _spaces_of_root(binding, joint, factor).items():
                    roots.setdefault(variable, []).append((joint, factor, space))
    for variable, found in roots.items():
        spaces[variable] = _agreed_space(binding, variable, found)
    inferred = {v for joint in joints for f in joint.factors if not f.is_root for v in (*f.out, *f.given)}
    unknown = sorted(inferred - set(spaces) - _drawn_by_roots(binding.joints))
    _copy_spaces(binding, [*unknown, *(v for v in _likenesses(binding) if v not in spaces)])
    _check_likenesses(binding)
    for variable in unknown:
        if variable not in spaces and variable not in binding.recipe.latents:
            binding.problems.add(
                f"missing; no data source and no prior says what {variable!r} looks like", "latents", variable
            )


def _space_of(latent: int | list[int] | LatentTable) -> Space | None:
    """Return the Space that the recipe gives a variable, or None where it is that of another variable."""
    table = latent if isinstance(latent, LatentTable) else LatentTable(size=latent)
    if table.classes is not None:
        return Space((table.classes,), "label")
    if table.size is not None:
        return Space(
            (table.size,) if isinstance(table.size, int) else tuple(table.size), low=table.low, high=table.high
        )
    return None


def _copy_spaces(binding: Binding, variables: Sequence[str]) -> None:
    """Give variables without a Space that of the variable that they are like, or that their part draws elsewhere."""
    spaces, likenesses = binding.spaces, _likenesses(binding)
    uses = [factor for joint in binding.joints.values() for factor in joint.factors if len(factor.out) == 1]
    for _ in variables:  # one may be like another
        for variable in variables:
            if variable in likenesses:
                same = [likenesses[variable][0]]
            else:
                parts = {factor.part for factor in uses if factor.out == (variable,)}
                same = [factor.out[0] for factor in uses if factor.part in parts]
            if found := [spaces[one] for one in same if one in spaces]:
                spaces.setdefault(variable, found[0])


def _likenesses(binding: Binding) -> dict[str, tuple[str, KeyPath]]:
    """Return, for each variable that the recipe says is like another, that one, and the key that says so."""
    recipe, priors = binding.recipe, binding.recipe.all_priors()
    found: dict[str, tuple[str, KeyPath]] = {}
    found.update({copy: (variable, ("objective",)) for copy, variable in binding.copies.items()})
    for name, latent in recipe.latents.items():
        if isinstance(latent, LatentTable) and latent.like is not None:
            found[name] = latent.like, ("latents", name, "like")
    for factor in (
        factor for joint in binding.joints.values() for factor in joint.owned(binding.joints) if factor.is_root
    ):
        prior = priors.get(factor.part)
        if isinstance(prior, PriorOfVariable) and prior.like:
            found[factor.out[0]] = prior.like, (*recipe.path_of(factor.part), "like")
    return found


def _check_likenesses(binding: Binding) -> None:
    """Report variables that are like one whose Space is not known, or has another Space than its other root says."""
    spaces, known = binding.spaces, {v for joint in binding.joints.values() for v in joint.variables}
    for variable, (like, path) in _likenesses(binding).items():
        if variable not in known:
            continue  # another problem says so
        if like not in spaces:
            hint = suggest(like, known - {variable}) if like not in known else ""
            binding.problems.add(f"{like!r} is no variable whose Space is known{hint}", *path)
        elif variable in spaces and spaces[variable] != spaces[like]:
            binding.problems.add(f"{like!r} is {spaces[like]}, and {variable!r} is {spaces[variable]}", *path)


def _refuse_unlike_uses(binding: Binding) -> None:
    """Report a part that computes two conditionals whose variables have different Spaces: it is built for one."""
    spaces = binding.spaces
    first: dict[str, tuple[Joint, Conditional]] = {}
    for joint in binding.joints.values():
        for factor in joint.owned(binding.joints):
            if factor.is_root or not {*factor.out, *factor.given} <= spaces.keys():
                continue
            other_joint, other = first.setdefault(factor.part, (joint, factor))
            mine, others = (factor.out, factor.given), (other.out, other.given)
            if any([spaces[v] for v in a] != [spaces[v] for v in b] for a, b in zip(mine, others, strict=True)):
                written = [
                    f"{j.name}({f}) with {', '.join(f'{v} {spaces[v]}' for v in dict.fromkeys((*f.out, *f.given)))}"
                    for j, f in ((other_joint, other), (joint, factor))
                ]
                binding.problems.add(
                    f"computes both {' and '.join(written)}: the Spaces of what it draws, and of what it is given, in "
                    'order, must agree; latents.VARIABLE = { like = "OTHER" } copies one',
                    *binding.recipe.path_of(factor.part),
                )


Root = tuple[Joint, Conditional, Space]
"""(joint, factor, Space of one of the variables that it draws)."""


def _agreed_space(binding: Binding, variable: str, roots: Sequence[Root]) -> Space:
    """Return the Space of a variable that all its roots draw. Problems say which two of them do not agree.

    Data decides, since its rows are observed by its range and levels, which a prior may leave open. A range that not
    all of several priors keep is none.
    """
    sources = binding.recipe.all_sources()
    data = [root for root in roots if root[1].part in sources]
    first = (data or roots)[0]
    for other in roots:
        if not _agree(first[2], other[2], both_data=other in data and first in data):
            _refuse_two_spaces(binding, variable, first, other)
            break
    (*_, space) = first
    return space if data or all(other == space for *_, other in roots) else Space(space.shape, space.kind)


def _agree(one: Space, other: Space, both_data: bool) -> bool:
    """Whether two roots draw the same variable: rows of two sources are observed alike, of a prior what it says."""
    if both_data:
        return one == other
    stated = [(one.range, other.range), (one.bins, other.bins)]
    return (one.shape, one.kind) == (other.shape, other.kind) and all(
        None in pair or pair[0] == pair[1] for pair in stated
    )


def _refuse_two_spaces(binding: Binding, variable: str, one: Root, other: Root) -> None:
    """Report a variable that two roots draw, such as data and a prior, in Spaces that do not agree."""
    written = [f"{joint.name}({factor}) draws {s} from {factor.part!r}" for joint, factor, s in (one, other)]
    message = f"{variable!r} is two different variables: {' and '.join(written)}"
    sources = binding.recipe.all_sources()
    (data, prior) = (one, other) if one[1].part in sources else (other, one)
    if data[1].part in sources and prior[1].part not in sources:
        name = f"{prior[0].name}({prior[1]})"
        message += f'; if both come from the data: parts."{name}" = "{data[1].part}"'
        if isinstance(binding.recipe.all_priors()[prior[1].part], PriorOfVariable):
            message += (
                f'; if the prior models the data: {dotted(binding.recipe.path_of(prior[1].part))}.like = "{variable}"'
            )
    binding.problems.add(message, "objective")


def _drawn_by_roots(joints: Mapping[str, Joint]) -> set[str]:
    """Return the variables of sources and priors: where one has no Space, its source or prior has a problem."""
    return {v for joint in joints.values() for factor in joint.factors if factor.is_root for v in factor.out}


def _spaces_of_root(binding: Binding, joint: Joint, factor: Conditional) -> dict[str, Space]:
    """Return what a root says of the variables that it draws, and report what it cannot say."""
    recipe, problems, part = binding.recipe, binding.problems, factor.part
    sources, priors = recipe.all_sources(), recipe.all_priors()
    written = f"{joint.name}({factor})"
    if part in priors:
        if isinstance(priors[part], PriorOfVariable) and priors[part].like:
            return {}
        with attributing(binding.named(part)):
            return {factor.out[0]: priors[part].space}
    if part not in sources:
        names = ", ".join(sorted([*sources, *priors]))
        problems.add(
            f"missing; the objective draws {written} from it; give it, or sources.{part}, a data source whose rows "
            f"take its place{f'; the recipe has {names}' if names else ''}",
            *(("prior",) if part == "prior" else ("priors", part)),
        )
        return {}
    if part not in binding.offered:
        with problems.collect(*recipe.path_of(part)), attributing(binding.named(part)):
            binding.offered[part] = sources[part].spaces()
    offered = binding.offered.get(part)
    if offered is None:
        return {}
    if len(offered) == 1 and len(factor.out) == 1:  # a source with one variable takes the joint's name for it
        return {factor.out[0]: next(iter(offered.values()))}
    for variable in factor.out:
        if variable not in offered:
            problems.add(
                f"yields no {variable!r}, which {written} draws{suggest(variable, offered)}", *recipe.path_of(part)
            )
    return {variable: offered[variable] for variable in factor.out if variable in offered}


# --- parts -----------------------------------------------------------------------------------------------------------


def _bind_part(binding: Binding, joint: Joint, factor: Conditional, registry: Registry | None) -> None:
    """Find the traits and the capabilities of the part that computes a factor."""
    part = factor.part
    if not factor.is_root:
        binding.traits[part] = PartTraits("conditional")
        table = binding.recipe.all_conditionals().get(part)
        if table is None:
            _report_missing_table(binding, joint, factor)
        elif (space := binding.spaces.get(factor.out[0])) is not None:
            try:
                can = _capabilities_of(binding, part, space)
            except ConfigError as error:
                fitting = _families_that_serve(space, type(table.family), registry)
                where = (*binding.recipe.path_of(part), "family")
                drawn = f" (it draws {factor.out[0]!r})"
                problems = [Problem(p.message + drawn + fitting, *where, *p.path) for p in error.problems]
                binding.problems.extend(problems)
            else:
                merged: tuple[Conditional, ...] = ()
                if isinstance(table.family, FamilyThroughParts):
                    with binding.problems.collect(*binding.recipe.path_of(part), "family"):
                        merged = _merged_conditionals(binding, factor, table.family)
                seen: tuple[Argument, ...] = ()
                if table.input is not None:
                    with binding.problems.collect(*binding.recipe.path_of(part), "input"):
                        seen = parse_values(table.input, Vocabulary(binding.joints, binding.ratios))
                        check_input(seen, part, factor.given)
                binding.traits[part] = PartTraits(
                    "conditional", can.paths, can.noise_input, values=can.values, merged=merged, input=seen
                )
                binding.capabilities[part] = can
        return
    prior = binding.recipe.all_priors().get(part)
    if prior is None:
        sources, train = binding.recipe.all_sources(), binding.recipe.train.batch
        batch = binding.recipe.batch_of(part) if part in sources else train
        binding.traits[part] = PartTraits("data", batch=0 if batch == train else batch)
        return
    through = prior.through if isinstance(prior, PriorThroughParts) else ()
    binding.traits[part] = PartTraits("prior", through=through)
    space = binding.spaces.get(factor.out[0])
    if space is None:  # a problem says what the prior is not like
        return
    named = binding.named(part)
    with binding.problems.collect(*binding.recipe.path_of(part)):
        of_parts = [_capabilities_for_prior(binding, name, factor) for name in through]
        with attributing(named):
            can = prior.capabilities(space, *of_parts)
        can = _checked(named, can)
        binding.traits[part] = PartTraits(
            "prior", can.paths, trainable=can.trainable, through=through, values=can.values
        )
        binding.capabilities[part] = can


def _merged_conditionals(binding: Binding, factor: Conditional, family: FamilyThroughParts) -> tuple[Conditional, ...]:
    """Find the conditionals whose distributions a family merges.

    Raises:
        ConfigError: It cannot merge such a part.
    """
    factors, tables = _conditionals(binding.joints), binding.recipe.all_conditionals()
    merged = []
    for part in family.merged_parts:
        if part not in factors:
            raise ConfigError(f"{part!r} is no conditional of the objective{suggest(part, factors)}", "through")
        other, wrong = factors[part], ""
        if other.out != factor.out or set(other.given) - set(factor.given):
            wrong = f"is of {other}; {factor} needs a part that draws the same, given less"
        elif not set(factor.given) - set(other.given):
            wrong = f"is given all that {factor} is, so that the network would see nothing"
        elif part in tables and isinstance(tables[part].family, FamilyThroughParts):
            wrong = "merges other parts itself"
        if wrong:
            raise ConfigError(f"{part!r} {wrong}", "through")
        merged.append(other)
    family.check_merged([tables[other.part].family for other in merged if other.part in tables])
    return tuple(merged)


def _capabilities_of(binding: Binding, part: str, space: Space) -> Capabilities:
    named = binding.named(part, "family")
    with attributing(named):
        can = binding.recipe.all_conditionals()[part].family.capabilities(space)
    return _checked(named, can)


def _checked(named: str, can: object) -> Capabilities:
    if not isinstance(can, Capabilities):
        raise ComponentError(f"{named}: capabilities() gives a {type(can).__name__}, it must be Capabilities")
    return can


def _capabilities_for_prior(binding: Binding, part: str, root: Conditional) -> Capabilities:
    """Return what a conditional that a prior goes through can do.

    Raises:
        ConfigError: A prior cannot go through this part.
    """
    factors = _conditionals(binding.joints)
    if part not in factors:
        raise ConfigError(f"goes through {part!r}, which is no conditional of the objective{suggest(part, factors)}")
    factor = factors[part]
    if factor.out != root.out:
        raise ConfigError(f"goes through {part!r}, which draws {', '.join(factor.out)} and not {', '.join(root.out)}")
    table, space = binding.recipe.all_conditionals().get(part), binding.spaces.get(factor.out[0])
    if table is None or space is None:
        return Capabilities()  # another problem says so
    try:
        can = _capabilities_of(binding, part, space)
    except ConfigError:  # a problem of that part, which is reported where it is bound
        return Capabilities()
    if isinstance(table.family, FamilyThroughParts):
        raise ConfigError(f"goes through {part!r}, which merges another part's distribution")
    if table.input is not None:
        raise ConfigError(f"goes through {part!r}, whose network sees {table.input}, which a prior does not give it")
    if can.noise_input:
        raise ConfigError(f"goes through {part!r}, whose network takes noise, which a prior does not give it")
    return can


def _conditionals(joints: Mapping[str, Joint]) -> dict[str, Conditional]:
    """Return the factor that each encoder and decoder computes."""
    return {f.part: f for joint in joints.values() for f in joint.factors if not f.is_root}


def _bind_critics(binding: Binding) -> None:
    recipe, ratios = binding.recipe, binding.ratios
    for name, ratio in ratios.items():
        binding.traits[name] = PartTraits("critic")
        if recipe.discriminators.get(name, recipe.discriminator) is None:
            binding.problems.add(
                f"missing; the objective trains a critic {name!r}, {ratio.definition}", "discriminator"
            )
    for name in recipe.discriminators:
        if name not in ratios:
            binding.problems.add(
                f"the objective has no ratio of this name{suggest(name, ratios)}", "discriminators", name
            )


# --- problems --------------------------------------------------------------------------------------------------------


def _report_missing_table(binding: Binding, joint: Joint, factor: Conditional) -> None:
    kind, part = "encoder" if joint.name == "q" else "decoder", factor.part
    message = f"missing; it computes {joint.name}({factor})"
    if part == kind:
        binding.problems.add(message, kind)
    else:
        known = binding.recipe.all_conditionals()
        binding.problems.add(f"{message}{suggest(part, known)}", f"{kind}s", part)


def _refuse_unused_tables(binding: Binding) -> None:
    """Report named parts and variables that the objective does not have: nothing in a recipe is ignored silently."""
    recipe, problems, roots = binding.recipe, binding.problems, _drawn_by_roots(binding.joints)
    for kind in ("sources", "priors", "encoders", "decoders"):
        for name in getattr(recipe, kind):
            if name not in binding.traits:
                problems.add(f"the objective uses no part of this name{suggest(name, binding.traits)}", kind, name)
    variables = {v for joint in binding.joints.values() for v in joint.variables}
    for variable in recipe.latents:
        if variable not in variables:
            problems.add(
                f"the objective has no variable of this name{suggest(variable, variables)}", "latents", variable
            )
        elif variable in roots:
            problems.add(
                f"a data source or prior says what {variable!r} looks like; remove this key", "latents", variable
            )


def _families_that_serve(space: Space, used: type, registry: Registry | None) -> str:
    """Name the families for a variable in `space`, unless the one used serves it with other settings."""
    if registry is None or _serves(used, space):
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
