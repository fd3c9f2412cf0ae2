"""Commands on a finished run: eval, sample, reconstruct and encode, with the user's own images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jointgen_data.digits import Digits
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

import jointgen
from jointgen.errors import ConfigError
from jointgen.registry.components import Registry


def picture(path: str) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


# --- runs: what is wrong with them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["sample", "reconstruct", "encode", "eval"])
def test_a_folder_that_is_no_run(command: str, say: Any, here: Path) -> None:
    Path("runs/mnist").mkdir(parents=True)
    Path("runs/mnist/recipe.toml").write_text("")
    output = [] if command == "eval" else ["-o", "a.npz" if command == "encode" else "a.png"]
    problem = say(command, "mnits", *output).refusal
    assert problem == "mnits: not a run folder (it has no recipe.toml); did you mean 'runs/mnist'?"
    assert not list(here.glob("a.*"))


def test_a_damaged_checkpoint_is_a_failure_not_a_mistake(trained: Path, say: Any, here: Path) -> None:
    shutil.copytree(trained, "copy")
    (damaged,) = Path("copy/checkpoints").glob("step-*/encoder.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    said = say("eval", "copy")
    assert said.status == 1
    whole = (
        f"jointgen: {Path('copy/checkpoints')}: no whole checkpoint: step-00000020 is damaged (encoder.safetensors: "
    )
    size = damaged.stat().st_size
    assert said.problems == [f"{whole}{size} bytes, {size + 1} expected)"]


def test_a_run_that_is_not_finished_is_remarked_on(trained: Path, say: Any, here: Path) -> None:
    shutil.copytree(trained, "copy")
    Path("copy/summary.json").write_text(json.dumps({"status": "stopped", "step": 11}))
    said = say("eval", "copy", "--metrics", "rmse")
    assert said.status == 0
    assert said.problems == [
        "jointgen: copy: this run is not finished (status stopped, step 11 of 20); its newest checkpoint is used"
    ]


def test_a_device_that_is_not_there(trained: Path, say: Any) -> None:
    problem = say("eval", trained, "--device", "gpu").refusal
    assert problem.startswith("--device: 'gpu' is not a device; allowed: 'auto'")


# --- eval ------------------------------------------------------------------------------------------------------------


def test_eval_finds_what_the_run_reported(trained: Path, say: Any, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    before = snapshot(run)
    said = say("eval", run, "--json")
    assert (said.status, said.problems) == (0, [])
    reported = json.loads((trained / "summary.json").read_text())["metrics"]
    assert json.loads(said.out) == reported
    assert json.loads((run / "evaluation.json").read_text()) == {"step-00000020": {"metrics": reported}}
    changed = dict(snapshot(run).items() - before.items())
    assert set(changed) == {str(run / "evaluation.json")}


def test_a_closed_pipe_does_not_take_figures_along(trained: Path, say: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """As of `jointgen eval RUN | head -1`: an hour of AIS is kept before it is shown."""

    def closed(figures: Any) -> str:
        raise ValueError("nobody reads it")

    run = shutil.copytree(trained, tmp_path / "run")
    monkeypatch.setattr("jointgen.cli.evaluate.table_of", closed)
    with pytest.raises(ValueError, match="nobody reads it"):
        say("eval", run, "--metrics", "rmse")
    assert set(json.loads((run / "evaluation.json").read_text())["step-00000020"]["metrics"]) == {"rmse"}


def test_a_look_at_other_rows_is_not_kept_and_says_so(trained: Path, say: Any, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    said = say("eval", run, "--metrics", "rmse", "--rows", 7)
    assert said.problems == [
        "jointgen: these figures are printed and not kept: --rows, --split and --images look at other rows than the run"
    ]
    assert not (run / "evaluation.json").exists()


def test_what_eval_finds_is_added_to_what_it_found(trained: Path, say: Any, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    say("eval", run, "--metrics", "elbo")
    say("eval", run, "--metrics", "rmse")
    assert set(json.loads((run / "evaluation.json").read_text())["step-00000020"]["metrics"]) == {"elbo", "rmse"}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([""], "--metrics: names no metric"),
        (["ebo"], "--metrics: unknown metric 'ebo'; did you mean 'elbo'?"),
        (["rmse{k=3}"], "--metrics: k: "),
        (["rmse{k}"], "--metrics: {k} is not a TOML inline table: "),
        (["rmse elbo"], "--metrics: 'rmse elbo' is not NAME or NAME{key = value}, with commas between"),
        (["rmse,rmse"], "eval.metrics: two metrics give a figure named 'rmse'; leave one out"),
    ],
)
def test_metrics_that_are_none(trained: Path, say: Any, words: list[str], problem: str) -> None:
    assert say("eval", trained, "--metrics", *words).refusal.startswith(problem)


def test_tables_within_a_metrics_settings(trained: Path, say: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("JOINTGEN_CACHE", str(tmp_path))
    words = 'fid{extractor={type="values"}, samples=8} , rmse'
    found = json.loads(say("eval", trained, "--json", "--rows", 7, "--metrics", words).out)
    assert {name: figure["n"] for name, figure in found.items()} == {"fid/values": 8, "rmse": 7}


def test_eval_of_ones_own_images(trained: Path, say: Any, here: Path) -> None:
    np.save("mine.npy", np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8))
    found = json.loads(say("eval", trained, "--metrics", "rmse", "--images", "mine.npy", "--json").out)
    assert (found["rmse"]["n"], found["rmse"]["split"]) == (5, "images")
    assert not (trained / "evaluation.json").exists()


def test_eval_of_some_metrics_rows_and_a_split(trained: Path, say: Any) -> None:
    found = json.loads(say("eval", trained, "--json", "--metrics", "rmse, elbo", "--rows", 7, "--split", "train").out)
    assert list(found) == ["rmse", "elbo"]
    assert [(f["n"], f["split"]) for f in found.values()] == [(7, "train")] * 2
    assert set(found["elbo"]) == {
        "value",
        "display",
        "unit",
        "estimator",
        "split",
        "n",
        "standard_error",
        "bound",
        "note",
        "protocol",
        "better",
    }
    (line,) = say("eval", trained, "--metrics", "rmse", "--rows", 7, "--split", "train").out.splitlines()
    assert line.startswith(f"rmse: {found['rmse']['value']:.4f} 0-255 +- ")
    assert line.endswith("train, n = 7)")


def test_eval_of_an_unknown_metric(trained: Path, say: Any) -> None:
    assert say("eval", trained, "--metrics", "elob").refusal.startswith(
        "--metrics: unknown metric 'elob'; did you mean 'elbo'?"
    )


# --- sample ----------------------------------------------------------------------------------------------------------


def test_samples_as_values_are_the_models(trained: Path, say: Any, here: Path) -> None:
    said = say("sample", trained, "-n", 5, "-o", "a.npz", "--seed", 3, "--reading", "sample")
    assert said.out == "a.npz: 5 samples of x, 1x8x8 real in [0, 1], 17 levels\n"
    values = np.load("a.npz")["x"]
    assert values.dtype == np.float32
    expected = jointgen.load(trained).sample(5, seed=3, reading="sample")
    assert torch.equal(torch.from_numpy(values), expected)


def test_more_than_a_batch_of_samples_differ(trained: Path, say: Any, here: Path) -> None:
    assert say("sample", trained, "-n", 600, "-o", "a.npz").status == 0
    values = np.load("a.npz")["x"]
    assert values.shape == (600, 1, 8, 8)
    assert not (values[:256] == values[256:512]).all()


def test_samples_as_a_picture(trained: Path, say: Any, here: Path) -> None:
    """20 tiles of 48 pixels, 8 to a row, 2 between them: 8*48 + 7*2 wide, 3 rows high."""
    for name in ("a.png", "b.png"):
        assert say("sample", trained, "-n", 20, "-o", name).status == 0
    assert picture("a.png").size == (398, 148)
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    say("sample", trained, "-n", 20, "-o", "b.png", "--seed", 1)
    assert Path("a.png").read_bytes() != Path("b.png").read_bytes()


def test_samples_of_a_label(labelled: Path, say: Any, here: Path) -> None:
    for name, label in (("a", 3), ("b", 3), ("c", 4)):
        assert say("sample", labelled, "-n", 4, "-o", f"{name}.npz", "--given", f"y={label}").status == 0
    a, b, c = (np.load(f"{name}.npz")["x"] for name in "abc")
    assert (a == b).all()
    assert not (a == c).all()


def test_labels_that_are_not_given_are_those_of_held_out_rows(labelled: Path, say: Any, here: Path) -> None:
    """297 rows to hold out: 300 samples begin with their labels again."""
    assert say("sample", labelled, "-n", 300, "-o", "a.npz").status == 0
    model = jointgen.load(labelled)
    y = Digits(labels=True).open("test").take(torch.arange(256))["y"]
    expected = model.sample(256, {"y": torch.nn.functional.one_hot(y, 10)})
    assert torch.equal(torch.from_numpy(np.load("a.npz")["x"][:256]), expected)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["y=10"], "--given: y=10: '10' is not a class; allowed: 0 to 9"),
        (["y"], "--given: y: '' is not a class"),
        (["w=1"], "--given: w=1: expected VARIABLE=VALUE; unknown variable 'w'; known: x, y, z"),
        (["y=3", "z=1,2"], "--given: z=1,2: 2 numbers; z takes 4, or one for all of them"),
        (["y=3", "z=a"], "--given: z=a: 'a' is not a number"),
    ],
    ids=str,
)
def test_what_is_given_is_checked(given: list[str], problem: str, labelled: Path, say: Any, here: Path) -> None:
    options = [word for one in given for word in ("--given", one)]
    assert say("sample", labelled, "-o", "a.png", *options).refusal.startswith(problem)
    assert list(here.iterdir()) == []


def test_the_elbo_needs_what_is_given_too(labelled: Path) -> None:
    model = jointgen.load(labelled)
    with pytest.raises(ConfigError, match=r"q\(x,y\) is a data root: give its values, given=\{'y': \.\.\.\}"):
        model.elbo(torch.zeros(2, *model.spaces["x"].shape))


def test_a_code_can_be_given_too(labelled: Path, say: Any, here: Path) -> None:
    assert say("sample", labelled, "-n", 3, "-o", "a.npz", "--given", "y=3", "--given", "z=0.5").status == 0
    values = np.load("a.npz")["x"]
    assert np.ptp(values, axis=0).max() < 1e-6


def test_a_disk_that_refuses_leaves_nothing(
    trained: Path, say: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jointgen.runtime.atomic_files.os.replace", full)
    for name in ("a.png", "a.npz"):
        problem = say("sample", trained, "-n", 2, "-o", name).refusal
        assert problem == f"-o: {name} could not be written: the disk is full"
    assert list(here.iterdir()) == []


# --- reconstruct -----------------------------------------------------------------------------------------------------


def test_reconstructions_of_held_out_data(trained: Path, say: Any, here: Path) -> None:
    """5 pairs, 4 to a row: 8 tiles of 48, 2 in a pair's gap and 8 between pairs (4*2 + 3*8), 2 rows high."""
    said = say("reconstruct", trained, "-n", 5, "-o", "a.png")
    assert said.out == "a.png: 5 pairs, each truth with its reconstruction at its right\n"
    assert picture("a.png").size == (8 * 48 + 4 * 2 + 3 * 8, 2 * 48 + 2)


