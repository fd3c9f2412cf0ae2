"""The one check short of reading data: explain, --dry-run, run and jointgen.run refuse the same, all of it at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jointgen_data.digits import Digits
from support.paths import QUICKSTART
from support.runs import SMALL

import jointgen
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe
from jointgen.config.toml import to_toml
from jointgen.errors import ConfigError, NonFiniteError
from jointgen.registry.components import Registry
from jointgen.training.check import check_run

GAUSSIAN = {"network": {"type": "mlp", "hidden": [8]}, "family": {"type": "gaussian"}}
TWO_LAYERS: dict[str, Any] = {
    "name": "two_layers",
    "data": {"type": "digits"},
    "prior": {"type": "normal", "size": 4},
    "latents": {"z1": 8},
    "encoder": GAUSSIAN,
    "encoders": {"e2": GAUSSIAN},
    "decoder": GAUSSIAN,
    "decoders": {"d2": GAUSSIAN},
    "objective": {
        "type": "expression",
        "joints": {"q": "q(x) q(z1|x) q(z|z1)", "p": "p(z) p(z1|z) p(x|z1)"},
        "parts": {"q(z1|x)": "encoder", "q(z|z1)": "e2", "p(z1|z)": "d2", "p(x|z1)": "decoder"},
        "maximize": "E[q(x,z1,z)](log p(x|z1) + log p(z1|z) + log p(z) - log q(z1|x) - log q(z|z1))",
    },
    "train": {"steps": 3, "batch": 16, "trackers": []},
    "eval": {"rows": 32},
}


def checked(registry: Registry, source: Any, changes: Any = (), **options: Any) -> Any:
    return check_run(read_recipe(source, changes, registry=registry), registry, **options)


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Digits, split: str) -> Any:
        raise AssertionError("data was read")

    monkeypatch.setattr(Digits, "open", refuse)


WRONG = {
    "train.device": "mps",
    "train.init_from": "no_such_run",
    "eval.metrics": [{"type": "elbo"}, {"type": "elbo"}],
}
SAID = [
    "eval.metrics: two metrics give a figure named 'elbo'; leave one out",
    "train.device: 'mps', but torch sees 0 mps GPUs; use 'cpu'",
    "train.init_from: no_such_run: not a run folder (it has no recipe.toml)",
]


@pytest.mark.usefixtures("no_data")
def test_every_door_refuses_the_same_at_once(say: Any, here: Path) -> None:
    """What the recipe, the machine and another run's folder have wrong: no door lets it through, nor reads a row."""
    changes = [word for key, value in WRONG.items() for word in ("--set", f"{key}={to_toml({'v': value})[4:]}")]
    for door in (["explain"], ["run", "--dry-run"], ["run"]):
        said = say(door[0], QUICKSTART, *door[1:], *changes)
        assert (said.status, said.out) == (2, "")
        lines = [line.removeprefix("jointgen: ") for line in said.problems]
        announced = ["checking quickstart, to train it into runs/quickstart (2000 steps, device mps)"] * (
            door == ["run"]
        )
        assert sorted(lines) == [*announced, *SAID]
    with pytest.raises(ConfigError) as refused:
        jointgen.run(QUICKSTART, WRONG, quiet=True)
    assert sorted(refused.value.lines) == SAID
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "options", "problem"),
    [
        ({"train.batch": 30}, {"processes": 4}, "train.batch: 30 does not divide over 4 process(es)"),
        ({"train.device": "cuda:99"}, {}, "train.device: 'cuda:99', but torch sees"),
        ({"train.trackers": ["mlflow"]}, {}, "train.trackers: 'mlflow' needs its package"),
        ({"train.keep_best": "elbbo"}, {}, "train.keep_best: evaluations do not find 'elbbo'; did you mean 'elbo'?"),
        ({"train.eval_every": None, "train.early_stopping": {}}, {}, "train.early_stopping: looks at evaluations"),
        (
            {"train.batch": 1600},
            {},
            "train.batch: 1600 is more than the 1500 rows of the training split of data; set it to 1500 or fewer",
        ),
        (
            {"data": {"type": "mnist", "root": "/nowhere", "observe": "dequantise"}},
            {},
            "data.root: no MNIST under '/nowhere' (looked for /nowhere/MNIST/raw/train-images-idx3-ubyte)",
        ),
        ({}, {"allow_changes": True}, "allow_changes: says how to resume; use it with resume"),
        ({}, {"out": Path("/dev/null/x")}, "out: /dev/null/x cannot be made a run folder: /dev/null is not a folder"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("no_data")
def test_what_is_checked(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, changes: Any, options: Any, problem: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no tracker is installed
    with pytest.raises(ConfigError) as refused:
        checked(registry, QUICKSTART, {"train.trackers": [], **changes}, **options)
    (line,) = refused.value.lines
    assert line.startswith(problem)


def test_what_only_the_data_can_tell_is_said(say: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe is explained without its data, and checked with it; some sources are counted when they are read."""
    values = "jointgen: only a run, which reads the data, will check this: the values of data"
    for words in (["explain", QUICKSTART], ["run", QUICKSTART, "--dry-run"]):
        said = say(*words)
        assert (said.status, said.problems) == (0, [values])
    folder = ["--set", "data={type = 'image_folder', root = 'photos', size = 8, channels = 1}"]
    counted = "jointgen: only a run, which reads the data, will check this: data.root: photos: no such folder"
    assert say("explain", QUICKSTART, *folder).problems == [values, counted]
    uncounted = values.replace("the values of data", "whether the training split of data has the 128 rows of a batch")
    with monkeypatch.context() as patched:
        patched.setattr("jointgen.training.check.CountedSource", type("Nobody", (), {}))
        assert say("explain", QUICKSTART, *folder).problems == [values, uncounted]
    mnist = ["--set", "data={type = 'mnist', root = 'photos', observe = 'dequantise'}"]
    said = say("explain", QUICKSTART, *mnist)
    assert said.status == 0
    assert said.problems[1].startswith(
        "jointgen: only a run, which reads the data, will check this: data.root: no MNIST under 'photos'"
    )
    assert say("run", QUICKSTART, "--dry-run", *mnist).refusal.startswith("data.root: no MNIST under 'photos'")


def test_a_dry_run_refuses_a_folder_that_a_run_would_refuse(say: Any, here: Path) -> None:
    (here / "runs/quickstart").mkdir(parents=True)
    (here / "runs/quickstart/recipe.toml").touch()
    refusals = [say("run", QUICKSTART, how).refusal for how in ("--quiet", "--dry-run")]
    assert refusals[0] == refusals[1] and "already holds a run" in refusals[0]
    assert say("run", QUICKSTART, "--dry-run", "--resume").status == 0


def test_two_layers_have_the_default_metrics(tmp_path: Path) -> None:
    """The code between the layers is reconstructed by both sides: each loss has a name of its own."""
    run = jointgen.run(TWO_LAYERS, out=tmp_path / "run", quiet=True)
    losses = {name: figure["estimator"] for name, figure in run.metrics.items() if name.startswith("reconstruction")}
    assert losses == {
        "reconstruction_z1_p": "-E[q(x,z,z1)](log p(z1|z))",
        "reconstruction_x": "-E[q(x,z,z1)](log p(x|z1))",
        "reconstruction_z1_q": "-E[p(x,z,z1)](log q(z1|x))",
        "reconstruction_z": "-E[p(x,z,z1)](log q(z|z1))",
    }
    assert all(run.metrics[name]["value"] is not None for name in losses)


def test_data_and_a_prior_of_another_shape_are_not_one_variable(registry: Registry) -> None:
    labelled = {
        **TWO_LAYERS,
        "data": {"type": "digits", "labels": True},
        "latents": {},
        "encoders": {},
        "decoders": {},
        "prior": None,
        "priors": {"prior": {"type": "normal", "size": 8}, "code": {"type": "normal", "size": 4}},
        "objective": {
            "type": "expression",
            "joints": {"q": "q(x,y) q(z|x,y)", "p": "p(y) p(z) p(x|y,z)"},
            "parts": {"p(z)": "code"},
            "maximize": "E[q(x,y,z)](log p(x|y,z) + log p(z) - log q(z|x,y))",
        },
    }
    del labelled["prior"]
    with pytest.raises(ConfigError) as refused:
        checked(registry, labelled)
    assert refused.value.lines == [
        "objective: 'y' is two different variables: q(x,y) draws 10 label from 'data' and p(y) draws 8 real from "
        '\'prior\'; if both come from the data: parts."p(y)" = "data"'
    ]
    del labelled["priors"]["prior"]
    labelled["objective"]["parts"]["p(y)"] = "data"
    checked(registry, labelled)


@pytest.mark.usefixtures("no_data")
def test_a_small_recipe_passes_without_its_data(registry: Registry, tmp_path: Path) -> None:
    found = checked(registry, QUICKSTART, SMALL, out=tmp_path / "run")
    assert "elbo" in [figure.name for figure in found.figures] and not found.goes_on and found.warm is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_data")
def test_training_takes_eight_times_the_memory_of_the_parts(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine holds four times the parts of the recipe: enough for all but training."""
    parts = checked(registry, QUICKSTART).compiled.parts.modules
    size = sum(held.numel() * held.element_size() for held in (*parts.parameters(), *parts.buffers()))
    monkeypatch.setattr("jointgen.compiler.build.machine_memory", lambda: 4 * size)
    monkeypatch.setattr("jointgen.compiler.build.GIB", size)
    assert checked(registry, QUICKSTART, runs_here=False).compiled
    compile_recipe(read_recipe(QUICKSTART, registry=registry), registry)
    with pytest.raises(ConfigError) as refused:
        checked(registry, QUICKSTART)
    assert re.fullmatch(
        r"decoder.network: the model takes at least 0\.6 GiB with it; this machine has 4\.0 GiB, of which the "
        r"parameters may take an eighth, 0\.5 GiB, because training takes the rest",
        refused.value.lines[0],
    )


@pytest.mark.parametrize("name", ["r = 1", "AS-VAE r = 0.5", "größe", "a.b", ".hidden", "n" * 200])
def test_names_that_a_folder_may_have(name: str, registry: Registry) -> None:
    assert read_recipe(QUICKSTART, {"name": name}, registry=registry).name == name


@pytest.mark.parametrize(
    "name", ["../../x", "a/b", "a\\b", ".", "..", " ", "~", "~root", "n" * 201, "ü" * 101, "a\nb", "\x1b[31m", "\u202e"]
)
def test_names_that_lead_elsewhere_are_refused(name: str, registry: Registry) -> None:
    with pytest.raises(ConfigError) as refused:
        read_recipe(QUICKSTART, {"name": name}, registry=registry)
    (line,) = refused.value.lines
    assert line.startswith("name: must be a plain name of a folder, at most 200 bytes")


def test_a_recipe_without_a_name_has_that_of_its_file(registry: Registry, tmp_path: Path) -> None:
    text = QUICKSTART.read_text()
    named = [line for line in text.splitlines() if not line.startswith("name")]
    for stem, name in {"mine": "mine", "~": "run", "a\nb": "run"}.items():
        path = tmp_path / f"{stem}.toml"
        path.write_text("\n".join(named))
        assert read_recipe(path, registry=registry).name == name


def test_arguments_of_run_that_it_cannot_take_are_told_at_once(here: Path) -> None:
    wrong: dict[str, Any] = {"out": "", "stop": 5, "processes": "2", "objective": 5}
    with pytest.raises(ConfigError) as refused:
        jointgen.run(QUICKSTART, quiet=True, **wrong)
    assert refused.value.lines == [
        "out: must be the path of a folder, got ''",
        "stop: must be a function without arguments that returns a number, got 5",
        "processes: must be a whole number >= 1, got '2'",
        "objective: must be an Objective or a list of Stages, got 5",
    ]
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("device", ["nope", "cuda:99", 5, None])
def test_load_refuses_a_device_as_a_recipe_does(device: Any) -> None:
    with pytest.raises(ConfigError, match=f"^device: {device!r}") as refused:
        jointgen.load("no run", device=device)
    assert len(refused.value.lines) == 1


@pytest.mark.parametrize(
    ("rows", "keys"),
    [(1, {}), (40, {"test_fraction": 0.999}), (40, {"test_fraction": 0.99, "split": "last"})],
    ids=str,
)
def test_arrays_that_leave_nothing_to_train_on_are_not_explained(
    rows: int, keys: dict[str, Any], registry: Registry, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((rows, 64), np.float32))
    changes = {"data": {"type": "arrays", "path": str(tmp_path / "x.npy"), **keys}, "train.batch": 1}
    with pytest.raises(ConfigError, match=r"^data.test_fraction: 0\.\d+ of \d+ rows leaves none to train on"):
        checked(registry, QUICKSTART, changes, runs_here=False)


def test_a_run_that_breaks_says_which_values_are_large(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    values[:, 3] = 1e9
    np.save(tmp_path / "x.npy", values)
    changes = {
        **SMALL,
        "data": {"type": "arrays", "path": str(tmp_path / "x.npy")},
        "decoder.family": {"type": "gaussian"},
    }
    changes |= {"train.steps": 40, "train.trackers": [], "optimizer.model": {"type": "sgd", "lr": 1000.0}}
    with pytest.raises(NonFiniteError, match=r"not finite any more; x has values up to 1e\+09 in the data; there is"):
        jointgen.run(QUICKSTART, changes, out=tmp_path / "run", quiet=True)
