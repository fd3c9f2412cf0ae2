"""The command line: exit statuses, messages, what is written and what is not. Mostly in this process, with capsys."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.commands import in_words
from support.paths import QUICKSTART, REPO

import jointgen
from jointgen.cli import run, training
from jointgen.cli.arguments import parse
from jointgen.config import shipped
from jointgen.config.recipe import read_tables
from jointgen.config.toml import DIRECTIVE
from jointgen.errors import ConfigError
from jointgen.registry.components import Registry
from jointgen.training.check import check_run

COUNT = "expected a whole number from 1 to 1,000,000,000"

# --- help, words and options -----------------------------------------------------------------------------------------


def test_help_list_and_copy_import_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom jointgen.cli.main import main\n"
        "for words in ('--help', 'run --help', '--version', 'list', 'list data --json', 'copy nothing', "
        "'plugin new my_nets'):\n    main(words.split())\n"
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


def test_the_package_lists_what_it_offers() -> None:
    assert {name for name in dir(jointgen) if not name.startswith("__")} == {*jointgen.__all__} - {"__version__"}
    assert {"__version__", "__name__", "__file__"} <= {*dir(jointgen)}


def test_every_command_of_the_contract_has_help(say: Any) -> None:
    commands = "run explain list copy plugin data sample reconstruct encode eval compare"
    for command in commands.split():
        said = say(command, "--help")
        assert said.status == 0
        assert said.out.startswith(f"usage: jointgen {command}")


@pytest.mark.parametrize(
    ("words", "resume"),
    [
        ("run x.toml", None),
        ("run --resume x.toml", "auto"),
        ("run x.toml --resume", "auto"),
        ("run x.toml --resume auto", "auto"),
        ("run --resume=auto x.toml --out r", "auto"),
    ],
)
def test_resuming_needs_no_word_and_takes_one(words: str, resume: str | None) -> None:
    arguments = parse(words.split())
    assert (arguments.recipe, arguments.resume) == ("x.toml", resume)


@pytest.mark.parametrize(
    ("words", "loudness"),
    [
        ("run x.toml", "usual"),
        ("-q run x.toml", "quiet"),
        ("run -v x.toml", "verbose"),
        ("-v data prepare a b --size 8", "verbose"),
        ("data prepare -q a b --size 8", "quiet"),
        ("list --quiet", "quiet"),
    ],
)
def test_how_much_is_printed_is_said_before_or_after_the_command(words: str, loudness: str) -> None:
    assert parse(words.split()).loudness == loudness


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["run", "--hlep"], "unknown option --hlep; did you mean '--help'?"),
        (["rnu", "x.toml"], "unknown command 'rnu'; did you mean 'run'?"),
        (
            ["run", "x.toml", "--resume=no"],
            "argument --resume: invalid choice: 'no'",
        ),
        (["compare", "a", "-o", "t.md", "--json"], "argument --json: not allowed with argument -o/--output"),
        (
            ["list", "-q", "-v"],
            "argument -v/--verbose: not allowed with argument -q/--quiet",
        ),
        (["run"], "the following arguments are required: RECIPE (see jointgen run --help)"),
        ([], "the following arguments are required: COMMAND (see jointgen --help)"),
        (["run", "x.toml", "--ouput", "y"], "unknown option --ouput; did you mean '--out'?"),
        (["run", "x.toml", "--dry"], "unknown option --dry; did you mean '--dry-run'?"),
        (["run", "x.toml", "y.toml"], "unexpected argument 'y.toml' (see jointgen run --help)"),
        (
            ["run", "x.toml", "--processes", "0"],
            "argument --processes: expected a whole number from 1 to 1,024, g",
        ),
        (["sample", "x", "-o", "a.png", "-n", "1.5"], f"argument -n: {COUNT}, got '1.5'"),
        (["sample", "x", "-o", "a.png", "-n", str(2**63)], f"argument -n: {COUNT}, got '9223372036854775808'"),
        (["reconstruct", "x", "-o", "a.png", "-n", "9" * 5000], f"argument -n: {COUNT}, got '999"),
        (["eval", "x", "--rows", str(2**63)], f"argument --rows: {COUNT}, got '92"),
        (["eval", "x", "--processes", str(2**63)], "argument --processes: expected a whole number from 1 to 1,024"),
        (["sample", "x", "-o", "a.png", "--reading", "men"], "argument --reading: invalid choice: 'men'"),
        (["sample", "x"], "the following arguments are required: -o/--output"),
        (["list", "metrc"], "unknown kind of component 'metrc'; did you mean 'metric'?"),
        (["copy"], "copy which recipe? shipped: "),
        (["plugin"], "the following arguments are required: ACTION (see jointgen plugin --help)"),
        (["plugin", "nwe"], "argument ACTION: invalid choice: 'nwe'"),
        (["plugin", "new"], "the following arguments are required: NAME (see jointgen plugin new --help)"),
        (["plugin", "new", "mine", "--knd", "data"], "unknown option --knd; did you mean '--kind'?"),
        (["data", "prepair"], "argument ACTION: invalid choice: 'prepair'"),
        (["data", "prepare", "a", "b"], "the following arguments are required: --size (see jointgen data prepare --he"),
        (["data", "prepare", "a", "b", "--sze", "8"], "unknown option --sze; did you mean '--size'?"),
        (["run", "--hlep"], "unknown option --hlep; did you mean '--help'?"),
        (["run", "-x"], "unknown option -x; known: "),
        (["--vresion", "list"], "unknown option --vresion; did you mean '--version'?"),
        (["data", "--sze", "prepare"], "unknown option --sze; known: --help, --quiet, --verbose, -h, -q, -v"),
        (["data", "prepare", "a", "b", "--size", "8", "--worker", "2"], "unknown option --worker; did you mean '--w"),
        (["data", "prepare", "a", "b", "--size", "0"], "argument --size: expected a whole number from 1 to 16,384"),
        (["data", "prepare", "a", "b", "--size", "16385"], "argument --size: expected a whole number from 1 to 16,384"),
        (
            ["data", "prepare", "a", "b", "--size", "8", "--workers", "1025"],
            "argument --workers: expected a whole n",
        ),
        (["data", "prepare", "a", "b", "--size", "8", "--channels", "2"], "argument --channels: invalid choice: 2"),
        (["data", "prepare", "a", "b", "--size", "8", "--max-broken", "-1"], "argument --max-broken: expected a whole"),
        (
            ["data", "prepare", "a", "b", "--size", "8", "--test-fraction", "1"],
            "argument --test-fraction: expected a n",
        ),
        (["copy", "quikstart"], "unknown recipe 'quikstart'; did you mean 'quickstart'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_are_one_line_that_names_the_nearest(argv: list[str], problem: str, say: Any, here: Path) -> None:
    assert say(*argv).refusal.startswith(problem)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["sample", "x", "-o", "a.jpg"], "-o: a.jpg: expected a file name that ends in .png or .npz"),
        (
            ["reconstruct", "x", "-o", "a.gif"],
            "-o: a.gif: expected a file name that ends in .png or .npz, or a folder, DIR/",
        ),
        (["encode", "x", "-o", "a"], "-o: a: expected a file name that ends in .npz or .safetensors"),
        (["encode", "x", "-o", "no/a.npz"], "-o: no/a.npz: there is no folder 'no'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_run_and_an_output_that_are_none_are_told_together(
    argv: list[str], problem: str, say: Any, here: Path
) -> None:
    said = say(*argv)
    no_run, no_output = said.problems
    assert (said.status, no_run) == (2, "jointgen: x: not a run folder (it has no recipe.toml)")
    assert no_output.startswith(f"jointgen: {problem}")
    assert list(here.iterdir()) == []


def test_a_component_without_a_description_has_no_colon(say: Any, here: Path) -> None:
    Path("nets.py").write_text("import jointgen\n@jointgen.register.encoder('plain')\ndef net(inputs, output): ...\n")
    assert say("list", "encoder", "plain", "--plugin", "nets.py").out.splitlines()[0] == "encoder plain"


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

    monkeypatch.setattr("jointgen.cli.listing.list_command", interrupted)
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


def test_list_shows_the_keys_of_a_component(say: Any) -> None:
    said = say("list", "penalty", "r1")
    assert said.status == 0
    assert said.out.startswith("penalty r1: ")
    assert "\n  at: one of 'numerator', 'denominator', 'both'; default 'denominator'\n      " in said.out
    keys = json.loads(say("list", "penalty", "r1", "--json").out)["keys"]
    assert {key["name"] for key in keys} == {
        "weight",
        "weight.start",
        "weight.to",
        "weight.over",
        "weight.cycles",
        "weight.after",
        "every",
        "at",
    }
    assert say("list", "penalty", "r2").refusal.startswith("unknown penalty 'r2'; known: gradient_penalty, r1")


def test_list_for_scripts(say: Any, registry: Registry) -> None:
    found = json.loads(say("list", "--json").out)
    assert {(c["kind"], c["name"]) for c in found["components"]} == {(c.kind, c.name) for c in registry.components()}
    assert set(found["components"][0]) == {"kind", "name", "paper", "summary", "provider", "costly"}
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


def test_copy_takes_along_what_the_recipe_is_based_on(say: Any, here: Path) -> None:
    said = say("copy", "asvae_r_mnist", "mine")
    copies = ["mine/asvae_r_mnist.toml", "mine/asvae_mnist.toml", "mine/vae_mnist.toml"]
    assert said.status == 0
    assert said.out.splitlines() == [
        *copies,
        f"run it: jointgen run {copies[0]}",
        "let your editor complete its keys: jointgen schema -o mine/jointgen.schema.json",
    ]
    for copy in copies:
        assert Path(copy).read_text() == DIRECTIVE + (REPO / "recipes" / Path(copy).name).read_text()
    assert say("explain", copies[0]).status == 0


def test_copy_overwrites_nothing(say: Any, here: Path) -> None:
    Path("vae_mnist.toml").write_text("mine")
    said = say("copy", "asvae_mnist.toml")
    assert said.refusal == "vae_mnist.toml: already exists; copy to another folder or remove it"
    assert [(path.name, path.read_text()) for path in here.iterdir()] == [("vae_mnist.toml", "mine")]


def test_copy_under_another_name(say: Any, here: Path) -> None:
    assert say("copy", "quickstart", "a/first.toml").status == 0
    assert [str(path) for path in Path("a").iterdir()] == ["a/first.toml"]


def test_a_copy_from_a_group_finds_its_bases_beside_it(say: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe of a group is based on one of the folder above; all copies lie in one folder."""
    (here / "shipped" / "paper").mkdir(parents=True)
    (here / "shipped" / "whole.toml").write_text("# Whole.\nformat = 1\n")
    (here / "shipped" / "paper" / "part.toml").write_text('# Part.\nbase = "../whole.toml"\n[train]\nsteps = 2\n')
    monkeypatch.setattr(shipped, "recipe_folder", lambda: here / "shipped")
    assert say("copy", "part", "mine").status == 0
    assert Path("mine/part.toml").read_text() == DIRECTIVE + '# Part.\nbase = "whole.toml"\n[train]\nsteps = 2\n'
    assert Path("mine/whole.toml").read_text() == DIRECTIVE + "# Whole.\nformat = 1\n"