def test_reconstructions_of_ones_own_images(trained: Path, say: Any, here: Path) -> None:
    """The truth in the picture is the user's image: level 16 of 17, in the middle of its bin, is 16.5 / 17 * 255."""
    Path("mine").mkdir()
    Image.new("L", (30, 20), 255).save("mine/white.png")
    Path("mine/broken.png").write_bytes(b"\x89PNG")
    said = say("reconstruct", trained, "--images", "mine", "-o", "a.png")
    assert said.status == 0
    (skipped,) = said.problems
    assert skipped.startswith("jointgen: skipped mine/broken.png: cannot be read")
    assert picture("a.png").getpixel((10, 10)) == round(16.5 / 17 * 255)
    assert said.out.startswith("a.png: 1 pairs")


def test_images_that_cannot_be_read_leave_nothing(trained: Path, say: Any, here: Path) -> None:
    Path("broken.png").write_bytes(b"\x89PNG")
    for argv in (["reconstruct", trained, "-o", "a.png"], ["encode", trained, "-o", "a.npz"]):
        assert say(*argv, "--images", "broken.png").refusal.startswith("--images: broken.png: cannot be read")
        assert say(*argv, "--images", "none.png").refusal == "--images: none.png: no such file"
    assert [path.name for path in here.iterdir()] == ["broken.png"]


