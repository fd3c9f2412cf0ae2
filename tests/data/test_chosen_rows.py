"""A fixed choice of training rows: which they are, that they stay, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

import jointgen
from jointgen.cli.main import main
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe, write_recipe
from jointgen.config.toml import parse_toml
from jointgen.data.chosen_rows import ChosenRows
from jointgen.data.split import Split, open_split
from jointgen.errors import ConfigError, FileError
from jointgen.inference.run_data import RunData
from jointgen.registry.components import Registry
from jointgen.registry.discovery import load_plugins
from jointgen.runs.folder import RunFolder
from jointgen.training.check import check_run

PAIRS: dict[str, Any] = {
    "data": {"type": "digits"},
    "sources": {"labelled": {"type": "digits", "labels": True, "rows": 20, "balanced": True}},
    "prior": {"type": "normal", "size": 2},
    "encoder": {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "gaussian"}},
    "decoder": {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "gaussian", "init_scale": 0.5}},
    "discriminator": {"type": "mlp", "hidden": [6]},
    "objective": {
        "type": "expression",
        "joints": {"l": "l(x,y) l(z|x)"},
        "parts": {"l(x,y)": "labelled", "l(z|x)": "encoder"},
        "maximize": "E[q(x,z)](log p(x|z) + log p(z) - log q(z|x)) + E[l(x,z)](log p(x|z))",
    },
    "train": {"steps": 2, "batch": 32, "trackers": [], "checkpoint_every": 1},
    "eval": {"rows": 16, "samples": 4, "metrics": [{"type": "elbo"}]},
}


def opened(registry: Registry, split: str = "train", **settings: Any) -> Split:
    labelled = {"labels": True, "rows": 20, **settings}
    changes = {f"sources.labelled.{key}": value for key, value in labelled.items()}
    recipe = read_recipe(PAIRS, changes, registry=registry)
    return open_split(compile_recipe(recipe, registry).binding, split)


def test_a_balanced_choice_has_as_many_of_each_class_and_is_the_same_each_time(registry: Registry) -> None:
    split = opened(registry)
    rows = split.sources["labelled"]
    assert isinstance(rows, ChosenRows)
    taken = rows.take(torch.arange(20))
    assert taken["y"].bincount().tolist() == [2] * 10
    assert torch.equal(split.subsets["labelled"], opened(registry).subsets["labelled"])
    assert not torch.equal(split.subsets["labelled"], opened(registry, seed=1).subsets["labelled"])
    everything = rows.rows.take(split.subsets["labelled"])
    assert torch.equal(taken["x"], everything["x"])
    assert torch.equal(split.subsets["labelled"], split.subsets["labelled"].unique())  # rising, none twice
    assert len(split.sources["data"]) == 1500


def test_labels_are_found_where_the_recipe_asks_for_none(registry: Registry) -> None:
    recipe = read_recipe(PAIRS, {"data.rows": 30, "data.balanced": True}, registry=registry)
    split = open_split(compile_recipe(recipe, registry).binding, "train", ["data"])
    assert split.labels(torch.arange(30))["y"].bincount().tolist() == [3] * 10
    rows: Any = split.sources["data"]
    assert split.places("data").tolist() == rows.rows.places(split.subsets["data"]).tolist()


def test_an_unbalanced_choice_and_the_test_split(registry: Registry) -> None:
    rows = opened(registry, balanced=False, rows=7).subsets["labelled"]
    assert rows.shape == (7,)
    assert len(rows.unique()) == 7
    assert "labelled" not in opened(registry, "test").subsets
    assert len(opened(registry, "test").sources["labelled"]) == 297


def test_validation_rows_are_the_ones_that_training_leaves(registry: Registry) -> None:
    """Sources of the same rows hold out the same ones, so that no labelled row is among another's validation rows."""
    held = {"data.validation": 300, "sources.labelled.validation": 300}
    recipe = read_recipe(PAIRS, {**held, "eval.split": "validation"}, registry=registry)
    binding = compile_recipe(recipe, registry).binding
    train, validation, test = (open_split(binding, name) for name in ("train", "validation", "test"))
    assert [len(one.sources["data"]) for one in (train, validation, test)] == [1200, 300, 297]
    for part in ("data", "labelled"):
        assert torch.equal(validation.subsets[part], validation.subsets["data"])
        assert torch.cat([train.subsets[part], validation.subsets["data"]]).unique(return_counts=True)[1].max() == 1
    both = torch.cat([train.subsets["data"], validation.subsets["data"]])
    assert torch.equal(both.sort().values, torch.arange(1500))
    assert train.sources["labelled"].take(torch.arange(20))["y"].bincount().tolist() == [2] * 10
    assert torch.equal(
        validation.labels(torch.arange(9), "data")["y"], validation.labels(torch.arange(9), "labelled")["y"]
    )


