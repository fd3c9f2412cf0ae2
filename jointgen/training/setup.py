"""What a run starts from: a folder that is free or resumable, and parts that are checked and on their device."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from jointgen.compiler.build import start_at_data
from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.compiler.parts import Parts
from jointgen.config.recipe import Train
from jointgen.contracts.noise import Noise
from jointgen.data.split import Split
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.batch_norm import synchronise
from jointgen.engine.gradient_check import check_ownership
from jointgen.errors import ConfigError
from jointgen.inference.model import Model
from jointgen.runs.folder import RunFolder
from jointgen.runs.trackers import check_installed
from jointgen.runtime.workers import Workers
from jointgen.training.warm_start import WarmStart

OWNERSHIP_ROWS = 4
FIRST_ROWS = 1024


def check_start(path: Path, train: Train, *, resume: bool, allow_changes: bool) -> None:
    """Raises ConfigError for what can be known before minutes of reading data."""
    RunFolder.check(path, resume=resume)
    check_installed(train.trackers)
    if allow_changes and not resume:
        raise ConfigError("--allow-changes: says how to resume; use it with --resume")
    if resume and not any(RunFolder(path).checkpoints.glob("step-*")):
        raise ConfigError(f"out: {path} holds no checkpoint to resume from; start it without --resume")


def make_folder(folder: RunFolder, text: str, workers: Workers, *, resume: bool) -> None:
    """The main process makes it before any other looks for something in it. text: the recipe, as it is resolved."""
    if workers.is_main:
        RunFolder.create(folder.path, resume=resume)
        if not resume:
            folder.write_recipe(text)
    workers.barrier()


def start_parts(
    compiled: CompiledRecipe, split: Split, workers: Workers, *, fresh: bool, warm: WarmStart | None = None
) -> tuple[Parts, list[str]]:
    """The parts on their device, gradients checked; of a fresh run, decoders start at the data's mean, and parts that
    start warm with the weights of another run. And the names of those that will not train quite as in one process."""
    parts, recipe = compiled.parts, compiled.recipe
    if fresh:
        start_at_data(parts, compiled.binding, _first_rows(compiled, split))
    for plan in compiled.plans:
        rows = max(OWNERSHIP_ROWS, plan.furthest_pairing + 1)  # which are all of the block that is re-paired
        check_ownership(plan, parts, split.take(torch.arange(rows) % len(split)), rows, recipe.seed)
    apart = synchronise(parts.modules, workers)
    parts.modules.to(workers.device, workers.cast_to).train()
    if warm is not None:
        warm.put_into(parts)
    parts = parts.in_channels_last() if recipe.train.channels_last else parts
    workers.broadcast_([*parts.modules.parameters(), *parts.modules.buffers()])
    return parts, apart


def _first_rows(compiled: CompiledRecipe, split: Split) -> dict[str, Tensor]:
    """Some rows of each observed variable, without the noise of observing them, (N, *shape)."""
    rows = min(FIRST_ROWS, len(split))
    spread = torch.arange(rows) * len(split) // rows  # folders of images come sorted by class
    moment = StepInputs(split.take(spread), Noise(compiled.recipe.seed, "means"), rows)
    return Model(compiled, compiled.parts).observe(moment)[0]
