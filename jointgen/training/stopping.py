"""Early stopping, and the best checkpoint of a run: the two decisions that evaluations between steps feed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from jointgen.config.documents import as_document
from jointgen.config.fields import non_negative
from jointgen.config.recipe import EarlyStoppingTable
from jointgen.contracts.figures import Estimate
from jointgen.contracts.metrics import MetricFigure
from jointgen.errors import ConfigError, Problems, placing, suggest
from jointgen.runs.records import CHECKPOINT_NAME, checkpoint_name
from jointgen.text import shortened


def _are_numbers(instance: Any, attribute: Any, value: list[Any]) -> None:
    """Losses that are numbers; one that was NaN when it was saved is, too."""
    if not all(type(loss) in (int, float) for loss in value):
        raise ValueError(f"{attribute.name!r} must be numbers, got {shortened(value)}")


@attrs.frozen
class Patience:
    """The state of `EarlyStopping` in a checkpoint; older ones do not say what was watched."""

    best: list[Any] = attrs.field(validator=_are_numbers)
    waited: int = attrs.field(validator=non_negative)
    watched: list[str] | None = None


def _is_checkpoint(instance: Any, attribute: Any, value: str | None) -> None:
    found = CHECKPOINT_NAME.fullmatch(value or checkpoint_name(0))
    if found is None or found["aside"]:
        raise ValueError(f"{attribute.name!r} must be the name of a checkpoint, got {shortened(repr(value))}")


@attrs.frozen
class BestSoFar:
    """The state of `BestCheckpoint` in a checkpoint."""

    metric: str | None
    value: float | None
    checkpoint: str | None = attrs.field(validator=_is_checkpoint)

    def __attrs_post_init__(self) -> None:
        if (self.value is None) != (self.checkpoint is None):
            raise ValueError("there are a value and its checkpoint, or neither")


class EarlyStopping:
    """Ends a stage once none of the watched losses has improved for `patience` evaluations in a row.

    Args:
        patience: How many evaluations; None never ends a stage.
        watched: The names of the figures that are watched.
        higher: Those of them of which more is better.

    >>> rule = EarlyStopping(patience=2)
    >>> [rule.should_stop([loss]) for loss in (3.0, 2.0, 2.5, 2.0)]
    [False, False, False, True]
    """

    def __init__(self, patience: int | None, watched: Sequence[str] = (), higher: Sequence[str] = ()):
        self._patience, self.watched, self._higher = patience, watched, frozenset(higher)
        self.restart()

    def losses_of(self, found: Mapping[str, Estimate]) -> list[float]:
        """Return the watched figures of an evaluation as losses; one that failed is left out, an absent one is NaN."""
        estimates = {name: found[name] for name in self.watched if name in found and found[name].n}
        values = {name: math.nan if e.value is None else e.value for name, e in estimates.items()}
        return [-value if name in self._higher else value for name, value in values.items()]

    def restart(self) -> None:
        """Forget all losses: the next stage has losses of its own."""
        self._best: list[float] = []
        self._waited = 0

    def should_stop(self, losses: Sequence[float]) -> bool:
        """Take in the losses of an evaluation, in the same order each time, and return whether to end the stage."""
        if self._patience is None or not losses:
            return False
        known = len(self._best) == len(losses)  # where a metric has failed, other losses are compared from then on
        best = self._best if known else losses
        improved = not known or any(new < old for new, old in zip(losses, best, strict=True))
        self._best = [min(new, old) for new, old in zip(losses, best, strict=True)]
        self._waited = 0 if improved else self._waited + 1
        return self._waited >= self._patience

    def state_dict(self) -> dict[str, Any]:
        """Return the best losses of the stage, and how many evaluations were no better."""
        return {"best": self._best, "waited": self._waited, "watched": list(self.watched)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the losses of the stage; if other figures are watched than when they were saved, begin anew."""
        saved = as_document(state, Patience)
        if saved.watched in (None, list(self.watched)):
            self._best, self._waited = list(saved.best), saved.waited


