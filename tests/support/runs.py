"""Runs of the quickstart recipe that take seconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import jointgen
from jointgen.runs import checkpoint
from jointgen.runtime.console import LEVELS, printed
from support.paths import QUICKSTART

SMALL: dict[str, Any] = {
    "encoder.network.hidden": [8],
    "decoder.network.hidden": [8],
    "discriminator.hidden": [8],
    "train.batch": 16,
    "train.pair_block": 4,
    "train.eval_every": None,
    "train.sample_every": None,
    "eval.rows": 32,
    "eval.quick_rows": 32,
    "eval.samples": 4,
}
"""Overrides of the quickstart: one layer of eight everywhere, and nothing done beside the steps."""


def train_small(out: Path, changes: Mapping[str, Any] | None = None, *, quiet: bool = True, **options: Any) -> Any:
    """Run the small quickstart with these overrides; the options are those of `jointgen.run`.

    It is quiet as `jointgen run --quiet` is, which still prints what is lost or damaged.
    """
    with printed(LEVELS["quiet" if quiet else "usual"]):
        return jointgen.run(QUICKSTART, {**SMALL, **(changes or {})}, out=out, **options)


def stop_after(steps: int, signal: int = 15) -> Callable[[], int]:
    """Return a `stop` for a run that sends the signal after that many steps."""
    calls = iter(range(10**6))
    return lambda: signal if next(calls) + 1 == steps else 0


def weights(folder: Path) -> dict[str, Tensor]:
    """The parameters of a checkpoint by `part/key`."""
    parts = checkpoint.load(folder).parts
    return {f"{part}/{key}": tensor for part, tensors in parts.items() for key, tensor in tensors.items()}


def logged(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl without its times."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("wall_s", "images_per_s")} for line in lines]
