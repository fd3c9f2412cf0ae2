"""What an objective requires of the families, derived from its plan, and matched against what they declare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

import attrs

from jointgen.compiler.binding import Binding, table_of
from jointgen.compiler.gradient_paths import gradient_paths
from jointgen.compiler.lowering import Lowering
from jointgen.compiler.nodes import (
    ClosedKL,
    Density,
    Forward,
    Moments,
    Node,
    PriorLaw,
    Read,
    Root,
    Sample,
    View,
    is_scored_by_draw,
    ordered,
)
from jointgen.compiler.plan import Plan, Summand, nodes_of
from jointgen.config.structure import key_of
from jointgen.config.toml import show
from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.distributions import PriorOfFamily
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.registry.components import Registry


@attrs.frozen
class Requirement:
    """`part` must be able to do `what`, because of `term`. `ability` and `detail` are what is looked up."""

    part: str
    ability: str
    detail: str
    term: str

    def __str__(self) -> str:
        return _SENTENCES[self.ability].format(detail=self.detail)

    def met_by(self, can: Capabilities) -> bool:
        return {
            "own density": can.own_density != "none",
            "foreign density": can.foreign_density != "none",
            "bin mass": can.bin_mass,
            "reading": self.detail in can.paths,
            "path": can.paths.get(self.detail, "none") != "none",
            "KL": self.detail in can.kl_to,
            "moments": can.moments,
        }[self.ability]


_SENTENCES = {
    "own density": "a density at its own draws",
    "foreign density": "a density at points that it did not draw",
    "bin mass": "the exact probability of a quantisation bin",
    "reading": "a draw with the reading {detail!r}",
    "path": "a gradient path through the reading {detail!r} of its draws",
    "KL": "KL to {detail!r} in closed form",
    "moments": "the moments of its draws",
}


def law_names(binding: Binding, registry: Registry) -> dict[str, str]:
    """part -> the name of its distribution, for closed forms: that of its family, or of a prior without one."""
    recipe = binding.recipe
    families = {n: table.family for n, table in recipe.all_conditionals().items()}
    families |= {n: prior.family for n, prior in recipe.all_priors().items() if isinstance(prior, PriorOfFamily)}
    named = {n: registry.name_of("family", type(family)) for n, family in families.items()}
    others = {n: prior for n, prior in recipe.all_priors().items() if n not in families}
    return named | {n: registry.name_of("prior", type(prior)) for n, prior in others.items()}


def requirements(plan: Plan, laws: Mapping[str, str]) -> list[Requirement]:
    """Every requirement once. `laws` gives a part's distribution its name, see `law_names`."""
    found: dict[tuple[str, str, str], Requirement] = {}
    for index, update in enumerate(plan.updates):
        lowering = Lowering(plan.objective.joints, plan.traits, update.trains)
        reused = plan.shared(index)
        for summand in update.summands:
            for need in requirements_of(summand, lowering, laws, reused):
                found.setdefault((need.part, need.ability, need.detail), need)
    return list(found.values())


def requirements_of(
    summand: Summand, lowering: Lowering, laws: Mapping[str, str], reused: frozenset[Node] = frozenset()
) -> Iterable[Requirement]:
    """reused: nodes that an earlier update of the step computes."""
    for node in ordered(nodes_of(summand.source, summand.term, lowering)):
        if node in reused:
            continue
        for part, ability, detail in _of_node(node, lowering, laws, reused):
            yield Requirement(part, ability, detail, summand.label)


def _of_node(
    node: Node, lowering: Lowering, laws: Mapping[str, str], reused: frozenset[Node]
) -> Iterable[tuple[str, str, str]]:
    if isinstance(node, Moments):
        yield node.part, "moments", ""
    elif isinstance(node, Density) and not isinstance(node.law, Moments):
        yield from _of_density(node, node.law, is_scored_by_draw(node, reused))
    elif isinstance(node, ClosedKL):
        yield node.law.part, "KL", laws.get(node.other.part, node.other.part)
    elif isinstance(node, View):
        yield node.part, "reading", node.reading
    elif isinstance(node, Read) and isinstance(node.source, Sample) and not isinstance(node.source.forward, Moments):
        part = node.source.forward.part
        yield part, "reading", node.reading
        if not node.stop and lowering.trains & set(gradient_paths(node.source.forward, lowering.traits)):
            yield part, "path", node.reading
    elif isinstance(node, Read) and isinstance(node.source, Root) and not node.source.is_data:
        yield from _of_prior_draw(node, node.source, lowering)


