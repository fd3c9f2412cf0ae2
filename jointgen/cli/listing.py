"""`jointgen list`: the registered components and who provides them. Imports no component, so no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby

import attrs

from jointgen.cli.arguments import Arguments
from jointgen.registry.components import Component
from jointgen.registry.discovery import FailedPlugin, Plugins, load_plugins


def list_command(arguments: Arguments) -> None:
    """Prints every registered component (of one kind), as text or as JSON."""
    print((listing_json if arguments.json else listing)(load_plugins(), arguments.kind))


def listing(plugins: Plugins, kind: str | None = None) -> str:
    """Lists every component (of one kind), and the plugins that could not be loaded.

    Raises:
        ConfigError: there is no such kind.
    """
    found = plugins.registry.components(kind)
    blocks = [_block(kind, list(group)) for kind, group in groupby(found, key=lambda c: c.kind)]
    if plugins.failed:
        blocks.append("\n".join(["plugins that failed to load", *map(_failure, plugins.failed)]))
    return "\n\n".join(blocks) or "nothing is registered"


def listing_json(plugins: Plugins, kind: str | None = None) -> str:
    """Lists the same as JSON.

    {"components": [{kind, name, provider, paper, summary}], "failed": [{name, distribution, version, reason}]}
    """
    shown = attrs.filters.exclude("target")
    components = [attrs.asdict(c, filter=shown) for c in plugins.registry.components(kind)]
    return json.dumps({"components": components, "failed": list(map(attrs.asdict, plugins.failed))}, indent=2)


def _block(kind: str, components: list[Component]) -> str:
    width = max(len(component.name) for component in components)
    return "\n".join([kind, *(line for component in components for line in _entry(component, width))])


def _entry(component: Component, width: int) -> Iterable[str]:
    yield f"  {component.name:<{width}}  {component.summary}".rstrip()
    origin = "; ".join(filter(None, (component.provider, component.paper)))
    yield f"  {'':<{width}}  [{origin}]"


def _failure(plugin: FailedPlugin) -> str:
    return f"  {plugin.name} ({plugin.provider}): {plugin.reason}"