def early_stopping_of(
    table: EarlyStoppingTable | None, eval_every: int | None, figures: Iterable[MetricFigure]
) -> EarlyStopping:
    """Build the rule that `train.early_stopping` asks for.

    Args:
        table: `train.early_stopping`; None gives a rule that never ends a stage.
        eval_every: `train.eval_every`, steps between evaluations.
        figures: The figures that an evaluation finds.

    Raises:
        ConfigError: No evaluation runs between steps, no figure is a loss that early stopping may watch, or one that
            the table names cannot be watched.
    """
    if table is None:
        return EarlyStopping(None)
    if eval_every is None:
        raise ConfigError("looks at evaluations, so train.eval_every must say how often", "train", "early_stopping")
    known = {figure.name: figure for figure in figures}
    if table.watch:
        problems = Problems()
        for i, name in enumerate(table.watch):
            with problems.collect("train", "early_stopping", "watch", i):
                check_followed(name, known)
        problems.raise_any()
    watched = table.watch or [name for name, figure in known.items() if figure.watched and figure.statistics]
    if not watched:
        raise ConfigError("no metric of eval.metrics has a loss that it watches", "train", "early_stopping")
    return EarlyStopping(table.patience, watched, [name for name in watched if known[name].better == "higher"])


def check_followed(name: str, known: Mapping[str, MetricFigure]) -> None:
    """Check that evaluations between steps find a figure by which one is better than another, or raise ConfigError."""
    usable = [figure.name for figure in known.values() if figure.statistics and figure.better is not None]
    if name not in known:
        raise ConfigError(f"evaluations do not find {name!r}{suggest(name, usable)}")
    if not known[name].statistics:
        raise ConfigError(f"this model has no {name!r} ({known[name].note}){suggest(name, usable)}")
    if known[name].better is None:
        raise ConfigError(f"{name!r} does not say which way is better{suggest(name, usable)}")


class BestCheckpoint:
    """Remembers the best value that a run has seen of one metric, and the checkpoint that has it.

    Args:
        metric: The name of the metric; None keeps no best checkpoint.
        better: "lower" or "higher".
    """

    def __init__(self, metric: str | None = None, better: str | None = None):
        self.metric, self._sign = metric, -1.0 if better == "lower" else 1.0
        self.value: float | None = None
        self.checkpoint: str | None = None

    def improved(self, figures: Mapping[str, float | None], checkpoint: str) -> bool:
        """Return whether the metric is better than ever; if so, remember the checkpoint.

        A value that is absent or not finite is never better, nor is an equal one.
        """
        value = figures.get(self.metric) if self.metric is not None else None
        if value is None or not math.isfinite(value):
            return False
        if self.value is not None and self._sign * value <= self._sign * self.value:
            return False
        self.value, self.checkpoint = value, checkpoint
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the metric, its best value and the checkpoint that has it."""
        return {"metric": self.metric, "value": self.value, "checkpoint": self.checkpoint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the best value, unless it was saved for another metric."""
        saved = as_document(state, BestSoFar)
        if saved.metric == self.metric:
            self.value, self.checkpoint = saved.value, saved.checkpoint


def best_checkpoint_of(name: str | None, eval_every: int | None, figures: Iterable[MetricFigure]) -> BestCheckpoint:
    """Build what keeps `train.keep_best`.

    Args:
        name: `train.keep_best`, the name of a metric; None keeps no best checkpoint.
        eval_every: `train.eval_every`, steps between evaluations.
        figures: The figures that an evaluation finds.

    Raises:
        ConfigError: No evaluation runs between steps, none finds this metric, or it does not say which way is better.
    """
    if name is None:
        return BestCheckpoint()
    if eval_every is None:
        raise ConfigError("looks at evaluations, so train.eval_every must say how often", "train", "keep_best")
    known = {figure.name: figure for figure in figures}
    with placing("train", "keep_best"):
        check_followed(name, known)
    return BestCheckpoint(name, known[name].better)