def _of_density(node: Density, law: Forward | PriorLaw, own: bool) -> Iterable[tuple[str, str, str]]:
    """A prior that goes through other parts scores points that a single run of them did not draw."""
    through = law.through if isinstance(law, PriorLaw) else ()
    yield from ((part, "foreign density", "") for part in through)
    if not through:
        yield law.part, "bin mass" if node.mass else "own density" if own else "foreign density", ""


def _of_prior_draw(node: Read, root: Root, lowering: Lowering) -> Iterable[tuple[str, str, str]]:
    if node.reading != "sample":
        yield root.part, "reading", node.reading
    if not node.stop and lowering.trains & set(gradient_paths(root, lowering.traits)):
        yield from ((part, "path", node.reading) for part in root.through or (root.part,))


def unmet(plan: Plan, binding: Binding, registry: Registry) -> list[str]:
    """One line for each requirement that a part does not meet, naming both sides and the families that fit."""
    needs = [need for need in requirements(plan, law_names(binding, registry)) if not is_met(need, binding)]
    unread = {(need.part, need.detail) for need in needs if need.ability == "reading"}
    # where a reading is missing, so is its path: once is enough
    told = [need for need in needs if need.ability != "path" or (need.part, need.detail) not in unread]
    return [_mismatch(need, binding, registry) for need in told]


def is_met(need: Requirement, binding: Binding) -> bool:
    """True also where nothing is declared: another problem says that the part is missing."""
    can = binding.capabilities.get(need.part)
    return can is None or need.met_by(can)


def _mismatch(need: Requirement, binding: Binding, registry: Registry) -> str:
    joint, factor = binding.factor_of(need.part)
    is_prior = binding.traits[need.part].kind == "prior"
    kind = "prior" if is_prior else "family"
    recipe = binding.recipe
    own = recipe.all_priors()[need.part] if is_prior else recipe.all_conditionals()[need.part].family
    where = table_of(recipe, need.part) + ("" if is_prior else ".family")
    return (
        f"{where}: the objective needs {need} for {joint.name}({factor}), in the term {need.term!r}; "
        f"the {kind} {registry.name_of(kind, type(own))!r} as set here does not have it"
        f"{_that_fit(need, own, kind, binding.spaces[factor.out[0]], registry)}"
    )


def _that_fit(need: Requirement, own: Any, kind: str, space: Space, registry: Registry) -> str:
    fitting = [text for c, cls in registry.loadable(kind) for text in _ways(c.name, cls, need, own, space)]
    plural = {"family": "families", "prior": "priors"}[kind]
    if fitting:
        return f"; {plural} that do: {', '.join(fitting)}"
    return f"; no registered {kind} has it{_other_kl(need, own, kind, space, registry)}"


def _other_kl(need: Requirement, own: Any, kind: str, space: Space, registry: Registry) -> str:
    """What else `own` has KL to, because the other side can be changed, too."""
    others = own.capabilities(space).kl_to if need.ability == "KL" else ()
    return f"; {registry.name_of(kind, type(own))!r} has it to {', '.join(others)}" if others else ""


def _ways(name: str, cls: Any, need: Requirement, own: Any, space: Space) -> Iterable[str]:
    """How this component would do: as it is, or with another choice for one of its keys. The first choice is shown."""
    try:
        start = own if isinstance(own, cls) else cls()
    except TypeError:  # it has settings without defaults
        return
    if _fits(start, need, space):
        yield name
        return
    for field in attrs.fields(cls):
        choices = get_args(field.type) if get_origin(field.type) is Literal else ()
        able = [c for c in choices if _fits(attrs.evolve(start, **{field.name: c}), need, space)]
        if able:
            yield f"{name} with {key_of(field)} = {' or '.join(map(show, able))}"
            return


def _fits(config: Any, need: Requirement, space: Space) -> bool:
    try:
        return need.met_by(config.capabilities(space))
    except ConfigError:  # it does not serve this Space
        return False
