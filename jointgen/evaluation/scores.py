"""Figures of single rows: what metrics give of each row before it is merged, and how usual that is for the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from jointgen.contracts.metrics import Metric, MetricFigure
from jointgen.contracts.statistics import Mean
from jointgen.data.split import Split
from jointgen.errors import ConfigError
from jointgen.evaluation.evaluate import list_figures
from jointgen.inference.row_batches import in_batches
from jointgen.registry.faults import attributing

if TYPE_CHECKING:
    from jointgen.inference.model import Model


@attrs.frozen
class RowFigure:
    """A figure that every row has by itself.

    Args:
        figure: The figure.
        of_batch: Gives the numbers of the rows of a batch, (B,), whose mean the figure is finished from.
        at_once: At most so many rows at a time; None: any number.
    """

    figure: MetricFigure
    of_batch: Callable[..., Tensor]
    at_once: int | None

    def finished(self, numbers: Tensor) -> Tensor:
        """Finish the figure of each row, (N,) to (N,); NaN where it has none."""
        found = [self.figure.finish(Mean(1, number))[0] for number in numbers.tolist()]
        return torch.tensor([float("nan") if value is None else value for value in found], dtype=torch.float64)


def row_figures(metrics: Sequence[Metric], model: Model, *, asked: bool) -> list[RowFigure]:
    """Find the figures that each row has by itself.

    Args:
        metrics: The metrics.
        model: The model.
        asked: Whether the user named them: what has no figure of single rows is then refused, and else left out.

    Raises:
        ConfigError: There is no such figure.
    """
    found, reasons = list[RowFigure](), list[str]()
    for figure in list_figures(metrics, model.view, model.compiled.registry):
        specs = figure.statistics
        each = specs[0].each if len(specs) == 1 and specs[0].over == "eval" else None
        if each is not None and getattr(each, "begins_at_data", True):
            found.append(RowFigure(figure, each, specs[0].max_batch))
        else:
            of = "draws of the model" if each is not None else "many rows together"
            why = f"is of {of}, and single rows have none" if specs else figure.note
            reasons.append(f"{figure.name}: {why}")
    if reasons and (asked or not found):
        raise ConfigError(reasons, "--metrics")
    return found


def score(
    model: Model,
    split: Split,
    figures: Sequence[RowFigure],
    *,
    batch: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Tensor]:
    """Score every row of a split.

    Args:
        model: The model.
        split: The rows.
        figures: The figures.
        batch: Rows of a batch, at the most.
        seed: The seed of all noise, which is that of `evaluate` with the same rows.
        progress: Called after each batch.

    Returns:
        (N,) in the unit of each figure, by its name.
    """
    size = min([batch, *(one.at_once for one in figures if one.at_once is not None)])
    numbers: dict[str, list[Tensor]] = {one.figure.name: [] for one in figures}
    with model.view.evaluating(), torch.no_grad():
        for rows in in_batches(model, split, seed, progress, size):
            for one in figures:
                with attributing(one.figure.name):
                    each = one.of_batch(rows)
                if len(each) != rows.rows:
                    raise ConfigError(f"{one.figure.name}: takes more than {rows.rows} rows at a time", "--metrics")
                numbers[one.figure.name].append(each.cpu().double())
    return {one.figure.name: one.finished(torch.cat(numbers[one.figure.name])) for one in figures}


def ranks(values: Tensor, reference: Tensor | None, better: str) -> Tensor:
    """Say which share of held-out rows is as bad as a row, or worse.

    A row that comes from where held-out rows come from has a rank of at most a with a probability of at most a (a
    conformal p-value; Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World, 2005, section 2.2), so that a
    threshold has a known rate of false alarms.

    Args:
        values: (N,) of the rows.
        reference: (M,) of held-out rows; None where these are the rows themselves.
        better: "higher" or "lower".

    Returns:
        (N,) in (0, 1]: (1 + the number of held-out rows that are no better) / (M + 1). Among the rows themselves each
        is one of those that are no better than it, and there is nothing to add.
    """
    sign = 1.0 if better == "higher" else -1.0
    goodness, others = (
        x.mul(sign).nan_to_num(-math.inf, math.inf, -math.inf)  # what is no number is the worst
        for x in (values, values if reference is None else reference)
    )
    no_better = torch.searchsorted(others.sort().values, goodness.contiguous(), right=True)
    return no_better / len(others) if reference is None else (no_better + 1) / (len(others) + 1)
