"""The one check of a run short of reading data: `jointgen run`, `--dry-run`, `explain` and `jointgen.run` make it.

Whatever can be known to be wrong without a row of data is found here, all of it at once and before anything is
written. So what one of the doors lets through, the others let through too.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from jointgen.compiler.compiled_recipe import CompiledRecipe, check_rows, compile_recipe
from jointgen.config.recipe import Recipe
from jointgen.config.structure import unstructure
from jointgen.contracts.data_keys import asking_where
from jointgen.contracts.metrics import MetricFigure
from jointgen.contracts.sources import CountedSource
from jointgen.data.batches import too_few_rows
from jointgen.engine.trial import try_parts
from jointgen.errors import ConfigError, Problem, Problems, for_caller
from jointgen.evaluation.evaluate import list_figures, metrics_of
from jointgen.inference.data_paths import DataPaths
from jointgen.inference.run_data import RunData
from jointgen.inference.view import PartsView
from jointgen.registry.components import Registry
from jointgen.registry.faults import attributing
from jointgen.reports.citations import cited_entries
from jointgen.runs.folder import RunFolder
from jointgen.runs.trackers import named_trackers
from jointgen.runtime.ranks import check_variables, world_size
from jointgen.runtime.workers import find_device
from jointgen.text import listed, shortened
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
        unchecked: What is not checked before the data is read, a line each.
        written: The recipe as it stands in the folder, where the data may lie elsewhere by now; None: as compiled.
    """

    compiled: CompiledRecipe
    figures: list[MetricFigure]
    goes_on: bool = False
    warm: WarmStart | None = None
    unchecked: tuple[str, ...] = ()
    written: Recipe | None = None


def check_run(
    recipe: Recipe,
    registry: Registry,
    *,
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    allow_changes: bool = False,
    processes: int | None = None,
    data_paths: DataPaths | None = None,
    runs_here: bool = True,
) -> CheckedRun:
    """Check all of a run but the rows of its data. Nothing is written.

    Args:
        recipe: The recipe.
        registry: The components that it was read with.
        out: The run folder; None leaves it unchecked.
        resume: Whether the run goes on where there is something to go on from.
        overwrite: Whether the run takes the place of one that is in the folder.
        allow_changes: Whether a resumed run may have another recipe than before.
        processes: How many processes train; None: as many as the launcher says.
        data_paths: Where the data lies, where the recipe does not say it or, for a run that goes on, any more.
        runs_here: Whether this machine is to make the run: then data whose files are not there, and too little memory
            to train, are problems. They are none to who explains a recipe.

    Raises:
        ConfigError: With every problem of the recipe, of the machine, of the folder and of the run to start from.
        ComponentError: A component raises, or returns something of a wrong shape.
        JointgenError: The environment promises processes that do not exist.
    """
    check_variables()
    train, world = recipe.train, processes or world_size()
    problems = Problems()
    compiled, figures, warm, unchecked = None, list[MetricFigure](), None, list[str]()

    # the command, the folder and the machine
    goes_on, record, written = False, RunData(), recipe
    if allow_changes and not resume:
        with_what = for_caller("--resume", "resume")
        problems.add(f"says how to resume; use it with {with_what}", for_caller("--allow-changes", "allow_changes"))
    if out is not None:
        with problems.collect():
            folder = RunFolder(out)
            goes_on = folder.goes_on(resume=resume, overwrite=overwrite)
            if not overwrite:
                folder.read_evaluation()  # the page shows it at the end: damage is told now
            record = RunData.read(folder) if goes_on else record
    with problems.collect():
        recipe = record.located(recipe, data_paths)
    with problems.collect("train"):
        find_device(train.device, train.precision, world)
    with problems.collect():
        named_trackers(train.trackers, registry)
    with problems.collect():
        cited_entries(recipe)

    # what plugins find
    with problems.collect():
        check_by_plugins(recipe, registry)

    # the model, and what asks for figures of it
    with problems.collect():
        compiled = compile_recipe(recipe, registry, trains=runs_here)
    if compiled is not None:
        with problems.collect():
            check_rows(recipe, compiled.plans, world)
        with problems.collect():
            figures = list_figures(metrics_of(compiled), PartsView(compiled, compiled.parts), registry)
            with problems.collect():
                early_stopping_of(train.early_stopping, train.eval_every, figures)
            with problems.collect():
                best_checkpoint_of(train.keep_best, train.eval_every, figures)
        unchecked = check_sources(compiled, problems, needs_data=runs_here)
        if not goes_on:
            with problems.collect():
                warm = warm_start(compiled)
    if goes_on:  # it has read its data, so what is not there must be elsewhere
        sources = {recipe.path_of(part): source for part, source in recipe.all_sources().items()}
        problems = Problems(asking_where(problem, sources) for problem in problems)
    if problems or compiled is None:
        raise ConfigError(dict.fromkeys(problems))
    try_parts(compiled)
    return CheckedRun(compiled, figures, goes_on, warm, tuple(unchecked), written if goes_on else recipe)


