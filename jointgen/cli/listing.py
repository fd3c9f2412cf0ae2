"""`jointgen list`: the registered components and who provides them, the keys of one of them, and the shipped recipes.

A listing imports no component, so no torch; to read a component's keys, it is imported, and what
structures recipes (`jointgen.cli.listed_keys`).
"""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import attrs

from jointgen.cli.arguments import Arguments, load
from jointgen.registry.components import Component
from jointgen.registry.discovery import Plugins, load_plugins
from jointgen.runtime.console import say_text
from jointgen.text import shortened

RECIPE = "recipe"
"""The word that lists the shipped recipes in place of a kind of component."""
MAX_SUMMARY = 400
"""So many characters of a component's summary are written out, at the most; as JSON it is whole."""


def list_command(arguments: Arguments) -> None:
    """Print every registered component (of one kind), or the keys of one, as text or as JSON."""
    plugins, kind = load_plugins(), arguments.kind
    if arguments.plugin:
        plugins = attrs.evolve(
            plugins, registry=load("jointgen.config.plugin_files:registry_of")({"plugins": arguments.plugin})
        )
    if kind == RECIPE:
        say_text(load("jointgen.cli.listed_recipes:recipes_as")(arguments.name, json=arguments.json))
    elif arguments.name is not None:
        say_text(load("jointgen.cli.listed_keys:keys_as")(plugins.registry, kind, arguments.name, json=arguments.json))
    else:
        say_text((listing_json if arguments.json else listing)(plugins, kind))


def listing(plugins: Plugins, kind: str | None = None) -> str:
    """List every component (of one kind), and the plugins that could not be loaded.

    Raises:
        ConfigError: There is no such kind.
    """
    blocks = []
    for name, components in groupby(plugins.registry.components(kind), key=lambda component: component.kind):
        entries = [
            (c.name, shortened(c.summary, MAX_SUMMARY), "; ".join(filter(None, (c.provider, c.paper))))
            for c in components
        ]
        width = max(len(entry[0]) for entry in entries)
        lines = [
            f"  {n:<{width}}  {summary}".rstrip() + f"\n  {'':<{width}}  [{origin}]" for n, summary, origin in entries
        ]
        blocks.append("\n".join([name, *lines]))
    if plugins.failed:
        failures = [f"  {plugin.name} ({plugin.provider}): {plugin.reason}" for plugin in plugins.failed]
        blocks.append("\n".join(["plugins that failed to load", *failures]))
    if clashes := plugins.registry.clashes(kind):
        blocks.append("\n".join(["names that several plugins claim", *(f"  {line}" for line in clashes)]))
    return "\n\n".join(blocks) or "nothing is registered"


def listing_json(plugins: Plugins, kind: str | None = None) -> str:
    """List the same as JSON.

    {"components": [{kind, name, provider, paper, summary}], "failed": [{name, distribution, version, package, reason}],
    "clashes": [line]}
    """
    components = [described(component) for component in plugins.registry.components(kind)]
    failed = list(map(attrs.asdict, plugins.failed))
    return json.dumps({"components": components, "failed": failed, "clashes": plugins.registry.clashes(kind)}, indent=2)


def described(component: Component) -> dict[str, Any]:
    """Describe a component as JSON: {kind, name, provider, paper, summary}."""
    return attrs.asdict(component, filter=attrs.filters.exclude("target"))
