"""How a run trains, for `explain`: which optimizer moves which parts, and what is not the default."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jointgen.config.optimizers import Rate, Table
from jointgen.config.recipe import Train
from jointgen.engine.optimizers import shared

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe


def training(compiled: CompiledRecipe) -> Iterator[str]:
    """A line for each optimizer table that trains something, and for each option that is not the default."""
    tables: dict[Table, tuple[list[str], list[int]]] = {}
    for one in shared(compiled):
        parts, stages = tables.setdefault(one.table, ([], []))
        parts += [part for part in one.parts if part not in parts]
        stages += [stage for stage in one.stages if stage not in stages]
    for table, (parts, stages) in tables.items():
        where = f" in stage {_named(compiled, stages)}" if _has_others(table, parts, tables) else ""
        yield f"  {', '.join(parts)}{where}: {_settings(table.settings)}, {_rate(table)}"
    yield from (f"  {line}" for line in _options(compiled.recipe.train))


def _has_others(table: Table, parts: Collection[str], tables: Mapping[Table, tuple[list[str], list[int]]]) -> bool:
    """Whether one of the parts has another table in another stage."""
    return any(set(parts) & set(others) for other, (others, _) in tables.items() if other != table)


def _named(compiled: CompiledRecipe, stages: Iterable[int]) -> str:
    return ", ".join(compiled.stages[stage].name for stage in sorted(stages))


def _settings(settings: Rate) -> str:
    """Adam (betas 0.5, 0.99): the type, and what of it is not the default."""
    default = type(settings)().arguments()
    own = [f"{key} {_number(value)}" for key, value in settings.arguments().items() if value != default[key]]
    return type(settings).__name__ + (f" ({'; '.join(own)})" if own else "")


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(f"{number:g}" for number in value) if isinstance(value, tuple) else f"{value:g}"


def _rate(table: Table) -> str:
    """In words: lr 0.001, rising over the first 0.02 of the run, falling (cosine) to 0."""
    settings, period = table.settings, "stage" if table.stage else "run"
    rising = f", rising over the first {settings.warmup:.4g} of the {period}" if settings.warmup else ""
    if settings.shape == "constant":
        return f"lr {settings.lr:g}{rising}"
    start = f" from {settings.decay_from:.4g} of the {period} on" if settings.decay_from is not None else ""
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
