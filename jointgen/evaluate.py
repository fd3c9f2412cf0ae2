"""The one evaluation loop: metrics over a split, merged over batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from jointgen.data import iterate
from jointgen.distributed import Workers
from jointgen.interfaces import Measure, Rows
from jointgen.model import Model
from jointgen.noise import Noise
from jointgen.prepare import Prepared
from jointgen.program import Moment
from jointgen.statistics import Estimate, Mean
from jointgen.transfer import send

CPU = torch.device("cpu")


@attrs.frozen
class Split:
    """An opened split: the rows of every data source that the objective draws from."""

    name: str
    sources: dict[str, Rows]
    variables: dict[str, dict[str, str]]

    def __len__(self) -> int:
        """The shortest source's rows: several sources are read side by side."""
        return min(len(rows) for rows in self.sources.values())

    def first(self, n: int) -> Split:
        sources: dict[str, Rows] = {name: FirstRows(rows, n) for name, rows in self.sources.items()}
        return attrs.evolve(self, sources=sources)

    def take(self, index: Tensor, device: torch.device = CPU) -> dict[str, dict[str, Tensor]]:
        """Raw rows on a device, by source and by the joints' names for the variables."""
        taken = {name: renamed(rows.take(index), self.variables[name]) for name, rows in self.sources.items()}
        return {name: {v: send(t, device) for v, t in values.items()} for name, values in taken.items()}


@attrs.frozen
class FirstRows:
    """The first `n` rows of a split."""

    rows: Rows
    n: int

    def __len__(self) -> int:
        return min(self.n, len(self.rows))

    def take(self, index: Tensor) -> dict[str, Tensor]:
        return self.rows.take(index)


def renamed(values: dict[str, Tensor], variables: dict[str, str]) -> dict[str, Tensor]:
    """A source's variables under the joints' names for them."""
    return {name: values[own] for name, own in variables.items()}


def open_split(prepared: Prepared, name: str, parts: Iterable[str] | None = None) -> Split:
    """parts: of these data sources only; None: of all that the objective draws from."""
    declared = prepared.declared
    wanted = dict.fromkeys(declared.data_parts if parts is None else parts)
    sources = {part: prepared.recipe.all_sources()[part].open(name) for part in wanted}
    return Split(name, sources, {part: declared.variables_of(part) for part in sources})


def metrics_of(prepared: Prepared) -> list[Any]:
    """The recipe's; where it names none, every registered one with its default settings."""
    classes: list[Any] = [component.load() for component in prepared.registry.components("metric")]
    return prepared.recipe.eval.metrics or [metric() for metric in classes]


def evaluate(
    model: Model,
    split: Split,
    metrics: Sequence[Any],
    *,
    batch: int = 256,
    seed: int = 0,
    workers: Workers | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Estimate]:
    """Every measure of the metrics over a split, by name. The same numbers for any number of processes.

    progress: called with (rows done, rows in all).
    """
    measures = [measure for metric in metrics for measure in metric.measures(model)]
    found = {m.name: Mean() for m in measures if m.values is not None}
    rank, world = (workers.rank, workers.world) if workers else (0, 1)
    for index, moment in moments(model, split, batch, seed, rank, world):
        for measure in measures:
            if measure.values is not None:
                with torch.no_grad():
                    values = measure.values(moment)
                found[measure.name] = found[measure.name].merge(Mean.of(values))
        progress(min(int(index[-1]) + 1, len(split)), len(split))
    if workers:
        found = {name: workers.merge(mean) for name, mean in found.items()}
    return {measure.name: _estimate(measure, found.get(measure.name), split.name) for measure in measures}


def moments(
    model: Model, split: Split, batch: int, seed: int, rank: int = 0, world: int = 1
) -> Iterator[tuple[Tensor, Moment]]:
    """(row numbers (n,), batch) over a split, with noise named after the first row: how work is split is no matter."""
    for index, _ in iterate(_Counted(len(split)), batch, rank, world):
        noise = Noise(seed, f"{split.name} {int(index[0])}", device=model.device, dtype=model.dtype)
        yield index, Moment(split.take(index, model.device), noise, len(index))


@attrs.frozen
class _Counted:
    """Row numbers without rows: the split takes them itself, source by source."""

    n: int

    def __len__(self) -> int:
        return self.n

    def take(self, index: Tensor) -> dict[str, Tensor]:
        return {}


def _estimate(measure: Measure, mean: Mean | None, split: str) -> Estimate:
    value, error = measure.finish(mean) if mean is not None and mean.n else (None, None)
    n = mean.n if mean is not None else 0
    return Estimate(value, measure.unit, measure.estimator, split, n, error, measure.bound, measure.note)
