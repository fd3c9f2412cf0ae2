"""What the command line does with recipes before it does anything slow, and `jointgen copy`. Torch-free."""

from __future__ import annotations

import re
from pathlib import Path

from jointgen.cli.arguments import Arguments
from jointgen.config.plugin_files import registry_of, with_plugin_files
from jointgen.config.recipe import check_names, read_tables
from jointgen.config.shipped import recipe_name, shipped_recipes
from jointgen.config.toml import DIRECTIVE, SCHEMA_FILE, read_toml
from jointgen.errors import ConfigError, suggest
from jointgen.runs.missing_components import explaining_missing
from jointgen.runtime.atomic_files import replace_text, writing
from jointgen.runtime.console import say


def copy_command(arguments: Arguments) -> None:
    """Copy a shipped recipe with the recipes that it is based on."""
    if arguments.recipe is None:
        raise ConfigError(f"copy which recipe? shipped: {', '.join(shipped_recipes()) or 'none'}")
    copies = copy_recipe(arguments.recipe, Path(arguments.destination))
    for path in copies:
        say(str(path))
    say(f"run it: jointgen run {copies[0]}")
    say(f"let your editor complete its keys: jointgen schema -o {copies[0].parent / SCHEMA_FILE}")


def check_recipe(arguments: Arguments) -> None:
    """Check what can be known of a recipe before the seconds that its components take to import.

    Its file is read here, once: the command works with `arguments.tables`, in which the overrides are.
    """
    arguments.tables = with_plugin_files(read_tables(arguments.recipe, arguments.set), arguments.plugin)
    registry = registry_of(arguments.tables)
    with explaining_missing(arguments.tables, arguments.recipe, getattr(arguments, "out", None), registry):
        check_names(arguments.tables, registry=registry)


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
    if recipe_name(name) not in shipped:
        raise ConfigError(f"unknown recipe {name!r}{suggest(name, shipped)}")
    copies = _copies(shipped[recipe_name(name)], destination)
    if taken := [path for path in copies if path.exists()]:
        raise ConfigError([f"{path}: already exists; copy to another folder or remove it" for path in taken])
    for path, text in copies.items():
        with writing(path, ConfigError):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, text)
    return list(copies)


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
