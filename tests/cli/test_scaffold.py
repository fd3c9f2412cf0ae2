"""`jointgen plugin new`: a package of every kind passes its own tests as it is written, and its recipe trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from jointgen.cli import scaffold
from jointgen.registry.components import KINDS

PLUGINS = {f"my_{kind}": kind for kind in KINDS}


def call(*command: str, folder: Path, path: list[Path]) -> subprocess.CompletedProcess[str]:
    """Python in a folder, with these and our own folders on the path."""
    folders = [*map(str, path), *filter(None, sys.path)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=folder, env=variables
    )


def install(package: Path, site: Path) -> None:
    """As pip does: the metadata with the package's entry points."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in e.items()) for group, e in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One package of every kind, beside a folder `site` with their metadata."""
    folder = tmp_path_factory.mktemp("packages")
    for name, kind in PLUGINS.items():
        install(scaffold.write_plugin(name, kind, folder / name), folder / "site")
    return folder


def on_path(packages: Path) -> list[Path]:
    return [packages / "site", *(packages / name for name in PLUGINS)]


def test_a_package_of_every_kind_passes_its_tests_as_written(packages: Path) -> None:
    tests = [f"{name}/tests" for name in PLUGINS]
    done = call(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *tests, folder=packages, path=on_path(packages)
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout and "failed" not in done.stdout


RUN_ALL = """
import sys
from jointgen.cli.main import main
for name in sys.argv[1:]:
    short = ["train.steps=3", "train.log_every=1", "eval.rows=32", "eval.samples=4"]
    words = [word for change in short for word in ("--set", change)]
    status = main(["run", f"{name}/recipes/{name}.toml", *words, "--quiet", "--out", f"runs/{name}"])
    assert status == 0, (name, status)
"""


@pytest.mark.slow
def test_its_recipe_trains_with_its_component(packages: Path) -> None:
    done = call("-c", RUN_ALL, *PLUGINS, folder=packages, path=on_path(packages))
    assert done.returncode == 0, done.stderr[-3000:]
    for name in PLUGINS:
        summary = json.loads((packages / "runs" / name / "summary.json").read_text())
        assert (summary["status"], summary["step"]) == ("done", 3), name
        assert name in (packages / "runs" / name / "recipe.toml").read_text()
    assert "my_metric" in json.loads((packages / "runs" / "my_metric" / "summary.json").read_text())["metrics"]


def test_they_are_listed_with_their_distribution(packages: Path) -> None:
    done = call("-m", "jointgen", "list", "--json", folder=packages, path=on_path(packages))
    listed = json.loads(done.stdout)
    found = {one["name"]: (one["kind"], one["provider"]) for one in listed["components"] if one["name"] in PLUGINS}
    assert found == {name: (kind, f"{name.replace('_', '-')} 0.1.0") for name, kind in PLUGINS.items()}
    assert listed["failed"] == []


def test_what_is_written_is_clean(packages: Path) -> None:
    names = [*PLUGINS, "--no-cache", "--isolated"]
    for words in (("check", "--select", "E4,E7,E9,F,B,I,UP"), ("format", "--check")):
        done = call("-m", "ruff", *words, *names, folder=packages, path=[])
        assert done.returncode == 0, done.stdout


def test_nothing_of_the_template_is_left(packages: Path) -> None:
    for name in PLUGINS:
        files = {str(path.relative_to(packages / name)) for path in (packages / name).rglob("*.*") if path.is_file()}
        written = {one for one in files if not one.endswith(".pyc")}
        kind = PLUGINS[name]
        assert written == {
            *("pyproject.toml", "README.md", f"recipes/{name}.toml"),
            *(f"{name}/__init__.py", f"{name}/{kind}.py", f"tests/test_{name}.py"),
        }
        for one in written:
            text = (packages / name / one).read_text().lower()
            assert not [
                word for word in ("my_plugin", "my-plugin", "myplugin", "my summary", "my kind") if word in text
            ]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_to_do_next(say: Any, here: Path) -> None:
    said = say("plugin", "new", "wide_nets", "--kind", "encoder", "--out", "sub/wide")
    assert said.status == 0
    assert said.out.splitlines() == [
        "sub/wide: a plugin package with the encoder 'wide_nets'",
        "install it: uv pip install -e sub/wide",
        "test it: pytest sub/wide",
        "run it: jointgen run sub/wide/recipes/wide_nets.toml",
        "let your editor complete its keys: jointgen schema -o sub/wide/recipes/jointgen.schema.json",
    ]
    project = tomllib.loads((here / "sub/wide/pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"jointgen.plugins": {"wide_nets": "wide_nets"}}
    assert "class WideNets:" in (here / "sub/wide/wide_nets/encoder.py").read_text()
    assert say("plugin", "new", "tails").status == 0
    assert (here / "tails/tails/family.py").is_file()
    assert [path.name for path in sorted(here.iterdir())] == ["sub", "tails"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["My-Nets"],
            "'My-Nets' cannot be a package: expected small letters, digits and underscores, such as 'my_nets'",
        ),
        (["class"], "'class' cannot be a package: expected small letters, digits and underscores"),
        (["2d"], "'2d' cannot be a package"),
        (["jointgen_mine"], "'jointgen_mine': names that begin with 'jointgen_' are jointgen's own"),
        (["jointgen"], "'jointgen': names that begin with 'jointgen_' are jointgen's own"),
        (["torch"], "'torch': a module of that name is installed already"),
        (["gaussian"], "'gaussian': the family 'gaussian' of jointgen "),
        (["mine", "--kind", "famly"], "--kind: unknown kind of component 'famly'; did you mean 'family'?"),
        (["mine", "--out", "."], ".: already exists; give another folder with --out, or remove it"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    words: list[str], problem: str, say: Any, here: Path
) -> None:
    assert say("plugin", "new", *words).refusal.startswith(problem)
    assert list(here.iterdir()) == []


def test_a_folder_that_cannot_be_written_leaves_nothing(say: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").write_text("")
    assert say("plugin", "new", "mine", "--out", "file/mine").refusal.startswith("file/mine could not be written: ")

    def full(path: Path, *arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert say("plugin", "new", "mine").refusal == "mine could not be written: the disk is full"
    assert [path.name for path in here.iterdir()] == ["file"]
