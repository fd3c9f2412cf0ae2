"""Random tables of every registered component are its settings or a mistake, and settings survive a recipe file."""

from __future__ import annotations

import tomllib
import types
from typing import Any, Literal, Union, get_args, get_origin

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jointgen.config.fields import OfKind
from jointgen.config.structure import key_of, structure, unstructure
from jointgen.config.toml import to_toml
from jointgen.errors import ConfigError
from jointgen.registry.components import KINDS, Registry
from jointgen.registry.discovery import load_plugins

REGISTRY = load_plugins().registry
COMPONENTS = [(kind, name) for kind in KINDS for name in REGISTRY.names(kind)]

NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 8, 0.5, 1.0, 1e-3, 1e9, 2**31, 2**63 - 1, -(2**63)]),
    st.integers(0, 64),
    st.floats(0, 1),
)
WORDS = st.sampled_from(["", "x", "z", "mean", "sample", "a b", "log p(x|z)", "q(x) q(z|x)", "../x", "é", "\n"])


def of_type(want: Any, depth: int = 2) -> st.SearchStrategy[Any]:
    """Values as TOML has them, of the type of a field."""
    marker = next((extra for extra in getattr(want, "__metadata__", ()) if isinstance(extra, OfKind)), None)
    if marker is not None:
        return st.sampled_from(marker.names(REGISTRY)).flatmap(lambda name: component(marker, name, depth - 1))
    origin, items = get_origin(want), get_args(want)
    if origin is Literal:
        return st.sampled_from(items)
    if origin in (Union, types.UnionType):
        return st.one_of([of_type(item, depth) for item in items if item is not types.NoneType])
    if want is bool:
        return st.booleans()
    if want is int:
        return NUMBERS.map(int)
    if want is float:
        return NUMBERS
    if want is str:
        return WORDS
    if origin is tuple and items[-1] is not Ellipsis:
        return st.tuples(*[of_type(item, depth) for item in items]).map(list)
    if origin in (list, tuple):
        return st.lists(of_type(items[0], depth), max_size=3)
    if origin is dict:
        return st.dictionaries(WORDS, of_type(items[1], depth), max_size=2)
    return fields_of(want, depth - 1) if attrs.has(want) else st.nothing()


def fields_of(cls: type, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Tables of a class: what it requires, and some of the rest."""
    fields = [field for field in attrs.fields(attrs.resolve_types(cls)) if field.init]
    needed = {key_of(field): of_type(field.type, depth) for field in fields if field.default is attrs.NOTHING}
    rest = {key_of(field): of_type(field.type, depth) for field in fields if field.default is not attrs.NOTHING}
    return st.fixed_dictionaries(needed, optional=rest if depth > 0 else {})


def component(marker: OfKind, name: str, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    cls = marker.find({"type": name}, REGISTRY)
    return fields_of(cls, depth).map(lambda table: {"type": name, **table})


@pytest.mark.parametrize(("kind", "name"), COMPONENTS, ids=[f"{kind} {name}" for kind, name in COMPONENTS])
@settings(max_examples=6)
@given(data=st.data())
def test_settings_survive_a_recipe_file(kind: str, name: str, data: st.DataObject) -> None:
    cls = REGISTRY.get(kind, name).load()
    table = data.draw(fields_of(cls, 2))
    try:
        tree = structure(table, cls, REGISTRY)
    except ConfigError as error:
        assert error.problems
        assert all(problem.path for problem in error.problems) or hasattr(cls, "__attrs_post_init__")
        return
    written = unstructure(tree, REGISTRY)
    again = structure(tomllib.loads(to_toml(written)), cls, REGISTRY)
    assert again == tree
    assert unstructure(again, REGISTRY) == written


ANYTHING = st.recursive(
    st.one_of(NUMBERS, WORDS, st.booleans(), st.none(), st.just(float("nan")), st.just(2**70), st.dates()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.just("type"), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(("kind", "name"), COMPONENTS, ids=[f"{kind} {name}" for kind, name in COMPONENTS])
@settings(max_examples=5)
@given(data=st.data())
def test_any_value_in_place_of_a_setting_is_taken_or_a_mistake(kind: str, name: str, data: st.DataObject) -> None:
    cls = REGISTRY.get(kind, name).load()
    keys = [key_of(field) for field in attrs.fields(cls) if field.init] or ["more"]
    table = data.draw(st.dictionaries(st.sampled_from(keys), ANYTHING, max_size=3))
    try:
        structure(table, cls, REGISTRY)
    except ConfigError as error:
        assert all("\n" not in line for line in error.lines)


def test_every_kind_of_component_is_drawn(registry: Registry) -> None:
    """The lists above are not empty."""
    assert {kind for kind, _ in COMPONENTS} >= {"encoder", "decoder", "family", "prior", "objective", "data", "metric"}
    assert len(COMPONENTS) > 60
