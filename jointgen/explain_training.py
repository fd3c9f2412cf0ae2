"""How a run trains, for `explain`: which optimizer moves which parts, and what is not the default."""

from __future__ import annotations

from collections.abc import Iterator

from jointgen.optimizer_tables import Rate
from jointgen.prepare import Prepared
from jointgen.recipe import Train


def training(prepared: Prepared) -> Iterator[str]:
    """A line for each optimizer table that trains something, and for each option that is not the default."""
    by_table: dict[str, list[str]] = {}
    trained = (part for plan in prepared.plans for update in plan.updates for part in update.trains)
    for part in dict.fromkeys(trained):
        by_table.setdefault(prepared.optimizer_of(part)[0], []).append(part)
    for parts in by_table.values():
        settings = prepared.optimizer_of(parts[0])[1]
        yield f"  {', '.join(parts)}: {type(settings).__name__}, {_rate(settings)}"
    yield from (f"  {line}" for line in _options(prepared.recipe.train))


def _rate(settings: Rate) -> str:
    """In words: lr 0.001, rising over the first 0.02 of the run, falling (cosine) to 0."""
    rising = f", rising over the first {settings.warmup:.4g} of the run" if settings.warmup else ""
    if settings.shape == "constant":
        return f"lr {settings.lr:g}{rising}"
    start = f" from {settings.decay_from:.4g} of the run on" if settings.decay_from is not None else ""
    return f"lr {settings.lr:g}{rising}, falling ({settings.shape}){start} to {settings.lr * (settings.final or 0.0):g}"


def _options(train: Train) -> Iterator[str]:
    if (warm := train.warm_start) is not None:
        parts = "parts of the same names" if warm.parts is None else ", ".join(warm.parts)
        yield f"starts from the run {warm.run}, checkpoint {warm.checkpoint!r}: {parts}"
    if train.micro_batches > 1:
        rows = train.batch // train.micro_batches
        yield f"a batch is run in {train.micro_batches} parts of {rows} rows, which together make one step"
    if train.compile != "off":
        yield f"losses are compiled ({train.compile!r}), each on a graph of its own"
    if train.precision != "fp32":
        yield f"precision {train.precision}"
    if train.clip is not None:
        yield f"each update's gradient is clipped to the norm {train.clip:g}"
    if train.ema:
        yield f"evaluations see averaged weights (EMA {train.ema:g})"
