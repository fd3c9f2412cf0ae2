"""From a recipe to everything a run needs, checked before any data is read: objectives, plans, parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from jointgen.errors import ConfigError
from jointgen.objectives.objective import Stage, as_stages
from jointgen.parts import Declared, Parts, build, declare
from jointgen.plan import Plan, make_plan
from jointgen.recipe import Recipe
from jointgen.registry import Registry
from jointgen.requirements import unmet


@attrs.frozen
class Prepared:
    """A recipe whose objective, families and networks fit together. `plans` has one plan per stage."""

    recipe: Recipe
    registry: Registry
    stages: tuple[Stage, ...]
    declared: Declared
    plans: tuple[Plan, ...]
    parts: Parts

    def boundaries(self) -> list[int]:
        """The step at which each stage ends."""
        total, shares = self.recipe.train.total_steps, 0.0
        ends = []
        for stage in self.stages:
            shares += stage.share or 0.0
            ends.append(round(total * shares))
        return [*ends[:-1], total]


def prepare(recipe: Recipe, registry: Registry) -> Prepared:
    """Raises ConfigError with every mismatch between the objective and the parts, families that fit named."""
    stages = stages_of(recipe, registry)
    declared = declare(recipe, [stage.objective for stage in stages])
    _raise_if(declared.problems)
    plans = tuple(make_plan(stage.objective, declared.traits) for stage in stages)
    # two stages often need the same thing: each mismatch is said once
    _raise_if(dict.fromkeys(line for plan in plans for line in unmet(plan, declared, registry)))
    return Prepared(recipe, registry, stages, declared, plans, build(declared))


def stages_of(recipe: Recipe, registry: Registry) -> tuple[Stage, ...]:
    """The objective's stages, with critics' updates written out."""
    resolve = resolver(registry)
    try:
        stages = as_stages(recipe.objective.objective())
        return tuple(attrs.evolve(s, objective=s.objective.complete(resolve)) for s in stages)
    except ConfigError as error:
        raise ConfigError([p if p.startswith("objective") else f"objective: {p}" for p in error.problems]) from None


def resolver(registry: Registry) -> Callable[[str, str], Any]:
    """(kind, name) -> that component with its default settings."""

    def resolve(kind: str, name: str) -> Any:
        component: Any = registry.get(kind, name).load()
        return component()

    return resolve


def _raise_if(problems: Any) -> None:
    if problems:
        raise ConfigError(problems)
