"""Sets up a training run: its folder, its processes, its data, its parts and the state to start or resume from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from jointgen.compiler.build import start_at_data
from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.compiler.parts import Parts
from jointgen.config.recipe import Recipe, changed_keys, write_recipe
from jointgen.config.used_components import used_components
from jointgen.contracts.noise import Noise
from jointgen.data.batches import TrainingBatches
from jointgen.data.split import Split, open_split
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.balance_scales import BalanceScales
from jointgen.engine.batch_norm import synchronise
from jointgen.engine.drivers import DrivenState
from jointgen.engine.ema import EMA
from jointgen.engine.gradient_check import check_ownership
from jointgen.engine.histories import Histories
from jointgen.engine.optimizers import Optimizers
from jointgen.engine.trial import try_terms
from jointgen.errors import ConfigError, FileError, Problem, for_caller, placing
from jointgen.inference.run_data import RunData
from jointgen.inference.view import PartsView
from jointgen.registry.components import IN_PROCESS, Registry
from jointgen.registry.discovery import LoadedPlugin
from jointgen.runs.folder import RunFolder
from jointgen.runs.log import RunLog
from jointgen.runtime.console import debug, log, warn
from jointgen.runtime.progress import Progress
from jointgen.runtime.signals import training_begins
from jointgen.runtime.workers import Votes, Workers
from jointgen.text import listed
from jointgen.training.check import CheckedRun
from jointgen.training.checkpoints import CheckpointWriter, restore_recipe, resume
from jointgen.training.critic_trust import CriticTrust
from jointgen.training.events import RunEvents
from jointgen.training.log_window import LogWindow
from jointgen.training.reporter import RunReporter
from jointgen.training.session import session_record
from jointgen.training.state import GlobalGenerators, RunProgress, TrainingState
from jointgen.training.stopping import best_checkpoint_of, early_stopping_of
from jointgen.training.trainer import Trainer

MIN_GRADIENT_CHECK_ROWS = 4
"""Rows of data on which the gradients are checked, at least."""
START_ROWS = 1024
"""Rows of data, at most, whose mean decoders start at."""


def set_up_training(
    checked: CheckedRun,
    path: Path,
    *,
    resuming: bool = False,
    overwrite: bool = False,
    allow_changes: bool = False,
    stop: Callable[[], int] = lambda: 0,
    processes: int | None = None,
    callbacks: Sequence[LoadedPlugin] = (),
) -> Trainer:
    """Make everything that a run needs, and the run folder on disk. The arguments are those of `jointgen.run`.

    Nothing is written before all that can be wrong with the data has been found, too.

    Raises:
        ConfigError: The data, the folder or a changed recipe do not allow the run.
        CheckpointError: No checkpoint of the run to resume is whole.
    """
    compiled, recipe, train = checked.compiled, checked.compiled.recipe, checked.compiled.recipe.train
    folder = RunFolder(path)

    # processes, data, parts and the state that they start from
    with placing("train"):
        workers = Workers.start(train.device, train.precision, processes=processes)
    splits = {name: open_split(compiled.binding, name) for name in ("train", recipe.held_out)}
    if workers.is_main:
        rows = ", ".join(f"{len(split):,} rows to {name}" for name, split in splits.items())
        debug(f"{workers.world} process(es), this one on {workers.device} in {workers.precision}; {rows}")
    batches = TrainingBatches(recipe, splits["train"], workers, compiled.batches_of)
    started = start_parts(checked, splits["train"], workers)
    state = first_state(checked, started.parts, workers)

    # the folder, made by the main process before any other looks for something in it
    run_log = RunLog(folder, train.trackers, compiled.registry)
    reporter = RunReporter(compiled, splits, state.ema, workers, folder, run_log)
    text = write_recipe(checked.written or recipe, compiled.registry)
    warnings = [f"stage {name!r} has no step: its share of the run is too small" for name in compiled.without_steps()]
    remarks = remarks_of(checked, started.unused, splits, batches)
    training_begins()
    if workers.is_main:
        if folder.goes_on(resume=resuming, overwrite=overwrite) != checked.goes_on:  # since this one read its data
            raise ConfigError(f"another run has begun in {path}; give another {for_caller('--out', 'out=')}", "out")
        if resuming and not checked.goes_on:
            remarks.insert(0, start_again(folder, text))
            run_log.begin_again()
        if overwrite:
            folder.remove_run()
        folder.create()
        if not checked.goes_on:
            begin_folder(folder, compiled, text, RunData.of(compiled, splits, checked.written))
    workers.barrier()

    # a run that goes on does so from its newest checkpoint
    is_unchanged = False
    if checked.goes_on:
        changes, notes = go_on(
            checked, state, folder, text, splits, run_log if workers.is_main else None, allow_changes=allow_changes
        )
        is_unchanged = not changes
        warnings += notes
        if not state.progress.is_over:
            remarks.insert(0, f"{path} goes on from step {state.progress.step} of {state.progress.ends[-1]}")
    if workers.is_main:
        warn(*warnings)
        log(*remarks)

    return Trainer(
        compiled=compiled,
        workers=workers,
        state=state,
        batches=batches,
        reporter=reporter,
        checkpoints=CheckpointWriter(folder, workers, text, train.keep_checkpoints),
        stop=Votes(workers, stop),
        bar=Progress(state.progress.ends[-1], state.progress.step, quiet=not workers.is_main),
        events=RunEvents(
            compiled,
            state,
            path,
            workers.device,
            compiled.registry.plugins,
            callbacks,
            is_main=workers.is_main,
            resumed_from=state.progress.step if checked.goes_on else None,
        ),
        is_unchanged=is_unchanged,
        not_synchronised=started.not_synchronised,
    )


class StartedParts(NamedTuple):
    """The parts as they start, the same in every process.

    Args:
        parts: The parts.
        unused: The size of each parameter that no term depends on, by name.
        not_synchronised: What `synchronise` says of their layers.
    """

    parts: Parts
    unused: dict[str, int]
    not_synchronised: list[str]


def start_parts(checked: CheckedRun, split: Split, workers: Workers) -> StartedParts:
    """Let parts start at the data, or warm from another run, and check their gradients."""
    compiled, warm = checked.compiled, checked.warm
    if not checked.goes_on:
        start_at_mean(compiled, split)
    unused = check_gradients(compiled, split)
    not_synchronised = synchronise(compiled.parts.modules, workers)
    parts = place_parts(compiled, workers)
    if warm is not None:
        warm.load_into(parts)
    workers.broadcast_([*parts.modules.parameters(), *parts.modules.buffers()])
    return StartedParts(parts, unused, not_synchronised)


def first_state(checked: CheckedRun, parts: Parts, workers: Workers) -> TrainingState:
    """Return the state before the first step."""
    compiled, train, warm = checked.compiled, checked.compiled.recipe.train, checked.warm
    ends = compiled.boundaries()
    return TrainingState(
        parts=parts,
        ema=EMA(parts, train.ema),
        optimizers=Optimizers(compiled, parts),
        balance_scales=BalanceScales(workers.device),
        driven=DrivenState(workers.device),
        histories=Histories(workers.device),
        progress=RunProgress(0, 0.0, ends, ends, warm.record() if warm else None),
        early_stopping=early_stopping_of(train.early_stopping, train.eval_every, checked.figures),
        best=best_checkpoint_of(train.keep_best, train.eval_every, checked.figures),
        critic_trust=CriticTrust(train.batch),
        window=LogWindow(workers.device),
        generators=GlobalGenerators(compiled.recipe.seed, workers),
    )


def remarks_of(
    checked: CheckedRun, unused: Mapping[str, int], splits: Mapping[str, Split], batches: TrainingBatches
) -> list[str]:
    """Say what a user should know of a run before it trains."""
    recipe, registry = checked.compiled.recipe, checked.compiled.registry
    remarks = [*checked.warm.lines] if checked.warm else []
    remarks += registry.clashes("metric")
    remarks += bound_to_process(recipe, registry)
    if unused:
        names = listed(f"{name} ({size:,})" for name, size in unused.items())
        remarks.append(f"no term depends on these parameters, so they learn nothing: {names}")
    remarks += dict.fromkeys(line for split in splits.values() for line in split.remarks)
    return remarks + batches.remarks


def begin_folder(folder: RunFolder, compiled: CompiledRecipe, text: str, record: RunData) -> None:
    """Write what a run folder holds before the first step."""
    keep_plugins(folder, compiled.registry)
    folder.write_recipe(text)
    record.write(folder)
    folder.add_session(session_record(compiled, 0))


def go_on(
    checked: CheckedRun,
    state: TrainingState,
    folder: RunFolder,
    text: str,
    splits: Mapping[str, Split],
    run_log: RunLog | None,
    *,
    allow_changes: bool,
) -> tuple[list[Problem], list[str]]:
    """Restore the state of a run from its newest checkpoint, and bring its folder to what the run is now.

    Args:
        run_log: The log of the main process, which alone writes to the folder; None in any other.

    Returns:
        (what has changed in the recipe, what to warn of).
    """
    compiled, train = checked.compiled, checked.compiled.recipe.train
    point = resume(state, folder, text, allow_changes=allow_changes)
    changes, notes = point.changes, [*point.notes]
    record = RunData.read(folder)
    now = RunData.of(compiled, splits, checked.written, record)
    if not changes and not allow_changes:
        record.check_same(folder, now)
    if run_log is None:
        return changes, notes
    every = None if any(change.path == ("train", "log_every") for change in changes) else train.log_every
    notes += run_log.cut_back(state.progress.step, state.progress.log_events, every)
    keep_plugins(folder, compiled.registry)
    if changes:
        folder.write_recipe(text)
    else:
        notes += restore_recipe(folder, text)
    if now != record:
        now.write(folder)
    if not state.progress.is_over:
        folder.add_session(session_record(compiled, state.progress.step))
    return changes, notes


def keep_plugins(folder: RunFolder, registry: Registry) -> None:
    """Copy the plugin files of the recipe into the run folder."""
    for file in registry.files:
        folder.write_plugin(file.path.name, file.source)


def bound_to_process(recipe: Recipe, registry: Registry) -> list[str]:
    """Say which components no other process has, in a line; nothing where the run can be loaded anywhere."""
    own = [one for one in used_components(recipe, registry).values() if one.provider == IN_PROCESS]
    if not own:
        return []
    named = listed(dict.fromkeys(f"{one.kind.replace('_', ' ')} {one.name!r} ({one.defined_in})" for one in own))
    return [
        f"{named}: only this process has it, so the run can be loaded and resumed only where Python has defined it "
        'before; put it into a file, and give that as plugins = ["FILE.py"], and the run keeps it'
    ]


def start_again(folder: RunFolder, text: str) -> str:
    """Say why a run that was asked to go on starts, and what it has of its recipe that an earlier attempt had not."""
    if not folder.holds_run():
        return f"{folder.path} holds no run yet: it starts"
    begins = f"{folder.path} holds no checkpoint: the run ended before its first, and starts again"
    try:
        changes = changed_keys(folder.read_tables(), text)
    except FileError:  # there is none that can be read, and it is written again
        return begins
    return f"{begins}, with another recipe: {listed(changes)}" if changes else begins


def start_at_mean(compiled: CompiledRecipe, split: Split) -> None:
    """Let decoders start at the mean of the data, and priors at rows of it, where they can.

    The rows are spread over the split, since folders of images come sorted by class, and they are without the noise
    of observing them.
    """
    spread = split.spread(START_ROWS)
    rows = len(spread)
    inputs = StepInputs(spread.take(torch.arange(rows)), Noise(compiled.recipe.seed, "means"), rows)
    observed = PartsView(compiled, compiled.parts).observe(inputs)[0]  # (rows, *shape) by variable
    start_at_data(compiled.parts, compiled.binding, observed)


def check_gradients(compiled: CompiledRecipe, split: Split) -> dict[str, int]:
    """Check in float64 that terms are finite numbers of rows and gradients reach what the plan says, on a few rows.

    Returns:
        The size of each parameter, by name, that is trained and that no term of any stage depends on.

    Raises:
        ComponentError: The data are not as their source says, or a component raises or gives no finite number.
        OwnershipError: A gradient reaches a part that it must not, or misses one that it must reach.
    """
    unused: list[dict[str, int]] = []
    for plan in compiled.plans:
        rows = max(
            MIN_GRADIENT_CHECK_ROWS, plan.furthest_pairing() + 1
        )  # rows are re-paired within a block of this size
        data = split.take(torch.arange(rows) % len(split))
        try_terms(plan, compiled.parts, compiled.binding, data, rows, compiled.recipe.seed)
        unused.append(check_ownership(plan, compiled.parts, data, rows, compiled.recipe.seed))
    # a part that a stage does not train is not in that stage's
    trained = [{part for update in plan.updates for part in update.trains} for plan in compiled.plans]
    everywhere = {name for found in unused for name in found}
    for found, parts in zip(unused, trained, strict=True):
        everywhere -= {name for name in everywhere - set(found) if name.split(".")[0] in parts}
    return {name: size for found in unused for name, size in found.items() if name in everywhere}


def place_parts(compiled: CompiledRecipe, workers: Workers) -> Parts:
    """Move the parts to this process's device, in the recipe's precision and memory format, in training mode."""
    compiled.parts.modules.to(workers.device, workers.cast_to).train()
    return compiled.parts.in_channels_last() if compiled.recipe.train.channels_last else compiled.parts
