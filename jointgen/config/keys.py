"""The keys of a component as a person reads them: what each may hold, what it is by default, and what it means.

>>> @attrs.frozen
... class Blur:
...     '''Smooths images.
...
...     Args:
...         width: The width of the filter, pixels.
...     '''
...
...     width: int = 3
>>> from jointgen.registry.components import Registry
>>> keys_of(Blur, Registry())
[Key(name='width', type='a whole number', default='3', doc='The width of the filter, pixels.')]
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin

import attrs

from jointgen.config.structure import describe, is_component, key_of, marker_of, unstructure
from jointgen.config.values import show
from jointgen.registry.components import Registry

_PLURALS = {int: "whole numbers", float: "numbers", str: "strings"}
_INDENT = 4


@attrs.frozen
class Key:
    """A key of a component's table.

    Args:
        name: The key, with the keys of the tables that it stands in; NAME is a name of the user's.
        type: What it may hold.
        default: What it is where it is not given, as TOML writes it; "none" is what TOML cannot write, and an empty
            text means that it must be given.
        doc: What it means; empty where its class does not say.
    """

    name: str
    type: str
    default: str
    doc: str


def keys_of(cls: type, registry: Registry) -> list[Key]:
    """List the keys of a component's class, each followed by those of the table that it holds, if it does."""
    by_name: dict[str, Key] = {}
    for key in _keys_of(cls, registry, "", ()):
        by_name.setdefault(key.name, key)  # several tables may be meant, and share keys
    return [*by_name.values()]


def _keys_of(cls: type, registry: Registry, prefix: str, above: tuple[type, ...]) -> Iterator[Key]:
    docs = documented(cls)
    for field in attrs.fields(attrs.resolve_types(cls)):
        if field.init:
            name = f"{prefix}{key_of(field)}"
            yield Key(name, _in_words(field.type, registry), _default(field, registry), docs.get(field.name, ""))
            for inner, table in _tables_in(field.type, name):
                if table not in (*above, cls):
                    yield from _keys_of(table, registry, f"{inner}.", (*above, cls))


def documented(cls: type) -> dict[str, str]:
    """Read what docstrings say of a class's arguments, one line each: its own, then those of the classes below it."""
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        block = re.search(r"^Args:\n((?: .*\n|\n)*)", f"{inspect.cleandoc(owner.__doc__ or '')}\n", re.MULTILINE)
        names: list[str] = []
        for line in block[1].splitlines() if block else []:
            start = re.fullmatch(rf" {{{_INDENT}}}(\w+(?:, \w+)*): (.*)", line)
            if start:
                names = start[1].split(", ")
                found |= dict.fromkeys(names, start[2])
            else:
                found |= {name: f"{found[name]} {line.strip()}".rstrip() for name in names}
    return found


def _in_words(want: Any, registry: Registry) -> str:
    """Describe a type, with what its lists and tables hold."""
    if get_origin(want) in (Union, types.UnionType):
        members = [member for member in get_args(want) if member is not types.NoneType]
        return " or ".join(dict.fromkeys(_in_words(member, registry) for member in members))
    if get_origin(want) is list and get_args(want)[0] in _PLURALS:
        return f"a list of {_PLURALS[get_args(want)[0]]}"
    if get_origin(want) in (dict, Mapping):
        return f"a table of names, each {_in_words(get_args(want)[1], registry)}"
    return describe(want, registry)


def _tables_in(want: Any, name: str) -> Iterator[tuple[str, type]]:
    """Yield (key, class) of the tables whose keys are known and that a value of this type may hold."""
    if attrs.has(want):
        yield name, want
    elif not is_component(want):
        origin = get_origin(want)
        inside = f"{name}[]" if origin is list else f"{name}.NAME" if origin is dict else name
        for member in get_args(want):
            yield from _tables_in(member, inside)


def _default(field: attrs.Attribute, registry: Registry) -> str:
    default: Any = field.default
    if default is attrs.NOTHING:
        return ""
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        if default.takes_self:
            return "by the other keys"
        default = default.factory()
    return _as_toml(default, field.type, registry)


def _as_toml(value: Any, want: Any, registry: Registry) -> str:
    if value is None:
        return "none"
    if attrs.has(type(value)):
        table = unstructure(value, registry)
        if kind := next((member for member in (want, *get_args(want)) if is_component(member)), None):
            table = {"type": marker_of(kind).name_of(type(value), registry), **table}
        value = table
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} = {_as_toml(inner, Any, registry)}" for key, inner in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return show(value)
