"""`jointgen list`: the registered components and who provides them. Imports no component, so no torch."""

from __future__ import annotations

import json
from itertools import groupby

import attrs

from jointgen.cli.arguments import Arguments
from jointgen.registry.discovery import Plugins, load_plugins
from jointgen.runtime.console import say_text


def list_command(arguments: Arguments) -> None:
    """Print every registered component (of one kind), as text or as JSON."""
    say_text((listing_json if arguments.json else listing)(load_plugins(), arguments.kind))


def listing(plugins: Plugins, kind: str | None = None) -> str:
    """List every component (of one kind), and the plugins that could not be loaded.

    Raises:
        ConfigError: There is no such kind.
    """
    blocks = []
    for name, components in groupby(plugins.registry.components(kind), key=lambda component: component.kind):
        entries = [(c.name, c.summary, "; ".join(filter(None, (c.provider, c.paper)))) for c in components]
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
    shown = attrs.filters.exclude("target")
    components = [attrs.asdict(c, filter=shown) for c in plugins.registry.components(kind)]
    failed = list(map(attrs.asdict, plugins.failed))
    return json.dumps({"components": components, "failed": failed, "clashes": plugins.registry.clashes(kind)}, indent=2)
