"""TOML files and overrides as plain tables, before anything is known about their meaning. Torch-free."""

from __future__ import annotations

import copy
import itertools
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from jointgen.config.values import MAX_DEPTH, check_values, show
from jointgen.errors import ConfigError, FileError, KeyPath, MissingFileError, Problems, dotted, nearest, placing
from jointgen.runtime.regular_files import read_regular
from jointgen.text import shortened

MAX_BYTES = 1 << 20
"""The limit in bytes of a recipe's file; the shipped ones have about 2,000."""
SCHEMA_FILE = "jointgen.schema.json"
DIRECTIVE = f"#:schema {SCHEMA_FILE}\n"
"""The first line of a recipe that tells an editor of the JSON Schema beside it, which `jointgen schema -o` writes."""
MAX_NAMED = 2_000
"""So many characters of a list of named tables, such as of metrics, are read, at the most (`named_tables`)."""
MAX_BASES = 100
"""So many files may be based on one another."""


def to_toml(tables: Mapping[str, Any]) -> str:
    """Write tables as the text of a TOML file."""
    return tomli_w.dumps(tables)


# --- text ------------------------------------------------------------------------------------------------------------

_PART = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
# a key at one of its places; tomllib takes time and memory in the square of its parts
_LONG_KEY = re.compile(rf"(?:^|[\[{{,])[ \t]*{_PART}(?:[ \t]*\.[ \t]*{_PART}){{{MAX_DEPTH},}}+", re.MULTILINE)


def parse_toml(text: str) -> dict[str, Any]:
    """Read TOML text.

    Raises:
        ValueError: The text is not TOML; in one line.
        ConfigError: It is, and holds what no recipe can (`check_values`).
    """
    tables = _loads(text)
    check_values(tables)
    return tables


def _loads(text: str) -> dict[str, Any]:
    if _LONG_KEY.search(text):
        raise ConfigError(f"a key has more than {MAX_DEPTH} parts")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ConfigError(f"tables or lists are nested more than {MAX_DEPTH} deep") from None
    except ValueError:  # Python reads no number of more than some thousand digits
        raise ConfigError("a whole number has more than 64 bits") from None


# --- files -----------------------------------------------------------------------------------------------------------


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the tables of one file, without following its ``base``.

    Raises:
        FileError: The file is not there, cannot be read or is not TOML.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise FileError(path, f"is a folder; expected a TOML file{_nearest_recipe(path / 'recipe.toml')}")
    try:
        return parse_toml(read_regular(path, MAX_BYTES).decode("utf-8-sig"))
    except MissingFileError:
        raise MissingFileError(path, f"no such file{_nearest_recipe(path)}") from None
    except FileError:
        raise
    except UnicodeDecodeError as error:
        raise FileError(path, f"not TOML: byte {error.start} is not UTF-8") from None
    except ValueError as error:
        raise FileError(path, f"not TOML: {error}") from None
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None


