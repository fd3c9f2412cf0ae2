"""The built wheel beside strangers' packages in a fresh environment: all enter by the same door, and a recipe of
all trains.

torch is several gigabytes, so the fresh environment borrows the dependencies of the current one: a folder of links to
everything there but jointgen itself, which is installed editable here and must not be seen.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.paths import REPO

from jointgen.cli.scaffold import write_plugin

STRANGERS = {"wide_nets": "encoder", "heavy_tails": "family", "symmetric": "objective"}
"""Packages of somebody else, as `jointgen plugin new` writes them: a component of each of these kinds."""
UV = os.environ.get("UV") or shutil.which("uv")  # `uv run` says which uv it is

pytestmark = pytest.mark.skipif(UV is None, reason="uv builds and installs the wheel")


def call(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)


def uv(*arguments: str | Path) -> str:
    done = call(str(UV), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@attrs.frozen
class Environment:
    """A fresh virtual environment. `extra` is a folder of further installed packages."""

    path: Path
    extra: Path | None = None

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def site(self) -> Path:
        return next(self.path.glob("lib/python*/site-packages"))

    def run(self, *command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
        """A program of the environment, in a folder from which the checkout cannot be imported."""
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "UV_", "COV_"))}
        variables |= {"OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": str(self.extra)} if self.extra else {})
        program, *arguments = command
        return call(self.path / "bin" / program, *arguments, cwd=folder, env=variables)

    def listed(self, folder: Path) -> dict[str, Any]:
        done = self.run("jointgen", "list", "--json", folder=folder)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--out-dir", folder, REPO)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers")
    for name, kind in STRANGERS.items():
        write_plugin(name, kind, folder / name)
    return folder


@pytest.fixture(scope="module")
def environment(wheel: Path, strangers: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel and the strangers' packages, installed as pip would, and borrowed dependencies."""
    fresh = Environment(tmp_path_factory.mktemp("fresh") / "env")
    uv("venv", "--python", sys.executable, fresh.path)
    uv("pip", "install", "--python", fresh.python, "--no-deps", wheel, *(strangers / name for name in STRANGERS))
    borrowed = borrow_dependencies(fresh.path / "borrowed")
    (fresh.site / "borrowed.pth").write_text(f"{borrowed}\n")
    return fresh


def borrow_dependencies(folder: Path) -> Path:
    """Links to everything that is installed here but jointgen: its files, its metadata and its editable path."""
    files = metadata.distribution("jointgen").files
    assert files is not None, "an installed distribution lists its files"
    own = {file.parts[0] for file in files}
    folder.mkdir()
    for key in ("purelib", "platlib"):
        for entry in Path(sysconfig.get_path(key)).iterdir():
            link = folder / entry.name
            if entry.name not in own and not link.is_symlink():
                link.symlink_to(entry)
    return folder


def recipe_of_all(strangers: Path) -> list[str]:
    """The objective's recipe, with the changes that give it the other packages' components."""
    changes = ["encoder.network={type='wide_nets'}", "decoder.family={type='heavy_tails', init_scale=0.2}"]
    return [str(strangers / "symmetric/recipes/symmetric.toml"), *(w for one in changes for w in ("--set", one))]


def install_beside(folder: Path, name: str, source: str) -> Path:
    """A distribution of one module in a folder of its own, built and installed, dependencies left out."""
    project, module = folder / name, name.replace("-", "_")
    (project / module).mkdir(parents=True)
    (project / module / "__init__.py").write_text(source)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling>=1.26"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "{name}"\nversion = "0.7"\ndependencies = ["jointgen"]\n'
        f'[project.entry-points."jointgen.plugins"]\n{module} = "{module}"\n'
    )
    target = folder / "installed"
    uv("pip", "install", "--python", sys.executable, "--no-deps", "--target", target, project)
    return target


# --- the wheel -------------------------------------------------------------------------------------------------------


