"""One run, from a recipe to a finished run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import Recipe, read_recipe
from jointgen.objectives.objective import Objective, Stage
from jointgen.objectives.recipe_text import Expression
from jointgen.registry.components import Registry
from jointgen.registry.discovery import load_plugins
from jointgen.runtime.torch_settings import switched
from jointgen.training.trainer import Run, Trainer


def run(
    recipe: str | Path | Mapping[str, Any],
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    objective: Objective | Sequence[Stage] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    stop: Callable[[], int] = lambda: 0,
    quiet: bool = False,
    processes: int | None = None,
) -> Run:
    """Trains, evaluates and writes the run folder (`out`, or runs/NAME). Sets no signal handler.

    objective: composed in Python, in place of the recipe's.  resume: goes on from the folder's newest whole
    checkpoint; with another recipe than the run's only where `allow_changes`.  stop: asked after each step; a signal's
    number ends the run after a checkpoint.  processes: how many a launcher was to start, to be checked; None: as many
    as it did.  Raises ConfigError for what the user can mend, before anything is trained.
    """
    registry = load_plugins().registry
    resolved = read_recipe(recipe, overrides, registry=registry)
    if objective is not None:
        resolved = with_objective(resolved, objective, registry)
    compiled = compile_recipe(resolved, registry)
    path = Path(out) if out is not None else Path("runs") / resolved.name
    with switched(deterministic=resolved.train.deterministic, threads=resolved.train.threads):
        return Trainer(
            compiled, path, resume=resume, allow_changes=allow_changes, stop=stop, quiet=quiet, processes=processes
        ).fit()


def with_objective(recipe: Recipe, objective: Objective | Sequence[Stage], registry: Registry) -> Recipe:
    """The recipe with an objective composed in Python, written as the text that it prints, so that it repeats."""
    return attrs.evolve(recipe, objective=Expression.of(objective, registry))
