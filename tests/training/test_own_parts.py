"""Runs with parts of one's own: from a plugin file, and from this process."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from support.runs import SMALL, stop_after, train_small, weights
from torch import nn

import jointgen
from jointgen.config.toml import read_toml
from jointgen.errors import ConfigError, StoppedError
from jointgen.registry import files
from jointgen.registry.discovery import load_plugins
from jointgen.runtime.hashing import sha256_of

NETS = """
import math
import jointgen
from torch import nn

@jointgen.register.encoder("flat_{0}")
def flat(inputs, output, width: int = 4):
    size = sum(space.size for space in inputs.values())
    return nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.Tanh(), nn.Linear(width, math.prod(output)))
"""
SHORT = {key: value for key, value in SMALL.items() if key != "encoder.network.hidden"} | {"train.steps": 6}


def flat(inputs: Any, output: tuple[int, ...], width: int = 4) -> nn.Module:
    """The same network, of this process."""
    size = sum(space.size for space in inputs.values())
    return nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.Tanh(), nn.Linear(width, math.prod(output)))


@attrs.frozen
class Squeezing:
    """A network as an attrs class, which nothing registers."""

    width: int = 4
    weights: Any = None

    def build(self, inputs: Any, output: tuple[int, ...]) -> nn.Module:
        return flat(inputs, output, self.width)


def train(out: Path, network: Any, **options: Any) -> Any:
    changes = {**SHORT, "encoder.network": network}
    return jointgen.run(options.pop("recipe"), changes, out=out, **{"quiet": True, **options})


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "nets.py").write_text(NETS.format("file"))
    (folder / "mine.toml").write_text(f'base = "{Path("recipes/quickstart.toml").resolve()}"\nplugins = ["nets.py"]\n')
    return folder / "mine.toml"


@pytest.fixture(scope="module")
def run(recipe: Path) -> Path:
    """A whole run with the file's encoder."""
    return train(recipe.parent / "run", {"type": "flat_file", "width": 5}, recipe=recipe).path


def test_a_run_keeps_its_plugin_file_and_its_hash_also_in_its_checkpoints(recipe: Path, run: Path) -> None:
    source = (recipe.parent / "nets.py").read_bytes()
    assert (run / "plugins" / "nets.py").read_bytes() == source
    tables = read_toml(run / "recipe.toml")
    assert tables["plugins"] == [{"file": "plugins/nets.py", "sha256": sha256_of(source)}]
    assert tables["encoder"]["network"] == {"type": "flat_file", "width": 5}
    assert sha256_of(source) in (run / "checkpoints" / "step-00000006" / "manifest.json").read_text()


def test_another_process_loads_it_with_consent_only_and_says_that_a_file_has_changed(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOADED", {})  # which this process has run already
    with pytest.raises(ConfigError, match=r"nets.py is code that loading the run would execute .*trust=True"):
        jointgen.load(run)
    assert jointgen.load(run, trust=True).sample(2).shape == (2, 1, 8, 8)

    file = run / "plugins" / "nets.py"
    source = file.read_text()
    file.write_text(source + "# changed")
    with pytest.warns(UserWarning, match="nets.py: has changed since the run was trained"):
        jointgen.load(run, trust=True)
    file.write_text(source)


def test_the_runs_own_recipe_repeats_it(run: Path, tmp_path: Path) -> None:
    again = jointgen.run(run / "recipe.toml", out=tmp_path / "again", quiet=True).path
    assert (again / "recipe.toml").read_text() == (run / "recipe.toml").read_text()
    one, other = (weights(path / "checkpoints" / "step-00000006") for path in (run, again))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_it_resumes_where_it_was_stopped_and_not_with_a_changed_file(recipe: Path, run: Path, tmp_path: Path) -> None:
    network = {"type": "flat_file", "width": 5}
    with pytest.raises(StoppedError):
        train(tmp_path, network, recipe=recipe, stop=stop_after(3))
    changed = recipe.parent / "changed.toml"
    (recipe.parent / "changed").mkdir()
    (recipe.parent / "changed" / "nets.py").write_text(NETS.format("file") + "\n")
    changed.write_text(recipe.read_text().replace("nets.py", "changed/nets.py"))
    with pytest.raises(ConfigError, match=r"another recipe(.|\n)*plugins\[0\].sha256"):
        train(tmp_path, network, recipe=changed, resume=True)
    (tmp_path / "plugins" / "nets.py").unlink()
    train(tmp_path, network, recipe=recipe, resume=True)
    assert (tmp_path / "plugins" / "nets.py").is_file()
    one, other = (weights(path / "checkpoints" / "step-00000006") for path in (run, tmp_path))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_objects_and_functions_stand_for_tables_and_are_written_into_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load_plugins().registry, "_of_process", {})
    path = train_small(
        tmp_path / "run",
        {"train.steps": 2, "encoder": {"network": Squeezing(width=7), "family": {"type": "gaussian"}}},
        quiet=False,
    ).path
    tables = read_toml(path / "recipe.toml")
    assert tables["encoder"]["network"] == {"type": f"{__name__}.Squeezing", "width": 7}
    told = capfd.readouterr().err
    assert f"encoder '{__name__}.Squeezing' ({__name__}): only this process has it" in told
    assert "plugins = [" in told
    jointgen.load(path)

    monkeypatch.setattr(load_plugins().registry, "_of_process", {})
    jointgen.load(path)  # the class is defined here, so its path leads to it
    monkeypatch.setattr(load_plugins().registry, "_of_process", {})
    monkeypatch.delitem(sys.modules, __name__)
    with pytest.raises(ConfigError, match=r"was given in Python, .*; define Squeezing in .* first"):
        jointgen.load(path)


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        (nn.Linear(2, 2), "encoder.network: is no encoder: a Linear that is built already cannot be written"),
        (lambda inputs, output: None, "encoder.network: is no encoder: a lambda has no name"),
        (Squeezing(weights=torch.zeros(2)), "encoder.network.weights: a Tensor cannot be written into a recipe"),
        (Squeezing(width="wide"), "encoder.network.width: expected a whole number, got 'wide'"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_written_into_the_recipe_says_so_in_one_line(
    network: Any, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_plugins().registry, "_of_process", {})
    with pytest.raises(ConfigError) as caught:
        train(tmp_path, network, recipe="recipes/quickstart.toml")
    assert str(caught.value).startswith(problem)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "recipe.toml").exists()
