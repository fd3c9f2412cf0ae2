"""How often labels are classified wrongly: by a classifier q(y|x), and by clusters that have no names."""

from __future__ import annotations

import importlib

import attrs
import torch
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
    labelled,
)
from jointgen_metrics.codes import encoded, encoder_of, suffixed


@attrs.frozen
class Classification:
    """The share of rows whose most probable class under q(y|x) is not their own, for each label that q draws.

    A label that a data source yields, as in semi-supervised learning, has the source's classes: `classification_error`.
    Of one that no source yields, such as InfoGAN's, the classes are clusters, and each is first given the class of the
    data that leaves the fewest errors, one cluster for a class (Kuhn 1955): `clustering_error`. More clusters than
    classes leave some without one, and all their rows count as errors. The matching is made on the evaluated rows
    themselves, as papers do.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric; none where q draws no label."""
        drawn = labels_drawn(model)
        named = [v for v in drawn if has_names(model, v)]
        clusters = [v for v in drawn if v not in named]
        return [
            *(self._figure(model, v, suffixed("classification_error", v, named)) for v in named),
            *(self._figure(model, v, suffixed("clustering_error", v, clusters)) for v in clusters),
        ]

    def _figure(self, model: ModelView, variable: str, name: str) -> MetricFigure:
        truth, reason = true_label(model, variable)
        are_named = has_names(model, variable)
        how = "" if are_named else ", clusters matched to classes on these rows"
        estimator = f"most probable class of q({encoder_of(model, variable)}){how}"
        display = Display(group="codes", order=2, headline=are_named)
        if truth is None:
            return MetricFigure(name, "share of rows", estimator, note=reason, display=display)
        source, own = truth

        def predicted(batch: Batch) -> KeptRows:
            found = encoded(model, batch, "mean")[variable].argmax(1)
            return KeptRows.of(batch.index, predicted=found, true=batch.labels(source)[own])

        def finish(rows: KeptRows) -> FigureValue:
            if not rows.n:
                return None, None
            found, true = rows.values["predicted"], rows.values["true"]
            wrong = Mean.of((found if are_named else matched(found, true)).ne(true).double())
            return wrong.value, wrong.standard_error

        return MetricFigure(
            name,
            "share of rows",
            estimator,
            (StatisticSpec(f"classes of {variable}", predicted, KeptRows),),
            finish=finish,
            better="lower",
            display=display,
        )


def labels_drawn(model: ModelView) -> list[str]:
    """The labels that conditionals of q draw."""
    if "q" not in model.joints:
        return []
    drawn = [v for factor in model.joints["q"].factors if not factor.is_root for v in factor.out]
    return [v for v in drawn if model.spaces[v].kind == "label"]


def has_names(model: ModelView, variable: str) -> bool:
    """Whether a data source yields a label, so that its classes are those of the data."""
    return any(variable in f.out and model.is_data(f) for joint in model.joints.values() for f in joint.factors)


def true_label(model: ModelView, variable: str) -> tuple[tuple[str, str] | None, str]:
    """The source and the name in it of the label of the rows that q is given, ""; or None, the reason.

    A source that yields the variable itself may have other rows, so the label of the rows that q is given is read.
    """
    for factor in model.joints["q"].factors:
        if model.is_data(factor):
            spaces = labelled(model.sources[factor.part]).spaces()
            labels = {v: space for v, space in spaces.items() if space.kind == "label"}
            own = variable if variable in labels else next(iter(labels), None)
            if own is None:
                return None, "the rows that q is given have no labels"
            if has_names(model, variable) and labels[own].size != model.spaces[variable].size:
                return None, f"{variable} has {model.spaces[variable].size} classes, the data {labels[own].size}"
            return (factor.part, own), ""
    return None, "q is given no data"


def matched(clusters: Tensor, classes: Tensor) -> Tensor:
    """Return the class that each row's cluster is matched with, -1 for a cluster without one, (N,) -> (N,)."""
    counts = torch.zeros(int(clusters.max()) + 1, int(classes.max()) + 1, dtype=torch.int64)
    counts.index_put_((clusters, classes), torch.ones_like(classes), accumulate=True)
    optimize = importlib.import_module("scipy.optimize")  # half a second, which runs without labels need not wait for
    rows, columns = optimize.linear_sum_assignment(counts.numpy(), maximize=True)
    named = torch.full((len(counts),), -1)
    named[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return named[clusters]
