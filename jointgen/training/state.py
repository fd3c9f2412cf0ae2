"""The state of a training run: all that a checkpoint has to hold for the run to resume bit for bit.

Data and noise are pure functions of the seed and the step, so they have no state of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from torch import nn

from jointgen.config.documents import as_document
from jointgen.config.fields import between, non_negative
from jointgen.contracts.noise import Noise
from jointgen.runs.records import WarmStartRecord
from jointgen.runtime.global_rng import State, global_state, seeded, set_global_state
from jointgen.text import shortened

if TYPE_CHECKING:  # the state holds these, and knows of them only that they are stateful
    from jointgen.compiler.parts import Parts
    from jointgen.engine.balance_scales import BalanceScales
    from jointgen.engine.drivers import DrivenState
    from jointgen.engine.ema import EMA
    from jointgen.engine.histories import Histories
    from jointgen.engine.optimizers import Optimizers
    from jointgen.runtime.workers import Workers
    from jointgen.training.critic_trust import CriticTrust
    from jointgen.training.log_window import LogWindow
    from jointgen.training.stopping import BestCheckpoint, EarlyStopping


MAX_SECONDS = 1e12
"""So many seconds, which are 30,000 years, no run takes."""


class Stateful(Protocol):
    """An object with a state to save, like torch's modules and optimizers."""

    def state_dict(self) -> Any:
        """Return nested dicts and lists of plain values and tensors. Every process of the run calls it."""

    def load_state_dict(self, state: Any, /) -> None:
        """Restore what `state_dict` returned; its tensors are on the CPU.

        Plain values are what a file says: they are read strictly, and nothing is set before all of them are.
        """


@attrs.define(on_setattr=attrs.setters.NO_OP)  # a step need not check what it counts
class RunProgress:
    """The number of steps that a run has made, and the steps at which its stages end.

    Args:
        step: Steps made so far.
        wall_s: Seconds of training so far, over all parts of a resumed run.
        ends: The step at which each stage ends. Early stopping moves them forward.
        planned: The same by the recipe.
        init_from: The weights that the run started with (`WarmStart.record`); None if it started as built.
        log_events: The number of events in its log; None if it went on from a checkpoint that does not say.
    """

    step: int = attrs.field(validator=non_negative)
    wall_s: float = attrs.field(validator=between(0.0, MAX_SECONDS))
    ends: list[int] = attrs.field(validator=non_negative)
    planned: list[int] = attrs.field(validator=non_negative)
    init_from: WarmStartRecord | None = None
    log_events: int | None = attrs.field(default=0, validator=between(0, 2**63 - 1))

    @property
    def stage(self) -> int:
        """Index of the stage that the next step belongs to."""
        return next(i for i, end in enumerate(self.ends) if self.step < end)

    @property
    def is_over(self) -> bool:
        """Whether the last stage has ended."""
        return self.step >= self.ends[-1]

    def fraction_of(self, stage: int) -> float:
        """Return how much of a stage is done, in [0, 1)."""
        begin = self.ends[stage - 1] if stage else 0
        return (self.step - begin) / max(1, self.ends[stage] - begin)

    def end_stage(self, stage: int) -> None:
        """End a stage after this step. The stages that follow keep their lengths."""
        cut = self.ends[stage] - self.step
        self.ends = [end - cut if i >= stage else end for i, end in enumerate(self.ends)]

    def restore_lengths(self) -> None:
        """Give this stage and those after it their planned lengths again; stages that early stopping ended stay so."""
        ended = sum(end <= self.step for end in self.ends[:-1])
        moved = self.ends[ended - 1] - self.planned[ended - 1] if ended else 0
        self.ends = [*self.ends[:ended], *(end + moved for end in self.planned[ended:])]

    def state_dict(self) -> dict[str, Any]:
        """Return the progress as plain values."""
        return attrs.asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the progress. Where the recipe's stages now have other lengths, these hold from the start.

        Raises:
            ValueError: It is that of no run.
        """
        own = {field.name for field in attrs.fields(RunProgress)}  # progress.json holds other objects' states, too
        known = {key: value for key, value in state.items() if key in own}
        saved = as_document({"log_events": None, **known}, RunProgress)  # older checkpoints do not say how many
        saved.check_ends()
        self.step, self.wall_s, self.init_from = saved.step, saved.wall_s, saved.init_from
        self.log_events = saved.log_events
        self.ends = list(saved.ends if saved.planned == self.planned else self.planned)

    def check_ends(self) -> None:
        """Raise ValueError where no run has made so many steps with stages of these ends."""
        if len(self.ends) != len(self.planned) or not self.ends:
            raise ValueError(f"ends: {len(self.ends)} stages, and {len(self.planned)} in planned")
        for name, steps in (("ends", self.ends), ("planned", self.planned)):
            if steps != sorted(steps):
                raise ValueError(f"{name}: must be in order, got {shortened(steps)}")
        if any(end > planned for end, planned in zip(self.ends, self.planned, strict=True)):
            raise ValueError(f"ends: {shortened(self.ends)} is later than planned, {shortened(self.planned)}")
        if self.step > self.ends[-1]:
            raise ValueError(f"step: {self.step} is after the end, {self.ends[-1]}")


class GlobalGenerators:
    """The global random generators of torch, numpy and Python, in every process of a run.

    Nothing in jointgen draws from them, but other people's layers may.
    """

    def __init__(self, seed: int, workers: Workers):
        self.seed, self.workers = seed, workers
        self.notes: list[str] = []
        self._restored: State | None = None

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Seed the generators for this process, or restore them from the checkpoint; reset them on exit."""
        device = self.workers.device
        number = Noise(self.seed, "globals").generator(f"rank {self.workers.rank}").initial_seed()
        with seeded(number, device):
            if self._restored is not None:
                set_global_state(self._restored, device)
            yield

    def state_dict(self) -> State:
        """Return the generators of all processes, (processes, *shape) by name, in order of rank."""
        mine = global_state(self.workers.device)
        return {name: self.workers.gather(tensor[None].to(self.workers.device)) for name, tensor in mine.items()}

    def load_state_dict(self, state: State) -> None:
        """Keep this process's generators for `seeded`; a checkpoint of another number of processes has none for it.

        They are tried at once, so that what no generator takes is refused before anything is trained.
        """
        world = len(state["torch"])
        if world == self.workers.world:
            restored = {name: states[self.workers.rank] for name, states in state.items()}
            before = global_state(self.workers.device)
            try:
                set_global_state(restored, self.workers.device)
            finally:
                set_global_state(before, self.workers.device)
            self._restored = restored
            return
        self.notes.append(
            f"the checkpoint was written by {world} process(es) and this run has {self.workers.world}: the global "
            "generators of torch, numpy and Python start anew (jointgen's own noise does not depend on them)"
        )


