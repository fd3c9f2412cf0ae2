"""Sets up a training run: its folder, its processes, its data, its parts and the state to start or resume from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

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
from jointgen.errors import ConfigError, FileError, Problem, placing
from jointgen.inference.run_data import RunData
from jointgen.inference.view import PartsView
from jointgen.registry.components import IN_PROCESS, Registry
from jointgen.registry.discovery import LoadedPlugin
from jointgen.runs.folder import RunFolder
from jointgen.runs.log import RunLog
from jointgen.runtime.console import debug, log, warn
from jointgen.runtime.progress import Progress
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
    compiled, goes_on, warm = checked.compiled, checked.goes_on, checked.warm
    recipe, train = compiled.recipe, compiled.recipe.train
    folder = RunFolder(path)

    # processes and data
    with placing("train"):
        workers = Workers.start(train.device, train.precision, processes=processes)
    splits = {name: open_split(compiled.binding, name) for name in ("train", recipe.held_out)}
    if workers.is_main:
        rows = ", ".join(f"{len(split):,} rows to {name}" for name, split in splits.items())
        debug(f"{workers.world} process(es), this one on {workers.device} in {workers.precision}; {rows}")
    batches = TrainingBatches(recipe, splits["train"], workers, compiled.batches_of)

    # parts: fresh ones start at the data, or warm from another run
    if not goes_on:
        start_at_mean(compiled, splits["train"])
    unused = check_gradients(compiled, splits["train"])
    not_synchronised = synchronise(compiled.parts.modules, workers)
    parts = place_parts(compiled, workers)
    if warm is not None:
        warm.load_into(parts)
    workers.broadcast_([*parts.modules.parameters(), *parts.modules.buffers()])

    # the state to train from, and what reports on it
    ema = EMA(parts, train.ema)
    run_log = RunLog(folder, train.trackers, compiled.registry)
    reporter = RunReporter(compiled, splits, ema, workers, folder, run_log)
    ends = compiled.boundaries()
    state = TrainingState(
        parts=parts,
        ema=ema,
        optimizers=Optimizers(compiled, parts),
        balance_scales=BalanceScales(workers.device),
        driven=DrivenState(workers.device),
        histories=Histories(workers.device),
        progress=RunProgress(0, 0.0, ends, ends, warm.record() if warm else None),
        early_stopping=early_stopping_of(train.early_stopping, train.eval_every, checked.figures),
        best=best_checkpoint_of(train.keep_best, train.eval_every, checked.figures),
        critic_trust=CriticTrust(train.batch),
        window=LogWindow(workers.device),
        generators=GlobalGenerators(recipe.seed, workers),
    )

    # the folder, made by the main process before any other looks for something in it
    text = write_recipe(checked.written or recipe, compiled.registry)
    warnings = [f"stage {name!r} has no step: its share of the run is too small" for name in compiled.without_steps()]
    remarks = [*warm.lines] if warm else []
    remarks += compiled.registry.clashes("metric")
    remarks += bound_to_process(recipe, compiled.registry)
    if unused:
        names = listed(f"{name} ({size:,})" for name, size in unused.items())
        remarks.append(f"no term depends on these parameters, so they learn nothing: {names}")
    remarks += dict.fromkeys(line for split in splits.values() for line in split.remarks)
    remarks += batches.remarks
    if workers.is_main:
        if folder.goes_on(resume=resuming, overwrite=overwrite) != goes_on:  # since this one read its data
            raise ConfigError(f"another run has begun in {path}; give another --out (out=DIR)", "out")
        if resuming and not goes_on:
            remarks.insert(0, start_again(folder, text))
            run_log.begin_again()
        if overwrite:
            folder.remove_run()
        folder.create()
        if not goes_on:
            keep_plugins(folder, compiled.registry)
            folder.write_recipe(text)
            RunData.of(compiled, splits, checked.written).write(folder)
            folder.add_session(session_record(compiled, 0))
    workers.barrier()

    # a run that goes on does so from its newest checkpoint
    changes: list[Problem] = []
    if goes_on:
        point = resume(state, folder, text, allow_changes=allow_changes)
        changes = point.changes
        if not state.progress.is_over:
            remarks.insert(0, f"{path} goes on from step {state.progress.step} of {state.progress.ends[-1]}")
        record = RunData.read(folder)
        now = RunData.of(compiled, splits, checked.written, record)
        if not changes and not allow_changes:
            record.check_same(folder, now)
        warnings += point.notes
        if workers.is_main:
            every = None if any(change.path == ("train", "log_every") for change in changes) else train.log_every
            warnings += run_log.cut_back(state.progress.step, state.progress.log_events, every)
            keep_plugins(folder, compiled.registry)
            if changes:
                folder.write_recipe(text)
            else:
                warnings += restore_recipe(folder, text)
            if now != record:
                now.write(folder)
            if not state.progress.is_over:
                folder.add_session(session_record(compiled, state.progress.step))
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
            resumed_from=state.progress.step if goes_on else None,
        ),
        is_unchanged=goes_on and not changes,
        not_synchronised=not_synchronised,
    )


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
