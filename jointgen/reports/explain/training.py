"""Writes how a recipe trains: which optimizer moves which parts, and each setting that is not the default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jointgen.config.optimizers import OptimizerTable
from jointgen.engine.optimizers import optimizer_groups

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe


def training_lines(compiled: CompiledRecipe) -> Iterator[str]:
    """Yield a line for each optimizer table that trains something, and for each option that is not the default."""
    tables: dict[OptimizerTable, tuple[list[str], list[int]]] = {}
    for group in optimizer_groups(compiled):
        parts, stages = tables.setdefault(group.table, ([], []))
        parts += [part for part in group.parts if part not in parts]
        stages += [stage for stage in group.stages if stage not in stages]
    for table, (parts, stages) in tables.items():
        # Stages are named only where a part has another table in another stage.
        changes = any(set(parts) & set(others) for other, (others, _) in tables.items() if other != table)
        names = ", ".join(compiled.stages[stage].name for stage in sorted(stages))
        yield f"  {', '.join(parts)}{f' in stage {names}' if changes else ''}: {_describe_optimizer(table)}"

    train = compiled.recipe.train
    if (start := train.warm_start) is not None:
        parts_text = "parts of the same names" if start.parts is None else ", ".join(start.parts)
        yield f"  starts from the run {start.run}, checkpoint {start.checkpoint!r}: {parts_text}"
    if train.micro_batches > 1:
        rows = train.batch // train.micro_batches
        yield f"  a batch is run in {train.micro_batches} parts of {rows} rows, which together make one step"
    if train.compile != "off":
        yield f"  losses are compiled ({train.compile!r}), each on a graph of its own"
    if train.precision != "fp32":
        yield f"  precision {train.precision}"
    if train.clip is not None:
        yield f"  each update's gradient is clipped to the norm {train.clip:g}"
    if train.ema:
        yield f"  evaluations see averaged weights (EMA {train.ema:g})"


def _describe_optimizer(table: OptimizerTable) -> str:
    """Describe an optimizer and its learning rate.

    An example: Adam (betas 0.5, 0.99), lr 0.001, rising over the first 0.02 of the run, falling (cosine) to 0.
    """
    settings, period = table.settings, "stage" if table.stage else "run"
    default = type(settings)().arguments()
    changed = [f"{key} {_number(value)}" for key, value in settings.arguments().items() if value != default[key]]
    text = type(settings).__name__ + (f" ({'; '.join(changed)})" if changed else "") + f", lr {settings.lr:g}"
    if settings.warmup:
        text += f", rising over the first {settings.warmup:.4g} of the {period}"
    if settings.falls:
        start = f" from {settings.decay_from:.4g} of the {period} on" if settings.decay_from is not None else ""
        text += f", falling ({settings.shape}){start} to {settings.lr * (settings.final or 0.0):g}"
    return text


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(f"{number:g}" for number in value) if isinstance(value, tuple) else f"{value:g}"
