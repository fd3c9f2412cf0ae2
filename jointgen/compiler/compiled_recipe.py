"""From a recipe to everything a run needs, checked before any data is read: objectives, plans, parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from jointgen.compiler.balanced_weights import balances_of
from jointgen.compiler.binding import Binding, bind
from jointgen.compiler.build import build
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Plan, make_plan
from jointgen.compiler.requirements import unmet
from jointgen.config.optimizers import StageTables, Table
from jointgen.config.recipe import Recipe
from jointgen.errors import Problem, Problems, placing, suggest
from jointgen.objectives.objective import Stage, as_stages
from jointgen.registry.components import Registry


@attrs.frozen
class CompiledRecipe:
    """A recipe whose objective, families and networks fit together. `plans` has one plan per stage."""

    recipe: Recipe
    registry: Registry
    stages: tuple[Stage, ...]
    binding: Binding
    plans: tuple[Plan, ...]
    parts: Parts

    def optimizer_of(self, part: str, stage: int) -> Table:
        """The table of the recipe's `optimizer` that trains this part in a stage."""
        critic = self.binding.traits[part].kind == "critic"
        return self.recipe.optimizer.of(part, self.stages[stage].name, critic=critic)

    @property
    def repeats(self) -> int:
        """How often a step may ask for rows of its own: as often as an update runs."""
        return max(u.update.times for plan in self.plans for u in plan.updates)

    def boundaries(self) -> list[int]:
        """The step at which each stage ends."""
        total, shares = self.recipe.train.total_steps, 0.0
        ends = []
        for stage in self.stages:
            shares += stage.share or 0.0
            ends.append(round(total * shares))
        return [*ends[:-1], total]

    def without_steps(self) -> list[str]:
        """The stages whose share of the budget is less than a step."""
        ends = self.boundaries()
        return [stage.name for stage, begin, end in zip(self.stages, [0, *ends], ends, strict=False) if begin == end]


def compile_recipe(recipe: Recipe, registry: Registry) -> CompiledRecipe:
    """Raises ConfigError with every mismatch between the objective and the parts, families that fit named."""
    stages = stages_of(recipe, registry)
    binding = bind(recipe, [stage.objective for stage in stages], registry)
    binding.problems.raise_any()
    with placing("objective"):
        plans = tuple(make_plan(s.objective, binding.traits, separate=recipe.train.compile != "off") for s in stages)
        for plan in plans:
            balances_of(plan)  # raises
    problems = Problems()
    for plan in plans:
        problems += unmet(plan, binding, registry) or _idle(plan)
    problems += [*_unfit_rows(recipe, plans), *_untrained(recipe, stages, binding, plans)]
    with problems.collect():
        parts = build(binding)
    problems.raise_any()
    return CompiledRecipe(recipe, registry, stages, binding, plans, parts)


def stages_of(recipe: Recipe, registry: Registry) -> tuple[Stage, ...]:
    """The objective's stages, with critics' updates written out."""
    with placing("objective"):
        stages = as_stages(recipe.objective.objective())
        return tuple(attrs.evolve(s, objective=s.objective.complete(registry.default)) for s in stages)


def _idle(plan: Plan) -> Iterable[Problem]:
    """Updates that train nothing, and parts that an update would train in vain."""
    for update in plan.updates:
        reached = {part for summand in update.summands for part in summand.gradient_paths}
        if not update.trains:
            message = f"update {update.name!r} trains nothing; no gradient of it reaches a part that can learn"
            yield Problem(message, "objective")
        for part in update.trains:
            if part not in reached:
                yield Problem(f"update {update.name!r} trains {part!r}, which no gradient of it reaches", "objective")


def _untrained(recipe: Recipe, stages: Sequence[Stage], binding: Binding, plans: Sequence[Plan]) -> Iterable[Problem]:
    """Tables for an optimizer of parts that no update trains."""
    trained = [list(dict.fromkeys(part for u in plan.updates for part in u.trains)) for plan in plans]
    tables, everywhere = recipe.optimizer, {part for parts in trained for part in parts}
    for part in tables.parts:
        if part not in everywhere:
            message = f"the objective trains no part of this name{suggest(part, everywhere)}"
            yield Problem(message, "optimizer", "parts", part)
    by_stage = {stage.name: parts for stage, parts in zip(stages, trained, strict=True)}
    for name in tables.stages:
        if name not in by_stage:
            message = f"the objective has no stage of this name{suggest(name, by_stage)}"
            yield Problem(message, "optimizer", "stages", name)
        else:
            unused = _unused(tables.stages[name], by_stage[name], binding)
            yield from (problem.under("optimizer", "stages", name) for problem in unused)


def _unused(tables: StageTables, trained: Sequence[str], binding: Binding) -> Iterable[Problem]:
    """A stage's tables that train nothing in it."""
    critics = [part for part in trained if binding.traits[part].kind == "critic"]
    rest = [part for part in trained if part not in critics]
    if tables.model is not None and not rest:
        yield Problem("the stage trains critics alone", "model")
    if tables.critics is not None and not critics:
        yield Problem("the stage trains no critic", "critics")
    for part in tables.parts:
        if part not in trained:
            yield Problem(f"the stage trains no part of this name{suggest(part, trained)}", "parts", part)


def check_rows(recipe: Recipe, plans: tuple[Plan, ...], processes: int) -> None:
    """Raises ConfigError where the batch does not divide as it must over so many processes."""
    Problems(_unfit_rows(recipe, plans, processes)).raise_any()


def _unfit_rows(recipe: Recipe, plans: tuple[Plan, ...], processes: int = 1) -> list[Problem]:
    """Where a batch does not divide into its parts, or a re-pairing would shift rows all around their block, back to
    themselves, or out of the part that they are in."""
    train = recipe.train
    batch, block, parts = train.batch, train.pair_block, processes * train.micro_batches
    if batch % processes:
        return []  # the loader of each source says so
    divided = _parts(train.micro_batches, processes)
    if batch % parts:
        return [Problem(f"a batch of {batch} does not divide into {divided}", "train", "micro_batches")]
    furthest = max(plan.furthest_pairing for plan in plans)
    if furthest and parts > 1 and batch // parts % block:
        message = (
            f"{block} does not divide the {batch // parts} rows that {batch} make in {divided}, in which the objective "
            "re-pairs rows"
        )
        return [Problem(message, "train", "pair_block")]
    key, rows = ("pair_block", block) if batch % block == 0 else ("batch", batch)
    if furthest < rows:
        return []
    message = f"must be more than {furthest}, by which the objective shifts rows to re-pair them, got {rows}"
    return [Problem(message, "train", key)]


def _parts(micro_batches: int, processes: int) -> str:
    micro = f"{micro_batches} micro-batches" if micro_batches > 1 else ""
    return " in each of ".join(filter(None, [micro, f"{processes} processes" if processes > 1 else ""]))
