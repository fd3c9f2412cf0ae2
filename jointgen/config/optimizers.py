"""Recipe tables of the optimizers and of their learning rates. Torch-free."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import attrs

from jointgen.config.fields import OneOf, below_one, fraction, non_negative, positive
from jointgen.errors import ConfigError


@attrs.frozen(kw_only=True)
class Rate:
    """The learning rate, a function of the step alone. All lengths are shares of the run's steps.

    warmup: rises linearly from 0 over so much of the run, reaching `lr` with the last step of it.
    schedule: after that "constant", or falling on a line ("linear") or half a cosine ("cosine"; Loshchilov & Hutter
        2017, without restarts) to `final` (a share of `lr`, 0 if not given) from `decay_from` (the end of the warm-up
        if not given) to the end. Not given: linear where `final` or `decay_from` is, otherwise constant.
    """

    lr: float = attrs.field(default=1e-3, validator=positive)
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
        """The schedule, given or not: constant, linear or cosine."""
        return self.schedule or ("linear" if self._says_how_it_falls else "constant")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step `step`, counted from 0, in a run of `steps`."""
        warm_steps = self.warmup * steps
        risen = min(1.0, (step + 1) / warm_steps) if warm_steps > 0.0 else 1.0
        return self.lr * risen * self._left(step / steps)

    def _left(self, progress: float) -> float:
        """What share of the rate is left at `progress` in [0, 1] through the run."""
        begin = self.warmup if self.decay_from is None else self.decay_from
        shape = self.shape
        if shape == "constant" or begin >= 1.0 or progress <= begin:
            return 1.0
        done = (progress - begin) / (1.0 - begin)
        fallen = done if shape == "linear" else (1.0 - math.cos(math.pi * done)) / 2.0
        final = self.final or 0.0
        return max(final, 1.0 - (1.0 - final) * fallen)

    def arguments(self) -> dict[str, Any]:
        """What torch's optimizer of the same name takes besides the rate: the fields of the type itself."""
        shared = {field.name for field in attrs.fields(Rate)}
        return attrs.asdict(self, filter=lambda field, _: field.name not in shared)

    @property
    def moments(self) -> int:
        """How many numbers per parameter the optimizer keeps."""
        raise NotImplementedError


@attrs.frozen(kw_only=True)
class Adam(Rate):
    """Adam (Kingma & Ba 2015); `weight_decay` is added to the gradient."""

    betas: tuple[float, float] = attrs.field(default=(0.9, 0.999), validator=below_one)
    eps: float = attrs.field(default=1e-8, validator=positive)
    weight_decay: float = attrs.field(default=0.0, validator=non_negative)

    @property
    def moments(self) -> int:
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
        return int(self.momentum > 0.0)


@attrs.frozen(kw_only=True)
class RMSprop(Rate):
    """RMSprop (Hinton 2012).

    alpha: how slowly the mean of the squared gradient moves.  centered: less the square of its mean (Graves 2013).
    """

    alpha: float = attrs.field(default=0.99, validator=below_one)
    eps: float = attrs.field(default=1e-8, validator=positive)
    momentum: float = attrs.field(default=0.0, validator=below_one)
    centered: bool = False
    weight_decay: float = attrs.field(default=0.0, validator=non_negative)

    @property
    def moments(self) -> int:
        return 1 + int(self.momentum > 0.0) + int(self.centered)


OptimizerField = Annotated[Any, OneOf({"adam": Adam, "adamw": AdamW, "sgd": SGD, "rmsprop": RMSprop})]


@attrs.frozen
class StageTables:
    """In the place of the run's tables during one stage: `model` and `critics`, `parts.NAME` for one part.

    Each begins anew with the stage, moments and rate, and its lengths are shares of the stage. A part for which nothing
    is said here keeps the run's optimizer.
    """

    model: OptimizerField | None = None
    critics: OptimizerField | None = None
    parts: dict[str, OptimizerField] = attrs.field(factory=dict)


@attrs.frozen
class Table:
    """The settings of some parts, `name` in the log. `stage`: the one whose own they are; empty for the run's."""

    name: str
    settings: Rate
    stage: str = ""


@attrs.frozen
class OptimizerTables:
    """`model` for the parts that are no critics, `critics` for those, `parts.NAME` in their place for one part.

    Each is a table of its own: a part's takes nothing from the model's.  stages: others during a stage, by its name.
    """

    model: OptimizerField = attrs.field(factory=Adam)
    critics: OptimizerField = attrs.field(factory=Adam)
    parts: dict[str, OptimizerField] = attrs.field(factory=dict)
    stages: dict[str, StageTables] = attrs.field(factory=dict)

    def of(self, part: str, stage: str, *, critic: bool) -> Table:
        """A part's own table before one that it shares, and of two such the stage's before the run's."""
        own, shared = self.stages.get(stage, StageTables()), "critics" if critic else "model"
        if part in own.parts:
            return Table(part, own.parts[part], stage)
        if part in self.parts:
            return Table(part, self.parts[part])
        if (settings := getattr(own, shared)) is not None:
            return Table(shared, settings, stage)
        return Table(shared, getattr(self, shared))
