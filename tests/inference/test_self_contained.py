"""A run is loaded without its data, for every registered data source; and with it, wherever the data lies by now.

A new data source needs a case in CASES: what makes its files in the folder `home`, and its keys with paths relative to
that folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jointgen_data.cifar10
import numpy as np
import pytest
import torch
from jointgen_data.arrays import Arrays
from jointgen_data.given import Given
from PIL import Image
from scipy.io import savemat
from support.commands import Said
from support.sources import everything
from support.tampering import edit_data

import jointgen
from jointgen.config.recipe import read_recipe
from jointgen.contracts.data_keys import key_roles
from jointgen.data.split import open_split
from jointgen.errors import ConfigError, FileError
from jointgen.images.prepare import prepare_images
from jointgen.inference.bulk import given_values
from jointgen.inference.data_paths import DataPaths, read_data_paths, relocate
from jointgen.inference.loading import open_model
from jointgen.inference.run_data import Place, RunData
from jointgen.registry.components import Registry
from jointgen.registry.discovery import load_plugins
from jointgen.runs.folder import RunFolder
from jointgen.runtime.console import printed_for_caller
from jointgen.training.check import check_run
from jointgen.training.setup import set_up_training

RECIPE: dict[str, Any] = {
    "objective": {"type": "vae"},
    "prior": {"type": "normal", "size": 2},
    "encoder": {"network": {"type": "mlp", "hidden": [3]}, "family": {"type": "gaussian"}},
    "decoder": {"network": {"type": "mlp", "hidden": [3]}, "family": {"type": "gaussian", "scale": "global"}},
    "train": {"steps": 1, "batch": 4, "trackers": [], "device": "cpu"},
    "eval": {"metrics": [{"type": "elbo"}]},
}
NAMES = ["cat", "dog"]


def begin(data: dict[str, Any], out: Path, sources: dict[str, Any] | None = None, **more: Any) -> None:
    """Begin a run, up to a checkpoint before its first step."""
    registry = load_plugins().registry
    recipe = read_recipe({**RECIPE, **more, "data": data, "sources": sources or {}}, registry=registry)
    with printed_for_caller(quiet=True):
        trainer = set_up_training(check_run(recipe, registry, out=out), out)
        trainer.checkpoints.save(trainer.state)


# --- a case for each source: it makes the files of the source in the folder, which is the current one ----------------


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def write_photos(folder: Path, names: list[str], each: int = 6) -> None:
    for split in ("train", "val"):
        for name in names:
            (folder / split / name).mkdir(parents=True)
            for i, pixels in enumerate(numbers(each, 8, 8, 3)):
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


def arrays(home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    np.savez(home / "x.npz", x=numbers(40, 4, 4), y=np.arange(40) % 2)
    return {"path": "x.npz", "variables": {"x": "x", "y": "y"}, "classes": 2}


def given(home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    source = Given.holding({"x": numbers(40, 4, 4), "y": np.arange(40) % 2})
    patch.setattr(Given, "kept_for_the_test", source, raising=False)  # what a process has lasts as long as its source
    assert source is not None
    return {"content_hash": source.content_hash, "row_count": source.row_count, "classes": source.classes}


def cifar10(home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The files are those of the data set by name alone: what reads them is replaced."""
    for file in jointgen_data.cifar10.FILES:
        (home / "sets" / file).parent.mkdir(parents=True, exist_ok=True)
        (home / "sets" / file).touch()
    found = SimpleNamespace(data=numbers(20, 32, 32, 3), targets=[0, 3] * 10)
    patch.setattr(jointgen_data.cifar10, "read_checked", lambda dataset, folder, train, sums: found)
    return {"root": "sets", "labels": True}


