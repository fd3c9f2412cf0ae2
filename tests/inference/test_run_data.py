"""A trained model needs its run folder alone: neither its data, nor the folder in which the run was started."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import train_small

import jointgen
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError, FileError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with x.npy and a run r on it, which was started there."""
    folder = tmp_path_factory.mktemp("home")
    np.save(folder / "x.npy", np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_small(Path("r"), {"data": {"type": "arrays", "path": "x.npy"}, "train.steps": 2, "train.trackers": []})
    return folder


@pytest.fixture
def away(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run in a copy of its folder, while this process is in another one."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    copy = shutil.copytree(home, tmp_path / "home")
    record = json.loads((copy / "r/data.json").read_text())
    (copy / "r/data.json").write_text(json.dumps({**record, "started_in": str(copy)}))
    return copy


def test_the_record_says_where_the_run_began_and_what_its_data_is(home: Path) -> None:
    record = json.loads((home / "r/data.json").read_text())
    space = {"shape": [1, 8, 8], "kind": "real", "low": 0.0, "high": 1.0, "bins": 256}
    assert record == {"started_in": str(home), "spaces": {"data": {"x": space}}}


def test_relative_paths_lead_from_where_the_run_began(away: Path, say: Any) -> None:
    assert say("eval", away / "r", "--metrics", "rmse").status == 0


def test_with_the_data_gone_the_model_is_what_it_was(away: Path) -> None:
    before = jointgen.load(away / "r")
    os.remove(away / "x.npy")
    model = jointgen.load(away / "r")
    assert model.spaces["x"] == Space((1, 8, 8), "real", 0.0, 1.0, 256)
    assert torch.equal(model.sample(3, seed=1), before.sample(3, seed=1))


def test_commands_that_need_no_rows_work_with_the_data_gone(away: Path, say: Any) -> None:
    os.remove(away / "x.npy")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("i.png")
    run = away / "r"
    for words in (
        ["sample", run, "-o", "s.png"],
        ["encode", run, "--images", "i.png", "-o", "c.npz"],
        ["reconstruct", run, "--images", "i.png", "-o", "p.png"],
        ["report", run],
        ["compare", run],
    ):
        said = say(*words)
        assert (said.status, said.problems) == (0, []), words


@pytest.mark.parametrize("words", [["eval"], ["encode", "-o", "c.npz"], ["reconstruct", "-o", "p.png"]])
def test_commands_that_need_rows_name_the_file(words: list[str], away: Path, say: Any) -> None:
    os.remove(away / "x.npy")
    assert say(words[0], away / "r", *words[1:]).refusal == f"data.path: no file 'x.npy' in {str(Path.cwd())!r}"


def test_a_run_without_a_record_asks_its_data(away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.remove(away / "r/data.json")
    with pytest.raises(ConfigError, match=r"data\.path: no file 'x\.npy'"):
        jointgen.load(away / "r")
    monkeypatch.chdir(away)
    assert jointgen.load("r").spaces["x"].shape == (1, 8, 8)


def changed(**changes: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        record = json.loads(path.read_text())
        record["spaces"]["data"]["x"] |= changes
        path.write_text(json.dumps(record))

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"\xff"), "is damaged "),
        (lambda path: path.write_text('{"spaces": {}, "more": 1}'), "is damaged .more: unknown key"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "is a pipe; expected a file"),
        (changed(shape=[-1]), "shape: must be of axes >= 1, got"),
        (changed(low=2.0), "low: must be < high = 1.0, got 2.0"),
        (changed(low=None), "bins: must be >= 1 between a low and a high end, got 256"),
    ],
)
def test_a_damaged_record_is_one_line(damage: Callable[[Path], Any], message: str, away: Path) -> None:
    damage(away / "r/data.json")
    with pytest.raises(FileError, match=message) as caught:
        jointgen.load(away / "r")
    assert caught.value.lines[0].startswith(str(away / "r/data.json"))
    assert len(caught.value.lines) == 1


def test_a_record_of_other_data_than_the_weights_is_refused(away: Path) -> None:
    changed(shape=[1, 9, 9])(away / "r/data.json")
    with pytest.raises(ConfigError, match=r"the checkpoint is of other parts than the recipe's: encoder/trunk\.\S+ is"):
        jointgen.load(away / "r")


def test_a_recipe_that_lacks_a_key_of_today_is_remarked_on(away: Path, say: Any) -> None:
    """As of a run on arrays from before `split`: its test rows are others than those that it held out."""
    (manifest,) = (away / "r/checkpoints").glob("step-*/manifest.json")
    recipe = away / "r/recipe.toml"
    recipe.write_text(recipe.read_text().replace('split = "hash"', 'split = "last"'))
    said = say("sample", away / "r", "-o", "s.png")
    assert said.status == 0
    assert said.problems == [
        f"jointgen: {away / 'r'}: its recipe reads today otherwise than when {manifest.parent.name} was trained: "
        "data.split: 'hash' -> 'last'"
    ]
