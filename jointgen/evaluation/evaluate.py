"""The one evaluation loop: metrics over a split, merged over batches and processes.

Metrics say which figures they give and which statistics these are finished from; statistics over the same rows share a
stream; each stream is gone through once, shared out over processes; the merged statistics become estimates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import attrs
import torch

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.contracts.figures import Estimate
from jointgen.contracts.metrics import Metric, MetricFigure, ModelView, Provenance, StatisticSpec
from jointgen.contracts.statistics import Statistic, merge_into, pack, unpack
from jointgen.data.split import Split, open_split
from jointgen.errors import ConfigError
from jointgen.evaluation.merging import merge_over
from jointgen.evaluation.partial_results import EarlierAttempts, PartialResults
from jointgen.inference.streams import Stream
from jointgen.runtime.cache import cached, fingerprint
from jointgen.runtime.workers import Workers

if TYPE_CHECKING:
    from jointgen.inference.model import Model

CACHE_KEY = "statistic"
"""The name of the one statistic in a file of the cache."""
HASH_ROWS = 4096
"""Rows that are read at a time to be hashed."""


def metrics_of(compiled: CompiledRecipe) -> list[Metric]:
    """The recipe's metrics; where it names none, every registered one that is not costly, with its default settings."""
    if compiled.recipe.eval.metrics:
        return compiled.recipe.eval.metrics
    cheap = [component.load() for component in compiled.registry.components("metric") if not component.costly]
    return [metric() for metric in cheap]


def list_figures(metrics: Iterable[Metric], model: ModelView) -> list[MetricFigure]:
    """The figures that metrics give of a model, without evaluating any.

    Raises:
        ConfigError: If two metrics give one name to their figures.
    """
    figures = [figure for metric in metrics for figure in metric.figures(model)]
    names = [figure.name for figure in figures]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        lines = [f"two metrics give a figure named {name!r}; leave one out" for name in twice]
        raise ConfigError(lines, "eval", "metrics")
    return figures


def evaluate(
    model: Model,
    split: Split,
    metrics: Sequence[Metric],
    *,
    batch: int = 256,
    seed: int = 0,
    limit: int | None = None,
    workers: Workers | None = None,
    partial: PartialResults | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Estimate]:
    """Evaluate metrics of a model over a split. The estimates are the same for any number of processes.

    Args:
        model: The model.
        split: The rows of the stream "eval".
        metrics: The metrics.
        batch: Rows of a batch, at the most.
        seed: The seed of all noise.
        limit: At most so many rows of each stream, evenly apart.
        workers: The processes to share the rows out over; each of them calls this function.
        partial: Where to save what is done, and to continue from.
        progress: Called with (rows done, rows in all), counted over all streams.

    Returns:
        The estimate of every figure, by name.
    """
    figures = list_figures(metrics, model.view)
    specs = {spec.name: spec for figure in figures for spec in figure.statistics}

    # statistics over the same rows in the same batches share a stream
    opened = {split.name: split}
    streams: dict[str, tuple[Stream, list[StatisticSpec]]] = {}
    for spec in specs.values():
        size = min(batch, spec.max_batch or batch)
        if spec.over == "draws":
            n = spec.rows or len(split)
            stream = Stream("draws", min(n, limit or n), _rows_for_draws(model), size)
        else:
            name = split.name if spec.over == "eval" else spec.over
            rows = opened[name] if name in opened else opened.setdefault(name, open_split(model.compiled.binding, name))
            n = min(len(rows), spec.rows or len(rows), limit or len(rows))
            stream = Stream(rows.name, n, rows.spread(n), size)
        streams.setdefault(stream.key, (stream, []))[1].append(spec)

    total = sum(stream.n for stream, _ in streams.values())
    collector = _Collector(model.view, seed, workers, partial, progress, total)
    with model.view.evaluating(), torch.no_grad():
        for stream, wanted in streams.values():
            collector.collect(stream, wanted)
    return {figure.name: _estimate(figure, collector, split.name) for figure in figures}


def _rows_for_draws(model: Model) -> Split | None:
    """The held-out rows of the data sources that p draws from, if it draws from any."""
    parts = set(model.binding.data_roots(model.binding.joint("p", "drawing samples")).values())
    return open_split(model.compiled.binding, "test", sorted(parts)) if parts else None


# --- statistics ------------------------------------------------------------------------------------------------------


