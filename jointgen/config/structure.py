"""From plain tables to a strict tree of attrs classes, and back. Torch-free.

A field that holds a registered component is annotated with a marker of `jointgen.config.fields`: its table names the
component by ``type``, and everything else in the table is a field of that component.

cattrs walks the tree. What it would coerce or ignore is refused here, and all problems are raised at once, each with
its key path.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import BaseValidationError, Converter, override
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

from jointgen.config.fields import OfKind
from jointgen.config.toml import flatten, named_tables, plain
from jointgen.config.values import show
from jointgen.errors import ConfigError, PluginError, Problem, suggest
from jointgen.registry.builders import component_class
from jointgen.registry.components import Registry
from jointgen.text import MAX_LISTED, listed

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]  # (value, type) -> structured value, cattrs' own signature
WriteHook = Callable[[Any], Any]

# --- tables to tree --------------------------------------------------------------------------------------------------


def key_of(field: attrs.Attribute) -> str:
    """Return the recipe's key of a field: its name without a final underscore, which Python's keywords need."""
    return field.name.rstrip("_")


def structure(tables: Mapping[str, Any], cls: type[T], registry: Registry, *, load: bool = True) -> T:
    """Build the tree of class `cls` that the tables describe.

    Args:
        tables: The tables.
        cls: An attrs class, or a list or dict of such.
        registry: Where components are found.
        load: Whether components are imported. Without them only their names are checked, which is quick, and the tree
            has something of no use in their places.

    Raises:
        ConfigError: A problem for everything that is wrong: unknown, missing and misspelt keys, wrong types (nothing
            is coerced, but a whole number may stand for a real one), values that a validator refuses, unknown
            components, and what a class's ``__attrs_post_init__`` raises.
    """
    try:
        return _reader(registry, load).converter.structure(tables, cls)
    except (BaseValidationError, ConfigError) as error:
        problems = _problems_in(error, registry)
    raise ConfigError(problems)  # here, where no group of errors is its context: notebooks print all of such an error


class _Reader:
    """A cattrs converter whose hooks refuse what cattrs would coerce, and report what they expected."""

    def __init__(self, registry: Registry, load: bool):
        self.registry, self.load, self.converter = registry, load, Converter(forbid_extra_keys=True)
        for scalar in (int, float, str, bool):
            self.converter.register_structure_hook(scalar, self._read_scalar)
        self.converter.register_structure_hook_func(_is(Literal), _read_literal)
        add = self.converter.register_structure_hook_factory
        add(attrs.has, self._table)
        add(_is(list), lambda want: self._shaped(want, list_structure_factory(want, self.converter)))
        add(_is(dict), lambda want: self._shaped(want, mapping_structure_factory(want, self.converter)))
        add(_is(tuple), self._tuple)
        add(_is(Union, types.UnionType), self._union)
        add(is_component, self._component)

    def _shaped(self, want: Any, inner: Hook) -> Hook:
        """Check that the value is a table or a list where `want` is one, before cattrs walks into it."""

        def read(value: Any, _: Any) -> Any:
            if not _takes(want, value):
                raise self._wrong(want, value)
            return inner(value, want)

        return read

    def _table(self, cls: Any) -> Hook:
        fields = attrs.fields(attrs.resolve_types(cls))
        hooks = {f.name: self._checked(f) if f.validator and not f.converter else None for f in fields}
        overrides = {f.name: override(rename=key_of(f), struct_hook=hooks[f.name]) for f in fields}
        return self._shaped(cls, make_dict_structure_fn(cls, self.converter, **overrides))  # type: ignore[arg-type]

    def _checked(self, field: attrs.Attribute) -> Hook:
        """Run the field's validator already here, because the class's constructor stops at the first that fails."""

        def read(value: Any, want: Any) -> Any:
            result = self.converter.structure(value, want)
            with contextlib.suppress(AttributeError):  # it looks at other fields: the constructor will run it
                field.validator(None, field, result)  # type: ignore[misc]
            return result

        return read

    def _tuple(self, want: Any) -> Hook:
        items = get_args(want)
        if items[-1] is Ellipsis:
            inner = list_structure_factory(list[items[0]], self.converter)  # type: ignore[valid-type]
            return self._shaped(want, lambda value, _: tuple(inner(value, want)))
        return self._shaped(want, lambda value, _: tuple(self._each(value, items, want)))

    def _each(self, values: Iterable[Any], wants: Iterable[Any], whole: Any) -> Iterator[Any]:
        errors = []
        for index, (value, want) in enumerate(zip(values, wants, strict=True)):
            try:
                yield self.converter.structure(value, want)
            except Exception as error:
                error.add_note(IterableValidationNote("", index, want))
                errors.append(error)
        if errors:
            raise IterableValidationError("", errors, whole)

    def _union(self, want: Any) -> Hook:
        def read(value: Any, _: Any) -> Any:
            if value is None and types.NoneType in get_args(want):  # JSON has null; TOML has no such value
                return None
            member = _member(want, value)
            if member is None:
                raise self._wrong(want, value)
            tables = [one for one in get_args(want) if attrs.has(one)]
            if len(tables) > 1 and isinstance(value, Mapping) and not _keys_shared(member, value):
                forms = " or ".join(f"{{ {', '.join(_required(one))} }}" for one in tables)
                raise ConfigError(f"a table here is {forms}, got {{ {listed(map(str, value))} }}")
            return self.converter.structure(value, member)

        return read

    def _component(self, want: Any) -> Hook:
        def read(value: Any, _: Any) -> Any:
            marker = marker_of(want)
            if isinstance(value, str):
                value = _one_table(value)
            elif not isinstance(value, Mapping) and isinstance(marker, OfKind):
                value = component_table(marker.kind, value, self.registry)
            cls = self._component_class(marker, value)
            if cls is None:
                return _NOT_LOADED
            table = {key: value[key] for key in value if key != "type"}
            if around := marker.keys_around(cls) & table.keys():
                return self._both(table, cls, {key: table.pop(key) for key in sorted(around)}, marker)
            return self._with_keys_beside(table, cls, marker)

        return self._shaped(want, read)

    def _with_keys_beside(self, table: Mapping[str, Any], cls: type, marker: Any) -> Any:
        """Read a component. Among what a typo is compared with are `type` and the keys around it, too."""
        try:
            return self.converter.structure(table, cls)
        except BaseValidationError as error:
            for inner in error.exceptions:
                if isinstance(inner, ForbiddenExtraKeysError) and inner.cl is cls:
                    inner.beside = ("type", *marker.keys_around(cls))  # type: ignore[attr-defined]
            raise

    def _both(self, table: Mapping[str, Any], cls: type, keys: Mapping[str, Any], marker: Any) -> Any:
        """Read a component and what its table says around it, with the problems of both."""
        read, errors = [], []
        for read_part in (
            lambda: self._with_keys_beside(table, cls, marker),
            lambda: self.converter.structure(keys, marker.around),
        ):
            try:
                read.append(read_part())
            except (BaseValidationError, ConfigError) as error:
                errors.append(error)
        if errors:
            raise ConfigError([problem for error in errors for problem in _problems_in(error, self.registry)])
        component, settings = read
        return attrs.evolve(settings, component=component)

    def _component_class(self, marker: OfKind, table: Mapping[str, Any]) -> type | None:
        try:
            if not isinstance(table.get("type", ""), str):
                known = ", ".join(marker.names(self.registry)) or "none"
                raise ConfigError(f"expected a string, got {show(table['type'])}; known: {known}")
            if not self.load:
                marker.component(table, self.registry)
                return None
            return marker.find(table, self.registry)
        except ConfigError as error:
            error.add_note(AttributeValidationNote("", "type", str))
            raise ClassValidationError("", [error], type(table)) from None

    def _read_scalar(self, value: Any, want: Any) -> Any:
        if not _takes(want, value):
            raise self._wrong(want, value)
        if want is float and not math.isfinite(value):
            raise ConfigError(f"expected a finite number, got {value}")
        return want(value)

    def _wrong(self, want: Any, value: Any) -> ConfigError:
        return ConfigError(f"expected {describe(want, self.registry)}, got {show(value)}")


@functools.lru_cache(maxsize=4)
def _reader(registry: Registry, load: bool) -> _Reader:
    """Return the reader, which keeps the functions that cattrs writes for each class."""
    return _Reader(registry, load)


_NOT_LOADED = object()


def _one_table(text: str) -> dict[str, Any]:
    tables = named_tables(text)
    if len(tables) != 1:
        raise ConfigError(f"expected NAME or NAME{{key = value}}, got {show(text)}")
    return tables[0]


def _read_literal(value: Any, want: Any) -> Any:
    choices = get_args(want)
    if not any(type(value) is type(choice) and value == choice for choice in choices):  # True == 1, and is not 1
        raise ConfigError(f"{show(value)} is not allowed{suggest(value, choices)}")
    return value


# --- tree to tables --------------------------------------------------------------------------------------------------


def unstructure(tree: Any, registry: Registry) -> dict[str, Any]:
    """Return the tables that `structure` turns into an equal tree. Components begin with ``type``; None is left out."""
    return plain(_writer(registry).unstructure(tree))


def component_table(kind: str, given: Any, registry: Registry) -> dict[str, Any]:
    """Return the table of a component that was given as an object.

    Args:
        kind: Its kind.
        given: An object of an attrs class, or what such a class can be made of: a function or a class that builds a
            network, as it is or with settings by functools.partial.
        registry: Where its class has a name. One that has none gets its path, which this process knows.

    Raises:
        ConfigError: It is no component, or a setting cannot be written into a recipe.
    """
    try:
        component = _built(kind, given)
    except PluginError as error:
        raise ConfigError(f"is no {kind.replace('_', ' ')}: {error}") from None
    cls = type(component)
    name = (registry.find(kind, cls) or registry.adopt(kind, cls)).name
    table = {"type": name, **plain(_writer(registry).unstructure(component))}
    for key, value in flatten(table):
        if not _is_toml(value):
            raise ConfigError(
                f"a {type(value).__name__} cannot be written into a recipe; a setting is a number, text, true or "
                "false, a list or table of these, or a component",
                key,
            )
    return table


def _built(kind: str, given: Any) -> Any:
    """Return the attrs object that is meant. Raises PluginError where there is none."""
    if attrs.has(type(given)):
        return given
    keywords: Mapping[str, Any] = {}
    if isinstance(given, functools.partial):
        if given.args:
            raise PluginError("functools.partial takes settings by name here")
        given, keywords = given.func, given.keywords
    if not (isinstance(given, type) or inspect.isfunction(given)):
        raise PluginError(
            f"a {type(given).__name__} that is built already cannot be written into a recipe; give the function or "
            "the class that builds it"
        )
    try:
        return component_class(kind, given)(**keywords)
    except TypeError as error:  # a setting is missing, or there is none of that name
        raise PluginError(str(error)) from None


def _is_toml(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_toml, value))
    if isinstance(value, Mapping):
        return all(map(_is_toml, value.values()))
    return value is None or isinstance(value, str | int | float)


@functools.lru_cache(maxsize=4)
def _writer(registry: Registry) -> Converter:
    converter = Converter()

    def table(cls: Any) -> WriteHook:
        fields = [field for field in attrs.fields(attrs.resolve_types(cls)) if field.init]
        return lambda tree: {
            key_of(field): converter.unstructure(value, field.type)
            for field in fields
            if (value := getattr(tree, field.name)) is not None
        }

    def component(want: Any) -> WriteHook:
        marker = marker_of(want)

        def write(tree: Any) -> dict[str, Any]:
            if marker.around is not None and isinstance(tree, marker.around):
                whole: Any = tree
                names = marker.keys_around(type(whole.component))
                fields = [f for f in attrs.fields(attrs.resolve_types(marker.around)) if f.name in names]
                around = {f.name: converter.unstructure(getattr(tree, f.name), f.type) for f in fields}
                return {**write(whole.component), **{key: value for key, value in around.items() if value is not None}}
            return {"type": marker.name_of(type(tree), registry), **converter.unstructure(tree)}

        return write

    def union(want: Any) -> WriteHook:
        return lambda value: converter.unstructure(value, _member(want, value))

    converter.register_unstructure_hook_factory(attrs.has, table)
    converter.register_unstructure_hook_factory(_is(Union, types.UnionType), union)
    converter.register_unstructure_hook_factory(is_component, component)
    return converter


# --- types -----------------------------------------------------------------------------------------------------------

_SCALARS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def _is(*origins: Any) -> Callable[[Any], bool]:
    return lambda want: want in origins or get_origin(want) in origins


def is_component(want: Any) -> bool:
    """Whether a field of this type holds a component, chosen by the key ``type``."""
    return any(isinstance(extra, OfKind) for extra in getattr(want, "__metadata__", ()))


def marker_of(component: Any) -> OfKind:
    """Return the marker of a field for which `is_component` holds."""
    return next(extra for extra in component.__metadata__ if isinstance(extra, OfKind))


def _takes(want: Any, value: Any) -> bool:
    """Whether the shape of a table's `value` suits the type `want`. What is inside comes later."""
    if want in _SCALARS:
        return type(value) is want or (want is float and type(value) is int)
    if _is(Literal)(want):
        return any(type(value) is type(choice) for choice in get_args(want))
    if _is(list, tuple)(want):
        return isinstance(value, list | tuple) and _length(want) in (None, len(value))
    if is_component(want):
        return isinstance(value, Mapping) or _is_object(value) or (marker_of(want).as_text and isinstance(value, str))
    return isinstance(value, Mapping)


