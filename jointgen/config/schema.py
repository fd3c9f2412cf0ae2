"""The JSON Schema of recipes, for the components that are installed: editors complete keys with it and mark typos.

It is made of the same classes as recipes are read with (`jointgen.config.structure`), so it knows every key, what it
may hold and what it means. It is looser than the reader, which also checks ranges, what belongs together, and which
keys must be there beyond the first level.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs

from jointgen.config.fields import OfKind
from jointgen.config.keys import documented
from jointgen.config.recipe import Recipe
from jointgen.config.structure import is_component, key_of, marker_of
from jointgen.registry.components import Component, Registry

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The version of JSON Schema that editors of TOML read."""
_SCALARS: dict[Any, str] = {int: "integer", float: "number", str: "string", bool: "boolean"}

Schema = dict[str, Any]


def recipe_schema(registry: Registry) -> Schema:
    """Return the JSON Schema of a recipe.

    Every component is imported; one whose plugin cannot be imported is allowed with any keys.
    """
    return _Writer(registry).recipe()


class _Writer:
    def __init__(self, registry: Registry):
        self.registry = registry
        self.definitions: dict[str, Schema] = {}
        self.names: dict[type, str] = {}

    def recipe(self) -> Schema:
        whole = self.table(Recipe)
        required = whole.pop("required", [])
        whole["properties"] |= {
            "base": {
                "type": "string",
                "description": "The recipe that this one changes: a file, or the name of a shipped one.",
            }
        }
        return {
            "$schema": DIALECT,
            "title": "A recipe of jointgen",
            **whole,
            "if": {"required": ["base"]},  # then the other recipe may have them
            "else": {"required": required},
            "definitions": self.definitions,
        }

    def table(self, cls: type, *, extra: Mapping[str, Schema] | None = None) -> Schema:
        """A table of a class: its keys, and no others."""
        docs = documented(cls)
        fields = [field for field in attrs.fields(attrs.resolve_types(cls)) if field.init]
        keys = {key_of(field): self.key(field, docs.get(field.name, "")) for field in fields}
        required = [key_of(field) for field in fields if field.default is attrs.NOTHING]
        shape: Schema = {"type": "object", "properties": {**(extra or {}), **keys}, "additionalProperties": False}
        return {**shape, "required": required} if required else shape

    def key(self, field: attrs.Attribute, doc: str) -> Schema:
        """What a key may hold, with what it means and its default."""
        schema = self.value(field.type)
        more: Schema = {"description": doc} if doc else {}
        if isinstance(field.default, str | int | float | bool):
            more["default"] = field.default
        if "$ref" in schema and more:  # draft 7 ignores what stands beside a $ref
            return {"allOf": [schema], **more}
        return {**schema, **more}

    def value(self, want: Any) -> Schema:
        """What a value of a type may be."""
        if want in _SCALARS:
            return {"type": _SCALARS[want]}
        if is_component(want):
            return self.of_kind(marker_of(want))
        origin, members = get_origin(want), get_args(want)
        if origin is Annotated:
            return self.value(members[0])
        if origin is Literal:
            return {"enum": list(members)}
        if origin in (Union, types.UnionType):
            schemas = [self.value(member) for member in members if member is not types.NoneType]
            return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        if origin is tuple and Ellipsis not in members:
            items = [self.value(member) for member in members]
            return {"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)}
        if origin in (list, tuple):
            return {"type": "array", "items": self.value(members[0])}
        if origin is not None and issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.value(members[1])}
        if isinstance(want, type) and attrs.has(want):
            return self.referred(self.name_of(want), lambda: self.partial(self.table(want)))
        return {}

    def partial(self, table: Schema) -> Schema:
        """The table without what must be there: a recipe with a `base` may change a single key of it."""
        return {key: value for key, value in table.items() if key != "required"}

    def referred(self, name: str, make: Any) -> Schema:
        if name not in self.definitions:
            self.definitions[name] = {}  # a class may hold itself
            self.definitions[name] = make()
        return {"$ref": f"#/definitions/{name}"}

    def name_of(self, cls: type) -> str:
        """A name for a class among the definitions, also where two classes have one name."""
        if cls not in self.names:
            taken = [other for other in self.names if other.__name__ == cls.__name__]
            self.names[cls] = f"{cls.__name__}{len(taken) + 1 if taken else ''}"
        return self.names[cls]

    # --- components, by their key `type` ---

    def of_kind(self, marker: OfKind) -> Schema:
        name = f"{marker.kind}-table" if marker.around is not None else marker.kind
        table = self.referred(name, lambda: self.components(marker))
        return {"anyOf": [table, {"type": "string"}]} if marker.as_text else table

    def components(self, marker: OfKind) -> Schema:
        around = self.table(marker.around)["properties"] if marker.around is not None else {}
        around.pop("component", None)
        known = {component.name: component for component in self.registry.components(marker.kind)}
        classes = {component.name: cls for component, cls in self.registry.loadable(marker.kind)}
        tables = {
            name: self.component(component, classes[name], around) if name in classes else {}
            for name, component in known.items()
        }
        return self.chosen(tables, {name: component.summary for name, component in known.items()})

    def component(self, component: Component, cls: type, around: Mapping[str, Schema]) -> Schema:
        named = {"type": {"const": component.name}}
        table = self.partial(self.table(cls, extra={**around, **named}))
        return {"title": f"{component.kind} {component.name}", "description": component.summary, **table}

    def chosen(self, tables: Mapping[str, Schema], summaries: Mapping[str, str]) -> Schema:
        """A table whose key `type` says which of these it is. Without one it may have the keys of any."""
        described = "\n".join(f"{name}: {text}" for name, text in summaries.items() if text)
        kind: Schema = {"enum": [*tables]}
        cases = [
            {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": table}
            for name, table in tables.items()
        ]
        if all("properties" in table for table in tables.values()):
            keys = sorted({key for table in tables.values() for key in table["properties"]})
            cases.append({"if": {"not": {"required": ["type"]}}, "then": {"propertyNames": {"enum": keys}}})
        kind = {**kind, "description": described} if described else kind
        return {"type": "object", "properties": {"type": kind}, "allOf": cases}
