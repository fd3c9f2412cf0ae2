"""Where the data of a recipe lies now: `--data PATH` of commands that read rows, `data=` in Python. Torch-free."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from jointgen.config.fields import SampledSource
from jointgen.config.recipe import Recipe
from jointgen.config.values import show
from jointgen.contracts.data_keys import key_roles
from jointgen.errors import ConfigError, Problems, for_caller, suggest
from jointgen.runtime.regular_files import user_path
from jointgen.text import listed

DataPaths = Mapping[str, str]
"""Paths by the name of a source, or by "NAME.KEY"; by "" where no source is named."""

_NAMED = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)


def read_data_paths(
    given: str | os.PathLike[str] | Iterable[str] | Mapping[str, str | os.PathLike[str]] | None,
) -> DataPaths:
    """Read what says where data lies.

    Args:
        given: Paths by name, or texts such as "PATH", "NAME=PATH" and "NAME.KEY=PATH". A path that looks like a named
            one is written with "./" in front.

    Raises:
        ConfigError: A source is named twice, or something is no path.

    >>> read_data_paths(["data=x.npy", "prior=/data/z.npy"])
    {'data': 'x.npy', 'prior': '/data/z.npy'}
    >>> read_data_paths("./a=b.npy")
    {'': './a=b.npy'}
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        pairs = [(str(name), path) for name, path in given.items()]
    else:
        texts = [given] if isinstance(given, str | os.PathLike) else list(given)
        matches = [(text, _NAMED.fullmatch(text) if isinstance(text, str) else None) for text in texts]
        pairs = [(match[1], match[2]) if match else ("", text) for text, match in matches]
    problems, data_paths = Problems(), dict[str, str]()
    for name, path in pairs:
        if not isinstance(path, str | os.PathLike) or not (written := os.fsdecode(path)):
            problems.add(f"expected a path, got {show(path)}", _option())
        elif name in data_paths:
            problems.add(f"{name or 'the data'} is given twice", _option())
        else:
            data_paths[name] = written
    problems.raise_any()
    return data_paths


def _option() -> str:
    return for_caller("--data", "data")


def _written(names: Collection[str]) -> str:
    """Write what says where each of some sources lies."""
    in_shell = " ".join(f"--data {name}=PATH" for name in names)
    return for_caller(in_shell, f"data={{{', '.join(f'{show(name)}: PATH' for name in names)}}}")


def relocate(recipe: Recipe, data_paths: DataPaths, recorded: Mapping[str, Iterable[str]] | None = None) -> Recipe:
    """Return the recipe whose sources read their files from other places.

    A source that reads one file or folder reads it from the path that it is given, or from the file of the same name
    in the folder that it is given. One that reads several is given the folder in which all of them lie.

    Args:
        recipe: The recipe.
        data_paths: Where the data lies.
        recorded: The keys of each source that lead to files, where a run has recorded them.

    Raises:
        ConfigError: There is no such path, source or key, or several could be meant.
    """
    keys = {part: _file_keys(source, (recorded or {}).get(part)) for part, source in recipe.all_sources().items()}
    keys = {part: held for part, held in keys.items() if held}
    problems, moved = Problems(), dict[str, dict[str, str]]()
    for name, path in data_paths.items():
        part, _, key = name.partition(".")
        with problems.collect(_option()):
            if not user_path(path).exists():
                raise ConfigError(f"no file or folder {show(path)}" + _here(path))
            if key and key in (known := dict(location_keys(recipe.all_sources().get(part)))):
                moved.setdefault(part, {})[key] = _within(path, known[key])
                continue
            if key and part in keys:
                raise ConfigError(f"{part} has no key {key!r} that leads to files{suggest(key, known)}")
            for one in _meant(part, keys, recipe):
                moved.setdefault(one, {}).update(_spread(path, one, keys[one]))
    problems.raise_any()
    return with_locations(recipe, moved)


def with_locations(recipe: Recipe, locations: Mapping[str, Mapping[str, str]]) -> Recipe:
    """Return the recipe with other values of the keys of its sources, by part and key."""

    def changed(part: str, table: Any) -> Any:
        if not locations.get(part):
            return table
        if isinstance(table, SampledSource):
            return attrs.evolve(table, component=attrs.evolve(table.component, **locations[part]))
        return attrs.evolve(table, **locations[part])

    sources = {part: changed(part, table) for part, table in recipe.sources.items()}
    return attrs.evolve(recipe, data=changed("data", recipe.data), sources=sources)


def absolute_paths(source: Any) -> dict[str, str]:
    """Return the absolute path of each file and folder that a source's keys name and that is there, by key."""
    return {key: os.path.abspath(user_path(value)) for key, value in location_keys(source) if is_there(value)}


def location_keys(source: Any) -> list[tuple[str, str]]:
    """Return the keys of a source that say where its data lies, with their values; none of None."""
    if source is None:
        return []
    keys = [key for key, role in key_roles(type(source)).items() if role == "location"]
    return [(key, value) for key in keys if isinstance(value := getattr(source, key), str) and value]


def _file_keys(source: Any, recorded: Iterable[str] | None) -> dict[str, str]:
    """The keys of a source that lead to files or folders, with their values.

    A location may also be a name on a hub: those that are recorded, or else lead somewhere, come before the others.
    """
    held = dict(location_keys(source))
    known = [key for key in (recorded or ()) if key in held] or [key for key, value in held.items() if is_there(value)]
    return {key: held[key] for key in known or held}


def is_there(value: str) -> bool:
    """Return whether a path leads to a file or folder."""
    try:
        return user_path(value).exists()
    except (ConfigError, OSError, ValueError):  # a name that no system takes
        return False


def _meant(part: str, keys: Mapping[str, Mapping[str, str]], recipe: Recipe) -> list[str]:
    """The sources that a place is for."""
    if part in keys:
        return [part]
    if part in recipe.all_sources():
        raise ConfigError(f"{part} reads no files")
    if part:
        raise ConfigError(f"the recipe has no data source {part!r}{suggest(part, keys)}")
    if not keys:
        raise ConfigError("the recipe's data reads no files")
    if len({tuple(held.values()) for held in keys.values()}) > 1:
        options = _written(keys)
        raise ConfigError(f"the recipe has several data sources ({listed(keys)}); say which lies where: {options}")
    return [*keys]


def _spread(path: str, part: str, held: Mapping[str, str]) -> dict[str, str]:
    """Find the files of a source in a place, by the keys that name them."""
    if len(held) == 1:
        return {key: _within(path, value) for key, value in held.items()}
    if not user_path(path).is_dir():
        options = _written([f"{part}.{key}" for key in held])
        raise ConfigError(f"{part} reads several files ({listed(held)}); give the folder that holds them, or {options}")
    return {key: str(user_path(path) / Path(value).name) for key, value in held.items()}


def _within(path: str, before: str) -> str:
    """The file of the name that it had before, where the path is a folder that holds it; else the path."""
    inside = user_path(path) / Path(before).name
    return str(inside) if inside.is_file() else path


def _here(path: str) -> str:
    return "" if user_path(path).is_absolute() else f" in {str(Path.cwd())!r}"
