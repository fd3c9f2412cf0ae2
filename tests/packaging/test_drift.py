"""Plugins are named in four places: folders, wheel packages, declared and installed entry points. They agree.

One entry point is the core's own: the language registers the text form of its objectives by the door of plugins.
"""

from __future__ import annotations

import tomllib
from importlib import metadata

from support.paths import REPO

import jointgen

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())
GROUP = "jointgen.plugins"

DECLARED = dict(PROJECT["project"]["entry-points"][GROUP])
LANGUAGE = DECLARED.pop("expression")  # the core's own: the text form of an objective
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_every_plugin_folder_is_in_the_wheel() -> None:
    folders = [f"plugins/{path.parent.name}" for path in (REPO / "plugins").glob("*/__init__.py")]
    assert sorted(PACKAGES) == sorted(["jointgen", *folders])


def test_every_plugin_folder_is_an_entry_point() -> None:
    folders = [path.name for path in (REPO / "plugins").iterdir() if any(path.glob("*.py"))]
    assert sorted(DECLARED.values()) == sorted(folders)


def test_an_entry_point_is_named_as_its_package() -> None:
    assert {package.removeprefix("jointgen_"): package for package in DECLARED.values()} == DECLARED


def test_the_text_form_of_an_objective_needs_no_plugin() -> None:
    assert LANGUAGE == "jointgen.objectives.recipe_text"


def test_what_is_installed_is_what_is_declared() -> None:
    found = metadata.distribution("jointgen").entry_points
    installed = {entry.name: entry.value for entry in found if entry.group == GROUP}
    assert installed == DECLARED | {"expression": LANGUAGE}, (
        "entry points are a snapshot; reinstall: uv sync --reinstall-package jointgen"
    )


def test_the_version_is_the_same_in_both_places() -> None:
    assert PROJECT["project"]["version"] == jointgen.__version__
