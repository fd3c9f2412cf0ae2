"""The tables of a recipe's `[optimizer]`: the optimizers and their learning rates. Torch-free."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import attrs

from jointgen.config.fields import OneOf, below_one, between, fraction, non_negative, positive
from jointgen.errors import ConfigError


@attrs.frozen(kw_only=True)
class Rate:
    """A learning rate as a function of the step alone. All lengths are shares of the run's steps.

    Args:
        lr: The rate after the warm-up.
        warmup: The share of the run over which the rate rises linearly from 0; it reaches `lr` with its last step.
        schedule: How the rate falls afterwards: not at all ("constant"), on a line ("linear") or on half a cosine
            ("cosine"; Loshchilov & Hutter 2017, without restarts). None: linear if `final` or `decay_from` is given,
            otherwise constant.
        decay_from: The share of the run after which the rate falls; None: the warm-up's end.
        final: The rate at the end of the run, as a share of `lr`; None: 0.

    >>> Rate(lr=0.1, warmup=0.5, schedule="linear").rate(step=75, steps=100)
    0.05
    """

    lr: float = attrs.field(default=1e-3, validator=[positive, between(0, 1000)])
    warmup: float = attrs.field(default=0.0, validator=fraction)
    schedule: Literal["constant", "linear", "cosine"] | None = None
    decay_from: float | None = attrs.field(default=None, validator=fraction)
    final: float | None = attrs.field(default=None, validator=fraction)

    def __attrs_post_init__(self) -> None:
        if self.schedule == "constant" and self._says_how_it_falls:
            raise ConfigError("'constant' never falls, so leave out decay_from and final, or say 'linear'", "schedule")

    @property
    def _says_how_it_falls(self) -> bool:
        return self.decay_from is not None or self.final is not None

    @property
    def shape(self) -> str:
        """The schedule: the one given, or the one that the other settings imply."""
        return self.schedule or ("linear" if self._says_how_it_falls else "constant")

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, in a run of so many steps."""
        warm_steps = self.warmup * steps
        risen = min(1.0, (step + 1) / warm_steps) if warm_steps > 0.0 else 1.0
        return self.lr * risen * self._left(step / steps)

    def _left(self, progress: float) -> float:
        """Return the share of `lr` that is left at `progress`, in [0, 1], through the run."""
        begin = self.warmup if self.decay_from is None else self.decay_from
        shape = self.shape
        if shape == "constant" or begin >= 1.0 or progress <= begin:
            return 1.0
        done = (progress - begin) / (1.0 - begin)
        fallen = done if shape == "linear" else (1.0 - math.cos(math.pi * done)) / 2.0
        final = self.final or 0.0
        return max(final, 1.0 - (1.0 - final) * fallen)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of torch's optimizer of the same name, besides the rate."""
        shared = {field.name for field in attrs.fields(Rate)}
        return attrs.asdict(self, filter=lambda field, _: field.name not in shared)

    @property
    def moments(self) -> int:
        """The numbers that the optimizer keeps for each parameter."""
        raise NotImplementedError


@attrs.frozen(kw_only=True)
class Adam(Rate):
    """Adam (Kingma & Ba 2015); `weight_decay` is added to the gradient."""

    betas: tuple[float, float] = attrs.field(default=(0.9, 0.999), validator=below_one)
    eps: float = attrs.field(default=1e-8, validator=positive)
    weight_decay: float = attrs.field(default=0.0, validator=non_negative)

    @property
    def moments(self) -> int:
        """The numbers that the optimizer keeps for each parameter."""
        return 2


@attrs.frozen(kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    weight_decay: float = attrs.field(default=1e-2, validator=non_negative)


@attrs.frozen(kw_only=True)
class SGD(Rate):
    """Stochastic gradient descent, with momentum or Nesterov's."""

    momentum: float = attrs.field(default=0.0, validator=below_one)
    nesterov: bool = False
    weight_decay: float = attrs.field(default=0.0, validator=non_negative)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.nesterov and self.momentum == 0.0:
            raise ConfigError("needs a momentum > 0", "nesterov")

    @property
    def moments(self) -> int:
        """The numbers that the optimizer keeps for each parameter."""
        return int(self.momentum > 0.0)


@attrs.frozen(kw_only=True)
class RMSprop(Rate):
    """RMSprop (Hinton 2012).

    Args:
        alpha: The decay of the mean of the squared gradient.
        centered: Whether the square of the mean gradient is subtracted from it (Graves 2013).
    """

    alpha: float = attrs.field(default=0.99, validator=below_one)
    eps: float = attrs.field(default=1e-8, validator=positive)
    momentum: float = attrs.field(default=0.0, validator=below_one)
    centered: bool = False
    weight_decay: float = attrs.field(default=0.0, validator=non_negative)

    @property
    def moments(self) -> int:
        """The numbers that the optimizer keeps for each parameter."""
        return 1 + int(self.momentum > 0.0) + int(self.centered)


OptimizerField = Annotated[Any, OneOf({"adam": Adam, "adamw": AdamW, "sgd": SGD, "rmsprop": RMSprop})]


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

    model: OptimizerField = attrs.field(factory=Adam)
    critics: OptimizerField = attrs.field(factory=Adam)
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
