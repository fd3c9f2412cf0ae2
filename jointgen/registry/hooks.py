"""The hook that a plugin implements. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from jointgen.registry.components import Registrar

hookspec = pluggy.HookspecMarker("jointgen")
hookimpl = pluggy.HookimplMarker("jointgen")


@hookspec
def jointgen_register(registry: Registrar) -> None:
    """Register a plugin's components.

    Args:
        registry: One method for each kind of component, see `Registrar`.
    """
