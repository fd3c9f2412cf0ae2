"""What a run's checkpoint consists of, and the way back from it to where the run was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor

from jointgen.compiler.parts import Parts, shape_mismatches, summarise_problems
from jointgen.config.recipe import changed_keys
from jointgen.engine.balance_scales import BalanceScales
from jointgen.engine.batch_norm import average_statistics
from jointgen.engine.optimizers import Optimizers
from jointgen.errors import ConfigError
from jointgen.inference.loading import load_weights
from jointgen.runs import checkpoint
from jointgen.runs.checkpoint import Checkpoint, name_of
from jointgen.runs.folder import RunFolder
from jointgen.runtime.global_rng import State, global_state
from jointgen.runtime.workers import Workers
from jointgen.training.critic_trust import CriticTrust
from jointgen.training.log_window import LogWindow
from jointgen.training.stopping import BestCheckpoint, EarlyStopping


@attrs.frozen
class RunProgress:
    """How far a run is, and where it began. Its data and noise are functions of the step.

    ends, planned: of the stages, in steps; early stopping moves the former, the latter are the recipe's.
    init_from: which weights of which run it started with (WarmStart.record); None: as built.
    """

    step: int
    wall_s: float
    ends: list[int]
    planned: list[int] = attrs.field(factory=list)
    init_from: Mapping[str, Any] | None = None


@attrs.frozen
class ResumePoint:
    """Where a run goes on. `changes`: what its recipe now has otherwise; `notes`: what its user should know."""

    position: RunProgress
    window: LogWindow
    randomness: State | None
    changes: list[str]
    notes: list[str]


@attrs.frozen
class CheckpointWriter:
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
    scales: BalanceScales
    patience: EarlyStopping
    best: BestCheckpoint
    health: CriticTrust

    # --- there

    def save(self, position: RunProgress, window: LogWindow) -> Path:
        """Writes a checkpoint of this moment. For every process to call; one writes."""
        for parts in (self.parts, self.average):
            if parts is not None:
                average_statistics(parts.modules, self.workers)
        self.workers.check_replicas(self.parts.modules.state_dict())
        randomness = self._gathered(global_state(self.workers.device))
        path = self.folder.checkpoints / name_of(position.step)
        if self.workers.is_main:
            state = {
                "optimizers": self.optimizers.state(),
                "balances": self.scales.state(),
                "progress": {
                    **attrs.asdict(position),
                    "patience": self.patience.state(),
                    "best": self.best.state(),
                    "health": self.health.state(),
                },
                "window": window.state(),
                "randomness": randomness,
            }
            path = checkpoint.save(
                self.folder.checkpoints,
                position.step,
                self._weights(),
                state,
                recipe=self.recipe,
                keep=self.keep,
                best=self.best.checkpoint,
            )
        self.workers.barrier()
        return path

    def _gathered(self, mine: State) -> State:
        """(processes, *shape) of each generator's state, in order of rank."""
        return {name: self.workers.gather(tensor[None].to(self.workers.device)) for name, tensor in mine.items()}

    def _weights(self) -> dict[str, Mapping[str, Tensor]]:
        parts: dict[str, Mapping[str, Tensor]] = {n: module.state_dict() for n, module in self.parts.modules.items()}
        if self.average is None:
            return parts
        return parts | {f"ema.{name}": module.state_dict() for name, module in self.average.modules.items()}

    # --- and back

    def load(self, *, allow_changes: bool = False) -> ResumePoint:
        """Puts everything back as it was at the newest whole checkpoint.

        Raises ConfigError that names each change of the recipe unless they are allowed, and what cannot be changed.
        """
        saved = checkpoint.find(self.folder.checkpoints)
        changes = changed_keys(saved.recipe, self.recipe)
        if begun := [line for line in changes if line.startswith("train.init_from")]:
            raise ConfigError([f"{line}: it says what a run begins with, and this one has begun" for line in begun])
        if changes and not allow_changes:
            raise ConfigError(_refusal(self.folder.path, changes))
        self._load_weights(saved)
        progress: dict[str, Any] = dict(saved.state["progress"])
        self.best.load(progress.pop("best"))
        patience, health = progress.pop("patience"), progress.pop("health")
        if not changes:  # otherwise its losses and its critics may be others
            self.patience.load(patience)
            self.health.load(health)
        self.scales.load(saved.state.get("balances", {}), self.workers.device)
        window = LogWindow()
        window.load(saved.state["window"], self.workers.device)
        randomness, notes = self._own_randomness(saved.state["randomness"])
        position = RunProgress(**progress)
        if self.workers.is_main:
            self.folder.cut_back(position.step)
        notes = [*(f"{line}; going on from {saved.path.name}" for line in saved.passed_over), *notes]
        return ResumePoint(position, window, randomness, changes, notes)

    def _load_weights(self, saved: Checkpoint) -> None:
        if wrong := shape_mismatches(self.parts.modules, saved.parts):
            raise ConfigError(f"out: {saved.path} cannot be gone on from with this recipe: {summarise_problems(wrong)}")
        load_weights(self.parts, saved.parts, average=False)
        if self.average is not None:
            load_weights(self.average, saved.parts, average=True)
        try:
            self.optimizers.load(saved.state["optimizers"])
        except (KeyError, ValueError) as error:
            raise ConfigError(f"out: the optimizers in {saved.path} are not this recipe's: {error}") from None

    def _own_randomness(self, everyone: State) -> tuple[State | None, list[str]]:
        """This process's generators; of another number of processes, nobody's."""
        world = len(everyone["torch"])
        if world == self.workers.world:
            return {name: states[self.workers.rank] for name, states in everyone.items()}, []
        note = f"the checkpoint is of {world} process(es), not of {self.workers.world}: torch's, numpy's and Python's "
        return None, [f"{note}global generators start anew (jointgen's own noise does not depend on it)"]


def _refusal(path: Path, changes: Iterable[str]) -> list[str]:
    first = f"out: the run in {path} has another recipe; to go on with this one: --allow-changes (allow_changes=True)"
    return [first, *(f"  {line}" for line in changes)]