def test_shipped_recipes_are_based_on_each_other_only() -> None:
    """And their names are unique, so that each goes by its name."""
    files = sorted(shipped.recipe_folder().rglob("*.toml"))
    assert sorted(shipped.shipped_recipes().values()) == files
    bases = [(path.parent, tomllib.loads(path.read_text()).get("base")) for path in files]
    assert {(folder / base).resolve() for folder, base in bases if base} <= set(files)


def test_the_shipped_recipes_are_listed(say: Any) -> None:
    said = say("list", "recipe", "vae_mnist")
    assert said.status == 0
    assert said.out.splitlines()[:2] == ["recipes", "  vae_mnist  VAE (Kingma & Welling 2014) on MNIST."]
    assert "data mnist" in said.out and "minutes on one CPU core" in said.out and "ELBO" in said.out
    (found,) = json.loads(say("list", "recipe", "vae_mnist", "--json").out)["recipes"]
    assert (found["name"], found["group"], found["data"]) == ("vae_mnist", "", "mnist")
    assert say("list", "recipe", "vae_mnits").refusal.startswith(
        "unknown recipe 'vae_mnits'; did you mean 'vae_mnist'?"
    )


def test_recipes_are_found_in_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shipped.recipe_folder() == REPO / "recipes"
    (tmp_path / "recipes").mkdir()
    monkeypatch.setattr(shipped.resources, "files", lambda package: tmp_path)
    assert shipped.recipe_folder() == tmp_path / "recipes"


