"""The compiler's way from a recipe to everything that a run needs, checked before any row is read.

recipe -> stages of objectives -> binding (which part computes what) -> a plan for each stage -> built parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from jointgen.compiler.balanced_weights import balances_of
from jointgen.compiler.binding import Binding, bind
from jointgen.compiler.build import build
from jointgen.compiler.measured import conditions_of, drives_of
from jointgen.compiler.nodes import ReadNode
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Plan, check_same_point, make_plan
from jointgen.compiler.requirements import unmet
from jointgen.config.optimizers import OptimizerTable, StageTables
from jointgen.config.recipe import Recipe
from jointgen.contracts.sources import RecordedData
from jointgen.errors import Problem, Problems, placing, suggest
from jointgen.objectives.objective import Stage, as_stages
from jointgen.registry.components import Registry
from jointgen.runtime.memory import machine_memory

BYTES_OF_A_NUMBER = 4  # float32


@attrs.frozen
class CompiledRecipe:
    """A recipe whose objective, families and networks fit together.

    Args:
        recipe: The recipe.
        registry: The components that it was read with.
        stages: The objectives, with the updates of critics written out.
        binding: The parts that compute the factors of the joints.
        plans: One plan for each stage.
        parts: The networks, families, priors and critics, built on the CPU.
    """

    recipe: Recipe
    registry: Registry
    stages: tuple[Stage, ...]
    binding: Binding
    plans: tuple[Plan, ...]
    parts: Parts

    def optimizer_of(self, part: str, stage: int) -> OptimizerTable:
        """Return the optimizer table of the recipe that trains a part in a stage."""
        critic = self.binding.traits[part].kind == "critic"
        return self.recipe.optimizer.of(part, self.stages[stage].name, critic=critic)

    def batches_of(self, step: int) -> int:
        """Return how many batches a step of the run may ask for: as many as the times that an update runs in it."""
        return max(u.update.times_at(step) for plan in self.plans for u in plan.updates)

    def boundaries(self) -> list[int]:
        """Return the step at which each stage ends."""
        total, shares = self.recipe.train.total_steps, 0.0
        ends = []
        for stage in self.stages:
            shares += stage.share or 0.0
            ends.append(round(total * shares))
        return [*ends[:-1], total]

    def without_steps(self) -> list[str]:
        """Return the names of the stages whose share of the budget is less than a step."""
        ends = self.boundaries()
        return [stage.name for stage, begin, end in zip(self.stages, [0, *ends], ends, strict=False) if begin == end]


def compile_recipe(
    recipe: Recipe,
    registry: Registry,
    recorded: RecordedData | None = None,
    *,
    trains: bool = False,
) -> CompiledRecipe:
    """Compile a recipe.

    Args:
        recipe: The recipe.
        registry: The components that it was read with.
        recorded: What a run has recorded of its data sources; others are asked for their Spaces. Whoever opens the data
            compares it with the record.
        trains: Whether this machine is to train it, which takes several times the memory of its parts.

    Raises:
        ConfigError: Every mismatch between the objective and the parts; families that would fit are named.
    """
    stages = stages_of(recipe, registry)
    binding = bind(recipe, [stage.objective for stage in stages], registry, recorded)
    binding.problems.raise_any()
    with placing("objective"):
        plans = tuple(make_plan(s.objective, binding.traits, separate=recipe.train.compile != "off") for s in stages)
        for plan in plans:
            check_same_point(plan)
            balances_of(plan)  # raises
            conditions_of(plan)
            drives_of(plan)
    problems = Problems()
    for plan in plans:
        problems += unmet(plan, binding, registry) or _idle(plan)
    problems += [
        *_unfit_rows(recipe, plans),
        *_unfit_batch_terms(recipe, plans),
        *_too_many_dimensions(binding, plans),
        *_too_many_rows(binding),
        *_untrained(recipe, stages, binding, plans),
    ]
    if _bytes_of_rows(binding, 1) > machine_memory():  # no network for such a row can be asked for, either
        problems.raise_any()
    with problems.collect():
        parts = build(binding, trains=trains)
    problems.raise_any()
    return CompiledRecipe(recipe, registry, stages, binding, plans, parts)


def stages_of(recipe: Recipe, registry: Registry) -> tuple[Stage, ...]:
    """Return the stages of the recipe's objective, with the updates of critics written out."""
    with placing("objective"):
        stages = as_stages(recipe.objective.objective())
        return tuple(attrs.evolve(s, objective=s.objective.complete(registry.default)) for s in stages)


def _idle(plan: Plan) -> Iterable[Problem]:
    """Yield updates that train nothing, and parts that are to be trained or constrained and that nothing trains."""
    for update in plan.updates:
        reached = {part for summand in update.summands for part in summand.gradient_paths}
        if not update.trains:
            message = f"update {update.name!r} trains nothing; no gradient of it reaches a part that can learn"
            yield Problem(message, "objective")
        for part in update.trains:
            if part not in reached:
                yield Problem(f"update {update.name!r} trains {part!r}, which no gradient of it reaches", "objective")
    trained = {part for update in plan.updates for part in update.trains}
    for part, _ in plan.objective.constraints:
        if part not in trained:
            message = f"the objective trains no part of this name{suggest(part, trained)}"
            yield Problem(message, "objective", "constraints", part)


