"""`jointgen list`: the registered components and who provides them, and the keys of one of them.

A listing imports no component, so no torch; to read a component's keys, it is imported.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import attrs

from jointgen.cli.arguments import Arguments
from jointgen.config.keys import Key, keys_of
from jointgen.registry.components import Component
from jointgen.registry.discovery import Plugins, load_plugins
from jointgen.runtime.console import say_text
from jointgen.text import shortened

MAX_TYPE = 400
"""So many characters of what a key may hold are written out, at the most."""


def list_command(arguments: Arguments) -> None:
    """Print every registered component (of one kind), or the keys of one, as text or as JSON."""
    plugins, kind = load_plugins(), arguments.kind
    if arguments.name is not None:
        component = plugins.registry.get(kind, arguments.name)
        keys = keys_of(component.load(), plugins.registry)
        say_text(keys_json(component, keys) if arguments.json else keys_text(component, keys))
    else:
        say_text((listing_json if arguments.json else listing)(plugins, kind))


def keys_text(component: Component, keys: Sequence[Key]) -> str:
    """Describe the keys of a component's table."""
    lines = [
        f"{component.kind} {component.name}: {component.summary}",
        f"[{'; '.join(filter(None, (component.provider, component.paper)))}]",
    ]
    for key in keys:
        default = f"default {shortened(key.default)}" if key.default else "must be given"
        lines += ["", f"  {key.name}: {shortened(key.type, MAX_TYPE)}; {default}"]
        lines += [f"      {line}" for line in textwrap.wrap(key.doc, 100)]
    return "\n".join(lines if keys else [*lines, "", "  It has no keys."])


def keys_json(component: Component, keys: Sequence[Key]) -> str:
    """Describe the same as JSON: {kind, name, provider, paper, summary, "keys": [{name, type, default, doc}]}."""
    return json.dumps({**_described(component), "keys": [attrs.asdict(key) for key in keys]}, indent=2)


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
    components = [_described(component) for component in plugins.registry.components(kind)]
    failed = list(map(attrs.asdict, plugins.failed))
    return json.dumps({"components": components, "failed": failed, "clashes": plugins.registry.clashes(kind)}, indent=2)


def _described(component: Component) -> dict[str, Any]:
    return attrs.asdict(component, filter=attrs.filters.exclude("target"))
