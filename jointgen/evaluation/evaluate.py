"""The one evaluation loop: metrics over a split, merged over batches and processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import attrs
import torch

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.contracts.figures import Estimate
from jointgen.contracts.metrics import MetricFigure, Provenance, StatisticSpec
from jointgen.contracts.statistics import Statistic, merge_into, packed, unpacked
from jointgen.data.split import Split, open_split
from jointgen.errors import ConfigError
from jointgen.evaluation.merging import merge_over
from jointgen.evaluation.partial_results import Partial
from jointgen.inference.model import Model
from jointgen.inference.streams import Stream
from jointgen.runtime.cache import Cached, cached, fingerprint
from jointgen.runtime.workers import Workers

_ONLY = "statistic"  # how a file of the cache calls its own
BLOCK = 4096  # rows read at a time to be hashed


def metrics_of(compiled: CompiledRecipe) -> list[Any]:
    """The recipe's; where it names none, every registered one that is not costly, with its default settings."""
    if compiled.recipe.eval.metrics:
        return compiled.recipe.eval.metrics
    cheap: list[Any] = [c.load() for c in compiled.registry.components("metric") if not c.costly]
    return [metric() for metric in cheap]


def figures_of(metrics: Iterable[Any], model: Model) -> list[MetricFigure]:
    """What the metrics measure. Raises ConfigError where two of them give one name to their figures."""
    measures = [measure for metric in metrics for measure in metric.figures(model)]
    names = [measure.name for measure in measures]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            [f"two metrics give a figure named {name!r}; leave one out" for name in twice], "eval", "metrics"
        )
    return measures


# --- streams of rows -------------------------------------------------------------------------------------------------


def _stream(
    collect: StatisticSpec, model: Model, split: Split, opened: dict[str, Split], limit: int | None, size: int
) -> Stream:
    size = min(size, collect.max_batch or size)
    if collect.over == "draws":
        n = collect.rows or len(split)
        return Stream("draws", min(n, limit or n), _roots_of_p(model), size)
    name = split.name if collect.over == "eval" else collect.over
    if name not in opened:
        opened[name] = open_split(model.compiled.binding, name)
    rows = opened[name]
    n = min(len(rows), collect.rows or len(rows), limit or len(rows))
    return Stream(rows.name, n, rows.spread(n), size)


def _roots_of_p(model: Model) -> Split | None:
    """The held-out rows of the data sources that p draws from, where it does."""
    parts = set(model.data_roots(model.joint("p", "drawing samples")).values())
    return open_split(model.compiled.binding, "test", sorted(parts)) if parts else None


# --- the loop --------------------------------------------------------------------------------------------------------


def evaluate(
    model: Model,
    split: Split,
    metrics: Sequence[Any],
    *,
    batch: int = 256,
    seed: int = 0,
    limit: int | None = None,
    workers: Workers | None = None,
    partial: Partial | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Estimate]:
    """Every measure of the metrics over a split, by name. The same numbers for any number of processes.

    limit: at most so many rows of each stream, evenly apart.  partial: where to keep what is done, and to go on from.
    progress: called with (rows done, rows in all), of all streams that are gone through.
    """
    measures = figures_of(metrics, model)
    collects = {collect.name: collect for measure in measures for collect in measure.statistics}
    streams: dict[str, tuple[Stream, list[StatisticSpec]]] = {}
    opened = {split.name: split}
    for collect in collects.values():
        stream = _stream(collect, model, split, opened, limit, batch)
        streams.setdefault(stream.key, (stream, []))[1].append(collect)
    found: dict[str, Statistic] = {}
    total = sum(stream.n for stream, _ in streams.values())
    collector = _Collector(model, seed, workers, partial, progress, total)
    for stream, wanted in streams.values():
        found |= collector.collect(stream, wanted)
    return {measure.name: _estimate(measure, found, collector.origins, split.name) for measure in measures}


