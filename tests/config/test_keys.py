"""What `jointgen list KIND NAME` says of a component's keys."""

from __future__ import annotations

from typing import Annotated, Literal

import attrs
import pytest

from jointgen.config.fields import OfKind
from jointgen.config.keys import Key, documented, keys_of
from jointgen.config.recipe import Recipe
from jointgen.registry.components import KINDS, Component, Registry


@attrs.frozen
class Table:
    """A table.

    Args:
        start, end: Where it
            lies.
    """

    start: float
    end: float = 1.0


@attrs.frozen
class Below:
    """A base.

    Args:
        mode: The base's word.
        depth: How deep.
    """

    mode: Literal["a", "b"] = "a"
    depth: int = 2


@attrs.frozen
class Whole(Below):
    """A class.

    Args:
        mode: Its own word.
    """

    place: Table | float = 0.5
    tables: dict[str, Table] = attrs.Factory(dict)
    sizes: list[int] | None = None
    other: Annotated[object, OfKind("family")] = attrs.Factory(Below)
    class_: str = "x"
    hidden: int = attrs.field(default=0, init=False)

    def method(self) -> None:
        """Do nothing.

        Args:
            nothing: Not a key.
        """


def test_keys_of_a_class_with_tables_and_a_base() -> None:
    registry = Registry()
    registry.add(Component("family", "below", Below, "", "", "us"))
    assert keys_of(Whole, registry) == [
        Key("mode", "one of 'a', 'b'", "'a'", "Its own word."),
        Key("depth", "a whole number", "2", "How deep."),
        Key("place", "a table or a number", "0.5", ""),
        Key("place.start", "a number", "", "Where it lies."),
        Key("place.end", "a number", "1.0", "Where it lies."),
        Key("tables", "a table of names, each a table", "{}", ""),
        Key("tables.NAME.start", "a number", "", "Where it lies."),
        Key("tables.NAME.end", "a number", "1.0", "Where it lies."),
        Key("sizes", "a list of whole numbers", "none", ""),
        Key("other", "a table with a type (known: below)", "{ type = 'below', mode = 'a', depth = 2 }", ""),
        Key("class", "a string", "'x'", ""),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_what_is_shipped_has_its_line(kind: str, registry: Registry) -> None:
    components = {name: registry.get(kind, name).load() for name in registry.names(kind)}
    missing = [
        f"{name}.{field.name}"
        for name, cls in components.items()
        for field in attrs.fields(cls)
        if field.init and not documented(cls).get(field.name)
    ]
    assert missing == []


def test_every_key_of_a_recipe_and_of_tables_within_tables_has_its_line(registry: Registry) -> None:
    classes = {"recipe": Recipe, **{str(one): one.load() for one in registry.components()}}
    assert [
        f"{name}: {key.name}" for name, cls in classes.items() for key in keys_of(cls, registry) if not key.doc
    ] == []
