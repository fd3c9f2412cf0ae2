"""Requirements of an objective on the families, derived from its plan and matched against what they declare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import attrs

from jointgen.compiler.binding import Binding
from jointgen.compiler.nodes import Ability, Node
from jointgen.config.structure import key_of
from jointgen.config.values import show
from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.distributions import Prior, PriorOfFamily
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError, Problem
from jointgen.registry.components import Registry

if TYPE_CHECKING:
    from jointgen.compiler.plan import Plan, Summand


@attrs.frozen
class Requirement:
    """A part must have an ability, because of a term; `detail` is the reading or the other law that it is about."""

    part: str
    ability: Ability
    detail: str
    term: str

    def __str__(self) -> str:
        return _SENTENCES[self.ability].format(detail=self.detail)

    def met_by(self, can: Capabilities) -> bool:
        """Return whether a distribution with these capabilities has what is required."""
        return {
            "own density": can.own_density != "none",
            "foreign density": can.foreign_density != "none",
            "bin mass": can.bin_mass,
            "reading": self.detail in can.paths,
            "path": can.paths.get(self.detail, "none") != "none",
            "KL": self.detail in can.kl_to,
            "moments": can.moments,
            "values": can.values > 0,
            "density of each dimension": can.each_density,
        }[self.ability]


_SENTENCES = {
    "own density": "a density at its own draws",
    "foreign density": "a density at points that it did not draw",
    "bin mass": "the exact probability of a quantisation bin",
    "reading": "a draw with the reading {detail!r}",
    "path": "a gradient path through the reading {detail!r} of its draws",
    "KL": "KL to {detail!r} in closed form",
    "moments": "the moments of its draws",
    "density of each dimension": "a density of each dimension by itself",
    "values": "a list of all values that {detail!r} can take, to sum over",
}


def law_names(binding: Binding, registry: Registry) -> dict[str, str]:
    """Name the distribution of each part, for closed forms: by its family, or by a prior that has none."""
    recipe = binding.recipe
    families = {n: table.family for n, table in recipe.all_conditionals().items()}
    families |= {n: prior.family for n, prior in recipe.all_priors().items() if isinstance(prior, PriorOfFamily)}
    named = {n: registry.name_of("family", type(family)) for n, family in families.items()}
    others = {n: prior for n, prior in recipe.all_priors().items() if n not in families}
    return named | {n: registry.name_of("prior", type(prior)) for n, prior in others.items()}


def requirements(plan: Plan, laws: Mapping[str, str]) -> list[Requirement]:
    """List every requirement of a plan once, with the first term that has it.

    Args:
        plan: The plan of a step.
        laws: The name of the distribution of each part, see `law_names`.
    """
    found: dict[tuple[str, str, str], Requirement] = {}
    for index, update in enumerate(plan.updates):
        handed_over = plan.handed_over(index)
        for summand in update.summands:
            for need in requirements_of(summand, laws, update.differentiable, handed_over):
                found.setdefault((need.part, need.ability, need.detail), need)
    return list(found.values())


def requirements_of(
    summand: Summand,
    laws: Mapping[str, str],
    differentiable: frozenset[Node] = frozenset(),
    handed_over: frozenset[Node] = frozenset(),
) -> Iterator[Requirement]:
    """Yield what one term requires of the families.

    Args:
        summand: The term.
        laws: The name of the distribution of each part, see `law_names`.
        differentiable: The nodes whose gradient reaches a part that the update trains.
        handed_over: The nodes whose value an earlier update of the step hands over.
    """
    for node in summand.nodes:
        if node not in handed_over:
            for part, ability, detail in node.needs(differentiable, handed_over):
                law = laws.get(detail, detail) if ability == "KL" else detail
                yield Requirement(part, ability, law, summand.label)


def unmet(plan: Plan, binding: Binding, registry: Registry) -> list[Problem]:
    """One problem for each requirement that a part does not meet, naming both sides and the families that fit."""
    needs = [need for need in requirements(plan, law_names(binding, registry)) if not is_met(need, binding)]
    unread = {(need.part, need.detail) for need in needs if need.ability == "reading"}
    # where a reading is missing, so is its path: once is enough
    told = [need for need in needs if need.ability != "path" or (need.part, need.detail) not in unread]
    return [_mismatch(need, binding, registry) for need in told]


def is_met(need: Requirement, binding: Binding) -> bool:
    """Return whether a part can do this; True where nothing is declared, which another problem reports."""
    can = binding.capabilities.get(need.part)
    return can is None or need.met_by(can)


def _mismatch(need: Requirement, binding: Binding, registry: Registry) -> Problem:
    joint, factor = binding.factor_of(need.part)
    is_prior = binding.traits[need.part].kind == "prior"
    kind = "prior" if is_prior else "family"
    recipe = binding.recipe
    own = recipe.all_priors()[need.part] if is_prior else recipe.all_conditionals()[need.part].family
    message = (
        f"the objective needs {need} for {joint.name}({factor}), in the term {need.term!r}; "
        f"the {kind} {registry.name_of(kind, type(own))!r} as set here does not have it"
        f"{_that_fit(need, own, kind, binding.spaces[factor.out[0]], registry)}"
    )
    return Problem(message, *recipe.path_of(need.part), *(() if is_prior else ("family",)))


def _that_fit(need: Requirement, own: Any, kind: str, space: Space, registry: Registry) -> str:
    fitting = [text for c, cls in registry.loadable(kind) for text in _ways(c.name, cls, need, own, space)]
    plural = {"family": "families", "prior": "priors"}[kind]
    if fitting:
        return f"; {plural} that do: {', '.join(fitting)}"
    if need.ability == "values":
        return f"; {need.detail!r} is {space}, and a sum is over a label or a few bits: leave it out of the sum"
    return f"; no registered {kind} has it{_other_kl(need, own, kind, space, registry)}"


def _other_kl(need: Requirement, own: Any, kind: str, space: Space, registry: Registry) -> str:
    """List what else `own` has a KL to, because the other side can be changed, too."""
    others = own.capabilities(space).kl_to if need.ability == "KL" else ()
    return f"; {registry.name_of(kind, type(own))!r} has it to {', '.join(others)}" if others else ""


def _ways(name: str, cls: Any, need: Requirement, own: Any, space: Space) -> Iterable[str]:
    """Find how this component would fit: as it is, or with another choice for one of its keys (the first)."""
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
    if isinstance(config, Prior) and config.space.kind != space.kind:
        return False
    try:
        return need.met_by(config.capabilities(space))
    except ConfigError:  # it does not serve this Space
        return False