@attrs.define
class _Collector:
    """Collects the statistics of streams, shared out over processes, and counts the rows that are done."""

    model: ModelView
    seed: int
    workers: Workers | None
    partial: PartialResults | None
    progress: Callable[[int, int], None]
    total: int
    done: int = 0
    statistics: dict[str, Statistic] = attrs.field(factory=dict)
    provenance: dict[str, Provenance] = attrs.field(factory=dict)

    def collect(self, stream: Stream, wanted: Sequence[StatisticSpec]) -> None:
        """Add the merged statistics of a stream; those of the data alone come from the cache where it has them."""
        of_data = [spec for spec in wanted if spec.of_data]
        content = _hash_rows(stream) if of_data else ""
        files = {s.name: cached(f"{s.key} {s.dependency()} of {stream.n} rows {content}") for s in of_data}
        for spec in wanted:
            self.provenance[spec.name] = Provenance(stream.name, stream.n, content if spec.of_data else "")

        # a file counts only if every process finds it: it may appear between one's look and another's
        saved = {spec.name: files[spec.name].read() for spec in of_data}
        if self.workers and saved:
            found = torch.tensor([value is not None for value in saved.values()], device=self.workers.device).long()
            everywhere = (self.workers.sum_(found) == self.workers.world).tolist()
            saved = {n: saved[n] if in_all else None for n, in_all in zip(saved, everywhere, strict=True)}
        kinds = {spec.name: spec.kind for spec in wanted}
        known = {n: unpack(data, {CACHE_KEY: kinds[n]})[CACHE_KEY] for n, data in saved.items() if data is not None}
        self.statistics |= known

        missing = [spec for spec in wanted if spec.name not in known]
        if not missing:
            self._advance(stream.n)
            return
        new = self._compute(stream, missing)
        self.statistics |= new
        if self.workers is None or self.workers.is_main:
            for name in files.keys() & new.keys():
                files[name].write(pack({CACHE_KEY: new[name]}))

    def _compute(self, stream: Stream, wanted: Sequence[StatisticSpec]) -> dict[str, Statistic]:
        """Goes through the batches of a stream, and merges the statistics of all processes and earlier attempts."""
        kinds = {spec.name: spec.kind for spec in wanted}
        earlier = self.partial.open(stream.key, kinds) if self.partial else EarlierAttempts(None)
        if self.workers:
            self.workers.barrier()  # all have read the same attempts before anyone adds to them
        starts = {start: rows for start, rows in stream.starts.items() if start not in earlier.done}
        self._advance(stream.n - sum(starts.values()))
        rank, world = (self.workers.rank, self.workers.world) if self.workers else (0, 1)
        statistics: dict[str, Statistic] = {}
        with earlier.continued(statistics, rank) as record:
            for i, (start, rows) in enumerate(starts.items()):
                if i % world == rank:
                    batch = stream.batch(self.model, start, self.seed)
                    merge_into(statistics, {spec.name: spec.compute(batch) for spec in wanted})
                    record(start)
                self._advance(rows)
        merged = merge_over(self.workers, statistics, kinds) if self.workers else statistics
        merge_into(merged, earlier.statistics)
        return merged

    def _advance(self, rows: int) -> None:
        self.done += rows
        if rows:
            self.progress(self.done, self.total)


def _hash_rows(stream: Stream) -> str:
    """A hash of a stream's raw rows: equal data has an equal hash, wherever it lies."""
    split = stream.split
    assert split is not None, "statistics of data are of a split"
    starts = range(0, stream.n, HASH_ROWS)
    blocks = (split.take(torch.arange(start, min(start + HASH_ROWS, stream.n))) for start in starts)
    return fingerprint(
        {f"{part} {name}": rows for part, values in raw.items() for name, rows in values.items()} for raw in blocks
    )


# --- estimates -------------------------------------------------------------------------------------------------------


def _estimate(figure: MetricFigure, collector: _Collector, split: str) -> Estimate:
    """Finishes a figure; one that is no number is absent, and its note says why."""
    sources = [collector.provenance[spec.name] for spec in figure.statistics]
    found = [collector.statistics[spec.name] for spec in figure.statistics if spec.name in collector.statistics]
    over = sources[0].over if sources else split

    def estimate(value: float | None, error: float | None, note: str, n: int = 0, protocol: str = "") -> Estimate:
        return Estimate(
            value,
            figure.unit,
            figure.estimator,
            over,
            n,
            error,
            figure.bound,
            note,
            protocol,
            figure.better,
            figure.display,
        )

    protocol = figure.protocol if isinstance(figure.protocol, str) else ""
    if not found or len(found) < len(sources):  # the model has no such figure, or there were no rows
        return estimate(None, None, figure.note, protocol=protocol)
    n = found[0].n
    if not isinstance(figure.protocol, str):
        protocol = figure.protocol(*sources)
    if any(tensor.isnan().any() for statistic in found for tensor in statistic.tensors().values()):
        return estimate(None, None, "the model gives NaN", n, protocol)
    value, error = figure.finish(*found)
    if value is None:
        reason = f"cannot be had from {' and '.join(str(statistic.n) for statistic in found)} rows"
        return estimate(None, None, f"{reason}; {figure.note}" if figure.note else reason, n, protocol)
    if not math.isfinite(value):
        return estimate(None, None, f"the model gives {value}", n, protocol)
    return estimate(value, error if error is None or math.isfinite(error) else None, figure.note, n, protocol)