def image_folder(home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    write_photos(home / "photos", NAMES)
    return {"root": "photos", "size": 8, "labels": True}


def huggingface(home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    rows = {"image": [Image.fromarray(pixels) for pixels in numbers(8, 8, 8, 3)], "label": [0, 1] * 4}
    part = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(home / "hub")
    return {"path": "hub", "size": 8, "labels": True, "classes": 2}


def of_mnists_form(title: str) -> Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]:
    def made(home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
        raw = home / "sets" / title / "raw"
        raw.mkdir(parents=True)
        for split in ("train", "t10k"):
            axes = np.array([0x803, 8, 28, 28], ">u4").tobytes()
            (raw / f"{split}-images-idx3-ubyte").write_bytes(axes + numbers(8, 28, 28).tobytes())
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(np.array([0x801, 8], ">u4").tobytes() + bytes(range(8)))
        return {"root": "sets", "observe": "dequantise", "labels": True}

    return made


def svhn(home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    (home / "sets").mkdir()
    for name in ("train_32x32.mat", "test_32x32.mat"):
        savemat(home / "sets" / name, {"X": numbers(32, 32, 3, 8), "y": np.arange(1, 9)[:, None]})
    return {"root": "sets", "labels": True}


def celeba(home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    images = home / "sets/celeba/img_align_celeba"
    images.mkdir(parents=True)
    names = [f"{number:06}.jpg" for number in range(1, 13)]
    for name, pixels in zip(names, numbers(12, 8, 8, 3), strict=True):
        Image.fromarray(pixels).save(images / name)
    splits, faces = ([f"{name} {2 * (i % 2)}" for i, name in enumerate(names)], [f"{name} 1" for name in names])
    (home / "sets/celeba/list_eval_partition.txt").write_text("\n".join(splits))
    (home / "sets/celeba/list_attr_celeba.txt").write_text("\n".join(["12", "Smiling", *faces]))
    return {"root": "sets", "size": 8, "labels": True}


def table(home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    rows = [f"{a},{b},{NAMES[a % 2]}" for a, b in numbers(40, 2)]
    (home / "t.csv").write_text("\n".join(["a,b,y", *rows]))
    return {"path": "t.csv"}


def prepared(home: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    write_photos(home / "photos", NAMES)
    prepare_images(home / "photos", home / "small", 8, 3, workers=1)
    shutil.rmtree(home / "photos")
    return {"path": "small", "labels": True}


def without_files(**keys: Any) -> Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]:
    return lambda home, patch: keys


CASES: dict[str, Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]] = {
    "arrays": arrays,
    "celeba": celeba,
    "cifar10": cifar10,
    "digits": without_files(labels=True),
    "fashion_mnist": of_mnists_form("FashionMNIST"),
    "in_python": given,
    "grid": without_files(rows=64, labels=True),
    "huggingface": huggingface,
    "image_folder": image_folder,
    "kmnist": of_mnists_form("KMNIST"),
    "linear_gaussian": without_files(weights=[[1.0, 0.0], [0.5, 1.0]]),
    "mnist": of_mnists_form("MNIST"),
    "moons": without_files(rows=64),
    "prepared": prepared,
    "ring": without_files(rows=64, labels=True),
    "svhn": svhn,
    "table": table,
}
CLASSES = {
    "image_folder": NAMES,
    "table": NAMES,
    "prepared": NAMES,
    "huggingface": NAMES,
    "cifar10": jointgen_data.cifar10.CLASSES,
}
"""The names of classes that sources know."""


def test_every_registered_source_has_a_case(registry: Registry) -> None:
    assert set(registry.names("data")) == set(CASES), "write a case for each data source, see above"


@pytest.mark.parametrize("name", CASES)
def test_a_run_opens_without_its_data_and_finds_it_in_another_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    away.mkdir()
    monkeypatch.chdir(home)
    begin({"type": name, **CASES[name](home, monkeypatch)}, home / "r")
    before = jointgen.load("r")
    rows = everything(open_split(before.compiled.binding, "test").sources["data"])
    samples, codes = before.sample(2), before.encode(before.sample(2))
    shutil.move(home / "r", away / "r")
    shutil.move(home, tmp_path / "moved")
    monkeypatch.chdir(away)

    def asked(self: object) -> None:
        raise AssertionError("a run that knows the Spaces of its data asks for them")

    source = registry.get("data", name).load()
    with monkeypatch.context() as patch:
        patch.setattr(source, "spaces", asked)
        patch.setattr(source, "open", asked)
        model = jointgen.load(away / "r")
        assert torch.equal(model.sample(2), samples)
        assert torch.equal(model.encode(samples), codes)
    recorded = RunData.read(RunFolder(away / "r")).sources["data"].classes
    assert recorded == ({"y": [*CLASSES[name]]} if name in CLASSES else {})

    # the rows, where they are now
    locations = [key for key, role in key_roles(source).items() if role == "location"]
    written = {key: value for key in locations if (value := getattr(model.view.sources["data"], key)) is not None}
    if not written:
        with pytest.raises(ConfigError, match=r"^data: the recipe's data reads no files$"):
            open_model("r", data_paths={"": str(tmp_path / "moved")})
        return
    with pytest.raises(ConfigError, match="data= says where it is now"):
        open_split(model.compiled.binding, "test")
    (place,) = written.values()
    found, _ = open_model("r", data_paths={"": str(tmp_path / "moved" / place)})
    split = open_split(found.compiled.binding, "test")
    assert all(torch.equal(values, rows[key]) for key, values in everything(split.sources["data"]).items())


# --- the data of a run by its identity --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with x.npy, 60 rows (6 of them held out), and a run r on it that has begun."""
    folder = tmp_path_factory.mktemp("begun")
    np.save(folder / "x.npy", numbers(60, 4, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        begin({"type": "arrays", "path": "x.npy"}, Path("r"), train={**RECIPE["train"], "steps": 3})
    return folder


@pytest.fixture
def elsewhere(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run alone, as r in the current folder; what its record names is gone."""
    shutil.copytree(begun / "r", tmp_path / "r")
    edit_data(tmp_path / "r/data.json", lambda held: held.update(started_in="/gone"))
    edit_data(
        tmp_path / "r/data.json",
        lambda held: held["sources"]["data"]["places"]["path"].update(absolute="/gone/x.npy"),
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(said: Said) -> str:
    """The line that a command ends with, after one that says that the run is not finished."""
    assert said.status == 2, said
    return said.problems[-1].removeprefix("jointgen: ")


def test_commands_take_the_data_from_where_it_is_now(begun: Path, elsewhere: Path, say: Any) -> None:
    assert refusal(say("eval", "r")) == f"data.path: no file 'x.npy' in '{elsewhere}'; --data says where it is now"
    file, folder = begun / "x.npy", begun
    for place, words in ((file, ["eval"]), (folder, ["encode", "-o", "c.npz"]), (file, ["reconstruct", "-o", "p.png"])):
        assert say(words[0], "r", *words[1:], "--data", place).status == 0
    assert len(np.load("c.npz")["z"]) == RunData.read(RunFolder("r")).sources["data"].splits["test"].rows


def test_other_data_in_that_place_is_refused_by_what_differs(begun: Path, elsewhere: Path, say: Any) -> None:
    x = np.load(begun / "x.npy")
    rows = RunData.read(RunFolder("r")).sources["data"].splits["test"].rows
    np.save("x.npy", np.concatenate([x, x]))
    more = len(Arrays("x.npy").open("test"))
    refused = "r/data.json: is not of this data (data: {}); if this is the data that the run was trained on, remove "
    said = f"its test split has {rows} rows in the file and {more} in the data"
    assert refusal(say("eval", "r", "--data", "x.npy")).startswith(refused.format(said))
    np.save("x.npy", 255 - x)
    assert refusal(say("eval", "r")).startswith(
        f"r/data.json: is not of this data (data: its {rows} test rows are others"
    )
    np.save("x.npy", x[:, :3])
    assert "x has shape (1, 4, 4) in the file and (1, 3, 4) in the data" in refusal(say("eval", "r"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("nowhere", "--data: no file or folder 'nowhere' in "),
        ("dta=.", "--data: the recipe has no data source 'dta'; did you mean 'data'? (known: data)"),
        ("data.pth=.", "--data: data has no key 'pth' that leads to files; did you mean 'path'? "),
        ("", "--data: expected a path, got ''"),
    ],
)
def test_a_wrong_place_is_one_line(option: str, message: str, elsewhere: Path, say: Any) -> None:
    assert refusal(say("eval", "r", "--data", option)).startswith(message)


def go_on(data_paths: DataPaths | None = None, allow_changes: bool = False, **changes: Any) -> None:
    """Set up the run in r to go on, up to its next step."""
    registry = load_plugins().registry
    recipe = read_recipe(Path("r/recipe.toml"), changes, registry=registry)
    how: dict[str, Any] = {"allow_changes": allow_changes}
    with printed_for_caller(quiet=True):
        checked = check_run(recipe, registry, out=Path("r"), resume=True, data_paths=data_paths, **how)
        set_up_training(checked, Path("r"), resuming=True, **how)


def test_a_run_goes_on_with_its_data_in_another_place(begun: Path, elsewhere: Path) -> None:
    """The recipe says the same as before, and the record where the data is now."""
    recipe = Path("r/recipe.toml").read_text()
    with pytest.raises(ConfigError, match=r"no file 'x\.npy' in .*; data= says where it is now$"):
        go_on()
    go_on({"": str(begun)})
    assert Path("r/recipe.toml").read_text() == recipe
    record = RunData.read(RunFolder("r"))
    assert record.sources["data"].places["path"] == Place("x.npy", str(begun / "x.npy"))
    assert record.started_in == "/gone"
    assert len(open_split(jointgen.load("r").compiled.binding, "train")) == record.sources["data"].splits["train"].rows


def test_a_run_goes_on_with_other_data_only_where_that_is_allowed(begun: Path, elsewhere: Path) -> None:
    np.save("x.npy", 255 - np.load(begun / "x.npy"))
    with pytest.raises(
        FileError, match=r"began with other data .data: its \d+ train rows are others.*allow_changes=True"
    ):
        go_on()
    go_on(allow_changes=True)
    assert open_split(jointgen.load("r").compiled.binding, "test")


def test_a_recipe_that_names_other_data_is_not_led_back_to_the_earlier_one(begun: Path, elsewhere: Path) -> None:
    """The place of a path counts for that path alone."""
    np.save("other.npy", np.load(begun / "x.npy"))
    go_on(allow_changes=True, **{"data.path": "other.npy"})
    place = RunData.read(RunFolder("r")).sources["data"].places["path"]
    assert place == Place("other.npy", str(elsewhere / "other.npy"))


def test_a_record_of_an_earlier_version_has_no_sources(begun: Path, elsewhere: Path, say: Any) -> None:
    edit_data(Path("r/data.json"), lambda held: held.pop("sources"))
    assert jointgen.load("r").spaces["x"].shape == (1, 4, 4)
    assert say("eval", "r", "--data", begun).status == 0


def test_several_sources_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("a", 40), ("b", 30)):
        np.save(f"{name}.npy", numbers(rows, 4, 4))
    encoder, decoder = RECIPE["encoder"], RECIPE["decoder"]
    objective = {
        "type": "expression",
        "maximize": "E[q(x,z)](log p(x|z) + log p(z) - log q(z|x)) + E[q2(w,u)](log p2(w|u) + log p2(u) - log q2(u|w))",
        "joints": {"q": "q(x) q(z|x)", "p": "p(z) p(x|z)", "q2": "q2(w) q2(u|w)", "p2": "p2(u) p2(w|u)"},
        "parts": {"q2(w)": "second", "q2(u|w)": "e2", "p2(w|u)": "d2", "p2(u)": "prior2"},
    }
    begin(
        {"type": "arrays", "path": "a.npy"},
        tmp_path / "r",
        {"second": {"type": "arrays", "path": "b.npy"}},
        objective=objective,
        encoders={"e2": encoder},
        decoders={"d2": decoder},
        priors={"prior2": RECIPE["prior"]},
    )
    (tmp_path / "new").mkdir()
    shutil.move("a.npy", "new/one.npy")
    shutil.move("b.npy", "new/b.npy")
    assert {*jointgen.load("r").spaces} == {"x", "z", "w", "u"}
    named = ["--data data=PATH", "--data second=PATH"]
    assert refusal(say("eval", "r", "--data", "new")) == (
        f"--data: the recipe has several data sources (data, second); say which lies where: {' '.join(named)}"
    )
    data_paths = read_data_paths(["data=new/one.npy", "second=new"])
    assert len(open_split(open_model("r", data_paths=data_paths)[0].compiled.binding, "train")) < 30
    swapped = {"data": "new/b.npy", "second": "new/one.npy"}
    with pytest.raises(FileError, match=r"is not of this data \(data: its train split has \d+ rows in the file"):
        open_split(open_model("r", data_paths=swapped)[0].compiled.binding, "train")


def test_a_source_of_several_files_is_given_their_folder(tmp_path: Path) -> None:
    recipe = read_recipe(
        {**RECIPE, "data": {"type": "arrays", "path": "old/x.npy", "test_path": "old/t.npy"}},
        registry=load_plugins().registry,
    )
    moved = relocate(recipe, {"": str(tmp_path)}).data
    assert (moved.path, moved.test_path) == (str(tmp_path / "x.npy"), str(tmp_path / "t.npy"))
    (tmp_path / "s.npy").touch()
    assert relocate(recipe, {"data.test_path": str(tmp_path / "s.npy")}).data.test_path == str(tmp_path / "s.npy")
    with pytest.raises(ConfigError, match=r"^data: data reads several files \(path, test_path\); give the folder "):
        relocate(recipe, {"data": str(tmp_path / "s.npy")})


def test_a_class_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Any) -> None:
    write_photos(tmp_path / "photos", NAMES)
    data = {"type": "image_folder", "root": str(tmp_path / "photos"), "size": 8, "labels": True}
    objective = {
        "type": "expression",
        "maximize": "E[q(x,y,z)](log p(x|z,y) + log p(z) - log q(z|x,y))",
        "joints": {"q": "q(x,y) q(z|x,y)", "p": "p(y) p(z) p(x|z,y)"},
        "parts": {"q(x,y)": "data", "p(y)": "data"},
    }
    begin(data, tmp_path / "r", objective=objective)
    shutil.rmtree(tmp_path / "photos")
    model = jointgen.load(tmp_path / "r")
    assert model.class_names == {"y": NAMES}
    assert given_values(["y=dog"], model, 2)["y"].tolist() == [[0, 1], [0, 1]]
    with pytest.raises(ConfigError, match=r"'dgo' is not a class; allowed: 0 to 1; did you mean 'dog'\? "):
        given_values(["y=dgo"], model, 1)
    monkeypatch.chdir(tmp_path)
    assert say("sample", "r", "-o", "s.png", "--given", "y=dog").status == 0
    said = say("sample", "r", "-o", "s.png")
    assert (said.status, said.problems[-1]) == (
        2,
        "jointgen: --given: or give what p draws from the data, as in y=VALUE",
    )
    assert said.problems[-2].endswith("no such folder; --data says where it is now")