def test_the_wheel_holds_every_package_and_the_recipes_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    plugins = {path.name for path in (REPO / "plugins").iterdir() if any(path.glob("*.py"))}
    info = {name.split("/")[0] for name in names if ".dist-info/" in name}
    assert {name.split("/")[0] for name in names} == {"jointgen", *plugins, *info}
    assert len(info) == 1
    recipes = {f"jointgen/{path.relative_to(REPO)}" for path in (REPO / "recipes").rglob("*.toml")}
    assert {name for name in names if name.startswith("jointgen/recipes/")} == recipes
    data = {path for path in (REPO / "jointgen").rglob("*.*") if path.suffix not in (".py", ".pyc")}
    typed = {f"{name}/py.typed" for name in ("jointgen", *plugins)}  # type checkers look into these packages alone
    assert {str(path.relative_to(REPO)) for path in data} | typed <= {*names}
    modules = {str(path.relative_to(REPO)) for path in (REPO / "jointgen").rglob("*.py")}
    modules |= {str(path.relative_to(REPO / "plugins")) for path in (REPO / "plugins").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert not [name for name in names if "test" in Path(name).name or name.endswith((".pyc", "uv.lock"))]


# --- installed -------------------------------------------------------------------------------------------------------


def test_the_environment_sees_the_wheel_once_and_not_the_checkout(environment: Environment, tmp_path: Path) -> None:
    code = """
import importlib.metadata as metadata, json, jointgen, jointgen_vae, wide_nets, sys
found = [d for d in metadata.distributions() if d.name == "jointgen"]
names = sorted(e.name for e in metadata.entry_points(group="jointgen.plugins"))
files = [m.__file__ for m in (jointgen, jointgen_vae, wide_nets)]
print(json.dumps([files, [str(d.locate_file("")) for d in found], names, sys.path]))
"""
    done = environment.run("python", "-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    files, distributions, names, path = json.loads(done.stdout)
    assert [Path(file).parents[1] for file in files] == [environment.site] * 3
    assert list(map(Path, distributions)) == [environment.site]
    assert not [entry for entry in path if Path(entry).is_relative_to(REPO)]
    declared = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["entry-points"]["jointgen.plugins"]
    assert names == sorted([*declared, *STRANGERS])


def test_both_kinds_of_plugin_are_listed_with_their_providers(environment: Environment, tmp_path: Path) -> None:
    listed = environment.listed(tmp_path)
    assert listed["failed"] == []
    providers = {(c["kind"], c["name"]): c["provider"] for c in listed["components"]}
    ours = f"jointgen {metadata.version('jointgen')}"
    assert {key: provider for key, provider in providers.items() if provider != ours} == {
        ("encoder", "wide_nets"): "wide-nets 0.1.0",
        ("family", "heavy_tails"): "heavy-tails 0.1.0",
        ("objective", "symmetric"): "symmetric 0.1.0",
    }
    assert providers["objective", "asvae"] == ours


def test_a_recipe_trains_with_the_strangers_encoder_family_and_objective(
    environment: Environment, strangers: Path, tmp_path: Path
) -> None:
    recipe, *others = recipe_of_all(strangers)
    changes = ("train.steps=5", "train.log_every=1", "eval.rows=64", "eval.samples=4", "eval.metrics=[{type = 'elbo'}]")
    short = [word for change in changes for word in ("--set", change)]
    done = environment.run("python", "-m", "jointgen", "run", recipe, *others, *short, "--out", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["status"], summary["step"]) == ("done", 5)
    resolved = tomllib.loads((tmp_path / "out" / "recipe.toml").read_text())
    assert resolved["encoder"]["network"] == {"type": "wide_nets", "width": 64, "blocks": 2}
    assert resolved["decoder"]["family"]["type"] == "heavy_tails"
    assert resolved["objective"]["type"] == "symmetric"
    events = list(map(json.loads, (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()))
    assert [event["step"] for event in events if "images_per_s" in event] == [1, 2, 3, 4, 5]
    assert "<title>symmetric" in (tmp_path / "out" / "report.html").read_text()


def test_a_shipped_recipe_is_copied_out_of_the_wheel(environment: Environment, tmp_path: Path) -> None:
    done = environment.run("jointgen", "copy", "asvae_mnist", "mine", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"asvae_mnist.toml", "vae_mnist.toml"}


# --- further packages beside them ------------------------------------------------------------------------------------


def test_a_second_package_claiming_a_name_is_told_with_both_distributions(
    environment: Environment, tmp_path: Path
) -> None:
    claims = """
import attrs, jointgen

@attrs.frozen
class Another:
    def build(self, inputs, output): ...

@jointgen.hookimpl
def jointgen_register(registry):
    registry.encoder("wide_nets", Another)
"""
    crowded = attrs.evolve(environment, extra=install_beside(tmp_path, "rival-nets", claims))
    listed = crowded.run("jointgen", "list", folder=tmp_path)
    needed = crowded.run(
        "jointgen", "explain", "quickstart", "--set", "encoder.network.type=wide_nets", folder=tmp_path
    )
    assert (listed.returncode, needed.returncode) == (0, 2)
    for said in (listed.stdout, needed.stderr):
        assert "registered by rival-nets 0.7 and by wide-nets 0.1.0" in said
    assert "Traceback" not in needed.stderr


def test_a_package_that_cannot_be_imported_is_listed_and_stops_only_what_needs_it(
    environment: Environment, strangers: Path, tmp_path: Path
) -> None:
    broken = attrs.evolve(environment, extra=install_beside(tmp_path, "broken-nets", "import not_there\n"))
    listed = broken.listed(tmp_path)
    assert listed["failed"] == [
        {
            "name": "broken_nets",
            "distribution": "broken-nets",
            "version": "0.7",
            "package": "broken_nets",
            "reason": "ModuleNotFoundError: No module named 'not_there'",
        }
    ]
    assert len(listed["components"]) == len(environment.listed(tmp_path)["components"])
    code = f"""
from jointgen.errors import ConfigError
from jointgen.registry.discovery import load_plugins
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe
registry, recipe = load_plugins().registry, {str(strangers / "wide_nets/recipes/wide_nets.toml")!r}
compile_recipe(read_recipe(recipe, registry=registry), registry)
try:
    read_recipe(recipe, ["encoder.network.type=broken"], registry=registry)
except ConfigError as error:
    print(error)
"""
    done = broken.run("python", "-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "encoder.network.type: unknown encoder 'broken'; known: conv, mlp, resnet, switch, wide_nets; "
    )
    assert "plugin 'broken_nets' (broken-nets 0.7) failed to load: ModuleNotFoundError: No module" in done.stdout
