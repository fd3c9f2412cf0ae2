"""Probes: classifiers that read labels from codes, fitted on the train split and scored on the evaluated one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from jointgen.plugin import (
    Batch,
    Display,
    FigureValue,
    KeptRows,
    Mean,
    MetricFigure,
    ModelView,
    StatisticSpec,
    between,
    labelled,
    positive,
    valid_count,
)
from jointgen_metrics.codes import NO_CODES, codes_of, encoded, has_mean, suffixed

MAX_ITERATIONS = 1000
"""Iterations of the logistic regression, at the most."""


@attrs.frozen
class LinearProbe:
    """The accuracy of logistic regression from codes to labels, 0 to 1 (Alain & Bengio 2016).

    It is fitted to codes of the train split, in units of their standard deviations. Several codes are one vector.

    Args:
        train_rows: At most so many rows of the train split, evenly apart.
        penalty: The factor of 1/2 |w|^2, the penalty on the weights beside the summed log loss.
    """

    train_rows: int = attrs.field(default=10_000, validator=valid_count)
    penalty: float = attrs.field(default=1.0, validator=positive)

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        protocol = f"logistic regression, penalty {self.penalty:g}, {self.train_rows} train rows at most"
        return probes(model, "probe_linear", self._fitted, self.train_rows, protocol)

    def _fitted(self, codes: Tensor, labels: Tensor) -> Any:
        regression = LogisticRegression(C=1 / self.penalty, max_iter=MAX_ITERATIONS)
        return make_pipeline(StandardScaler(), regression).fit(codes.numpy(), labels.numpy())


@attrs.frozen
class NeighborProbe:
    """The accuracy of the vote of the nearest codes of the train split, 0 to 1, by Euclidean distance.

    Several codes are one vector.

    Args:
        train_rows: At most so many rows of the train split, evenly apart.
        neighbors: How many neighbours vote.
    """

    train_rows: int = attrs.field(default=10_000, validator=valid_count)
    neighbors: int = attrs.field(default=5, validator=between(1, 10_000))

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        protocol = f"{self.neighbors} neighbours, {self.train_rows} train rows at most"
        return probes(model, "probe_knn", self._fitted, self.train_rows, protocol)

    def _fitted(self, codes: Tensor, labels: Tensor) -> Any:
        return KNeighborsClassifier(min(self.neighbors, len(codes))).fit(codes.numpy(), labels.numpy())


# --- what both share -------------------------------------------------------------------------------------------------


def probes(
    model: ModelView, name: str, fitted: Callable[[Tensor, Tensor], Any], train_rows: int, protocol: str
) -> list[MetricFigure]:
    """The accuracy for each variable that is a label.

    Args:
        model: The model.
        name: The name of the figure.
        fitted: Fits a classifier with `predict` to (n, D) codes and (n,) labels of two classes or more.
        train_rows: At most so many rows of the train split.
        protocol: What must be equal for two accuracies to be compared.
    """
    labels, reason = labels_of(model)
    if reason:
        return [MetricFigure(name, "accuracy", "", note=reason)]
    found = []
    for label in labels:
        estimator = f"{label} from the {reading_of(model)} code, learned on codes of the train split"
        statistics = (codes_and_labels(model), codes_and_labels(model, "train", train_rows))

        def finish(held_out: KeptRows, train: KeptRows, label: str = label) -> FigureValue:
            if label not in held_out.values:
                return None, None
            correct = Mean.of(predictions(held_out, train, label, fitted).eq(held_out.values[label]).double())
            return correct.value, correct.standard_error

        own = suffixed(name, label, labels)
        needs = "needs labels of the rows that are evaluated"
        found.append(
            MetricFigure(
                own,
                "accuracy",
                estimator,
                statistics,
                note=needs,
                finish=finish,
                better="higher",
                protocol=protocol,
                display=Display(f"{own.removeprefix('probe_').replace('_', ' ')} probe", "codes", 4),
            )
        )
    return found


def labels_of(model: ModelView) -> tuple[list[str], str]:
    """The labels of the data that q encodes, ""; or ([], the reason) where there are none."""
    if not codes_of(model):
        return [], NO_CODES
    spaces = {v: space for part in data_parts(model) for v, space in labelled(model.sources[part]).spaces().items()}
    labels = [v for v, space in spaces.items() if space.kind == "label"]
    told = [v for v in labels if spaces[v].size > 1]
    return told, "" if told else "all rows are of one class" if labels else "the data has no labels"


def data_parts(model: ModelView) -> list[str]:
    """The data sources whose rows q is given."""
    return sorted({factor.part for factor in model.joints["q"].factors if model.is_data(factor)})


def reading_of(model: ModelView) -> str:
    """Which codes the probe sees: "mean" ones, or "drawn" ones where q has no mean."""
    return "mean" if all(has_mean(model, code) for code in codes_of(model)) else "drawn"


def codes_and_labels(model: ModelView, over: Any = "eval", rows: int | None = None) -> StatisticSpec:
    """Keep "codes" (n, D), and the class number of each row for each label."""
    codes = codes_of(model)

    def of(batch: Batch) -> KeptRows:
        means = encoded(model, batch, "mean")
        flat = torch.cat([means[code].flatten(1) for code in codes], 1)
        labels = {v: values for part in data_parts(model) for v, values in batch.labels(part).items()}
        return KeptRows.of(batch.index, codes=flat, **labels)

    return StatisticSpec("codes and labels", of, KeptRows, over, rows)


def predictions(held_out: KeptRows, train: KeptRows, label: str, fitted: Callable[[Tensor, Tensor], Any]) -> Tensor:
    """The (n,) predicted classes of the held-out rows, in the order in which they are kept."""
    known = train.in_order()
    classes = known[label].unique()
    if len(classes) == 1:
        return classes.expand(held_out.n)
    return torch.from_numpy(fitted(known["codes"], known[label]).predict(held_out.values["codes"].numpy()))