def _saved_as(key: str, *, needs_same_recipe: bool = False, always: bool = False) -> dict[str, Any]:
    """Describe a stateful object of `TrainingState`.

    Args:
        key: Its name in a checkpoint; `progress.best` is the entry `best` of the file `progress.json`.
        needs_same_recipe: Whether its state means nothing once the recipe has changed.
        always: Whether the checkpoints of every version have it.
    """
    return {"key": key, "needs_same_recipe": needs_same_recipe, "always": always}


@attrs.frozen
class TrainingState:
    """The state of a run. A new stateful object is one more line here.

    The keys are those of checkpoint files: to change one is to refuse the checkpoints of earlier runs.
    """

    parts: Parts
    ema: EMA
    optimizers: Optimizers = attrs.field(metadata=_saved_as("optimizers", always=True))
    balance_scales: BalanceScales = attrs.field(metadata=_saved_as("balances"))
    driven: DrivenState = attrs.field(metadata=_saved_as("driven"))
    histories: Histories = attrs.field(metadata=_saved_as("histories"))
    progress: RunProgress = attrs.field(metadata=_saved_as("progress", always=True))
    early_stopping: EarlyStopping = attrs.field(metadata=_saved_as("progress.patience", needs_same_recipe=True))
    best: BestCheckpoint = attrs.field(metadata=_saved_as("progress.best"))
    critic_trust: CriticTrust = attrs.field(metadata=_saved_as("progress.health", needs_same_recipe=True))
    window: LogWindow = attrs.field(metadata=_saved_as("window"))
    generators: GlobalGenerators = attrs.field(metadata=_saved_as("randomness"))

    def modules(self) -> dict[str, nn.Module]:
        """Return the trained modules by part name, and their averages as `ema.NAME` where the run keeps any."""
        modules = dict(self.parts.modules.items())
        averages = self.ema.parts.modules.items() if self.ema.decay else ()
        return modules | {f"ema.{name}": module for name, module in averages}

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all objects but the modules, by key."""
        states: dict[str, Any] = {}
        for field, item in self._stateful():
            above, _, name = field.metadata["key"].rpartition(".")
            (states[above] if above else states)[name] = item.state_dict()
        return states

    def load_state_dict(self, states: Mapping[str, Any], *, recipe_changed: bool = False) -> list[str]:
        """Restore all objects but the modules.

        Returns:
            The keys that an older checkpoint does not know; their objects stay as they were made.

        Raises:
            KeyError: A key that every checkpoint has is missing.
            ValueError: A plain state is that of no run; the message begins with its key.
        """
        unknown = []
        for field, item in self._stateful():
            above, _, name = field.metadata["key"].rpartition(".")
            known = states[above] if above else states
            if name not in known and field.metadata["always"]:
                raise KeyError(name)
            if name not in known:
                unknown.append(field.metadata["key"])
            elif not (recipe_changed and field.metadata["needs_same_recipe"]):
                try:
                    item.load_state_dict(known[name])
                except ValueError as error:
                    raise ValueError(f"{field.metadata['key']}: {error}") from error
        return unknown

    def _stateful(self) -> Iterator[tuple[attrs.Attribute[Any], Stateful]]:
        for field in attrs.fields(type(self)):
            if "key" in field.metadata:
                yield field, getattr(self, field.name)
