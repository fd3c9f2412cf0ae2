"""`jointgen.explain`: what a recipe will do, without training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from jointgen.objectives.objective import Objective, Stage
from jointgen.reports.explain.explain import explain as explain_compiled
from jointgen.reports.explain.explain import explanation
from jointgen.runtime.console import printed_for_caller
from jointgen.training.check import check_run
from jointgen.training.run import objective_problems, read_given


@attrs.frozen(repr=False)
class Explanation:
    """What a recipe will do. Printed, it is the text of `jointgen explain`.

    Args:
        text: Equations, parts, the plan of a step, gradients, sizes, requirements, advice.
        tables: The same as JSON values, as `jointgen explain --json` prints them.
        unchecked: What cannot be checked before the data is read, a line each.
    """

    text: str
    tables: dict[str, Any]
    unchecked: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__  # so that a notebook's cell shows it


def explain(
    recipe: str | Path | Mapping[str, Any],
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    objective: Objective | Sequence[Stage] | None = None,
    data: Any = None,
) -> Explanation:
    """Say what a recipe will do, checked as `jointgen.run` checks it, without training.

    Args:
        recipe: The path of a recipe, the name of one that comes with jointgen, or a recipe as nested dicts.
        overrides: Settings that replace the recipe's, as in `jointgen.run`.
        objective: An objective composed in Python, or its stages, in place of the recipe's.
        data: The data, or where it lies, as in `jointgen.run`.

    Returns:
        The explanation, whose text a notebook shows.

    Raises:
        ConfigError: The recipe does not allow a run; all problems at once.
        ComponentError: A component raises.

    Example:
        >>> jointgen.explain("quickstart").tables["stages"][0]["order"]    # doctest: +SKIP
    """
    objective_problems(objective).raise_any()
    with printed_for_caller(quiet=True):
        resolved, registry, data_paths = read_given(recipe, overrides, objective, data)
        checked = check_run(resolved, registry, data_paths=data_paths, runs_here=False)
    return Explanation(explain_compiled(checked.compiled), explanation(checked.compiled), checked.unchecked)
