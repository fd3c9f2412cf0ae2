"""What the README and the pages that it sends to show works: examples train, texts parse, named recipes exist."""

from __future__ import annotations

import contextlib
import re
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.paths import REPO

import jointgen
from jointgen.config.recipe import Recipe, Train, read_recipe
from jointgen.config.shipped import shipped_recipes
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.objectives import Objective
from jointgen.registry.components import Component
from jointgen.registry.discovery import load_plugins

README, TRAINING, FAMILIES, OWN_PARTS = (
    (REPO / page).read_text(encoding="utf-8")
    for page in (
        "README.md",
        "docs/reference/training.md",
        "docs/reference/families.md",
        "docs/extending/your-own-parts.md",
    )
)


def block(language: str, containing: str, text: str = README) -> str:
    found = [b for b in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if containing in b]
    assert len(found) == 1, f"one {language} block with {containing!r}"
    return str(found[0])


def test_python_example_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As printed, but for fewer steps and the checkout's recipes from elsewhere."""
    code = block("python", "Objective.of")
    assert len(code.splitlines()) < 20
    monkeypatch.chdir(tmp_path)
    code = code.replace('"recipes/', f'"{REPO}/recipes/').replace('"train.steps": 1000', '"train.steps": 5')
    assert "1000" not in code
    names: dict[str, object] = {}
    exec(code, names)
    run, x = names["run"], names["x"]
    assert isinstance(names["svae"], Objective) and x.shape == (64, 1, 8, 8)  # type: ignore[attr-defined]
    assert run.summary["status"] == "done"  # type: ignore[attr-defined]
    assert "maximise E[q(x,z)](log p(x|z) - f) + E[p(x,z)](log q(z|x) + f)" in capsys.readouterr().out
    repeated = tomllib.loads((tmp_path / "runs/svae/recipe.toml").read_text(encoding="utf-8"))
    assert repeated["objective"]["ratios"]["f"]["of"] == "q(x,z) : p(x,z)"


def test_the_text_in_the_recipe_is_the_same_objective() -> None:
    tables = tomllib.loads(block("toml", "maximize"))
    recipe = read_recipe(
        REPO / "recipes/quickstart.toml", {"objective": tables["objective"]}, registry=load_plugins().registry
    )
    text = str(recipe.objective.objective())
    assert text.startswith("maximise E[q(x,z)](log p(x|z) - f) + E[p(x,z)](log q(z|x) + f)")


def test_the_readme_is_short_and_its_part_is_the_one_that_the_page_registers() -> None:
    assert len(README.splitlines()) <= 150
    code = block("python", "@jointgen.register").replace("   # now { type", "  # now { type")
    lines = [line.partition("  #")[0].rstrip() for line in code.splitlines()]
    page = block("python", '@jointgen.register.encoder("wide")', OWN_PARTS)
    assert [line for line in lines if line] == [
        line[4:] for line in page.splitlines() if line[4:] in lines and line.startswith((">>> ", "... "))
    ]


def test_the_training_options_are_keys() -> None:
    tables = tomllib.loads(block("toml", "[optimizer.model]", TRAINING))
    options = {f"optimizer.{key}": value for key, value in tables["optimizer"].items()}
    recipe = vae_with({**options, "objective": tables["objective"]})
    assert recipe.optimizer.parts["encoder"].lr == 0.01


def vae_with(changes: dict[str, Any]) -> Recipe:
    return read_recipe(REPO / "recipes/vae_mnist.toml", changes, registry=load_plugins().registry)


def test_every_key_of_train_is_in_a_table_or_named() -> None:
    """And the values that the tables give are accepted."""
    section = TRAINING.split("## Several processes")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
    found = [named for cell in cells for named in re.findall(r"`([\w.]+)(?: = ([^`]+))?`", cell)]
    for key, value in found:
        if value and key != "images":  # the recipe gives steps, and one of the two is enough
            vae_with({f"train.{key}": tomllib.loads(f"value = {value}")["value"]})
    named = {key.partition(".")[0] for key, _ in found} | {*re.findall(r"`train\.(\w+)", section)}
    assert {field.name for field in attrs.fields(Train)} - named == set()


def test_named_recipes_exist() -> None:
    named = set(re.findall(r"recipes/(\w+)\.toml", README)) | set(
        re.findall(r"`(\w+_(?:mnist|cifar10|imagenet))`", README)
    )
    named |= set(re.findall(r"jointgen run (\w+) ", README))
    assert len(named) > 10 and named <= shipped_recipes().keys()


def test_every_recipe_is_accepted() -> None:
    recipes = sorted((REPO / "recipes").glob("*.toml"))
    assert len(recipes) >= 9
    for path in recipes:
        assert read_recipe(path, registry=load_plugins().registry).name == path.stem


ROW = re.compile(r"^\| `(\w+)` \|[^|]*\|(.*)\|$", re.MULTILINE)


def families_and_priors() -> list[tuple[str, list[str]]]:
    """Name and [sample path, densities, KL] of the table's rows."""
    return [(name, [cell.strip() for cell in cells.split("|")]) for name, cells in ROW.findall(FAMILIES)]


VARIABLES = [
    Space((2,)),
    Space((3, 4, 4), low=0.0, high=1.0, bins=256),
    Space((4,), kind="binary", bins=2),
    Space((3,), "label"),
]


def declared(component: Component) -> list[str]:
    """The same as the component, with its defaults, declares it for the first variable that it serves."""
    config: Any = component.load()()
    for space in VARIABLES:
        with contextlib.suppress(ConfigError):
            can = config.capabilities(space)
            return [can.paths["sample"], f"{can.own_density} / {can.foreign_density}", ", ".join(can.kl_to)]
    raise AssertionError(f"{component.name} serves none of the variables")


def test_the_table_names_every_family_and_prior_once_and_what_they_can() -> None:
    components = [one for one in load_plugins().registry.components() if one.kind in ("family", "prior")]
    rows = families_and_priors()
    assert sorted(name for name, _ in rows) == sorted(one.name for one in components)
    for one in components:
        if one.name not in (
            "learned",
            "vamp",
            "ladder",
            "vq",
            "torch",
        ):  # what they can is another's, or they have no default
            assert (one.name, declared(one)) in rows, one.name


def test_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == jointgen.__version__
