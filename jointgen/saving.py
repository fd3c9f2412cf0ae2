"""What a run's checkpoint consists of, and the way back from it to where the run was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor

from jointgen import checkpoint
from jointgen.checkpoint import Checkpoint
from jointgen.distributed import Workers
from jointgen.errors import ConfigError
from jointgen.model import load_weights
from jointgen.optimizers import Optimizers
from jointgen.parts import Parts
from jointgen.runfolder import RunFolder
from jointgen.watch import Patience, Window


@attrs.frozen
class Position:
    """How far a run is. Its data and noise are functions of the step."""

    step: int
    wall_s: float
    ends: list[int]  # of the stages, in steps; early stopping moves them


@attrs.frozen
class Saver:
    """Writes a run's checkpoints and goes on from them, bit for bit.

    `average` is None where the run averages no weights; `recipe` is the resolved text.
    """

    folder: RunFolder
    workers: Workers
    recipe: str
    keep: int
    parts: Parts
    average: Parts | None
    optimizers: Optimizers
    patience: Patience

    def save(self, position: Position, window: Window) -> Path:
        """Writes a checkpoint of this moment. For every process to call; one writes."""
        self.workers.check_replicas(dict(self.parts.modules.named_parameters()))
        path = self.folder.checkpoints / f"step-{position.step:08d}"
        if self.workers.is_main:
            progress = {**attrs.asdict(position), "patience": self.patience.state()}
            state = {"optimizers": self.optimizers.state(), "progress": progress, "window": window.state()}
            path = checkpoint.save(
                self.folder.checkpoints, position.step, self._weights(), state, recipe=self.recipe, keep=self.keep
            )
        self.workers.barrier()
        return path

    def _weights(self) -> dict[str, Mapping[str, Tensor]]:
        parts: dict[str, Mapping[str, Tensor]] = {n: module.state_dict() for n, module in self.parts.modules.items()}
        if self.average is None:
            return parts
        return parts | {f"ema.{name}": module.state_dict() for name, module in self.average.modules.items()}

    def load(self) -> tuple[Position, Window]:
        """Puts everything back as it was at the newest whole checkpoint. ConfigError where the recipe is another."""
        saved = checkpoint.load(checkpoint.newest(self.folder.checkpoints))
        self._check_recipe(saved)
        load_weights(self.parts, saved.parts, average=False)
        if self.average is not None:
            load_weights(self.average, saved.parts, average=True)
        self.optimizers.load(saved.state["optimizers"])
        progress: dict[str, Any] = dict(saved.state["progress"])
        self.patience.load(progress.pop("patience"))
        window = Window()
        window.load(saved.state["window"], self.workers.device)
        position = Position(**progress)
        self.folder.cut_back(position.step)
        return position, window

    def _check_recipe(self, saved: Checkpoint) -> None:
        if saved.recipe != self.recipe:
            raise ConfigError(f"out: {self.folder.path} was made by another recipe; see {self.folder.recipe}")
