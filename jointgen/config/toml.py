"""TOML files and overrides as plain tables, before anything is known about their meaning. Torch-free."""

from __future__ import annotations

import copy
import datetime
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from jointgen.errors import ConfigError, KeyPath, Problems, dotted, nearest


def show(value: object) -> str:
    """Write a value for a message: short, and as TOML would write it.

    >>> show(True), show({"type": "mlp"})
    ('true', 'a table')
    """
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date | datetime.time):
        return str(value)
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def to_toml(tables: Mapping[str, Any]) -> str:
    """Write tables as the text of a TOML file."""
    return tomli_w.dumps(tables)


# --- files -----------------------------------------------------------------------------------------------------------


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the tables of one file, without following its ``base``.

    Raises:
        ConfigError: The file is not there, cannot be read or is not TOML; the message names it.
    """
    path = Path(path)
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{_nearest_recipe(path)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; expected a TOML file{_nearest_recipe(path / 'recipe.toml')}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not TOML: byte {error.start} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def load_tables(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the tables of a recipe, merged onto those of the recipe that its ``base`` names.

    The path of the base is relative to the recipe's folder. The recipe's own values win. A table whose ``type``
    differs replaces the base's table whole, because the base's other keys belong to another component.

    Raises:
        ConfigError: A base is missing, or recipes are based on each other.
    """
    return _load_chain(Path(path), ())


