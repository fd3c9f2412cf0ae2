"""The recipes that come with jointgen, and `jointgen copy`, which copies them to be changed. Torch-free.

A shipped recipe lies in a folder for its group, and its name is unique among all of them. It begins with comments that
`jointgen list recipe` shows: a line that says what it is, and the lines "# figure: ..." and "# time: ...".
"""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

from jointgen.cli.arguments import Arguments
from jointgen.config.plugin_files import registry_of, with_plugin_files
from jointgen.config.recipe import check_names, read_tables
from jointgen.config.toml import DIRECTIVE, SCHEMA_FILE, read_toml
from jointgen.errors import ConfigError, nearest, suggest
from jointgen.runtime.atomic_files import replace_text, writing
from jointgen.runtime.console import log_once, say
from jointgen.runtime.ranks import LAUNCHED


def copy_command(arguments: Arguments) -> None:
    """Copy a shipped recipe with the recipes that it is based on."""
    if arguments.recipe is None:
        raise ConfigError(f"copy which recipe? shipped: {', '.join(shipped_recipes()) or 'none'}")
    copies = copy_recipe(arguments.recipe, Path(arguments.destination))
    for path in copies:
        say(str(path))
    say(f"run it: jointgen run {copies[0]}")
    say(f"let your editor complete its keys: jointgen schema -o {copies[0].parent / SCHEMA_FILE}")


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
    name, shipped = _name(path), shipped_recipes()
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


def check_recipe(arguments: Arguments) -> None:
    """Check what can be known of a recipe before the seconds that its components take to import.

    Its file is read here, once: the command works with `arguments.tables`, in which the overrides are.
    """
    recipe = find_recipe(arguments.recipe)
    arguments.tables = with_plugin_files(read_tables(recipe, arguments.set), arguments.plugin)
    check_names(arguments.tables, registry=registry_of(arguments.tables))


def copy_recipe(name: str, destination: Path) -> list[Path]:
    """Copy a shipped recipe and every recipe that it is based on.

    Args:
        name: Of the recipe, with or without ".toml".
        destination: A folder, made if need be, or a file that ends in .toml.

    Returns:
        The copies; the recipe's own is the first.

    Raises:
        ConfigError: There is no such recipe, or a file would be overwritten. Nothing has been written then.
    """
    shipped = shipped_recipes()
    if _name(name) not in shipped:
        raise ConfigError(f"unknown recipe {name!r}{suggest(name, shipped)}")
    copies = _copies(shipped[_name(name)], destination)
    if taken := [path for path in copies if path.exists()]:
        raise ConfigError([f"{path}: already exists; copy to another folder or remove it" for path in taken])
    for path, text in copies.items():
        with writing(path, ConfigError):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, text)
    return list(copies)


def _name(path: str) -> str:
    return Path(path).name.removesuffix(".toml")


_BASE = re.compile(r'^base = ".*"$', re.MULTILINE)


def _copies(recipe: Path, destination: Path) -> dict[Path, str]:
    """Return {copy: text}. All copies lie in one folder, so that of a base only the file name is left."""
    own = destination if destination.suffix == ".toml" else destination / recipe.name
    copies, path = dict[Path, str](), own
    while base := read_toml(recipe).get("base"):
        copies[path] = DIRECTIVE + _BASE.sub(f'base = "{Path(base).name}"', recipe.read_text())
        recipe = recipe.parent / base
        path = own.parent / recipe.name
    return {**copies, path: DIRECTIVE + recipe.read_text()}
