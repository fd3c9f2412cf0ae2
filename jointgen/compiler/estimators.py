"""The node of an estimator, a term that runs parts of the model itself, and what it is handed. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import attrs

from jointgen.compiler.gradient_paths import GradientPaths, PartTraits, Traits, merge_paths
from jointgen.compiler.nodes import EXPLICIT, Ability, Mode, Need, Node
from jointgen.errors import ConfigError

if TYPE_CHECKING:
    from jointgen.objectives.estimators import Estimate

ABILITIES: Mapping[str, str] = {
    "foreign density": "",
    "moments": "",
    "path": "sample",
    "values": "",
}
"""What an estimator may need of a family, with the detail of the need."""


@attrs.frozen(cache_hash=True)
class HandedLaw:
    """A part that an estimator is handed.

    Args:
        role: The estimator's name for it.
        part: The part.
        mode: live where the estimator trains it, held where it only reads it.
        is_prior: Whether it is a prior, which is given nothing.
        through: The conditionals that a prior is computed with.
    """

    role: str
    part: str
    mode: Mode
    is_prior: bool
    through: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts whose parameters it depends on."""
        return (self.part, *self.through)


@attrs.frozen(cache_hash=True)
class EstimatorNode(Node):
    """What an estimator makes of values and laws, (rows,)."""

    estimator: Any = attrs.field(hash=False)
    inputs: tuple[Node, ...]
    laws: tuple[HandedLaw, ...]
    title: str
    is_never_handed_over = True

    @property
    def parents(self) -> tuple[Node, ...]:
        """The values."""
        return self.inputs

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of its laws."""
        return tuple(dict.fromkeys(part for law in self.laws for part in law.parts))

    @property
    def networks(self) -> tuple[str, ...]:
        """The parts whose networks it runs, counted once each: nobody knows how often it runs them."""
        return tuple(part for law in self.laws for part in (law.through if law.is_prior else law.parts))

    @property
    def scored_parts(self) -> tuple[str, ...]:
        """All of its parts."""
        return self.parts

    def runs_live(self, part: str) -> bool:
        """Whether it runs the network of a conditional with its gradient."""
        return any(law.part == part and law.mode == "live" and not law.is_prior for law in self.laws)

    def gradient_paths(self, traits: Traits) -> GradientPaths:
        """Through its values, and explicitly to what it trains."""
        live = [part for law in self.laws if law.mode == "live" for part in law.parts if traits[part].trainable]
        return merge_paths([*(parent.gradient_paths(traits) for parent in self.inputs), dict.fromkeys(live, EXPLICIT)])

    def needs(self, differentiable: Collection[Node], handed_over: Collection[Node]) -> Iterator[Need]:
        """What the estimator says that it needs of its laws."""
        wanted = getattr(self.estimator, "needs", {})
        for law in self.laws:
            for ability in wanted.get(law.role, ()):
                yield Need(law.part, cast(Ability, ability), ABILITIES[ability])


def handed_laws(term: Estimate, traits: Traits, held: bool) -> tuple[HandedLaw, ...]:
    """The parts that an estimator is handed.

    Args:
        term: The term.
        traits: The traits of every part.
        held: Whether no parameter takes a gradient.

    Raises:
        ConfigError: A law cannot be handed to an estimator.
    """
    found = []
    for role, law, written in zip(term.roles, term.laws, term.written_laws, strict=True):
        part, trait = law.factor.part, traits[law.factor.part]
        if problem := _problem(trait, is_matched=law.factor.moments):
            raise ConfigError(f"{term}: {written} {problem}, so it can be handed to no estimator")
        mode: Mode = "live" if role in term.component.trains and not held else "held"
        found.append(HandedLaw(role, part, mode, trait.kind == "prior", trait.through))
    return tuple(found)


def _problem(trait: PartTraits, is_matched: bool) -> str:
    if is_matched:
        return "is a matched Gaussian"
    if trait.kind == "data":
        return "is drawn from a data source"
    if trait.noise_input:
        return "has a network that takes noise"
    if trait.input:
        return "has a network that sees other values than its variables"
    return "merges another part's distribution" if trait.merged else ""
