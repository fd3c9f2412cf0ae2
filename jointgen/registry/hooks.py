"""The hooks a plugin may implement. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from jointgen.registry.components import Registrar

hookspec = pluggy.HookspecMarker("jointgen")
hookimpl = pluggy.HookimplMarker("jointgen")


@hookspec
def jointgen_register(registry: Registrar) -> None:
    """Called once with the registry, on which the plugin registers its components by kind and name."""
