"""Trained models from run folders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from jointgen.compiler.compiled_recipe import CompiledRecipe, compile_recipe
from jointgen.compiler.parts import load_weights
from jointgen.config.plugin_files import registry_of_run
from jointgen.config.recipe import Recipe, changed_keys, read_recipe, write_recipe
from jointgen.contracts.sources import RecordedData
from jointgen.data.split import differences
from jointgen.errors import ConfigError, FileError, JointgenError
from jointgen.inference.data_paths import DataPaths
from jointgen.inference.model import Model
from jointgen.inference.run_data import REMEDY, RunData
from jointgen.registry.faults import attributing
from jointgen.registry.files import trusting
from jointgen.runs.checkpoint import Checkpoint, find, named_latest
from jointgen.runs.folder import RunFolder
from jointgen.runs.missing_components import MissingComponents
from jointgen.runs.records import checkpoint_name, describe_progress, step_of
from jointgen.runtime.workers import find_device
from jointgen.text import listed

MAX_CHANGES_SHOWN = 5


def load(
    run: str | Path, *, checkpoint: str = "latest", average: bool = True, device: str = "cpu", trust: bool = False
) -> Model:
    """Load the model of a run folder. Warns of newer checkpoints that are damaged, and of a recipe that has changed.

    Args:
        run: The run folder.
        checkpoint: "latest" for the newest whole checkpoint, "best" for the one that the run keeps as its best
            (`train.keep_best`), or the name of a checkpoint's folder, such as "step-00001000".
        average: Whether to take the averages of the weights (`train.ema`), where there are any.
        device: The device to put the model on, such as "cuda".
        trust: Whether to execute the code that the run has of its own: the plugin files in its folder plugins/. Read
            them first, unless they are yours.

    Returns:
        The model, a `torch.nn.Module` in evaluation mode.

    Raises:
        ConfigError: If there is no such run, checkpoint or device, or it has code that is not trusted.
        CheckpointError: If no checkpoint is whole.
    """
    with trusting(trust):
        model, damaged = open_model(run, checkpoint, average=average, device=device)
    for line in damaged:
        warnings.warn(line, stacklevel=2)
    return model


def open_model(
    run: str | Path,
    checkpoint: str = "latest",
    *,
    average: bool = True,
    device: str = "cpu",
    data_paths: DataPaths | None = None,
) -> tuple[Model, list[str]]:
    """Load a model as `load` does.

    Args:
        run, checkpoint, average, device: See `load`.
        data_paths: Where the run's data lies now, for whoever reads its rows.

    Returns:
        The model, and a line for each damaged or missing checkpoint that was passed over, and one if the run's recipe,
        as it reads today, is not the one that the checkpoint was trained with.
    """
    place = find_device(device, "fp32", 1)
    folder = RunFolder.open(run)
    compiled = compile_run(folder, data_paths)
    saved = find(folder.checkpoints, checkpoint)
    doubled = torch.float64 if compiled.recipe.train.precision == "fp64" else None
    compiled.parts.modules.to(place, doubled).eval()  # before the weights, which would be rounded
    with _naming_record(folder, compiled.recipe, compiled.binding.recorded):
        load_weights(compiled.parts, saved.parts, average)
    model = Model(compiled, compiled.parts, place, saved.path.name)
    remarks = [f"{line}; {saved.path.name} is used" for line in saved.passed_over]
    remarks += _gone(folder, saved) if checkpoint == "latest" else []
    registry = compiled.registry
    remarks += [
        f"{f.path}: has changed since the run was trained ({f.change})" for f in registry.files if f.has_changed
    ]
    tables = folder.read_tables()
    missing = MissingComponents.of_run(folder, registry, tables).of_training
    if missing.by_key:
        remarks.append(f"{run}: loaded without what only training and evaluations use: {missing}")
        changes = changed_keys(saved.recipe, tables)
    else:
        changes = changed_keys(saved.recipe, write_recipe(read_recipe(tables, registry=registry), registry))
    if changes:
        remarks.append(
            f"{run}: its recipe reads today otherwise than when {saved.path.name} was trained: "
            f"{listed(changes, '; ', MAX_CHANGES_SHOWN)}"
        )
    return model, remarks


def _gone(folder: RunFolder, saved: Checkpoint) -> list[str]:
    """Return a line if the run has named a newer checkpoint than this, and that is not there any more."""
    summary, _ = folder.summary_or_remark()
    ended = summary is not None and summary.status in ("done", "stopped")
    names = {
        "latest": named_latest(folder.checkpoints),
        folder.summary.name: checkpoint_name(summary.step) if summary is not None and ended else None,
    }
    newer = {file: name for file, name in names.items() if name and step_of(name) > saved.step}
    gone = {file: name for file, name in newer.items() if not os.path.lexists(folder.checkpoints / name)}
    return [
        f"{folder.checkpoints / name}: is missing, and {file} names it; {saved.path.name} is used"
        for file, name in list(gone.items())[:1]
    ]


def compile_run(folder: RunFolder, data_paths: DataPaths | None = None) -> CompiledRecipe:
    """Compile the recipe of a run with what the run has recorded of its data, which need not be there.

    Args:
        folder: The run.
        data_paths: Where its data lies now.

    What only training uses (an optimizer, a tracker, a metric) may be missing: the recipe is read without it.

    Raises:
        ConfigError: The run's recipe or its record is damaged, or the data of a run without a record is not there.
    """
    data, tables = RunData.read(folder), folder.read_tables()
    missing = MissingComponents({})
    try:
        registry = registry_of_run(tables, folder.path)
        missing = MissingComponents.of_run(folder, registry, tables)
        recipe = read_recipe(missing.of_training.removed_from(tables), registry=registry)
    except FileError:
        raise
    except ConfigError as error:
        told = missing.needed.explain(error.problems)
        raise ConfigError([f"{folder.recipe}: {problem}" for problem in told]) from None
    recipe = data.located(recipe, data_paths)
    recorded = data.recorded(recipe, folder)
    with _naming_record(folder, recipe, recorded):
        return compile_recipe(recipe, registry, recorded)


@contextmanager
def _naming_record(folder: RunFolder, recipe: Recipe, recorded: RecordedData | None) -> Iterator[None]:
    """Name data.json in one line where a run does not fit together and the data does not bear out what it says."""
    try:
        yield
    except ConfigError as error:
        if isinstance(error, FileError) or recorded is None or _is_true(recipe, recorded):
            raise
        more = f", and {len(error.problems) - 1:,} more" if len(error.problems) > 1 else ""
        fault = f"does not fit the run's {folder.recipe.name} and checkpoints ({error.lines[0]}{more})"
        raise FileError(folder.data, f"{fault}; {REMEDY}") from None


def _is_true(recipe: Recipe, recorded: RecordedData) -> bool:
    """Whether the data is there and is what the record says."""
    try:
        for part, spaces in recorded.spaces.items():
            with attributing(part):
                if any(differences(spaces, recipe.all_sources()[part].spaces())):
                    return False
    except JointgenError:  # it is not there
        return False
    return True


def open_run(
    run: str, device: str, checkpoint: str = "latest", data_paths: DataPaths | None = None
) -> tuple[Model, list[str]]:
    """Load a model for a command. The arguments are those of `open_model`.

    Returns:
        The model, and remarks where checkpoints or the summary are damaged or the run is not finished.

    Raises:
        ConfigError: If `run` is no run folder; names the nearest one.
    """
    summary, damaged = RunFolder.open(run).summary_or_remark()
    model, remarks = open_model(run, checkpoint, device=device, data_paths=data_paths)
    if damaged or checkpoint != "latest" or (summary is not None and summary.is_done):
        return model, [*damaged, *remarks]
    status = describe_progress(summary, model.compiled.recipe.train.total_steps)
    return model, [*remarks, f"{run}: this run is not finished ({status}); its newest checkpoint is used"]