def _untrained(recipe: Recipe, stages: Sequence[Stage], binding: Binding, plans: Sequence[Plan]) -> Iterable[Problem]:
    """Yield optimizer tables of parts that no update trains."""
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
    """Yield the optimizer tables of a stage that train nothing in it."""
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
    """Check that a batch divides as it must over so many processes, or raise a ConfigError."""
    joints = [joint for plan in plans for joint in plan.objective.joints.values()]
    sources = {f.part for joint in joints for f in joint.factors if f.part in recipe.all_sources()}
    own = [part for part in sorted(sources) if recipe.batch_of(part) != recipe.train.batch]
    unfit = [problem for part in own for problem in _unfit_batch(recipe, part, plans, processes)]
    Problems(
        [*unfit, *_unfit_rows(recipe, plans, processes), *_unfit_batch_terms(recipe, plans, processes)]
    ).raise_any()


def _unfit_batch(recipe: Recipe, part: str, plans: Sequence[Plan], processes: int) -> Iterable[Problem]:
    """Yield the problems of a batch that a data source has of its own, as of `train.batch`."""
    batch = recipe.batch_of(part)
    own = attrs.evolve(recipe, train=attrs.evolve(recipe.train, batch=batch))
    for problem in _unfit_rows(own, plans, processes, batch):
        yield Problem(f"{part} has a batch of {batch}: {problem.message}", *recipe.path_of(part), "batch")


def _unfit_batch_terms(recipe: Recipe, plans: Sequence[Plan], processes: int = 1) -> Iterable[Problem]:
    """Yield what does not go with terms of the whole batch: they are no means over parts of it."""
    train = recipe.train
    found = [s.label for plan in plans for update in plan.updates for s in update.summands if s.sees_batch]
    if not found:
        return
    label = f"{found[0]!r}, which the objective has, depends on the whole batch"
    if train.micro_batches > 1:
        message = f"{label}: {train.micro_batches} micro-batches would make it another number; use 1"
        yield Problem(message, "train", "micro_batches")
    if train.batch < 2:
        yield Problem(f"{label}: it compares rows, so a batch needs at least 2", "train", "batch")
    if processes > 1 and train.compile != "off":
        message = f"{label}: {processes} processes exchange its rows, which is not compiled; use 'off'"
        yield Problem(message, "train", "compile")


def _too_many_dimensions(binding: Binding, plans: Sequence[Plan]) -> Iterable[Problem]:
    """Yield variables of which each number is re-paired by its own shift, and which have more than a block has rows."""
    train = binding.recipe.train
    key, rows = ("pair_block", train.pair_block) if train.batch % train.pair_block == 0 else ("batch", train.batch)
    nodes = dict.fromkeys(node for plan in plans for update in plan.updates for node in update.nodes)
    for node in nodes:
        if isinstance(node, ReadNode) and node.each:
            size = binding.spaces[node.variable].size
            message = (
                f"must be at least {size + node.shift}, got {rows}: the objective draws each of the {size} numbers of "
                f"{node.variable!r} from another row of a block"
            )
            if size + node.shift > rows:
                yield Problem(message, "train", key)


def _too_many_rows(binding: Binding) -> Iterable[Problem]:
    """Yield the batches of which not even the values themselves fit into memory."""
    recipe, numbers = binding.recipe, sum(space.size for space in binding.spaces.values())
    for rows, key in (
        (recipe.train.batch // recipe.train.micro_batches, ("train", "batch")),
        (recipe.eval.batch, ("eval", "batch")),
        (recipe.eval.samples, ("eval", "samples")),
    ):
        if _bytes_of_rows(binding, rows) > machine_memory():
            yield Problem(f"{rows:,} rows of {numbers:,} numbers are more than this machine's memory holds", *key)


def _bytes_of_rows(binding: Binding, rows: int) -> int:
    return rows * sum(space.size for space in binding.spaces.values()) * BYTES_OF_A_NUMBER


def _unfit_rows(recipe: Recipe, plans: Sequence[Plan], processes: int = 1, own_batch: int = 0) -> list[Problem]:
    """Return the problems of a batch that does not divide into micro-batches and processes.

    A re-pairing shifts rows within blocks of `train.pair_block` rows. It must not shift them all around the block, back
    to themselves, nor out of the micro-batch that they are in.
    """
    train = recipe.train
    batch, block, parts = train.batch, train.pair_block, processes * train.micro_batches
    if batch % processes:
        return [Problem(f"{batch} does not divide over {processes} process(es)", "train", "batch")]
    divisions = (train.micro_batches, "micro-batches"), (processes, "processes")
    divided = " in each of ".join(f"{number} {name}" for number, name in divisions if number > 1)
    if batch % parts:
        return [Problem(f"a batch of {batch} does not divide into {divided}", "train", "micro_batches")]
    furthest = max(plan.furthest_pairing(own_batch) for plan in plans)
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
