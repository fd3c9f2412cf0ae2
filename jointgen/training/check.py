"""The one check of a run short of reading data: `jointgen run`, `--dry-run`, `explain` and `jointgen.run` make it.

Whatever can be known to be wrong without a row of data is found here, all of it at once and before anything is
written. So what one of the doors lets through, the others let through too.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from jointgen.compiler.compiled_recipe import CompiledRecipe, check_rows, compile_recipe
from jointgen.config.recipe import Recipe
from jointgen.contracts.metrics import MetricFigure
from jointgen.errors import ConfigError, Problems
from jointgen.evaluation.evaluate import list_figures, metrics_of
from jointgen.inference.view import PartsView
from jointgen.registry.components import Registry
from jointgen.runs.folder import RunFolder
from jointgen.runs.trackers import check_installed
from jointgen.runtime.ranks import check_variables, world_size
from jointgen.runtime.workers import find_device
from jointgen.training.stopping import best_checkpoint_of, early_stopping_of
from jointgen.training.warm_start import WarmStart, warm_start


@attrs.frozen
class CheckedRun:
    """A run in which nothing is wrong that can be known without its data.

    Args:
        compiled: The recipe.
        figures: What its evaluations find.
        goes_on: Whether the run goes on from a checkpoint in its folder, instead of starting there.
        warm: The weights of another run that it starts from.
    """

    compiled: CompiledRecipe
    figures: list[MetricFigure]
    goes_on: bool = False
    warm: WarmStart | None = None


def check_run(
    recipe: Recipe,
    registry: Registry,
    *,
    out: Path | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    processes: int | None = None,
) -> CheckedRun:
    """Check all of a run but its data. Nothing is written.

    Args:
        recipe: The recipe.
        registry: The components that it was read with.
        out: The run folder; None leaves it unchecked.
        resume: Whether the run goes on where there is something to go on from.
        allow_changes: Whether a resumed run may have another recipe than before.
        processes: How many processes train; None: as many as the launcher says.

    Raises:
        ConfigError: With every problem of the recipe, of the machine, of the folder and of the run to start from.
        JointgenError: The environment promises processes that do not exist.
    """
    check_variables()
    train, world = recipe.train, processes or world_size()
    problems = Problems()
    compiled, figures, warm = None, list[MetricFigure](), None

    # the command, the folder and the machine
    goes_on = False
    if allow_changes and not resume:
        problems.add("says how to resume; use it with --resume", "--allow-changes")
    if out is not None:
        with problems.collect():
            goes_on = RunFolder(out).goes_on(resume=resume)
    with problems.collect("train"):
        find_device(train.device, train.precision, world)
    with problems.collect():
        check_installed(train.trackers)

    # the model, and what asks for figures of it
    with problems.collect():
        compiled = compile_recipe(recipe, registry)
    if compiled is not None:
        with problems.collect():
            check_rows(recipe, compiled.plans, world)
        with problems.collect():
            figures = list_figures(metrics_of(compiled), PartsView(compiled, compiled.parts))
            with problems.collect():
                early_stopping_of(train.early_stopping, train.eval_every, figures)
            with problems.collect():
                best_checkpoint_of(train.keep_best, train.eval_every, figures)
        if not goes_on:
            with problems.collect():
                warm = warm_start(compiled)
    if problems or compiled is None:
        raise ConfigError(dict.fromkeys(problems))
    return CheckedRun(compiled, figures, goes_on, warm)