def test_a_run_whose_evaluations_look_at_validation_rows_does_not_open_the_test_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits: Any = load_plugins().registry.get("data", "digits").load()
    seen, whole = list[str](), digits.open
    monkeypatch.setattr(digits, "open", lambda self, split: seen.append(split) or whole(self, split))
    held = {"data.validation": 300, "sources.labelled.validation": 300, "eval.split": "validation"}
    settings = {**held, "train.eval_every": 1, "eval.rows": 200}
    run = jointgen.run(PAIRS, settings, out=tmp_path / "run", quiet=True)
    assert set(seen) == {"train"}
    assert run.summary["metrics"]["elbo"]["split"] == "validation"
    assert run.summary["metrics"]["elbo"]["n"] == 200
    assert RunData.read(RunFolder(run.path)).sources["data"].splits.keys() == {"train"}
    assert not main(["eval", str(run.path), "--split", "test", "--metrics", "elbo", "--rows", "20"])
    assert "test" in seen


def test_the_choice_is_written_into_the_recipe(registry: Registry) -> None:
    tables = parse_toml(write_recipe(read_recipe(PAIRS, {"sources.labelled.batch": 8}, registry=registry), registry))
    expected = {"type": "digits", "rows": 20, "balanced": True, "seed": 0, "batch": 8}
    assert expected.items() <= tables["sources"]["labelled"].items()
    assert "rows" not in tables["data"]
    assert write_recipe(read_recipe(tables, registry=registry), registry) == write_recipe(
        read_recipe(PAIRS, {"sources.labelled.batch": 8}, registry=registry), registry
    )


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "too many": ({"rows": 2000}, "sources.labelled.rows: 2000 is more than the 1500 rows of its train"),
    "not divisible": (
        {"rows": 25},
        "sources.labelled.rows: 25 does not divide over 10 classes, as balanced = true asks",
    ),
    "too few of a class": ({"rows": 1500}, "sources.labelled.rows: 1500 takes 150 rows of each class, of class"),
    "nothing to choose": ({"rows": None}, "sources.labelled.balanced: says how rows are chosen; give rows, how many"),
    "none left": ({"validation": 1500}, "sources.labelled.validation: 1500 of the 1500 rows of its training split"),
    "too many of the rest": (
        {"validation": 1481},
        "sources.labelled.rows: 20 is more than the 19 rows of its train split",
    ),
    "no number": ({"rows": 0}, "sources.labelled.rows: must be >= 1, got 0"),
    "no truth": ({"balanced": 1}, "sources.labelled.balanced: expected true or false, got 1"),
    "misspelt": ({"balancd": True}, "sources.labelled.balancd: unknown key"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_chosen_is_told(registry: Registry, name: str) -> None:
    settings, expected = MISTAKES[name]
    with pytest.raises(ConfigError) as refused:
        opened(registry, **settings)
    assert refused.value.lines[0].startswith(expected)


def test_an_evaluation_on_validation_rows_needs_some(registry: Registry) -> None:
    with pytest.raises(ConfigError) as refused:
        read_recipe(PAIRS, {"eval.split": "validation", "data.validation": 9}, registry=registry)
    assert refused.value.lines == [
        "eval.split: no rows are held out for it; say how many, as in sources.labelled.validation = 5000"
    ]


def test_classes_are_needed_to_balance(registry: Registry) -> None:
    sources = {"labelled": {"type": "ring", "balanced": True}}
    with pytest.raises(ConfigError, match="says how rows are chosen; give rows"):
        read_recipe({**PAIRS, "sources": sources}, registry=registry)


def test_a_run_takes_few_rows_beside_many_and_goes_on_with_the_same(tmp_path: Path, registry: Registry) -> None:
    """Twenty labelled rows fill a batch of 32 by repetition; a run whose choice is another one is not gone on with."""
    run = jointgen.run(PAIRS, {"train.steps": 1}, out=tmp_path / "run", quiet=True)
    checked = check_run(read_recipe(PAIRS, registry=registry), registry)
    assert checked.unchecked[-1] == "labelled: a step takes 32 of its 20 rows, so that rows repeat within it"
    record = RunData.read(RunFolder(run.path))
    assert len(record.chosen["labelled"]) == 64
    attrs.evolve(record, chosen={"labelled": "0" * 64}).write(RunFolder(run.path))
    with pytest.raises(FileError, match="says that the run began with other rows of labelled"):
        jointgen.run(PAIRS, {"train.steps": 1}, out=tmp_path / "run", resume=True, quiet=True)


def test_a_batch_that_no_source_fills_is_too_large(registry: Registry) -> None:
    for key, counts in (("train.batch", 2000), ("sources.labelled.batch", 2000)):
        with pytest.raises(ConfigError, match="is more than the") as refused:
            check_run(read_recipe(PAIRS, {key: counts, "data.rows": 20}, registry=registry), registry)
        assert any(line.startswith(f"{key}: 2000 is more than the 20 rows") for line in refused.value.lines)
