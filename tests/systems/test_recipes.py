"""Every shipped recipe trains: 8 steps on the bundled digits, with networks of a few units."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.paths import SHIPPED

import jointgen
from jointgen.cli.listed_recipes import described_recipes
from jointgen.config.toml import load_tables

RECIPES = sorted(SHIPPED.rglob("*.toml"))
IMAGES = ("mnist", "cifar10", "image_folder")
FEW = {"hidden": [8], "widths": [4, 4], "length": 2, "width": 8, "blocks": 1}
TRAIN = {"steps": 8, "batch": 16, "pair_block": 16, "threads": 1, "log_every": 4, "trackers": []}
EVALUATION = {"rows": 32, "quick_rows": 32, "batch": 16, "samples": 4}
KEPT_OF_SOURCES = ("observe", "labels", "negative", "rows", "balanced", "seed", "batch")
KEPT = ("micro_batches", "clip", "ema", "early_stopping")


def on_digits(path: Path) -> dict[str, Any]:
    """The tables of a recipe with digits in place of larger images, small networks and 8 steps."""
    tables = _small(load_tables(path))
    for source in (tables["data"], *tables.get("sources", {}).values()):
        if source["type"] in IMAGES:
            _be_digits(source)
    own = {key: value for key, value in tables["train"].items() if key in KEPT}
    if "early_stopping" in own:
        own["eval_every"] = 4  # early stopping looks at evaluations
    return {**tables, "train": {**own, **TRAIN}, "eval": {**tables.get("eval", {}), **EVALUATION}, "name": path.stem}


def _small(value: Any) -> Any:
    if isinstance(value, list):
        return [_small(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: FEW[key] if key in FEW else _small(item) for key, item in value.items()}


def _be_digits(source: dict[str, Any]) -> None:
    kept = {key: value for key, value in source.items() if key in KEPT_OF_SOURCES}
    source.clear()
    source.update(kept, type="digits")
    if "batch" in source:
        source["batch"] = 8


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains(path: Path, tmp_path: Path) -> None:
    run = jointgen.run(on_digits(path), out=tmp_path / "run", quiet=True)
    assert run.record.is_done and run.record.step == 8
    assert (run.path / "report.html").is_file()
    events = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    losses = {name: value for event in events for name, value in event.items() if name.endswith("/loss")}
    assert losses and all(math.isfinite(value) for value in losses.values()), losses


def test_recipes_say_what_they_are() -> None:
    """`jointgen list recipe` shows a sentence, the data, the time and the figure of each."""
    described = described_recipes()
    assert len({recipe.name for recipe in described}) == len(described) == len(RECIPES)
    for recipe in described:
        assert recipe.title.endswith(".") and len(recipe.title) <= 120, recipe
        assert recipe.figure and recipe.time and recipe.data, recipe
