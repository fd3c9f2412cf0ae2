"""The command line: exit statuses, messages, what is written and what is not. Mostly in this process, with capsys."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

import jointgen
from jointgen import cli, shipped
from jointgen.cli import main
from jointgen.registry import Registry

SMALL = {
    "encoder.network.hidden": "[8]",
    "decoder.network.hidden": "[8]",
    "discriminator.hidden": "[8]",
    "prior.size": "4",
    "train.steps": "20",
    "train.batch": "16",
    "train.eval_every": "1000",
    "train.sample_every": "1000",
    "eval.rows": "64",
    "eval.samples": "4",
}


def sets(**changes: str) -> list[str]:
    given = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [word for key, value in given.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="session")
def quickstart(repo: Path) -> str:
    return str(repo / "recipes" / "quickstart.toml")


@pytest.fixture(scope="session")
def trained(quickstart: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps on labelled digits. Tests only read it."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["run", quickstart, "--out", str(out), "--quiet", *sets(data__labels="true")]) == 0
    return out


LABELLED = """
format = 1
data = { type = "digits", labels = true }
prior = { type = "normal", size = 4 }
[encoder]
network = { type = "mlp", hidden = [8] }
family = { type = "gaussian" }
[decoder]
network = { type = "mlp", hidden = [8], init = "torch" }
family = { type = "gaussian", scale = "global" }
[objective]
type = "expression"
maximize = "E[q(x,y,z)](log p(x|z,y) + log p(z) - log q(z|x,y))"
joints = { q = "q(x,y) q(z|x,y)", p = "p(y) p(z) p(x|z,y)" }
parts = { "q(x,y)" = "data", "p(y)" = "data" }
[train]
steps = 2
batch = 16
[eval]
rows = 32
"""


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of p(x|z,y), whose encoder and decoder are given a label."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "labelled.toml").write_text(LABELLED)
    assert main(["run", str(folder / "labelled.toml"), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Said(SimpleNamespace):
    status: int
    out: str
    problems: list[str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Any:
    """say("run", ...) -> the status, stdout, and the lines of stderr without their prefix."""

    def run(*argv: object) -> Said:
        capsys.readouterr()
        status = main([str(word) for word in argv])
        shown = capsys.readouterr()
        return Said(status=status, out=shown.out, problems=shown.err.splitlines())

    return run


def refused(said: Said) -> str:
    """The one problem of a command whose input was wrong."""
    assert said.status == 2, said
    assert said.out == ""
    (line,) = said.problems
    return line.removeprefix("jointgen: ")


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


# --- help, words and options -----------------------------------------------------------------------------------------


def test_help_list_and_copy_import_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom jointgen.cli import main\n"
        "for argv in (['--help'], ['run', '--help'], ['--version'], ['list'], ['list', 'data', '--json'], ['copy', 'vae']):\n"
        "    main(argv)\n"
        "print([name for name in ('torch', 'torchvision', 'sklearn', 'accelerate') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_is_the_command_and_its_status_the_exit_status(tmp_path: Path) -> None:
    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jointgen", *argv]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    version = run("--version")
    assert (version.returncode, version.stdout) == (0, f"jointgen {jointgen.__version__}\n")
    wrong = run("lst")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("jointgen: unknown command 'lst'; did you mean 'list'?")


def test_every_command_of_the_contract_has_help(say: Any) -> None:
    for command in ("run", "explain", "list", "copy", "sample", "reconstruct", "encode", "eval"):
        said = say(command, "--help")
        assert said.status == 0
        assert said.out.startswith(f"usage: jointgen {command}")


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["rnu", "x.toml"], "unknown command 'rnu'; did you mean 'run'?"),
        (["run"], "the following arguments are required: RECIPE (see jointgen run --help)"),
        ([], "the following arguments are required: COMMAND (see jointgen --help)"),
        (["run", "x.toml", "--ouput", "y"], "unknown option --ouput; did you mean '--out'?"),
        (["run", "x.toml", "--dry"], "unknown option --dry; did you mean '--dry-run'?"),
        (["run", "x.toml", "y.toml"], "'y.toml' is one argument too many (see jointgen run --help)"),
        (["run", "x.toml", "--processes", "0"], "argument --processes: expected a whole number above 0, got '0'"),
        (["sample", "x", "-o", "a.png", "-n", "1.5"], "argument -n: expected a whole number above 0, got '1.5'"),
        (["sample", "x", "-o", "a.png", "--reading", "men"], "argument --reading: invalid choice: 'men'"),
        (["sample", "x"], "the following arguments are required: -o/--output"),
        (["sample", "x", "-o", "a.jpg"], "-o: a.jpg: expected a file name that ends in .png or .npz"),
        (["reconstruct", "x", "-o", "a.npz"], "-o: a.npz: expected a file name that ends in .png"),
        (["encode", "x", "-o", "a"], "-o: a: expected a file name that ends in .npz or .safetensors"),
        (["encode", "x", "-o", "no/a.npz"], "-o: no/a.npz: there is no folder 'no'"),
        (["list", "metrc"], "unknown kind of component 'metrc'; did you mean 'metric'?"),
        (["copy"], "copy which recipe? shipped: "),
        (["copy", "quikstart"], "unknown recipe 'quikstart'; did you mean 'quickstart'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_are_one_line_that_names_the_nearest(argv: list[str], problem: str, say: Any, here: Path) -> None:
    assert refused(say(*argv)).startswith(problem)
    assert list(here.iterdir()) == []


def test_a_reader_that_went_away_is_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "jointgen", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_a_command_that_is_interrupted_says_so(say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "list", interrupted)
    said = say("list")
    assert (said.status, len(said.problems)) == (130, 1)


# --- list ------------------------------------------------------------------------------------------------------------


def test_list_shows_who_provides_what(say: Any) -> None:
    said = say("list", "data")
    assert said.status == 0
    assert said.out.startswith("data\n  arrays")
    assert "  cifar10          60,000 colour images" in said.out
    assert f"[jointgen {jointgen.__version__}; Krizhevsky" in said.out
    assert "encoder" not in said.out
    assert [line for line in say("list").out.splitlines() if not line.startswith(" ") and line][:3] == [
        "encoder",
        "decoder",
        "family",
    ]


def test_list_for_scripts(say: Any, registry: Registry) -> None:
    found = json.loads(say("list", "--json").out)
    assert {(c["kind"], c["name"]) for c in found["components"]} == {(c.kind, c.name) for c in registry.components()}
    assert set(found["components"][0]) == {"kind", "name", "paper", "summary", "provider"}
    assert found["failed"] == []


def test_list_shows_plugins_that_failed(say: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module")
    folder = tmp_path / "broken-2.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 2.0\n")
    (folder / "entry_points.txt").write_text("[jointgen.plugins]\nbroken = broken\n")
    command = [sys.executable, "-m", "jointgen", "list"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for argv, read in ((["term"], str), (["--json"], lambda text: json.loads(text)["failed"])):
        done = subprocess.run([*command, *argv], capture_output=True, text=True, env=environment, check=True)
        shown: Any = read(done.stdout)
        if isinstance(shown, str):
            assert "plugins that failed to load\n  broken (broken 2.0): ModuleNotFoundError: No module named" in shown
        else:
            assert [(plugin["distribution"], plugin["version"]) for plugin in shown] == [("broken", "2.0")]


# --- copy and where recipes are --------------------------------------------------------------------------------------


def test_copy_takes_along_what_the_recipe_is_based_on(say: Any, here: Path, repo: Path) -> None:
    said = say("copy", "asvae_r_mnist", "mine")
    copies = ["mine/asvae_r_mnist.toml", "mine/asvae_mnist.toml", "mine/vae_mnist.toml"]
    assert said.status == 0
    assert said.out.splitlines() == [*copies, f"run it: jointgen run {copies[0]}"]
    for copy in copies:
        assert Path(copy).read_bytes() == (repo / "recipes" / Path(copy).name).read_bytes()
    assert say("run", copies[0], "--dry-run").status == 0


def test_copy_overwrites_nothing(say: Any, here: Path) -> None:
    Path("vae_mnist.toml").write_text("mine")
    said = say("copy", "asvae_mnist.toml")
    assert refused(said) == "vae_mnist.toml: is there already; copy to another folder or remove it"
    assert [(path.name, path.read_text()) for path in here.iterdir()] == [("vae_mnist.toml", "mine")]


def test_copy_under_another_name(say: Any, here: Path) -> None:
    assert say("copy", "quickstart", "a/first.toml").status == 0
    assert [str(path) for path in Path("a").iterdir()] == ["a/first.toml"]


def test_shipped_recipes_are_based_on_each_other_only() -> None:
    """So that a copy finds its base beside it."""
    recipes = shipped.shipped_recipes()
    bases = [tomllib.loads(path.read_text()).get("base") for path in recipes.values()]
    assert {base for base in bases if base} <= {path.name for path in recipes.values()}


def test_recipes_are_found_in_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo: Path) -> None:
    assert shipped.recipe_folder() == repo / "recipes"
    (tmp_path / "recipes").mkdir()
    monkeypatch.setattr(shipped.resources, "files", lambda package: tmp_path)
    assert shipped.recipe_folder() == tmp_path / "recipes"


@pytest.mark.parametrize("given", ["quickstart.toml", "recipes/quickstart.toml", "quickstart"])
def test_a_shipped_recipe_that_is_not_here_is_to_be_copied(given: str, say: Any, here: Path) -> None:
    problem = refused(say("run", given))
    assert problem.startswith(f"{given}: no such file; ")
    assert problem.endswith("copy it first: jointgen copy quickstart")


def test_a_misspelt_recipe_has_a_nearest(say: Any, here: Path) -> None:
    assert "did you mean the shipped recipe 'quickstart'? jointgen copy quickstart" in refused(say("run", "quikstart"))
    Path("my_recipe.toml").write_text("")
    assert refused(say("explain", "my_recip.toml")) == "my_recip.toml: no such file; did you mean 'my_recipe.toml'?"


# --- run -------------------------------------------------------------------------------------------------------------


def test_a_run_ends_with_its_numbers_and_its_folder(quickstart: str, say: Any, here: Path) -> None:
    said = say("run", quickstart, "--quiet", *sets(train__steps="2", eval__metrics="[{type = 'rmse'}]"))
    assert said.status == 0
    *metrics, last = said.out.splitlines()
    assert [line.split(":")[0] for line in metrics] == ["rmse"]
    assert last == f"{Path('runs/quickstart')}: the run; its pictures are in {Path('runs/quickstart/samples')}"
    assert (here / "runs/quickstart/summary.json").is_file()
    assert refused(say("run", quickstart, "--quiet", *sets())).startswith("out: runs/quickstart already holds a run")


def test_dry_run_prints_a_recipe_that_repeats_itself_and_writes_nothing(quickstart: str, say: Any, here: Path) -> None:
    said = say("run", quickstart, "--dry-run", "--set", "train.steps=7")
    assert said.status == 0
    assert tomllib.loads(said.out)["train"]["steps"] == 7
    assert list(here.iterdir()) == []
    Path("again.toml").write_text(said.out)
    assert say("run", "again.toml", "--dry-run").out == said.out


def test_all_problems_of_a_recipe_are_said_at_once(quickstart: str, say: Any, here: Path) -> None:
    wrong = ("train.steps=1.5", "encoder.network.widht=3", "objective.form=literl")
    said = say("run", quickstart, *(word for one in wrong for word in ("--set", one)))
    assert (said.status, said.out) == (2, "")
    assert [line.split(":")[1].strip() for line in sorted(said.problems)] == [
        "encoder.network.widht",
        "objective.form",
        "train.steps",
    ]
    assert list(here.iterdir()) == []


def test_several_processes_are_for_a_later_version(quickstart: str, say: Any, here: Path) -> None:
    assert refused(say("run", quickstart, "--processes", 2)) == "processes: this version trains in one process, got 2"


def test_a_run_that_fails_is_1(quickstart: str, say: Any, here: Path) -> None:
    said = say("run", quickstart, "--quiet", *sets(optimizer__model__lr="1e30", train__log_every="1"))
    assert said.status == 1
    assert said.out == ""
    assert len(said.problems) == 1
    assert "is not finite any more" in said.problems[0]


# --- stopping --------------------------------------------------------------------------------------------------------


@pytest.fixture
def signalled() -> Iterator[Any]:
    """signalled(folder, signals): sends this process the signals, one by one, once the folder's run logs."""
    threads = []

    def send(folder: Path, *signals: int) -> None:
        deadline = time.monotonic() + 60
        while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        for number in signals:
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    def start(folder: Path, *signals: int) -> None:
        threads.append(threading.Thread(target=send, args=(folder, *signals)))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_a_checkpoint_and_resume_finishes(
    number: int, status: int, quickstart: str, say: Any, here: Path, signalled: Any
) -> None:
    before = signal.getsignal(number)
    argv = ["run", quickstart, "--quiet", "--out", "r", *sets(train__steps="300", train__log_every="1")]
    signalled(here / "r", number)
    said = say(*argv)
    assert said.status == status, said
    assert signal.getsignal(number) is before
    stopped = json.loads(Path("r/summary.json").read_text())
    assert (stopped["status"], stopped["step"] < 300) == ("stopped", True)
    newest = Path("r/checkpoints/latest").read_text().strip()
    assert newest == f"step-{stopped['step']:08d}"
    assert said.problems == [
        f"jointgen: stopped at step {stopped['step']}; --resume goes on from {Path('r/checkpoints') / newest}"
    ]
    assert say(*argv, "--resume").status == 0
    assert json.loads(Path("r/summary.json").read_text())["step"] == 300
    steps = [json.loads(line)["step"] for line in Path("r/metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 301))


def test_a_second_interrupt_stops_at_once(
    quickstart: str, say: Any, here: Path, signalled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jointgen import train

    monkeypatch.setattr(train.Trainer, "save", lambda self: time.sleep(60))  # a disk that hangs
    signalled(here / "r", signal.SIGINT, signal.SIGINT)
    said = say("run", quickstart, "--quiet", "--out", "r", *sets(train__steps="300", train__log_every="1"))
    assert said.status == 130
    assert said.problems == ["jointgen: stopped; nothing was written since the last checkpoint"]


def test_a_process_that_is_terminated_leaves_a_checkpoint(quickstart: str, say: Any, here: Path) -> None:
    argv = ["run", quickstart, "--out", "r", *sets(train__steps="500", train__log_every="1")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "jointgen", *argv], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not Path("r/metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, b""), err
    assert b"Traceback" not in err
    assert b"jointgen: stopping after this step, with a checkpoint" in err
    assert say(*argv, "--resume", "--quiet").status == 0
    assert json.loads(Path("r/summary.json").read_text())["status"] == "done"


# --- runs: what is wrong with them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["sample", "reconstruct", "encode", "eval"])
def test_a_folder_that_is_no_run(command: str, say: Any, here: Path) -> None:
    Path("runs/mnist").mkdir(parents=True)
    Path("runs/mnist/recipe.toml").write_text("")
    output = [] if command == "eval" else ["-o", "a.npz" if command == "encode" else "a.png"]
    problem = refused(say(command, "mnits", *output))
    assert problem == "mnits: not a run folder (it has no recipe.toml); did you mean 'runs/mnist'?"
    assert not list(here.glob("a.*"))


def test_a_damaged_checkpoint_is_a_failure_not_a_mistake(trained: Path, say: Any, here: Path) -> None:
    shutil.copytree(trained, "copy")
    (damaged,) = Path("copy/checkpoints").glob("step-*/encoder.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    said = say("eval", "copy")
    assert said.status == 1
    assert "encoder.safetensors" in said.problems[0]


def test_a_run_that_is_not_finished_is_remarked_on(trained: Path, say: Any, here: Path) -> None:
    shutil.copytree(trained, "copy")
    Path("copy/summary.json").write_text(json.dumps({"status": "stopped", "step": 11}))
    said = say("eval", "copy", "--metrics", "rmse", "--rows", 2)
    assert said.status == 0
    assert said.problems == [
        "jointgen: copy: this run is not finished (status stopped, step 11 of 20); its newest checkpoint is used"
    ]


def test_a_device_that_is_not_there(trained: Path, say: Any) -> None:
    assert refused(say("eval", trained, "--device", "gpu")).startswith(
        "--device: 'gpu' is not a device; allowed: 'auto'"
    )


# --- eval ------------------------------------------------------------------------------------------------------------


def test_eval_finds_what_the_run_reported_and_writes_nothing(trained: Path, say: Any) -> None:
    before = snapshot(trained)
    said = say("eval", trained, "--json")
    assert (said.status, said.problems) == (0, [])
    assert json.loads(said.out) == json.loads((trained / "summary.json").read_text())["metrics"]
    assert snapshot(trained) == before


def test_eval_of_some_metrics_rows_and_a_split(trained: Path, say: Any) -> None:
    found = json.loads(say("eval", trained, "--json", "--metrics", "rmse, elbo", "--rows", 7, "--split", "train").out)
    assert list(found) == ["rmse", "elbo"]
    assert [(f["n"], f["split"]) for f in found.values()] == [(7, "train")] * 2
    assert set(found["elbo"]) == {"value", "unit", "estimator", "split", "n", "standard_error", "bound", "note"}
    (line,) = say("eval", trained, "--metrics", "rmse", "--rows", 7, "--split", "train").out.splitlines()
    assert line.startswith(f"rmse: {found['rmse']['value']:.4f} 0-255 +- ")
    assert line.endswith("train, n = 7)")


def test_eval_of_an_unknown_metric(trained: Path, say: Any) -> None:
    assert refused(say("eval", trained, "--metrics", "elob")).startswith("unknown metric 'elob'; did you mean 'elbo'?")


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
    values = np.load("a.npz")["x"].reshape(600, -1)
    assert len(np.unique(values, axis=0)) == 600


def test_samples_as_a_picture(trained: Path, say: Any, here: Path) -> None:
    """20 tiles of 48 pixels, 8 to a row, 2 between them: 8*48 + 7*2 wide, 3 rows high."""
    for name in ("a.png", "b.png"):
        assert say("sample", trained, "-n", 20, "-o", name).status == 0
    assert Image.open("a.png").size == (398, 148)
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    say("sample", trained, "-n", 20, "-o", "b.png", "--seed", 1)
    assert Path("a.png").read_bytes() != Path("b.png").read_bytes()


def test_samples_of_a_label(labelled: Path, say: Any, here: Path) -> None:
    for name, label in (("a", 3), ("b", 3), ("c", 4)):
        assert say("sample", labelled, "-n", 4, "-o", f"{name}.npz", "--given", f"y={label}").status == 0
    a, b, c = (np.load(f"{name}.npz")["x"] for name in "abc")
    assert (a == b).all()
    assert not (a == c).all()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "p(y) is a data root: give its values"),
        (["y=10"], "--given y=10: '10' is not a class; allowed: 0 to 9"),
        (["y"], "--given y: '' is not a class"),
        (["w=1"], "--given w=1: expected VARIABLE=VALUE; unknown variable 'w'; known: x, y, z"),
        (["y=3", "z=1,2"], "--given z=1,2: 2 numbers; z takes 4, or one for all of them"),
        (["y=3", "z=a"], "--given z=a: 'a' is not a number"),
    ],
    ids=str,
)
def test_what_is_given_is_checked(given: list[str], problem: str, labelled: Path, say: Any, here: Path) -> None:
    options = [word for one in given for word in ("--given", one)]
    assert refused(say("sample", labelled, "-o", "a.png", *options)).startswith(problem)
    assert list(here.iterdir()) == []


def test_a_code_can_be_given_too(labelled: Path, say: Any, here: Path) -> None:
    assert say("sample", labelled, "-n", 3, "-o", "a.npz", "--given", "y=3", "--given", "z=0.5").status == 0
    values = np.load("a.npz")["x"]
    assert (values == values[0]).all()


def test_a_disk_that_refuses_leaves_nothing(
    trained: Path, say: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jointgen.files.os.replace", full)
    for name in ("a.png", "a.npz"):
        problem = refused(say("sample", trained, "-n", 2, "-o", name))
        assert problem == f"-o: {name}: cannot be written: No space left on device"
    assert list(here.iterdir()) == []


# --- reconstruct -----------------------------------------------------------------------------------------------------


def test_reconstructions_of_held_out_data(trained: Path, say: Any, here: Path) -> None:
    """5 pairs, 4 to a row: 8 tiles of 48, 2 in a pair's gap and 8 between pairs (4*2 + 3*8), 2 rows high."""
    said = say("reconstruct", trained, "-n", 5, "-o", "a.png")
    assert said.out == "a.png: 5 pairs, each truth with its reconstruction at its right\n"
    assert Image.open("a.png").size == (8 * 48 + 4 * 2 + 3 * 8, 2 * 48 + 2)


def test_reconstructions_of_ones_own_images(trained: Path, say: Any, here: Path) -> None:
    """The truth in the picture is the user's image: level 16 of 17, in the middle of its bin, is 16.5 / 17 * 255."""
    Path("mine").mkdir()
    Image.new("L", (30, 20), 255).save("mine/white.png")
    Path("mine/broken.png").write_bytes(b"\x89PNG")
    said = say("reconstruct", trained, "--images", "mine", "-o", "a.png")
    assert said.status == 0
    (skipped,) = said.problems
    assert skipped.startswith("jointgen: skipped mine/broken.png: cannot be read")
    assert Image.open("a.png").getpixel((10, 10)) == round(16.5 / 17 * 255)
    assert said.out.startswith("a.png: 1 pairs")


def test_images_that_cannot_be_read_leave_nothing(trained: Path, say: Any, here: Path) -> None:
    Path("broken.png").write_bytes(b"\x89PNG")
    for argv in (["reconstruct", trained, "-o", "a.png"], ["encode", trained, "-o", "a.npz"]):
        assert refused(say(*argv, "--images", "broken.png")).startswith("--images: broken.png: cannot be read")
        assert refused(say(*argv, "--images", "none.png")) == "--images: none.png: no such file or folder"
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
    for name in ("y", "z"):
        assert (codes[name] == tensors[name]).all()
    assert len(np.unique(codes["z"], axis=0)) == 297


def test_codes_of_ones_own_images_come_with_their_files(trained: Path, say: Any, here: Path) -> None:
    Path("mine").mkdir()
    for name, level in (("b.png", 255), ("a.png", 0)):
        Image.new("RGB", (30, 20), (level,) * 3).save(Path("mine") / name)
    for name in ("z.npz", "z.safetensors"):
        assert say("encode", trained, "--images", "mine", "-o", name).status == 0
    found = np.load("z.npz")
    assert found["files"].tolist() == ["mine/a.png", "mine/b.png"]
    assert found["z"].shape == (2, 4)
    with safe_open("z.safetensors", "np") as file:
        assert json.loads(file.metadata()["files"]) == ["mine/a.png", "mine/b.png"]


def test_codes_of_ones_own_images_where_a_label_is_needed(labelled: Path, say: Any, here: Path) -> None:
    Image.new("L", (8, 8), 100).save("a.png")
    assert "q(x,y) is a data root" in refused(say("encode", labelled, "--images", "a.png", "-o", "z.npz"))
    assert say("encode", labelled, "--images", "a.png", "-o", "z.npz", "--given", "y=3").status == 0
    assert np.load("z.npz")["z"].shape == (1, 4)
    assert say("reconstruct", labelled, "--images", "a.png", "-o", "r.png", "--given", "y=3").status == 0