def test_a_shipped_recipe_goes_by_its_name_and_says_so(say: Any, here: Path) -> None:
    said = say("run", "quickstart", "--dry-run")
    assert said.status == 0 and tomllib.loads(said.out)["name"] == "quickstart"
    which = f"jointgen: quickstart: the recipe that comes with jointgen, {shipped.shipped_recipes()['quickstart']}"
    assert said.problems[0] == which


def test_a_shipped_recipe_goes_by_its_name_in_python(here: Path) -> None:
    assert read_tables("quickstart", {"train.steps": 3})["name"] == "quickstart"
    with pytest.raises(ConfigError, match="did you mean 'quickstart', which comes with jointgen"):
        read_tables("quikstart")


@pytest.mark.parametrize("given", ["quickstart.toml", "recipes/quickstart.toml"])
def test_a_path_is_not_taken_for_a_name(given: str, say: Any, here: Path) -> None:
    problem = say("run", given).refusal
    assert problem.startswith(f"{given}: no such file; ")
    assert "by its name alone, 'quickstart'" in problem and "`jointgen copy quickstart`" in problem


def test_ones_own_recipe_is_nearer_than_a_shipped_one(say: Any, here: Path) -> None:
    Path("quickstart.toml").write_text("")
    assert say("run", "quickstart").refusal == "quickstart: no such file; did you mean 'quickstart.toml'?"