def _is_object(value: Any) -> bool:
    """Whether a value is given in Python in the place of a table; what files hold never is."""
    return attrs.has(type(value)) or callable(value)


def _length(want: Any) -> int | None:
    """The number of items that a list or tuple type demands; None: any number."""
    items = get_args(want)
    return len(items) if _is(tuple)(want) and Ellipsis not in items else None


def _member(union: Any, value: Any) -> Any:
    """Return the member of a union that a value, from a table or from a tree, is meant for, or None."""
    members = [member for member in get_args(union) if member is not types.NoneType]
    if type(value) in members:
        return type(value)
    shape = {} if attrs.has(type(value)) else value
    fitting = [member for member in members if _takes(member, shape)]
    return max(fitting, key=lambda member: _keys_shared(member, value), default=None)


def _keys_shared(member: Any, value: Any) -> int:
    """Count the keys of a table that a class knows: among several classes, the one that knows most is meant."""
    if not attrs.has(member) or not isinstance(value, Mapping):
        return 0
    return len({key_of(field) for field in attrs.fields(member)} & {*value})


def _required(cls: Any) -> list[str]:
    """The keys that a table of a class must have."""
    return [f"{key_of(field)} = .." for field in attrs.fields(cls) if field.init and field.default is attrs.NOTHING]


