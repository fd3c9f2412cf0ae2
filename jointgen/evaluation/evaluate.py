"""The one evaluation loop: metrics over a split, merged over batches and processes.

Metrics say which figures they give and which statistics these are finished from; statistics over the same rows share a
stream; each stream is gone through once, shared out over processes; the merged statistics become estimates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import torch

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.contracts.figures import Estimate
from jointgen.contracts.metrics import Batch, FigureValue, Metric, MetricFigure, ModelView, Provenance, StatisticSpec
from jointgen.contracts.statistics import Statistic, merge_into, pack, unpack
from jointgen.data.split import Split, open_split
from jointgen.errors import RAISED, ComponentError, ConfigError, JointgenError
from jointgen.evaluation.merging import merge_over
from jointgen.evaluation.partial_results import EarlierAttempts, PartialResults
from jointgen.inference.streams import Stream
from jointgen.registry.components import Registry
from jointgen.registry.faults import attributing, described, said
from jointgen.runtime.cache import cached, fingerprint
from jointgen.runtime.workers import Workers
from jointgen.text import shortened

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


def list_figures(metrics: Iterable[Metric], model: ModelView, registry: Registry | None = None) -> list[MetricFigure]:
    """The figures that metrics give of a model, without evaluating any.

    Raises:
        ConfigError: Two metrics give one name to their figures.
        ComponentError: A metric raises, or gives something else than figures.
    """
    return [figure for _, figure in _owned_figures(metrics, model, registry)]


def _owned_figures(
    metrics: Iterable[Metric], model: ModelView, registry: Registry | None
) -> list[tuple[str, MetricFigure]]:
    """The figures of metrics, each with the metric in words."""
    owned: list[tuple[str, MetricFigure]] = []
    for metric in metrics:
        owner = described(registry, "metric", metric)
        with attributing(owner):
            found = list(metric.figures(model))
        for figure in found:
            if not isinstance(figure, MetricFigure):
                raise ComponentError(f"{owner}: figures() has a {type(figure).__name__}, it must be a MetricFigure")
            if not any(figure is other for _, other in owned):  # two metrics may give one and the same figure
                owned.append((owner, figure))
    names = [figure.name for _, figure in owned]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        lines = [f"two metrics give a figure named {name!r}; leave one out" for name in twice]
        raise ConfigError(lines, "eval", "metrics")
    return owned


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
    failed: list[str] | None = None,
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
        failed: With a list, a metric that raises costs its own figures only: they are absent, their notes say why, and
            so does a line in this list. None: the error is raised.

    Returns:
        The estimate of every figure, by name.

    Raises:
        ComponentError: A metric raises while it names its figures or, without `failed`, at any time.
    """
    owned = _owned_figures(metrics, model.view, model.compiled.registry)
    specs = {spec.name: spec for _, figure in owned for spec in figure.statistics}

    binding = model.compiled.binding
    # statistics over the same rows in the same batches share a stream
    opened = {split.name: split}
    streams: dict[str, tuple[Stream, list[StatisticSpec]]] = {}
    for spec in specs.values():
        size = min(batch, spec.max_batch or batch)
        if spec.over == "draws":
            n = min(spec.rows or len(split), limit or spec.rows or len(split))
            stream = Stream("draws", n, _rows_for_draws(model, n), size)
        else:
            name = split.name if spec.over == "eval" else spec.over
            if name not in opened:
                opened[name] = open_split(binding, name, binding.sources_of_q_and_p)
            rows = opened[name]
            n = min(len(rows), spec.rows or len(rows), limit or len(rows))
            stream = Stream(rows.name, n, rows.spread(n), size)
        streams.setdefault(stream.key, (stream, []))[1].append(spec)

    total = sum(stream.n for stream, _ in streams.values())
    owners = {spec.name: owner for owner, figure in owned for spec in figure.statistics}
    collector = _Collector(model.view, seed, workers, partial, progress, total, owners, is_lenient=failed is not None)
    with model.view.evaluating(), torch.no_grad():
        for stream, wanted in streams.values():
            collector.collect(stream, wanted)
    found = {figure.name: _estimate(figure, owner, collector, split.name) for owner, figure in owned}
    if failed is not None:
        failed += dict.fromkeys(collector.faults.values())
    return found


def _rows_for_draws(model: Model, n: int) -> Split | None:
    """At most n held-out rows, evenly apart, of the data sources that p draws from, if it draws from any."""
    parts = set(model.binding.data_roots(model.binding.joint("p", "drawing samples")).values())
    held_out = model.compiled.recipe.held_out
    return open_split(model.compiled.binding, held_out, sorted(parts)).spread(n) if parts else None


# --- statistics ------------------------------------------------------------------------------------------------------


