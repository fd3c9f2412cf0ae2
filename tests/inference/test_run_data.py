"""A trained model needs its run folder alone: neither its data, nor the folder in which the run was started."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import train_small
from support.tampering import edit_data

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
    edit_data(copy / "r/data.json", lambda held: move(held, str(copy)))
    return copy


def move(held: dict[str, Any], folder: str) -> None:
    """Let a record say that its run was started in this folder."""
    held["started_in"] = folder
    held["sources"]["data"]["places"]["path"]["absolute"] = f"{folder}/x.npy"


def test_the_record_says_where_the_run_began_and_what_its_data_is(home: Path) -> None:
    record = json.loads((home / "r/data.json").read_text())
    space = {"shape": [1, 8, 8], "kind": "real", "low": 0.0, "high": 1.0, "bins": 256}
    digest = record.pop("sha256")
    (source,) = record.pop("sources").values()
    assert record == {"started_in": str(home), "spaces": {"data": {"x": space}}, "chosen": {}}
    assert source["type"] == "arrays"
    assert source["places"] == {"path": {"written": "x.npy", "absolute": str(home / "x.npy")}}
    assert sum(split["rows"] for split in source["splits"].values()) == 200
    bare = (home / "r/data.json").read_text().replace(digest, "")
    assert digest == hashlib.sha256(bare.encode()).hexdigest()


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


def test_a_comparison_draws_samples_with_the_data_gone(away: Path, say: Any) -> None:
    os.remove(away / "x.npy")
    said = say("compare", away / "r", "-o", "t.md")
    assert (said.status, len(said.problems)) == (0, 1)
    missing = f"data.path: no file 'x.npy' in {str(Path.cwd())!r}"
    assert said.problems[0] == f"jointgen: {away / 'r'}: samples alone: {missing}"
    assert sorted(path.name for path in Path().iterdir()) == ["t-samples.png", "t.md"]
    with Image.open("t-samples.png") as picture:
        assert len(np.unique(np.asarray(picture))) > 10


@pytest.mark.parametrize("words", [["eval"], ["encode", "-o", "c.npz"], ["reconstruct", "-o", "p.png"]])
def test_commands_that_need_rows_name_the_file(words: list[str], away: Path, say: Any) -> None:
    os.remove(away / "x.npy")
    assert say(words[0], away / "r", *words[1:]).refusal == (
        f"data.path: no file 'x.npy' in {str(Path.cwd())!r}; --data says where it is now"
    )


def test_a_run_without_a_record_asks_its_data(away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.remove(away / "r/data.json")
    with pytest.raises(ConfigError, match=r"data\.path: no file 'x\.npy'"):
        jointgen.load(away / "r")
    monkeypatch.chdir(away)
    assert jointgen.load("r").spaces["x"].shape == (1, 8, 8)


def changed(**changes: Any) -> Callable[[Path], None]:
    return lambda path: edit_data(path, lambda held: held["spaces"]["data"]["x"].update(changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"\xff"), "is damaged "),
        (lambda path: path.write_text('{"spaces": {}, "more": 1}'), "is damaged .more: unknown key"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "is a pipe; expected a file"),
        (
            lambda path: path.write_text(path.read_text().replace('"high": 1.0', '"high": 2.0')),
            "its SHA-256 is another",
        ),
        (lambda path: path.write_text('{"spaces": {}}'), "it has no SHA-256.; remove it"),
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


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [1, 9, 9]}, r"the checkpoint is of other parts than the recipe's: encoder/trunk\.\S+ is"),
        ({"low": None, "high": None, "bins": None}, r"decoder\.family\.mean: "),
        ({"kind": "binary", "low": None, "high": None, "bins": None}, r"decoder\.family\.type: "),
        ({"shape": [1, 10**5, 10**5]}, r"train\.batch: 16 rows of 10,000,000,016 numbers are more than this machine"),
        ({"shape": [2**62, 2**62, 4]}, r"train\.batch: 16 rows of "),
    ],
)
def test_a_record_of_other_data_than_the_weights_is_refused(
    changes: dict[str, Any], message: str, is_there: bool, away: Path
) -> None:
    changed(**changes)(away / "r/data.json")
    if not is_there:
        os.remove(away / "x.npy")
    with pytest.raises(FileError) as caught:
        jointgen.load(away / "r")
    (line,) = caught.value.lines
    assert re.match(rf"{away}/r/data\.json: does not fit the run's recipe\.toml and checkpoints \({message}", line)
    assert line.endswith("; remove it: what it says is then read from the data")


def test_what_is_wrong_with_the_recipe_is_not_said_of_the_record(away: Path) -> None:
    recipe = away / "r/recipe.toml"
    recipe.write_text(re.sub(r"(hidden = \[\s*)8", r"\g<1>9", recipe.read_text(), count=1))
    with pytest.raises(ConfigError, match=r"^the checkpoint is of other parts than the recipe's: "):
        jointgen.load(away / "r")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda held: held["x"].update(high=2.0), "data: x has high 2.0 in the file and 1.0 in the data"),
        (lambda held: held["x"].update(bins=16), "data: x has bins 16 in the file and 256 in the data"),
        (lambda held: held.update(w=held.pop("x")), "data: w is no variable of it"),
    ],
)
@pytest.mark.parametrize("words", [["eval"], ["encode", "-o", "c.npz"], ["reconstruct", "-o", "p.png"]])
def test_whoever_opens_the_data_compares_it_with_the_record(
    words: list[str], edit: Callable[[dict[str, Any]], object], message: str, away: Path, say: Any
) -> None:
    """The ELBO of a decoder in [0, 2] is another one, so nothing is found with it."""
    edit_data(away / "r/data.json", lambda held: edit(held["spaces"]["data"]))
    refusal = say(words[0], away / "r", *words[1:]).refusal
    assert refusal.startswith(f"{away}/r/data.json: is not of this data ({message}); if this is the data that ")


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
