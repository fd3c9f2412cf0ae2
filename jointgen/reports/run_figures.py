"""Selects the figures that a run stands for: those of one checkpoint, so that all of them describe the same weights.

Figures of a run stand in two files. `summary.json` holds those of the last step that the run evaluated in full, and
`evaluation.json` those that `jointgen eval` found, of any checkpoint. The page and the comparison both call
`figures_of_run`, so that they agree.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from jointgen.contracts.figures import Estimate
from jointgen.runs.records import CHECKPOINT_NAME, Evaluation, Summary, checkpoint_name


@attrs.frozen
class RunFigures:
    """The figures of one checkpoint of a run.

    Args:
        checkpoint: The checkpoint's name; empty where the run has no figures.
        figures: The figures by name.
        from_eval: The names of those that `jointgen eval` found after the run.
        other_checkpoints: The other checkpoints that `jointgen eval` was given, whose figures are left out.
    """

    checkpoint: str
    figures: Mapping[str, Estimate]
    from_eval: frozenset[str] = frozenset()
    other_checkpoints: tuple[str, ...] = ()


def figures_of_run(summary: Summary | None, evaluation: Evaluation) -> RunFigures:
    """Select the figures that a run stands for.

    They are the summary's, replaced or extended by what `jointgen eval` found of the same checkpoint. A run without
    figures in its summary, such as one that was killed, stands for the newest checkpoint that was evaluated.

    Args:
        summary: The content of `summary.json`; None where there is none.
        evaluation: The content of `evaluation.json`.
    """
    own = summary.metrics if summary is not None else {}
    newest = max(evaluation, key=_step_of, default="")
    checkpoint = checkpoint_name(summary.step) if summary is not None and own else newest
    evaluated = evaluation[checkpoint].metrics if checkpoint in evaluation else {}
    others = sorted((name for name in evaluation if name != checkpoint), key=_step_of)
    return RunFigures(checkpoint, {**own, **evaluated}, frozenset(evaluated), tuple(others))


def _step_of(checkpoint: str) -> int:
    match = CHECKPOINT_NAME.fullmatch(checkpoint)
    assert match is not None, checkpoint
    return int(match["step"])
