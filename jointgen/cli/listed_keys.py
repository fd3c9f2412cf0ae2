"""The keys of one component, for `jointgen list KIND NAME`."""

from __future__ import annotations

import json as json_text
import textwrap
from collections.abc import Sequence

import attrs

from jointgen.cli.listing import MAX_SUMMARY, described
from jointgen.config.keys import Key, keys_of
from jointgen.registry.components import Component, Registry
from jointgen.text import shortened

MAX_TYPE = 400
"""So many characters of what a key may hold are written out, at the most."""


def keys_as(registry: Registry, kind: str, name: str, *, json: bool) -> str:
    """Describe the keys of a component's table, as text or as JSON.

    Raises:
        ConfigError: There is no such component.
    """
    component = registry.get(kind, name)
    return (keys_json if json else keys_text)(component, keys_of(component.load(), registry))


def keys_text(component: Component, keys: Sequence[Key]) -> str:
    """Describe the keys of a component's table."""
    lines = [
        ": ".join(filter(None, (f"{component.kind} {component.name}", shortened(component.summary, MAX_SUMMARY)))),
        f"[{'; '.join(filter(None, (component.provider, component.paper)))}]",
    ]
    for key in keys:
        default = f"default {shortened(key.default)}" if key.default else "must be given"
        lines += ["", f"  {key.name}: {shortened(key.type, MAX_TYPE)}; {default}"]
        lines += [f"      {line}" for line in textwrap.wrap(key.doc, 100)]
    return "\n".join(lines if keys else [*lines, "", "  It has no keys."])


def keys_json(component: Component, keys: Sequence[Key]) -> str:
    """Describe the same as JSON: {kind, name, provider, paper, summary, "keys": [{name, type, default, doc}]}."""
    return json_text.dumps({**described(component), "keys": [attrs.asdict(key) for key in keys]}, indent=2)
