"""Draws beside real rows, as features that several scores of samples share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from jointgen.plugin import (
    Batch,
    Display,
    Extractor,
    FeatureBatch,
    Features,
    KeptRows,
    MetricFigure,
    ModelView,
    Provenance,
    Statistic,
    StatisticSpec,
    has_pixels,
    pixels,
)
from jointgen_metrics.classifier import Classifier
from jointgen_metrics.inception import Inception
from jointgen_metrics.values import Values

Reading = Literal["mean", "sample"]
Against = Literal["train", "test"]
TITLES = {
    "is": ("IS", 0, True),
    "fid": ("FID", 1, True),
    "kid": ("KID", 2, False),
    "precision": ("precision", 3, True),
    "recall": ("recall", 4, True),
    "density": ("density", 5, False),
    "coverage": ("coverage", 6, False),
}
"""The heading of each score, its place in tables, and whether it is a headline."""
Summary = Callable[[FeatureBatch, Batch], Statistic]


def side_by_side(model: ModelView, score: Any) -> list[Compared]:
    """Compare every variable that p generates with the data.

    A score without an extractor of its own takes the first of those that suit the variable and are available.
    """
    found = []
    for variable in _generated(model):
        for extractor in [score.extractor] if score.extractor is not None else _suited(model, variable):
            compared = Compared(model, variable, extractor, score.reading)
            found.append(compared)
            if not compared.absent:
                break
    return found


def _generated(model: ModelView) -> list[str]:
    """The data that a conditional of p draws."""
    if "p" not in model.joints:
        return []
    drawn = {v for factor in model.joints["p"].factors if not factor.is_root for v in factor.out}
    return [variable for variable in model.observed if variable in drawn]


def _suited(model: ModelView, variable: str) -> list[Extractor]:
    space = model.spaces[variable]
    if not has_pixels(space):
        return [Values()]
    return [Inception(), Classifier(), Values()] if space.shape[0] == 3 else [Classifier(), Inception(), Values()]


@attrs.frozen(eq=False)
class Compared:
    """Draws of p and rows of the data, for one variable, by the features of one extractor."""

    model: ModelView
    variable: str
    extractor: Extractor
    reading: Reading

    def named(self, score: str) -> str:
        """The name of a score: fid/inception-2015, or fid_y/inception-2015 for a variable other than x.

        Scores by other features never share a name.
        """
        return f"{score if self.variable == 'x' else f'{score}_{self.variable}'}/{self.extractor.name}"

    @property
    def absent(self) -> str:
        """Explains why there are no features; empty where there are."""
        space = self.model.spaces[self.variable]
        if self.extractor.takes == "pixels" and not has_pixels(space):
            return f"{self.variable} is {space}, no images of a known range; use extractor = {{ type = 'values' }}"
        return self.features.absent

    @property
    def features(self) -> Features:
        """The features, shared by all scores so that weights are read once."""
        return self.model.recall(f"features of {self.variable} by {self.extractor!r}", self._build)

    def _build(self) -> Features:
        part = self._part
        source = self.model.sources[part]
        offered = source.spaces()
        own = self.variable if self.variable in offered else next(iter(offered))
        return self.extractor.build(self.model.spaces[self.variable], own, source)

    @property
    def _part(self) -> str:
        """The data source of the variable."""
        roots = [f for joint in self.model.joints.values() for f in joint.factors if self.model.is_data(f)]
        return next(factor.part for factor in roots if self.variable in factor.out)

    # --- statistics

    def of_draws(self, what: str, summary: Summary, kind: type[Statistic], rows: int) -> StatisticSpec:
        """Specifies a summary of the features of so many draws; `what` names it."""
        key = f"{what} of {self._key} of draws"
        return StatisticSpec(key, lambda batch: summary(self._drawn(batch), batch), kind, "draws", rows)

    def of_real(
        self, what: str, summary: Summary, kind: type[Statistic], over: Against, rows: int | None = None
    ) -> StatisticSpec:
        """Specifies a summary of the features of data; it is cached for other runs, unless bits are drawn afresh."""
        key = f"{what} of {self._key} of data in {self.model.spaces[self.variable]!r}"
        of_data = False if self._draws_bits else self.features.identity
        return StatisticSpec(key, lambda batch: summary(self._real(batch), batch), kind, over, rows, of_data)

    @property
    def _key(self) -> str:
        return f"{self.variable} ({self.reading}) by {self.extractor!r}"

    @property
    def _draws_bits(self) -> bool:
        return self.reading == "sample" and self.model.spaces[self.variable].kind == "binary"

    def _drawn(self, batch: Batch) -> FeatureBatch:
        def draw() -> Tensor:
            return self.model.sample_batch(batch, self.reading)[self.variable]

        return batch.recall(f"draws {self._key}", lambda: self._extract(draw()))

    def _real(self, batch: Batch) -> FeatureBatch:
        def observe() -> Tensor:
            means, samples = self.model.observe(batch)
            return (means if self.reading == "mean" else samples)[self.variable]

        return batch.recall(f"data {self._key}", lambda: self._extract(observe()))

    def _extract(self, values: Tensor) -> FeatureBatch:
        space = self.model.spaces[self.variable]
        rows = pixels(values, space) if self.extractor.takes == "pixels" else values
        with torch.autocast(rows.device.type, enabled=False):
            return _without_those_of_no_image(self.features(rows), values)

    # --- figures

    def figure(
        self,
        score: str,
        unit: str,
        estimator: str,
        statistics: tuple[StatisticSpec, ...],
        details: str = "",
        **more: Any,
    ) -> MetricFigure:
        """Make the figure of a score, with the protocol of its statistics; `details` is what else must be equal."""

        def protocol(draws: Provenance, real: Provenance | None = None) -> str:
            text = f"{draws.rows} draws ({self.reading})"
            if real is not None:
                text += f" against {real.rows} of {real.over}{f'@{real.content[:8]}' if real.content else ''}"
            text += f"; {self.features.identity()}{f'; {details}' if details else ''}"
            return f"{text}; [{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}]"

        return MetricFigure(
            self.named(score), unit, estimator, statistics, protocol=protocol, display=self._display(score), **more
        )

    def _display(self, score: str) -> Display:
        title, order, headline = TITLES[score]
        model = title if self.variable == "x" else f"{title} {self.variable}"
        return Display(f"{model}, {self.extractor.name}", "samples", order, headline and self.variable == "x")

    def missing(self, score: str, unit: str, estimator: str, why: str) -> MetricFigure:
        """Make a figure that is absent. Of those that are absent for one reason, only the first one says it."""
        name = self.named(score)
        first = self.model.recall(f"absent: {why}", lambda: name)
        return MetricFigure(name, unit, estimator, note=why if first == name else f"as {first}")


def _without_those_of_no_image(found: FeatureBatch, values: Tensor) -> FeatureBatch:
    """Replaces by NaN what rows with values that are not finite have: 8-bit pixels have some level for these too."""
    broken = ~values.flatten(1).isfinite().all(1)[:, None]
    logits = None if found.logits is None else found.logits.masked_fill(broken, torch.nan)
    return FeatureBatch(found.features.masked_fill(broken, torch.nan), logits)


def kept_features(compared: Compared, rows: int, against: Against) -> tuple[StatisticSpec, StatisticSpec]:
    """Specifies the features of draws and of data as they are, "features" (n, F) each."""

    def keep(extracted: FeatureBatch, batch: Batch) -> KeptRows:
        return KeptRows.of(batch.index, features=extracted.features)

    return compared.of_draws("features", keep, KeptRows, rows), compared.of_real(
        "features", keep, KeptRows, against, rows
    )
