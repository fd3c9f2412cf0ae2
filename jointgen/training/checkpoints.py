"""Writes the state of a run as checkpoints, and resumes it from the newest whole one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from jointgen.compiler.parts import dtype_mismatches, shape_mismatches, summarise_problems
from jointgen.config.recipe import changed_keys
from jointgen.engine.batch_norm import average_statistics
from jointgen.errors import CheckpointError, ConfigError, MissingFileError, Problem, for_caller
from jointgen.runs import checkpoint
from jointgen.runs.folder import WRITTEN_AGAIN, RunFolder
from jointgen.runs.records import checkpoint_name
from jointgen.runtime.console import debug
from jointgen.runtime.workers import Workers
from jointgen.text import listed, shortened

if TYPE_CHECKING:
    from jointgen.training.state import TrainingState


_UNFIT = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What objects raise that are given the state of something else."""


@attrs.frozen
class CheckpointWriter:
    """Writes the state of a run into its folder.

    A run that resumes from what is written here goes on bit for bit as if it had not been interrupted: same machine,
    same number of processes, same recipe. What a checkpoint holds is what `TrainingState` names, and no more.

    Args:
        folder: The run folder.
        workers: The processes of the run.
        recipe: The text of the resolved recipe.
        keep: How many of the newest checkpoints stay.
    """

    folder: RunFolder
    workers: Workers
    recipe: str
    keep: int

    def save(self, state: TrainingState) -> Path:
        """Write a checkpoint of this moment and return its path. Every process calls it; the main one writes.

        Raises:
            CheckpointError: The disk does not take it.
            JointgenError: The processes no longer hold the same weights.
        """
        average_statistics(state.parts.modules, self.workers)
        if state.ema.decay:
            average_statistics(state.ema.parts.modules, self.workers)
        self.workers.check_replicas(state.parts.modules.state_dict())
        states = state.state_dict()  # in every process: the random generators are gathered
        path = self.folder.checkpoints / checkpoint_name(state.progress.step)
        if self.workers.is_main:
            checkpoint.save(
                self.folder.checkpoints,
                state.progress.step,
                {name: module.state_dict() for name, module in state.modules().items()},
                states,
                recipe=self.recipe,
                keep=self.keep,
                best=state.best.checkpoint,
            )
            debug(f"wrote {path}")
        self.workers.barrier()
        return path


@attrs.frozen
class ResumePoint:
    """The facts about a resumed run that its user should know.

    Args:
        changes: The keys of the recipe that have changed since the checkpoint, a line each.
        notes: Remarks on damaged checkpoints and on the number of processes, a line each.
    """

    changes: list[Problem]
    notes: list[str]


def resume(state: TrainingState, folder: RunFolder, recipe: str, *, allow_changes: bool = False) -> ResumePoint:
    """Restore the state of a run from its newest whole checkpoint.

    Args:
        state: The state of the run as built; everything in it is restored in place.
        folder: The run folder.
        recipe: The text of the resolved recipe, which may differ from the checkpoint's.
        allow_changes: Whether it may.

    Raises:
        ConfigError: The recipe has changed, which is not allowed or cannot be: each change is named.
        CheckpointError: No checkpoint is whole.
    """
    saved = checkpoint.find(folder.checkpoints)

    # the recipe: the same, or changed where that is allowed and possible
    changes = changed_keys(saved.recipe, recipe)
    if begun := [change for change in changes if change.path[:2] == ("train", "init_from")]:
        reason = "it says what a run begins with, and this one has begun"
        raise ConfigError([Problem(f"{change.message}: {reason}", *change.path) for change in begun])
    if changes and not allow_changes:
        first = f"the run in {folder.path} has another recipe"
        remedy = f"to go on with this one: {for_caller('--allow-changes', 'allow_changes=True')}"
        raise ConfigError([Problem(f"{first}; {remedy}", "out"), *(f"  {change}" for change in changes)])
    wrong = shape_mismatches(state.parts.modules, saved.parts)
    if all(change.path[:2] != ("train", "precision") for change in changes):
        wrong += dtype_mismatches(state.modules(), saved.parts)
    if wrong:
        raise ConfigError(f"{saved.path} cannot be resumed with this recipe: {summarise_problems(wrong)}", "out")

    # the weights, then everything else
    try:
        for name, module in state.modules().items():
            known = name if name in saved.parts else name.removeprefix("ema.")  # averages that begin now
            module.load_state_dict(saved.parts[known])
        unknown = state.load_state_dict(saved.state, recipe_changed=bool(changes))
        if state.progress.step != saved.step:
            raise ValueError(f"step {shortened(state.progress.step)} in progress.json, {saved.step} in manifest.json")
        if not changes and (planned := saved.state["progress"]["planned"]) != state.progress.planned:
            raise ValueError(f"progress.planned: {shortened(planned)}, and {state.progress.planned} by the recipe")
    except ConfigError as error:
        raise ConfigError(f"{saved.path} cannot be resumed with this recipe: {error}", "out") from None
    except _UNFIT as error:  # whole to the byte, so somebody has edited it, or it is of another version
        reason = f"{type(error).__name__}: {shortened(error)}"
        remedy = "remove it to go on from the one before"
        raise CheckpointError(f"checkpoint {saved.path} holds what no such run writes ({reason}); {remedy}") from error

    # a changed recipe may leave fewer steps, or other lengths of stages
    progress = state.progress
    if any(change.path[:2] == ("train", "early_stopping") for change in changes):
        progress.restore_lengths()
    if progress.ends[-1] < progress.step:
        raise ConfigError(
            f"a budget of {progress.ends[-1]} steps is less than the {progress.step} that the run has made", "train"
        )
    damaged = [f"{line}; going on from {saved.path.name}" for line in saved.passed_over]
    anew = [f"{saved.path.name} does not know {listed(unknown)}, which begin anew"] if unknown else []
    return ResumePoint(changes, [*damaged, *anew, *state.generators.notes])


def restore_recipe(folder: RunFolder, recipe: str) -> list[str]:
    """Write the recipe of a run that goes on where the folder has no such one any more.

    Returns:
        A line where that was so.

    Raises:
        FileError: What is there cannot be read; it stays as it is.
    """
    try:
        changes = changed_keys(folder.read_tables(WRITTEN_AGAIN), recipe)
        fault = f"was not that of the checkpoint ({listed(changes)})" if changes else ""
    except MissingFileError:
        fault = "was missing"
    if not fault:
        return []
    folder.write_recipe(recipe)
    return [f"{folder.recipe}: {fault}, and is written again"]
