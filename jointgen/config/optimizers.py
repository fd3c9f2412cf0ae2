"""The tables of a recipe's `[optimizer]`: the optimizers and their learning rates. Torch-free."""

from __future__ import annotations

from typing import Any

import attrs

from jointgen.config.fields import DEFAULT_OPTIMIZER, OptimizerField, ScheduleField, between, fraction, positive
from jointgen.config.values import show
from jointgen.errors import ConfigError
from jointgen.registry.discovery import load_plugins


@attrs.frozen(kw_only=True)
class Rate:
    """A learning rate as a function of the step alone. All lengths are shares of the run's steps.

    Args:
        lr: The rate after the warm-up.
        warmup: The share of the run over which the rate rises linearly from 0; it reaches `lr` with its last step.
        schedule: How the rate falls afterwards: the name of a component of kind schedule ("constant", "linear",
            "cosine", ...), or its table. None: on a line if `final` or `decay_from` is given, otherwise not at all.
        decay_from: The share of the run after which the rate falls; None: the warm-up's end.
        final: The rate at the end of the run, as a share of `lr`; None: 0.

    >>> Rate(lr=0.1, warmup=0.5, final=0.0).rate(step=75, steps=100)
    0.05
    """

    lr: float = attrs.field(default=1e-3, validator=[positive, between(0, 1000)])
    warmup: float = attrs.field(default=0.0, validator=fraction)
    schedule: str | ScheduleField | None = None
    decay_from: float | None = attrs.field(default=None, validator=fraction)
    final: float | None = attrs.field(default=None, validator=fraction)

    def __attrs_post_init__(self) -> None:
        if isinstance(self.schedule, str):
            _check_name(self.schedule)
        if self.schedule is not None and self._says_how_it_falls and not may_fall(self._schedule):
            never = f"{self.shape!r} never falls, so leave out decay_from and final, or say 'linear'"
            raise ConfigError(never, "schedule")

    @property
    def _says_how_it_falls(self) -> bool:
        return self.decay_from is not None or self.final is not None

    @property
    def shape(self) -> str:
        """The name of the schedule: of the one given, or of the one that the other settings imply."""
        if self.schedule is None:
            return "linear" if self._says_how_it_falls else "constant"
        return self.schedule if isinstance(self.schedule, str) else type(self.schedule).__name__

    @property
    def falls(self) -> bool:
        """Whether the rate falls after its warm-up."""
        return self._says_how_it_falls if self.schedule is None else may_fall(self._schedule)

    @property
    def _schedule(self) -> Any:
        if isinstance(self.schedule, str):
            return load_plugins().registry.default("schedule", self.schedule)
        return self.schedule

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, in a run of so many steps."""
        warm_steps = self.warmup * steps
        risen = min(1.0, (step + 1) / warm_steps) if warm_steps > 0.0 else 1.0
        return self.lr * risen * self._left(step / steps, steps)

    def _left(self, progress: float, steps: int) -> float:
        """Return the share of `lr` that is left at `progress`, in [0, 1], through a run of so many steps."""
        begin = self.warmup if self.decay_from is None else self.decay_from
        if not self.falls or begin >= 1.0 or progress <= begin:
            return 1.0
        done = (progress - begin) / (1.0 - begin)
        fallen = done if self.schedule is None else self._schedule.fallen(done, (1.0 - begin) * steps)
        final = self.final or 0.0
        return max(final, 1.0 - (1.0 - final) * fallen)

    def arguments(self) -> dict[str, Any]:
        """Return the keys beside those of the rate: the arguments of torch's optimizer of the same name."""
        shared = {field.name for field in attrs.fields(Rate)}
        return attrs.asdict(self, filter=lambda field, _: field.name not in shared)

    @property
    def moments(self) -> int:
        """The numbers that the optimizer keeps for each parameter, at the most."""
        raise NotImplementedError

    def build(self, parameters: Any) -> Any:
        """Return torch's optimizer of these parameters; see `jointgen.contracts.optimizers.Optimizer`."""
        raise NotImplementedError


def may_fall(schedule: Any) -> bool:
    """Return whether a schedule ever falls: all do that do not say otherwise."""
    return bool(getattr(schedule, "falls", True))


def _check_name(name: str) -> None:
    """Raise ConfigError where no schedule has the name, or one that has keys without defaults."""
    try:
        load_plugins().registry.default("schedule", name)
    except ConfigError as error:
        raise error.under("schedule") from None
    except TypeError:
        raise ConfigError(f"{show(name)} has keys that must be given: write a table", "schedule") from None


def _default() -> Any:
    return load_plugins().registry.default("optimizer", DEFAULT_OPTIMIZER)


@attrs.frozen
class StageTables:
    """Optimizers that replace the run's during one stage.

    Each starts with the stage, with new moments, and its lengths are shares of the stage. A part without one here
    keeps the run's optimizer.

    Args:
        model: For the parts that are no critics.
        critics: For the critics.
        parts: For single parts, by name.
    """

    model: OptimizerField | None = None
    critics: OptimizerField | None = None
    parts: dict[str, OptimizerField] = attrs.field(factory=dict)


@attrs.frozen
class OptimizerTable:
    """The settings of the optimizer of some parts.

    Args:
        name: The name in the log.
        settings: The settings.
        stage: The stage that the settings belong to; empty for those of the whole run.
    """

    name: str
    settings: Rate
    stage: str = ""


@attrs.frozen
class OptimizerTables:
    """The recipe's optimizers. Each table stands alone: that of a part takes nothing from the model's.

    Args:
        model: For the parts that are no critics.
        critics: For the critics.
        parts: For single parts, by name, in place of these two.
        stages: Optimizers that replace these during a stage, by the stage's name.
    """

    model: OptimizerField = attrs.field(factory=_default)
    critics: OptimizerField = attrs.field(factory=_default)
    parts: dict[str, OptimizerField] = attrs.field(factory=dict)
    stages: dict[str, StageTables] = attrs.field(factory=dict)

    def of(self, part: str, stage: str, *, critic: bool) -> OptimizerTable:
        """Return the settings for a part in a stage: its own before shared ones, the stage's before the run's."""
        of_stage, shared = self.stages.get(stage, StageTables()), "critics" if critic else "model"
        if part in of_stage.parts:
            return OptimizerTable(part, of_stage.parts[part], stage)
        if part in self.parts:
            return OptimizerTable(part, self.parts[part])
        if (settings := getattr(of_stage, shared)) is not None:
            return OptimizerTable(shared, settings, stage)
        return OptimizerTable(shared, getattr(self, shared))
