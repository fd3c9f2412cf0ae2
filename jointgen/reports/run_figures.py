"""Selects the figures that a run stands for: those of one checkpoint, so that all of them describe the same weights.

Figures of a run stand in two files. `summary.json` holds those of the last step that the run evaluated in full, and
`evaluation.json` those that `jointgen eval` found, of any checkpoint. The page and the comparison both call
`figures_of_run`, so that they agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from jointgen.runs.folder import checkpoint_name

Figures = Mapping[str, Mapping[str, Any]]
"""Figures by name, each with the fields of an `Estimate`."""


@attrs.frozen
class RunFigures:
    """The figures of one checkpoint of a run.

    Args:
        checkpoint: The checkpoint's name; empty where the run has no figures.
        figures: The figures by name, as they stand in the files.
        from_eval: The names of those that `jointgen eval` found after the run.
        other_checkpoints: The other checkpoints that `jointgen eval` was given, whose figures are left out.
    """

    checkpoint: str
    figures: Figures
    from_eval: frozenset[str] = frozenset()
    other_checkpoints: tuple[str, ...] = ()


def figures_of_run(summary: Mapping[str, Any], evaluation: Mapping[str, Any]) -> RunFigures:
    """Select the figures that a run stands for.

    They are the summary's, replaced or extended by what `jointgen eval` found of the same checkpoint. A run without
    figures in its summary, such as one that was killed, stands for the newest checkpoint that was evaluated.

    Args:
        summary: The content of `summary.json`; empty where there is none.
        evaluation: The content of `evaluation.json`: {checkpoint: {"metrics": {name: figure}}}.

    >>> figures_of_run(
    ...     {"step": 20, "metrics": {"a": {"value": 1.0}}},
    ...     {"step-00000010": {"metrics": {"b": {"value": 3.0}}}, "step-00000020": {"metrics": {"a": {"value": 2.0}}}},
    ... )  # doctest: +NORMALIZE_WHITESPACE
    RunFigures(checkpoint='step-00000020', figures={'a': {'value': 2.0}}, from_eval=frozenset({'a'}),
               other_checkpoints=('step-00000010',))
    """
    own = summary.get("metrics", {})
    newest = max(evaluation, key=_step_of, default="")
    checkpoint = checkpoint_name(summary["step"]) if own and "step" in summary else newest
    evaluated = evaluation.get(checkpoint, {}).get("metrics", {})
    others = sorted((name for name in evaluation if name != checkpoint), key=_step_of)
    return RunFigures(checkpoint, {**own, **evaluated}, frozenset(evaluated), tuple(others))


def _step_of(checkpoint: str) -> int:
    """Read the step from a checkpoint's name; -1 for another name."""
    digits = checkpoint.removeprefix("step-")
    return int(digits) if digits.isdecimal() else -1