@attrs.define
class _Collector:
    """Goes through streams, sharing them out over processes, and counts rows."""

    model: Model
    seed: int
    workers: Workers | None
    partial: Partial | None
    progress: Callable[[int, int], None]
    total: int
    done: int = 0
    origins: dict[str, Provenance] = attrs.field(factory=dict)

    def collect(self, stream: Stream, wanted: Sequence[StatisticSpec]) -> dict[str, Statistic]:
        """The merged statistics of a stream by name; those of the data alone from the cache where it has them."""
        content = content_of(stream) if any(collect.of_data for collect in wanted) else ""
        files = {c.name: cached(f"{c.key} {c.dependency()} of {stream.n} rows {content}") for c in wanted if c.of_data}
        self.origins |= {c.name: Provenance(stream.name, stream.n, content if c.of_data else "") for c in wanted}
        found = self._cached(files, wanted)
        missing = [collect for collect in wanted if collect.name not in found]
        if not missing:
            self._advance(stream.n)
            return found
        new = self._collect(stream, missing)
        if self.workers is None or self.workers.is_main:
            for name in files.keys() & new.keys():
                files[name].write(packed({_ONLY: new[name]}))
        return found | new

    def _cached(self, files: Mapping[str, Cached], wanted: Sequence[StatisticSpec]) -> dict[str, Statistic]:
        """Those that every process finds: a file may appear between one's look and another's."""
        kinds = {collect.name: collect.kind for collect in wanted}
        data = {name: file.read() for name, file in files.items()}
        if self.workers and data:
            here = torch.tensor([value is not None for value in data.values()], device=self.workers.device).long()
            everywhere = (self.workers.sum_(here) == self.workers.world).tolist()
            data = {name: data[name] if there else None for name, there in zip(data, everywhere, strict=True)}
        return {n: unpacked(value, {_ONLY: kinds[n]})[_ONLY] for n, value in data.items() if value is not None}

    def _collect(self, stream: Stream, wanted: Sequence[StatisticSpec]) -> dict[str, Statistic]:
        kinds = {collect.name: collect.kind for collect in wanted}
        past = self.partial.open(stream.key, kinds) if self.partial else None
        if self.workers:
            self.workers.barrier()  # all have read the same past before anyone adds to it
        starts = {s: rows for s, rows in stream.starts.items() if past is None or s not in past.done}
        self._advance(stream.n - sum(starts.values()))
        rank, world = (self.workers.rank, self.workers.world) if self.workers else (0, 1)
        mine: dict[str, Statistic] = {}
        with past.adding(mine, rank) if past else nullcontext() as note:
            for i, (start, rows) in enumerate(starts.items()):
                if i % world == rank:
                    merge_into(mine, self._statistics(stream, start, wanted))
                    if note:
                        note(start)
                self._advance(rows)
        merged = merge_over(self.workers, mine, kinds) if self.workers else mine
        if past:
            merge_into(merged, past.statistics)
        return merged

    def _statistics(self, stream: Stream, start: int, wanted: Sequence[StatisticSpec]) -> dict[str, Statistic]:
        batch = stream.batch(self.model, start, self.seed)
        with torch.no_grad():
            return {collect.name: collect.compute(batch) for collect in wanted}

    def _advance(self, rows: int) -> None:
        self.done += rows
        if rows:
            self.progress(self.done, self.total)


def content_of(stream: Stream) -> str:
    """A hash of the raw rows of a stream, by content: the same data elsewhere is the same."""
    split = stream.split
    assert split is not None, "statistics of data are of a split"
    blocks = (split.take(torch.arange(start, min(start + BLOCK, stream.n))) for start in range(0, stream.n, BLOCK))
    return fingerprint(
        {f"{part} {name}": rows for part, values in raw.items() for name, rows in values.items()} for raw in blocks
    )


def _estimate(
    measure: MetricFigure, found: Mapping[str, Statistic], origins: Mapping[str, Provenance], split: str
) -> Estimate:
    collected = [found[collect.name] for collect in measure.statistics if collect.name in found]
    complete = bool(collected) and len(collected) == len(measure.statistics)
    value, error, note = _finished(measure, collected) if complete else (None, None, measure.note)
    of = [origins[collect.name] for collect in measure.statistics]
    protocol = measure.protocol if isinstance(measure.protocol, str) else measure.protocol(*of) if complete else ""
    where = of[0].over if of else split
    n = collected[0].n if complete else 0
    what = (measure.bound, note, protocol, measure.better, measure.display)
    return Estimate(value, measure.unit, measure.estimator, where, n, error, *what)


def _finished(measure: MetricFigure, collected: Sequence[Statistic]) -> tuple[float | None, float | None, str]:
    """(value, standard error, note); a number that is none is absent, and the note says why."""
    if any(tensor.isnan().any() for statistic in collected for tensor in statistic.tensors().values()):
        return None, None, "the model gives NaN"
    value, error = measure.finish(*collected)
    if value is None:
        few = f"cannot be had from {' and '.join(str(statistic.n) for statistic in collected)} rows"
        return None, None, f"{few}; {measure.note}" if measure.note else few
    if not math.isfinite(value):
        return None, None, f"the model gives {value}"
    return value, error if error is None or math.isfinite(error) else None, measure.note