def load_tables(path: str | os.PathLike[str], named: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """Read the tables of a recipe, merged onto those of the recipe that its ``base`` names.

    The path of the base is relative to the recipe's folder, and so are those of `plugins`. The recipe's own values win.
    A table whose ``type`` differs replaces the base's table whole, because the base's other keys belong to another
    component.

    Args:
        path: The file.
        named: Files that a base may also name by other names than their paths, such as the shipped recipes.

    Raises:
        ConfigError: A base is missing, there are too many, or recipes are based on each other.
    """
    chain = [Path(path)]
    levels = [read_toml(path)]
    seen = {os.path.realpath(path)}
    while "base" in levels[-1]:
        recipe, base = chain[-1], levels[-1].pop("base")
        if not isinstance(base, str):
            raise ConfigError(f"{recipe}: base: expected the name of a TOML file, got {show(base)}")
        beside = recipe.parent / base
        chain.append(beside if os.path.lexists(beside) else (named or {}).get(base, beside))
        levels.append(_read_base(chain[-1], recipe))
        if (file := os.path.realpath(chain[-1])) in seen:
            raise ConfigError(f"these recipes are based on each other: {' -> '.join(map(str, chain))}", "base")
        if len(chain) > MAX_BASES:
            raise ConfigError(f"{path}: base: more than {MAX_BASES} recipes are based on one another")
        seen.add(file)
    tables: dict[str, Any] = {}
    for recipe, own in zip(reversed(chain), reversed(levels), strict=True):
        tables = _merge(tables, _with_files_from(recipe.parent, own))
    return tables


def _with_files_from(folder: Path, tables: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's own tables with the paths of its plugin files as they lead from here."""

    def located(entry: Any) -> Any:
        if isinstance(entry, str):
            return str(folder / entry)
        return {**entry, "file": str(folder / entry["file"])} if _names_file(entry) else entry

    if not isinstance(tables.get("plugins"), list):
        return tables
    return {**tables, "plugins": [located(entry) for entry in tables["plugins"]]}


def _names_file(entry: Any) -> bool:
    return _is_table(entry) and isinstance(entry.get("file"), str)


def _read_base(path: Path, recipe: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except ConfigError as error:
        raise ConfigError([f"{recipe}: base: {problem}" for problem in error.problems]) from None


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
            path, value = _parse_text(text) if value is _TEXT else (_parse_key(text), value)
            with placing(*path[:-1]):
                check_values({path[-1]: value})
            given.append((path, plain(value)))
    with problems.collect():
        check_values(tables)
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
            held = held[int(part)] if _is_position(part, held) else None
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
    if not _is_position(part, holder):
        raise ConfigError(f"{_cut(part)} is no position in a list of {len(holder)}, counted from 0", *path)
    return int(part)


def _is_position(part: str, holder: list[Any]) -> bool:
    return part.isdecimal() and len(part) < 10 and int(part) < len(holder)


_TEXT = object()
_MAX_TRIES = 100


def _parse_text(text: str) -> Override:
    """Split at the first ``=`` that has a whole key before it, because a quoted key may contain one."""
    for equals in itertools.islice(re.finditer("=", text), _MAX_TRIES):
        path = _try_key(text[: equals.start()])
        if path is not None:
            return path, _parse_value(text, path, text[equals.end() :].strip())
    raise ConfigError(f"override {_cut(text)}: expected KEY=VALUE with a dotted key, such as train.steps=200")


def _parse_key(text: str) -> tuple[str, ...]:
    path = _try_key(text)
    if path is None:
        raise ConfigError(f"override {_cut(text)}: expected a dotted key, such as train.steps")
    return path


def _try_key(text: str) -> tuple[str, ...] | None:
    try:
        held: Any = _loads(f"{text} = 0")
    except (ValueError, ConfigError):
        return None
    path: list[str] = []
    while _is_table(held):
        if len(held) != 1:  # several lines
            return None
        path += held
        held = held[path[-1]]
    return tuple(path)


def _parse_value(text: str, path: tuple[str, ...], value: str) -> Any:
    if not value:
        raise ConfigError(f'override {_cut(text)}: the value is missing; an empty string is ""')
    try:
        with placing(*path):
            parsed = _loads(f"value = {value}")
    except ValueError as error:
        if value[0] in "[{\"'":
            reason = str(error).split(" (at ")[0]
            raise ConfigError(f"override {_cut(text)}: {shortened(value)} is not a TOML value: {reason}") from None
        return value
    return parsed["value"] if len(parsed) == 1 else value


def _cut(text: object) -> str:
    return shortened(repr(text))


# --- components as text ---------------------------------------------------------------------------------------------


def named_tables(text: str) -> list[dict[str, Any]]:
    """Return the table of each component that a text names, with the name as its `type` and inline tables of settings.

    Raises:
        ConfigError: The text is no such list.

    >>> named_tables("elbo, iwae{k=1000}")
    [{'type': 'elbo'}, {'type': 'iwae', 'k': 1000}]
    """
    if len(text) > MAX_NAMED:
        raise ConfigError(f"has {len(text):,} characters; at most {MAX_NAMED:,} are read")
    rest, tables = text.strip(), list[dict[str, Any]]()
    while rest:
        found = re.match(r"([\w-]+)\s*(?=[{,]|$)", rest)
        written, settings = _inline_table(rest[found.end() :]) if found else ("", {})
        end = re.match(r"\s*(,|$)\s*", rest[found.end() + len(written) :]) if found else None
        if found is None or end is None:
            raise ConfigError(f"{shortened(repr(rest))} is not NAME or NAME{{key = value}}, with commas between")
        if "type" in settings:
            raise ConfigError(f"{shortened(repr(found[0] + written))}: the name is its type; remove the key 'type'")
        tables.append({"type": found[1], **settings})
        rest = rest[found.end() + len(written) + end.end() :]
    return tables


def _inline_table(text: str) -> tuple[str, dict[str, Any]]:
    """Return the TOML inline table with which the text begins, as text and as a table; both empty without one."""
    if not text.startswith("{"):
        return "", {}
    problem: object = "it has no end"
    for end in _MAYBE_ENDS.finditer(text):  # of this table, or of one within it, or a brace in a string
        try:
            return text[: end.end()], parse_toml(f"settings = {text[: end.end()]}")["settings"]
        except ValueError as error:
            problem = error
    raise ConfigError(f"{shortened(text)} is not a TOML inline table: {problem}")


_MAYBE_ENDS = re.compile("}")


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
