"""What an objective requires of the families, derived from its plan, and matched against what they declare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from jointgen.capabilities import Capabilities
from jointgen.errors import ConfigError
from jointgen.parts import Declared
from jointgen.plan import ClosedKL, Density, Lowering, Node, Plan, Read, Sample, Summand, View, nodes_of, ordered, reach
from jointgen.registry import Registry
from jointgen.space import Space


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
        }[self.ability]


_SENTENCES = {
    "own density": "a density at its own draws",
    "foreign density": "a density at points that it did not draw",
    "bin mass": "the exact probability of a quantisation bin",
    "reading": "a draw with the reading {detail!r}",
    "path": "a gradient path through the reading {detail!r} of its draws",
    "KL": "KL to {detail!r} in closed form",
}


def requirements(plan: Plan, priors: Mapping[str, str]) -> list[Requirement]:
    """Every requirement once. `priors` maps a prior part to the name of its component, for closed-form KL."""
    found: dict[tuple[str, str, str], Requirement] = {}
    for update in plan.updates:
        lowering = Lowering(plan.objective.joints, plan.traits, update.trains)
        for summand in update.summands:
            for need in requirements_of(summand, lowering, priors):
                found.setdefault((need.part, need.ability, need.detail), need)
    return list(found.values())


def requirements_of(summand: Summand, lowering: Lowering, priors: Mapping[str, str]) -> Iterable[Requirement]:
    for node in ordered(nodes_of(summand.source, summand.term, lowering)):
        for part, ability, detail in _of_node(node, lowering, priors):
            yield Requirement(part, ability, detail, summand.label)


def _of_node(node: Node, lowering: Lowering, priors: Mapping[str, str]) -> Iterable[tuple[str, str, str]]:
    if isinstance(node, Density):
        yield node.law.part, "bin mass" if node.mass else "own density" if node.own else "foreign density", ""
    elif isinstance(node, ClosedKL):
        yield node.law.part, "KL", priors.get(node.other.part, node.other.part)
    elif isinstance(node, View):
        yield node.part, "reading", node.reading
    elif isinstance(node, Read) and isinstance(node.source, Sample):
        part = node.source.forward.part
        yield part, "reading", node.reading
        if not node.stop and lowering.trains & set(reach(node.source.forward, lowering.traits)):
            yield part, "path", node.reading


def unmet(plan: Plan, declared: Declared, registry: Registry) -> list[str]:
    """One line for each requirement that a part does not meet, naming both sides and the families that fit."""
    priors = {name: registry.name_of("prior", type(prior)) for name, prior in declared.recipe.all_priors().items()}
    return [_mismatch(need, declared, registry) for need in requirements(plan, priors) if not is_met(need, declared)]


def is_met(need: Requirement, declared: Declared) -> bool:
    """True also where nothing is declared: another problem says that the part is missing."""
    can = declared.capabilities.get(need.part)
    return can is None or need.met_by(can)


def _mismatch(need: Requirement, declared: Declared, registry: Registry) -> str:
    joint, factor = declared.factor_of(need.part)
    return (
        f"{need.part}: the objective needs {need} for {joint.name}({factor}), in the term {need.term!r}; "
        f"the family {_family_name(declared, need.part, registry)!r} does not have it"
        f"{_that_fit(need, declared.spaces[factor.out[0]], registry)}"
    )


def _family_name(declared: Declared, part: str, registry: Registry) -> str:
    table = declared.recipe.all_conditionals().get(part)
    if table is None:
        return registry.name_of("prior", type(declared.recipe.all_priors()[part]))
    return registry.name_of("family", type(table.family))


def _that_fit(need: Requirement, space: Space, registry: Registry) -> str:
    fitting = [c.name for c in registry.components("family") if _fits(c.load(), need, space)]
    return f"; families that do: {', '.join(fitting)}" if fitting else "; no registered family has it"


def _fits(family: type, need: Requirement, space: Space) -> bool:
    """Whether the family with its default settings would do."""
    try:
        config: Any = family()
        return need.met_by(config.capabilities(space))
    except (TypeError, ConfigError):  # it has settings without defaults, or does not serve this Space
        return False