# --- encode ----------------------------------------------------------------------------------------------------------


def test_codes_and_labels_of_a_split(trained: Path, say: Any, here: Path, registry: Registry) -> None:
    """297 rows in two batches, in the split's order."""
    assert say("encode", trained, "-o", "a.npz").out == "a.npz: y (297,), z (297, 4)\n"
    assert say("encode", trained, "-o", "a.safetensors").status == 0
    codes, tensors = np.load("a.npz"), load_file("a.safetensors")
    digits: Any = registry.get("data", "digits").load()
    labels = digits(labels=True).open("test").take(torch.arange(297))["y"]
    assert codes["y"].tolist() == labels.tolist()
    assert load_digits().target[codes["rows"]].tolist() == labels.tolist()  # the numbers of the rows in the file
    assert len(set(codes["rows"].tolist())) == 297
    for name in ("y", "z", "rows"):
        assert (codes[name] == tensors[name]).all()
    assert not (codes["z"][:41] == codes["z"][256:]).all(), "the second batch is not the first"


def test_codes_of_ones_own_images_come_with_their_files(trained: Path, say: Any, here: Path) -> None:
    Path("mine").mkdir()
    for name, level in (("b.png", 255), ("a.png", 0)):
        Image.new("RGB", (30, 20), (level,) * 3).save(Path("mine") / name)
    assert say("encode", trained, "--images", "mine", "-o", "z.npz").status == 0
    in_any_order = ["encode", "--images", "mine/a.png", "mine/b.png", trained, "-o", "z.safetensors"]
    assert say(*in_any_order).status == 0
    found = np.load("z.npz")
    assert found["files"].tolist() == ["mine/a.png", "mine/b.png"]
    assert found["z"].shape == (2, 4)
    with safe_open("z.safetensors", "np") as file:
        assert json.loads(file.metadata()["files"]) == ["mine/a.png", "mine/b.png"]


def test_codes_of_ones_own_images_where_a_label_is_needed(labelled: Path, say: Any, here: Path) -> None:
    Image.new("L", (8, 8), 100).save("a.png")
    refusal = say("encode", labelled, "--images", "a.png", "-o", "z.npz").refusal
    assert refusal.endswith("q(x,y) is a data root: give its values, --given y=VALUE")
    assert say("encode", labelled, "--images", "a.png", "-o", "z.npz", "--given", "y=3").status == 0
    assert np.load("z.npz")["z"].shape == (1, 4)
    assert say("reconstruct", labelled, "--images", "a.png", "-o", "r.png", "--given", "y=3").status == 0