def check_by_plugins(recipe: Recipe, registry: Registry) -> None:
    """Let plugins check a recipe by their hook `jointgen_check`.

    Raises:
        ConfigError: With the problems that they return or raise.
        ComponentError: A plugin raises something else, or returns what is neither a problem nor text.
    """
    problems = Problems()
    for plugin in registry.with_hook("jointgen_check"):
        what = f"the check of plugin {plugin.name!r} ({plugin.provider})"
        with problems.collect(), attributing(what):
            (found,) = plugin.manager.hook.jointgen_check(recipe=unstructure(recipe, registry)) or [()]
            found = [found] if isinstance(found, str | Problem) else [*found]
            if wrong := [one for one in found if not isinstance(one, str | Problem)]:
                raise TypeError(f"returned {shortened(repr(wrong[0]))}, expected a Problem or a string")
            problems += [one if isinstance(one, Problem) else Problem(one) for one in found]
    problems.raise_any()


def check_sources(compiled: CompiledRecipe, problems: Problems, *, needs_data: bool) -> list[str]:
    """Check that data sources are there and have rows enough, as far as they know it without reading.

    Args:
        compiled: The recipe.
        problems: Where to add what is wrong.
        needs_data: Whether a source whose files are not there is a problem; if not, a line says so.

    Returns:
        What only the data can tell, a line each.
    """
    recipe = compiled.recipe
    absent, uncounted, counts = Problems(), list[str](), dict[str, int]()
    for part in compiled.binding.data_parts:
        source, sampling = recipe.all_sources()[part], recipe.sampling(part)
        if not isinstance(source, CountedSource):
            uncounted.append(part)
            continue
        with absent.collect(*recipe.path_of(part)), attributing(compiled.binding.named(part)):
            counts[part] = source.count_rows("train")
            if (held := sampling.validation) is not None:
                if held >= counts[part]:
                    message = f"{held} of the {counts[part]} rows of its training split leaves none to train on"
                    problems.add(message, *recipe.path_of(part), "validation")
                counts[part] = max(1, counts[part] - held)
            if (wanted := sampling.rows) is not None:
                if wanted > counts[part]:
                    message = f"{wanted} is more than the {counts[part]} rows of its training split"
                    problems.add(message, *recipe.path_of(part), "rows")
                counts[part] = min(wanted, counts[part])
            source.count_rows("test")
    too_few, remarks = too_few_rows(recipe, counts)
    if not uncounted:
        problems += Problems(too_few)
    if needs_data:
        problems += absent
    lines = [f"the values of {listed(compiled.binding.data_parts)}"]
    lines += [
        f"whether the training split of {part} has the {recipe.batch_of(part)} rows of a batch" for part in uncounted
    ]
    lines += [] if needs_data else map(str, dict.fromkeys(absent))
    return [*(f"only a run, which reads the data, will check this: {line}" for line in lines), *remarks]
