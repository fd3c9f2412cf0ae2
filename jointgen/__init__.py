"""jointgen: joint-distribution generative models, composed from plugins and equations.

`import jointgen` loads neither torch nor any plugin; `jointgen.run` and `jointgen.load` do so when called.
"""

from __future__ import annotations

import importlib
from typing import Any

from jointgen.errors import CheckpointError, ConfigError, JointgenError, NonFiniteError, OwnershipError, PluginError
from jointgen.registry.components import Registrar
from jointgen.registry.hooks import hookimpl

__version__ = "0.1.0"

_LAZY = {"run": "jointgen.training.run", "load": "jointgen.inference.loading"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'jointgen' has no attribute {name!r}")


__all__ = [
    "CheckpointError",
    "ConfigError",
    "JointgenError",
    "NonFiniteError",
    "OwnershipError",
    "PluginError",
    "Registrar",
    "__version__",
    "hookimpl",
    "load",
    "run",
]