@attrs.define
class _Collector:
    """Collects the statistics of streams, shared out over processes, and counts the rows that are done.

    `owners` has the metric of each statistic, in words. `faults` says why a statistic or a figure could not be had,
    by its name.
    """

    model: ModelView
    seed: int
    workers: Workers | None
    partial: PartialResults | None
    progress: Callable[[int, int], None]
    total: int
    owners: Mapping[str, str]
    is_lenient: bool
    done: int = 0
    statistics: dict[str, Statistic] = attrs.field(factory=dict)
    provenance: dict[str, Provenance] = attrs.field(factory=dict)
    faults: dict[str, str] = attrs.field(factory=dict)

    def fail(self, name: str, owner: str, error: BaseException) -> None:
        """Keep the fault of a statistic or figure, or raise it."""
        if not self.is_lenient:
            if isinstance(error, JointgenError):
                raise error
            raise ComponentError(f"{owner} raises {said(error)}") from error
        self.faults.setdefault(name, f"{owner} raises {said(error)}")

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
        earlier = self.partial.open(stream.key, kinds, stream.starts) if self.partial else EarlierAttempts(None)
        if self.workers:
            self.workers.barrier()  # all have read the same attempts before anyone adds to them
        starts = {start: rows for start, rows in stream.starts.items() if start not in earlier.done}
        self._advance(stream.n - sum(starts.values()))
        rank, world = (self.workers.rank, self.workers.world) if self.workers else (0, 1)
        saved: dict[str, Statistic] = {}
        statistics = saved
        with earlier.continued(saved, rank) as record:
            for i, (start, rows) in enumerate(starts.items()):
                if i % world == rank:
                    found = self._statistics_of(stream.batch(self.model, start, self.seed), wanted)
                    if len(found) < len(wanted) and statistics is saved:
                        statistics = dict(saved)  # from here on nothing is saved: another attempt does all of it again
                    merge_into(statistics, found)
                    if statistics is saved:
                        record(start)
                self._advance(rows)
        self._share_faults(wanted)
        merged = merge_over(self.workers, statistics, kinds) if self.workers else statistics
        merge_into(merged, earlier.statistics)
        return {name: statistic for name, statistic in merged.items() if name not in self.faults}

    def _statistics_of(self, batch: Batch, wanted: Sequence[StatisticSpec]) -> dict[str, Statistic]:
        """The statistics of a batch by name, without those of a metric that has raised."""
        found: dict[str, Statistic] = {}
        for spec in wanted:
            if spec.name in self.faults:
                continue
            try:
                statistic = spec.compute(batch)
                if not isinstance(statistic, spec.kind):
                    raise TypeError(f"{spec.key!r} gives a {type(statistic).__name__}, not a {spec.kind.__name__}")
                found[spec.name] = statistic
            except RAISED as error:  # whatever a metric raises
                self.fail(spec.name, self.owners[spec.name], error)
        return found

    def _share_faults(self, wanted: Sequence[StatisticSpec]) -> None:
        """Let every process leave out what one of them could not compute."""
        if self.workers is None or self.workers.world == 1:
            return
        flags = torch.tensor([spec.name in self.faults for spec in wanted], device=self.workers.device).long()
        for spec, count in zip(wanted, self.workers.sum_(flags).tolist(), strict=True):
            if count:
                self.faults.setdefault(spec.name, f"{self.owners[spec.name]} raises an exception in another process")

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


def _estimate(figure: MetricFigure, owner: str, collector: _Collector, split: str) -> Estimate:
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
    if faults := [collector.faults[spec.name] for spec in figure.statistics if spec.name in collector.faults]:
        return estimate(None, None, faults[0], protocol=protocol)
    if not found or len(found) < len(sources):  # the model has no such figure, or there were no rows
        return estimate(None, None, figure.note, protocol=protocol)
    n = found[0].n
    try:
        if not isinstance(figure.protocol, str):
            protocol = figure.protocol(*sources)
        if any(tensor.isnan().any() for statistic in found for tensor in statistic.tensors().values()):
            return estimate(None, None, "the model gives NaN", n, protocol)
        value, error = _finished(figure, found)
        note = "; ".join(filter(None, (figure.note, figure.remark(*found))))
    except RAISED as raised:  # whatever a metric raises
        collector.fail(figure.name, owner, raised)
        return estimate(None, None, collector.faults[figure.name], n, protocol)
    if value is None:
        reason = f"cannot be had from {' and '.join(str(statistic.n) for statistic in found)} rows"
        return estimate(None, None, f"{reason}; {figure.note}" if figure.note else reason, n, protocol)
    if not math.isfinite(value):
        return estimate(None, None, f"the model gives {value}", n, protocol)
    return estimate(value, error if error is None or math.isfinite(error) else None, note, n, protocol)


def _finished(figure: MetricFigure, found: Sequence[Statistic]) -> FigureValue:
    """Finish a figure; what is no pair of numbers could not be written to a file."""
    pair = figure.finish(*found)
    if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(x, float | int | None) for x in pair)):
        raise TypeError(f"finish() of {figure.name!r} gives {shortened(pair)}, it must be a pair of numbers or None")
    return pair
