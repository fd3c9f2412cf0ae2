"""What the loop keeps an eye on between steps: sums of figures, numbers that break, losses that stop improving."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from jointgen.config.recipe import EarlyStoppingTable
from jointgen.contracts.metrics import MetricFigure
from jointgen.errors import ConfigError, suggest


class EarlyStopping:
    """Early stopping: ends a stage once none of the losses has improved for `limit` evaluations in a row."""

    def __init__(self, limit: int | None):
        self._limit = limit
        self.restart()

    def restart(self) -> None:
        self._best: list[float] = []
        self._waited = 0

    def exhausted(self, losses: list[float]) -> bool:
        if self._limit is None or not losses:
            return False
        improved = [not self._best or new < old for new, old in zip(losses, self._best or losses, strict=True)]
        self._best = [min(new, old) for new, old in zip(losses, self._best or losses, strict=True)]
        self._waited = 0 if any(improved) else self._waited + 1
        return self._waited >= self._limit

    def state(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited}

    def load(self, state: Mapping[str, Any]) -> None:
        self._best, self._waited = list(state["best"]), state["waited"]


def early_stopping_of(
    stopping: EarlyStoppingTable | None, every: int | None, measures: Iterable[MetricFigure]
) -> EarlyStopping:
    """What `train.early_stopping` asks for. ConfigError where evaluations, `every` so many steps, do not find what it
    looks at."""
    if stopping is None:
        return EarlyStopping(None)
    if every is None:
        raise ConfigError("train.early_stopping: looks at evaluations, so train.eval_every must say how often")
    if not any(is_watched(measure.name) and measure.statistics for measure in measures):
        raise ConfigError("train.early_stopping: eval.metrics must measure reconstruction, which it watches")
    return EarlyStopping(stopping.patience)


def is_watched(name: str) -> bool:
    """Whether early stopping looks at a figure."""
    return name.startswith("reconstruction_")


def best_checkpoint_of(name: str | None, every: int | None, measures: Iterable[MetricFigure]) -> BestCheckpoint:
    """What keeps `train.keep_best`. ConfigError where evaluations, `every` so many steps, will not find it."""
    if name is None:
        return BestCheckpoint()
    known = {measure.name: measure for measure in measures}
    usable = [m.name for m in known.values() if m.statistics and m.better is not None]
    if every is None:
        raise ConfigError("train.keep_best: looks at evaluations, so train.eval_every must say how often")
    if name not in known:
        raise ConfigError(f"train.keep_best: evaluations do not find {name!r}{suggest(name, usable)}")
    if not known[name].statistics:
        raise ConfigError(f"train.keep_best: this model has no {name!r} ({known[name].note}){suggest(name, usable)}")
    if known[name].better is None:
        raise ConfigError(f"train.keep_best: {name!r} does not say which way is better{suggest(name, usable)}")
    return BestCheckpoint(name, known[name].better)


class BestCheckpoint:
    """The best figure that a run has seen of one metric, and the checkpoint that has it."""

    def __init__(self, metric: str | None = None, better: str | None = None):
        self.metric, self._sign = metric, -1.0 if better == "lower" else 1.0
        self.value: float | None = None
        self.checkpoint: str | None = None

    def improved(self, figures: Mapping[str, float | None], checkpoint: str) -> bool:
        """Whether the metric is now better than ever; the checkpoint is then the best one. NaN never is."""
        value = figures.get(self.metric) if self.metric is not None else None
        if value is None or not math.isfinite(value):
            return False
        if self.value is not None and self._sign * value <= self._sign * self.value:
            return False
        self.value, self.checkpoint = value, checkpoint
        return True

    def state(self) -> dict[str, Any]:
        return {"metric": self.metric, "value": self.value, "checkpoint": self.checkpoint}

    def load(self, state: Mapping[str, Any]) -> None:
        """Another metric's best is none of this one's."""
        if state["metric"] == self.metric:
            self.value, self.checkpoint = state["value"], state["checkpoint"]