def _load_chain(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in [recipe.resolve() for recipe in above]:
        chain = " -> ".join(str(recipe) for recipe in (*above, path))
        raise ConfigError(f"these recipes are based on each other: {chain}", "base")
    tables = _read_base(path, above[-1]) if above else read_toml(path)
    if "base" not in tables:
        return tables
    base = tables.pop("base")
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: expected the name of a TOML file, got {show(base)}")
    return _merge(_load_chain(path.parent / base, (*above, path)), tables)


def _read_base(path: Path, recipe: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except ConfigError as error:
        raise ConfigError(f"{recipe}: base: {error}") from None


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    if "type" in base and "type" in own and base["type"] != own["type"]:
        return own
    both = {key: _merge(base[key], own[key]) for key in own if _is_table(base.get(key)) and _is_table(own[key])}
    return {**base, **own, **both}


def _nearest_recipe(path: Path) -> str:
    """Look for a file of a similar name in the same folder and its parent, and of the same name in folders beside."""
    folder = path.parent
    try:
        found = [*folder.glob("*.toml"), *folder.parent.glob("*.toml"), *folder.parent.glob(f"*/{path.name}")]
    except (OSError, ValueError):  # a folder that cannot be listed, a name that is no pattern
        return ""
    files = {file.name: file for file in reversed(found)}
    near = nearest(path.name, files)
    return f"; did you mean '{files[near]}'?" if near else ""


# --- overrides -------------------------------------------------------------------------------------------------------


def apply_overrides(tables: Mapping[str, Any], overrides: Iterable[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `tables` with values replaced, in order.

    Giving a table another ``type`` empties it, because its keys belong to another component. What the other overrides
    set in that table is kept, whether they come before or after.

    Args:
        tables: The tables of a recipe.
        overrides: Texts such as ``train.steps=200``, a dotted TOML key and a TOML value, or a mapping from dotted keys
            to values. In a text, a value that is not TOML is taken as a string, so that ``data.root=/x`` needs no
            quotes. In a mapping, None removes the key. A number in a key is a position in a list, from 0.

    Raises:
        ConfigError: An override is no key with a value, or does not fit the tables; all such problems at once.

    >>> apply_overrides({"train": {"steps": 10}}, ["train.steps=200", "data.root=/x"])
    {'train': {'steps': 200}, 'data': {'root': '/x'}}
    """
    problems = Problems()
    items = overrides.items() if isinstance(overrides, Mapping) else [(text, _TEXT) for text in overrides]
    given: list[Override] = []
    for text, value in items:
        with problems.collect():
            given.append(_parse_text(text) if value is _TEXT else (_parse_key(text), plain(value)))
    result = plain(tables)
    for n, (path, value) in enumerate(given):
        with problems.collect():
            _apply(result, path, value, given[:n])
    problems.raise_any()
    return result


Override = tuple[tuple[str, ...], Any]


def _apply(tables: dict[str, Any], path: tuple[str, ...], value: Any, earlier: list[Override]) -> None:
    table = path[:-1]
    if not (table and path[-1] == "type" and _has_other_type(tables, table, value)):
        return _set(tables, path, value)
    _set(tables, table, {"type": value})
    for inner, kept in earlier:
        if inner != path and len(inner) > len(table) and inner[: len(table)] == table:
            _set(tables, inner, kept)
    return None


def _has_other_type(tables: dict[str, Any], path: tuple[str, ...], value: Any) -> bool:
    held: Any = tables
    for part in path:
        if isinstance(held, list):
            held = held[int(part)] if part.isdecimal() and int(part) < len(held) else None
        else:
            held = held.get(part) if _is_table(held) else None
    return _is_table(held) and held.get("type", value) != value


def _set(tables: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    holder: Any = tables
    for n, part in enumerate(path[:-1], 1):
        holder = _enter(holder, part, path[:n])
    key = _position(holder, path[-1], path)
    if value is None:
        holder.pop(key) if isinstance(holder, list) else holder.pop(key, None)
    else:
        holder[key] = copy.deepcopy(value)


def _enter(holder: Any, part: str, path: tuple[str, ...]) -> Any:
    key = _position(holder, part, path)
    inner = holder[key] if isinstance(holder, list) else holder.setdefault(key, {})
    if not isinstance(inner, dict | list):
        raise ConfigError(f"is {show(inner)}, so it has no keys to override", *path)
    return inner


def _position(holder: dict[str, Any] | list[Any], part: str, path: tuple[str, ...]) -> Any:
    if not isinstance(holder, list):
        return part
    if not (part.isdecimal() and int(part) < len(holder)):
        raise ConfigError(f"{part!r} is no position in a list of {len(holder)}, counted from 0", *path)
    return int(part)


_TEXT = object()


def _parse_text(text: str) -> Override:
    """Split at the first ``=`` that has a whole key before it, because a quoted key may contain one."""
    for equals in re.finditer("=", text):
        path = _try_key(text[: equals.start()])
        if path is not None:
            return path, _parse_value(text, text[equals.end() :].strip())
    raise ConfigError(f"override {text!r}: expected KEY=VALUE with a dotted key, such as train.steps=200")


def _parse_key(text: str) -> tuple[str, ...]:
    path = _try_key(text)
    if path is None:
        raise ConfigError(f"override {text!r}: expected a dotted key, such as train.steps")
    return path


def _try_key(text: str) -> tuple[str, ...] | None:
    try:
        held: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        return None
    path: list[str] = []
    while _is_table(held):
        if len(held) != 1:  # several lines
            return None
        path += held
        held = held[path[-1]]
    return tuple(path)


def _parse_value(text: str, value: str) -> Any:
    if not value:
        raise ConfigError(f'override {text!r}: the value is missing; an empty string is ""')
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError as error:
        if value[0] in "[{\"'":
            reason = str(error).split(" (at ")[0]
            raise ConfigError(f"override {text!r}: {value} is not a TOML value: {reason}") from None
        return value
    return parsed["value"] if len(parsed) == 1 else value


# --- small helpers ---------------------------------------------------------------------------------------------------


def flatten(tables: Mapping[str, Any], above: KeyPath = ()) -> Iterator[tuple[str, Any]]:
    """Yield every value of nested tables with its dotted key, below the keys `above`.

    >>> dict(flatten({"train": {"steps": 10}, "seed": 0}))
    {'train.steps': 10, 'seed': 0}
    """
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from flatten(value, (*above, key))
        else:
            yield dotted((*above, key)), value


def plain(value: Any) -> Any:
    """Return a copy in the types of TOML: dict, list, str and scalars."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)
