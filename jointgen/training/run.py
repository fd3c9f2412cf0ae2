"""`jointgen.run`: one run, from a recipe to a finished run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import attrs

from jointgen.config.plugin_files import kept_in_run, registry_of
from jointgen.config.recipe import Recipe, read_recipe, read_tables
from jointgen.config.values import show
from jointgen.errors import ComponentError, Problems, RunInterrupted, StoppedError
from jointgen.inference.data_paths import DataPaths, read_data_paths
from jointgen.objectives.objective import Objective, Stage
from jointgen.objectives.recipe_text import Expression
from jointgen.registry.components import Registry
from jointgen.registry.discovery import load_plugins
from jointgen.reports.page import PageModel, write_report
from jointgen.runs.folder import RunFolder
from jointgen.runs.missing_components import explaining_missing
from jointgen.runs.records import checkpoint_name, describe_progress
from jointgen.runtime.console import printed_for_caller
from jointgen.runtime.signals import StopRequest
from jointgen.runtime.torch_settings import switched
from jointgen.training.check import check_run
from jointgen.training.events import load_callbacks
from jointgen.training.given_data import are_data_paths, given_source, with_data
from jointgen.training.setup import set_up_training
from jointgen.training.trainer import Run, Trainer


def run(
    recipe: str | Path | Mapping[str, Any],
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    objective: Objective | Sequence[Stage] | None = None,
    out: str | Path | None = None,
    resume: bool | Literal["auto"] = False,
    overwrite: bool = False,
    allow_changes: bool = False,
    stop: Callable[[], int] = lambda: 0,
    quiet: bool = False,
    processes: int | None = None,
    data: Any = None,
    callbacks: Sequence[object] = (),
) -> Run:
    """Train and evaluate a model, and write its run folder.

    The global random generators, torch's settings and the signal handlers are afterwards as they were before. Ctrl-C
    and a notebook's stop button end the run after a checkpoint; a second one ends it at once.

    Args:
        recipe: The path of a recipe, the name of one that comes with jointgen, or a recipe as nested dicts.
        overrides: Settings that replace the recipe's, as {"train.steps": 1000} or ["train.steps=1000"]. A component may
            stand in the place of its table: an object of its attrs class, or a function that builds a network.
        objective: An objective composed in Python, or its stages, in place of the recipe's.
        out: The run folder; None writes to runs/NAME.
        resume: "auto" to go on from the folder's newest whole checkpoint, where it has any; the run ends bit for bit
            where it would have ended without the interruption. Where there is no run, or it ended before its first
            checkpoint, it starts, with the recipe as it is now. True means the same.
        overwrite: Whether to start anew where the folder holds a run, which is removed once nothing is found wrong.
        allow_changes: Whether a run that goes on may have another recipe than before.
        stop: Called after each step; a signal's number ends the run after a checkpoint, 0 lets it go on.
        quiet: Whether to print nothing: no progress, remarks or warnings, which `logging.getLogger("jointgen")` still
            has. Where your program has set its level to INFO, they go there alone. Errors are raised as ever.
        processes: How many processes a launcher was asked for, to be checked; None takes as many as there are.
        data: Where the data lies: a path, or paths by the name of the recipe's sources. A run that goes on has the same
            recipe wherever its data lies by now. Or the data itself, in the place of the recipe's: an array (N, ...), a
            dict of arrays by variable, a map-style data set of torch, or a data source
            (docs/extending/your-own-parts.md).
        callbacks: Objects that are told of the run's events, by methods named as the hooks of plugins:
            `jointgen_log(self, run, figures)`, and so on (docs/extending/plugins.md). What one raises ends the run.

    Returns:
        The finished run, with its folder, summary and model.

    Raises:
        ConfigError: The recipe, its data or the folder do not allow the run; all problems at once, and before
            anything is trained.
        ComponentError: A plugin raised. If it was a metric in the last evaluation, all other figures and the page are
            there.
        NonFiniteError: A figure of the training became infinite or NaN.
        StoppedError: `stop` asked for the end; the run can be resumed.
        RunInterrupted: Ctrl-C did; a KeyboardInterrupt.
        CheckpointError: A checkpoint is damaged, or could not be written.
        WriteError: Another file could not be written.

    Example:
        >>> run = jointgen.run("recipes/quickstart.toml", {"train.steps": 1000})       # doctest: +SKIP
        >>> run.metrics["elbo"]["value"], run.model.sample(16).shape                   # doctest: +SKIP
    """
    _check_arguments(out, resume, overwrite, stop, processes, objective)
    told = load_callbacks(callbacks)

    # the recipe, checked whole
    goes_on = resume is not False
    with printed_for_caller(quiet):
        given, registry, data_paths = read_given(recipe, overrides, objective, data, out)
        resolved = kept_in_run(given, registry)
        path = run_folder(out, resolved)
        checked = check_run(
            resolved,
            registry,
            out=path,
            resume=goes_on,
            overwrite=overwrite,
            allow_changes=allow_changes,
            processes=processes,
            data_paths=data_paths,
        )

    switches = switched(deterministic=resolved.train.deterministic, threads=resolved.train.threads)
    with printed_for_caller(quiet), switches:
        with StopRequest.of_interrupts() as interrupted, _told_of_interrupts(path, resolved, interrupted):
            trainer = set_up_training(
                checked,
                path,
                resuming=goes_on,
                overwrite=overwrite,
                allow_changes=allow_changes,
                stop=lambda: stop() or interrupted(),
                processes=processes,
                callbacks=told,
            )
            finished = trainer.finished_run()
            done = finished or trainer.fit()
        return _with_page(trainer, done, ends_here=finished is None)


@contextmanager
def _told_of_interrupts(path: Path, recipe: Recipe, interrupted: Callable[[], int]) -> Iterator[None]:
    """Say of a run that Ctrl-C stopped how it goes on."""
    try:
        yield
    except StoppedError:
        if not interrupted():
            raise
        state = describe_progress(RunFolder(path).read_summary(), recipe.train.total_steps)
        message = f'{path} is interrupted ({state}), with a checkpoint: run it with resume="auto" to go on'
        raise RunInterrupted(message) from None


def _with_page(trainer: Trainer, done: Run, *, ends_here: bool) -> Run:
    """Write the page of a run, and tell of the end of one that was made here."""
    try:
        write_page(trainer, done)
    except BaseException as error:
        if ends_here:
            trainer.events.end_by(error)
        raise
    if ends_here:
        trainer.events.end(done.record.status, done.record.note)
    if done.record.status == "failed":  # in a metric of the last evaluation
        raise ComponentError(done.record.note)
    return done


def write_page(trainer: Trainer, done: Run) -> None:
    """Write the page where there is none. Where it cannot be written, the summary still says that the run is done."""
    if trainer.workers.is_main and not trainer.reporter.folder.report.is_file():
        shown = PageModel(done.model, trainer.reporter.pictured, checkpoint_name(done.record.step))
        write_report(trainer.reporter.folder, trainer.compiled, shown)


def _check_arguments(out: Any, resume: Any, overwrite: Any, stop: Any, processes: Any, objective: Any) -> None:
    """Raise ConfigError for arguments that are not what `run` takes."""
    problems = Problems()
    if out is not None and (not isinstance(out, str | os.PathLike) or os.fspath(out) == ""):
        problems.add(f"must be the path of a folder, got {show(out)}", "out")
    if not (isinstance(resume, bool) or resume == "auto"):
        problems.add(f'must be True, False or "auto", got {show(resume)}', "resume")
    if not isinstance(overwrite, bool):
        problems.add(f"must be True or False, got {show(overwrite)}", "overwrite")
    elif overwrite and resume is not False:
        problems.add("a run goes on or starts anew: give overwrite or resume", "overwrite")
    if not callable(stop):
        problems.add(f"must be a function without arguments that returns a number, got {show(stop)}", "stop")
    if processes is not None and (not isinstance(processes, int) or isinstance(processes, bool) or processes < 1):
        problems.add(f"must be a whole number >= 1, got {show(processes)}", "processes")
    problems += objective_problems(objective)
    problems.raise_any()


def read_given(
    recipe: str | Path | Mapping[str, Any],
    overrides: Iterable[str] | Mapping[str, Any],
    objective: Objective | Sequence[Stage] | None,
    data: Any,
    out: str | Path | None = None,
) -> tuple[Recipe, Registry, DataPaths]:
    """Read a recipe with what a caller gives in place of its parts. The arguments are those of `run`.

    Returns:
        The recipe, the components that it was read with, and the paths where its data lies, if they are given.
    """
    is_data = not are_data_paths(data)
    tables = read_tables(recipe, () if is_data else overrides)
    if is_data:  # its keys may be overridden, so it takes its place first
        source = given_source(data, load_plugins().registry)
        tables = read_tables(with_data(tables, source, load_plugins().registry), overrides)
    registry = registry_of(tables)
    with explaining_missing(tables, recipe, out, registry):
        resolved = read_recipe(tables, registry=registry)
    if objective is not None:
        resolved = with_objective(resolved, objective, registry)
    return resolved, registry, read_data_paths(None if is_data else data)


def objective_problems(objective: Any) -> Problems:
    """Say what is wrong with an objective that a caller gives in place of the recipe's; None is fine."""
    problems = Problems()
    stages = objective if isinstance(objective, Sequence) and not isinstance(objective, str) else None
    if not (objective is None or isinstance(objective, Objective) or stages):
        problems.add(f"must be an Objective or a list of Stages, got {show(objective)}", "objective")
    elif stages and not all(isinstance(stage, Stage) for stage in stages):
        problems.add("must be an Objective or a list of Stages, got a list of something else", "objective")
    return problems


def run_folder(out: str | Path | None, recipe: Recipe) -> Path:
    """Return the folder of a run: `out`, or else runs/NAME."""
    return Path(out) if out is not None else Path("runs") / recipe.name


def with_objective(recipe: Recipe, objective: Objective | Sequence[Stage], registry: Registry) -> Recipe:
    """Return the recipe with an objective composed in Python, as the text that it prints, so that it repeats."""
    return attrs.evolve(recipe, objective=Expression.of(objective, registry))
