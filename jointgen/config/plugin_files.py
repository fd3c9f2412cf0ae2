"""The key `plugins` of a recipe: Python files with components of its own, which its run keeps. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from jointgen.config.recipe import PluginTable, Recipe
from jointgen.config.structure import structure
from jointgen.errors import ConfigError, Problem, placing
from jointgen.registry.components import Registry
from jointgen.registry.discovery import load_plugins
from jointgen.registry.files import PluginFile, load_files

FOLDER = "plugins"
"""The folder in a run folder that holds them."""


@attrs.frozen
class _Plugins:
    plugins: list[str | PluginTable] | None = None


def registry_of(tables: Mapping[str, Any]) -> Registry:
    """Return the components that a recipe may use: those of installed plugins, and of its own plugin files.

    Args:
        tables: The recipe, as `read_tables` returns it.

    Raises:
        ConfigError: A file is not there, is another one than the recipe says, or cannot be run.
    """
    files = _loaded(tables, Path(), foreign=False)
    changed = [
        Problem(f"{file.path} is another file than the recipe says ({file.change}); to take it, remove the key", n)
        for n, file in enumerate(files)
        if file.has_changed
    ]
    if changed:
        raise ConfigError([problem.under("plugins") for problem in changed])
    return load_plugins().registry.with_files(files)


def registry_of_run(tables: Mapping[str, Any], folder: Path) -> Registry:
    """Return the components that a run uses. Its own files are code, and need consent (`trusting`).

    Args:
        tables: The run's recipe.
        folder: The run folder.

    Raises:
        ConfigError: A file is not there or cannot be run, or consent is missing.
    """
    return load_plugins().registry.with_files(_loaded(tables, folder, foreign=True))


def _loaded(tables: Mapping[str, Any], folder: Path, *, foreign: bool) -> tuple[PluginFile, ...]:
    own = {"plugins": tables["plugins"]} if "plugins" in tables else {}
    named = structure(own, _Plugins, Registry()).plugins or []
    entries = [PluginTable(one) if isinstance(one, str) else one for one in named]
    outside = [n for n, entry in enumerate(entries) if Path(entry.file).parent != Path(FOLDER)] if foreign else []
    if outside:
        message = f"must be a file of the run's folder {FOLDER}/"
        raise ConfigError([Problem(f"{message}, got {entries[n].file!r}", "plugins", n, "file") for n in outside])
    with placing("plugins"):
        return load_files([(folder / entry.file, entry.sha256) for entry in entries], foreign=foreign)


def with_plugin_files(tables: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """Return a recipe's tables with further plugin files, such as those that the command line names."""
    added = list(paths)
    return {**tables, "plugins": [*(tables.get("plugins") or []), *added]} if added else dict(tables)


def kept_in_run(recipe: Recipe, registry: Registry) -> Recipe:
    """Return the recipe with its plugin files as its run keeps them: in its folder, each with its hash."""
    if not registry.files:
        return recipe
    return attrs.evolve(recipe, plugins=[PluginTable(f"{FOLDER}/{f.path.name}", f.sha256) for f in registry.files])