def test_a_misspelt_recipe_has_a_nearest(say: Any, here: Path) -> None:
    assert say("run", "quikstart").refusal.endswith("did you mean 'quickstart', which comes with jointgen?")
    Path("my_recipe.toml").write_text("")
    assert say("explain", "my_recip.toml").refusal == "my_recip.toml: no such file; did you mean 'my_recipe.toml'?"


# --- run -------------------------------------------------------------------------------------------------------------


def test_a_run_ends_with_its_numbers_and_its_folder(say: Any, here: Path) -> None:
    said = say("run", QUICKSTART, "--quiet", *in_words(train__steps="2", eval__metrics="[{type = 'rmse'}]"))
    assert said.status == 0
    *metrics, last = said.out.splitlines()
    assert [line.split(":")[0] for line in metrics] == ["rmse"]
    assert last == f"{Path('runs/quickstart')}: the run; look at it in {Path('runs/quickstart/report.html')}"
    assert (here / "runs/quickstart/summary.json").is_file()
    assert say("run", QUICKSTART, "--quiet", *in_words()).refusal.startswith(
        "--out: runs/quickstart already holds a run"
    )
    words = in_words(train__steps="2", eval__metrics="[{type = 'rmse'}]")
    again = say("run", QUICKSTART, "--verbose", "--resume", "auto", "--json", *words)
    assert any(line.startswith("jointgen: 1 process(es), this one on cpu in fp32; ") for line in again.problems)
    summary = json.loads(again.out)
    assert (summary["path"], summary["status"], [*summary["metrics"]]) == ("runs/quickstart", "done", ["rmse"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "checking quickstart, to train it into runs/quickstart (2000 steps, device cpu)"),
        (["--out", "r", "--set", "train.steps=7", "--set", "train.device=cpu", "--set", "name=mine"],
         "checking mine, to train it into r (7 steps, device cpu)"),
    ],
)  # fmt: skip
def test_a_run_says_what_it_does_before_it_imports_what_does_it(
    words: list[str], line: str, say: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(function: str) -> Any:
        raise ConfigError(f"{function} is imported")

    monkeypatch.setattr(run, "load", refuse)
    monkeypatch.setattr(run, "DRIVERS", ())
    imported = "jointgen: jointgen.cli.training:train_command is imported"
    assert say("run", QUICKSTART, *words).problems == [f"jointgen: {line}", imported]
    for silent in ("--quiet", "--dry-run"):
        assert say("run", QUICKSTART, silent, *words).problems == [imported]


def test_what_is_announced_is_what_is_trained(say: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that changes while the command starts is not read again."""
    recipe = Path("mine.toml")
    shutil.copy(QUICKSTART, recipe)
    load = run.load

    def change(function: str) -> Any:
        recipe.unlink()
        return load(function)

    monkeypatch.setattr(run, "load", change)
    monkeypatch.setattr(run, "DRIVERS", ("/",))  # as if there may be a GPU: then torch has to say
    said = say("run", recipe, *in_words(train__steps="2", eval__metrics="[]"))
    assert said.status == 0, said
    assert said.problems[0] == "jointgen: checking mine, to train it into runs/mine (2 steps, device auto)"
    assert said.problems[1].startswith("jointgen: the device is ")
    assert "jointgen: training mine into runs/mine" in said.problems
    assert tomllib.loads(Path("runs/mine/recipe.toml").read_text())["train"]["steps"] == 2


def test_only_a_run_that_trains_says_in_how_many_processes(
    say: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe is checked for as many as would train."""
    checked: list[int] = []

    def check(*arguments: Any, processes: int, **options: Any) -> Any:
        checked.append(processes)
        return check_run(*arguments, **options)

    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr(training, "launch_command", lambda arguments, processes: None)
    monkeypatch.setattr(training, "check_run", check)
    line = "jointgen: training in 3 processes, one for each GPU; --processes overrides this"
    words = ["run", QUICKSTART, "--set", "train.batch=99"]
    assert line in say(*words).problems
    assert line not in say(*words, "--processes", "3").problems
    said = say(*words, "--dry-run")
    assert said.status == 0 and line not in said.problems and checked == [3]


def test_dry_run_prints_a_recipe_that_repeats_itself_and_writes_nothing(say: Any, here: Path) -> None:
    said = say("run", QUICKSTART, "--dry-run", "--set", "train.steps=7")
    assert said.status == 0
    assert tomllib.loads(said.out)["train"]["steps"] == 7
    assert list(here.iterdir()) == []
    Path("again.toml").write_text(said.out)
    assert say("run", "again.toml", "--dry-run").out == said.out
    assert json.loads(say("run", "again.toml", "--dry-run", "--json").out) == tomllib.loads(said.out)


def test_all_problems_of_a_recipe_are_said_at_once(say: Any, here: Path) -> None:
    """Those that need no component imported first, then all that the components say."""
    for wrong in (["train.steps=1.5", "prior.type=nromal"], ["encoder.network.widht=3", "objective.form=literl"]):
        said = say("run", QUICKSTART, "--quiet", *(word for one in wrong for word in ("--set", one)))
        assert (said.status, said.out) == (2, "")
        keys = [line.split(":")[1].strip() for line in sorted(said.problems)]
        assert keys == sorted(one.split("=")[0] for one in wrong)
    assert list(here.iterdir()) == []


def test_a_run_that_fails_is_1(say: Any, here: Path) -> None:
    said = say("run", QUICKSTART, "--quiet", *in_words(optimizer__model="{type='sgd', lr=1000}", train__log_every="1"))
    assert said.status == 1
    assert said.out == ""
    assert len(said.problems) == 1
    assert "is not finite any more" in said.problems[0]
