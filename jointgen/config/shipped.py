"""The recipes that come with jointgen. Torch-free.

A shipped recipe lies in a folder for its group, and its name is unique among all of them. It begins with comments that
`jointgen list recipe` shows: a line that says what it is, and the lines "# figure: ..." and "# time: ...".
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from jointgen.errors import ConfigError, nearest
from jointgen.runtime.console import log_once
from jointgen.runtime.ranks import LAUNCHED


def recipe_folder() -> Path:
    """The folder of the shipped recipes: inside the package in a wheel, beside it in a checkout."""
    packed = Path(str(resources.files("jointgen"))) / "recipes"
    return packed if packed.is_dir() else Path(__file__).parents[2] / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """The recipe files by name, without their ending: those of the folder itself, and then each group's."""
    files = recipe_folder().rglob("*.toml")
    return {path.stem: path for path in sorted(files, key=lambda path: (path.parent, path.name))}


def find_recipe(path: str) -> Path:
    """Return the path of a recipe file. A shipped recipe is also found by its name, which a line says.

    Raises:
        ConfigError: There is no such file, but a shipped recipe of that name, or of nearly that name. Any other missing
            file is left to the reader of the recipe, which names the nearest file beside it.
    """
    if Path(path).exists():
        return Path(path)
    name, shipped = recipe_name(path), shipped_recipes()
    beside = [file.stem for file in Path(path).parent.glob("*.toml")]  # nearer: the reader of TOML names those
    if name in beside or name not in shipped:
        if not nearest(name, beside) and (near := nearest(name, shipped)):
            raise ConfigError(f"{path}: no such file; did you mean {near!r}, which comes with jointgen?")
        return Path(path)
    if path != name:
        raise ConfigError(
            f"{path}: no such file; a recipe that comes with jointgen goes by its name alone, {name!r}, and "
            f"`jointgen copy {name}` copies it here"
        )
    if LAUNCHED not in os.environ:  # the processes that a command starts have been told
        log_once(f"{name}: the recipe that comes with jointgen, {shipped[name]}")
    return shipped[name]


def recipe_name(path: str) -> str:
    """Return the name of the recipe in a file, or the name itself."""
    return Path(path).name.removesuffix(".toml")
