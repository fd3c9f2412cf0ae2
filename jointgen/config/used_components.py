"""The components that a recipe uses, by the keys of their tables. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import attrs

from jointgen.config.fields import OfKind, SampledSource
from jointgen.config.structure import key_of
from jointgen.errors import KeyPath, dotted
from jointgen.registry.components import Component, Registry


def used_components(recipe: Any, registry: Registry) -> dict[str, Component]:
    """Return the components in a recipe, or in any tree of attrs classes.

    Args:
        recipe: The tree.
        registry: Where its components are found.

    Returns:
        The components in the order of the recipe, by the dotted keys of their tables: "encoder.network".
    """
    return {dotted(path): component for path, component in _walk(recipe, (), registry, ())}


def _walk(value: Any, kinds: Sequence[str], registry: Registry, path: KeyPath) -> Iterator[tuple[KeyPath, Component]]:
    """Yield the components in a value, which may itself be one of these kinds."""
    if isinstance(value, str):  # the name of a component, in a field that takes it for its table
        yield from ((path, registry.get(kind, value)) for kind in kinds if value in registry.names(kind))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, kinds, registry, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _walk(item, kinds, registry, (*path, index))
    elif isinstance(value, SampledSource):  # its keys stand in the table of the source
        yield from _walk(value.component, kinds, registry, path)
        yield from _walk(value.augment or [], ("augmentation",), registry, (*path, "augment"))
    elif attrs.has(type(value)):
        found = (registry.find(kind, type(value)) for kind in kinds)
        yield from ((path, component) for component in found if component is not None)
        for field in attrs.fields(attrs.resolve_types(type(value))):
            if field.init:
                inner = tuple(_kinds_in(field.type))
                yield from _walk(getattr(value, field.name), inner, registry, (*path, key_of(field)))


def _kinds_in(want: Any) -> Iterator[str]:
    """The kinds of components that a field of this type may hold, such as list[MetricField] | None."""
    for extra in getattr(want, "__metadata__", ()):
        if isinstance(extra, OfKind):
            yield extra.kind
    for inner in get_args(want):
        yield from _kinds_in(inner)