def describe(want: Any, registry: Registry) -> str:
    """Say what a value of this type must be, for a message."""
    if _is(Union, types.UnionType)(want):
        members = [member for member in get_args(want) if member is not types.NoneType]
        return " or ".join(dict.fromkeys(describe(member, registry) for member in members))
    if _is(Literal)(want):
        return f"one of {', '.join(map(show, get_args(want)))}"
    if _is(list, tuple)(want):
        return "a list" if _length(want) is None else f"a list of {_length(want)}"
    if is_component(want):
        return f"a table with a type (known: {', '.join(marker_of(want).names(registry)) or 'none'})"
    return _SCALARS.get(want, "a table")


# --- problems --------------------------------------------------------------------------------------------------------

_NOTES = (AttributeValidationNote, IterableValidationNote)


def _problems_in(error: BaseException, registry: Registry) -> Iterator[Problem]:
    """Yield a problem for each error that cattrs collected; an error that is not the user's mistake is raised again.

    cattrs says where an error belongs in a note on it: the field of a class, or the position in a list or table.
    """
    note = next((n for n in getattr(error, "__notes__", ()) if isinstance(n, _NOTES)), None)
    if note is None:
        here: tuple[str | int, ...] = ()
    elif isinstance(note, AttributeValidationNote):
        here = (note.name.rstrip("_"),)
    else:
        here = (note.index,)
    if isinstance(error, BaseValidationError):
        for inner in error.exceptions:
            yield from (problem.under(*here) for problem in _problems_in(inner, registry))
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [*(key_of(field) for field in attrs.fields(error.cl) if field.init), *getattr(error, "beside", ())]
        for n, key in enumerate(sorted(error.extra_fields, key=str)):  # to look for near names takes its time
            yield Problem(f"unknown key{suggest(key, known) if n < MAX_LISTED else ''}", *here, key)
    elif isinstance(note, AttributeValidationNote) and isinstance(error, KeyError):
        yield Problem(f"missing; {describe(note.type, registry)}", *here)
    elif isinstance(error, ConfigError):
        yield from (problem.under(*here) for problem in error.problems)
    elif isinstance(error, ValueError | OverflowError) or (note is not None and isinstance(error, TypeError)):
        yield _of_validator(error, here)
    else:
        raise error


def _of_validator(error: Exception, here: tuple[str | int, ...]) -> Problem:
    """Reword what a validator of attrs raises: ``'width' must be > 0: -1`` becomes ``width: must be > 0, got -1``.

    Such a message begins with the name of its field. cattrs has noted the field unless the class's constructor ran the
    validator; then the name is the last key of the path.
    """
    text = str(error.args[0]) if error.args else type(error).__name__
    text = re.sub(r"( must .*): ([^:]*)$", r"\1, got \2", text)
    named = re.match(r"'(\w+)' (?=must )", text)
    if named is None:
        return Problem(text, *here)
    return Problem(text[named.end() :], *(here or (named[1].rstrip("_"),)))
