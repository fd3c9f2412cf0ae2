"""jointgen: joint-distribution generative models, composed from plugins and equations.

A name is imported when it is first asked for: `import jointgen` loads neither torch nor any plugin; `jointgen.run` and
`jointgen.load` do so when called.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as typing has it, which takes a while to import
if TYPE_CHECKING:
    from typing import Any

    from jointgen.errors import CheckpointError as CheckpointError
    from jointgen.errors import ConfigError as ConfigError
    from jointgen.errors import JointgenError as JointgenError
    from jointgen.errors import NonFiniteError as NonFiniteError
    from jointgen.errors import OwnershipError as OwnershipError
    from jointgen.errors import PluginError as PluginError
    from jointgen.inference.loading import load as load
    from jointgen.registry.components import Registrar as Registrar
    from jointgen.registry.hooks import hookimpl as hookimpl
    from jointgen.registry.register import register as register
    from jointgen.reports.sharing import push as push
    from jointgen.reports.sharing import save_pretrained as save_pretrained
    from jointgen.training.explained import explain as explain
    from jointgen.training.losses import losses as losses
    from jointgen.training.run import run as run

__version__ = "0.1.0"

_MODULES = {
    "CheckpointError": "jointgen.errors",
    "ConfigError": "jointgen.errors",
    "JointgenError": "jointgen.errors",
    "NonFiniteError": "jointgen.errors",
    "OwnershipError": "jointgen.errors",
    "PluginError": "jointgen.errors",
    "Registrar": "jointgen.registry.components",
    "explain": "jointgen.training.explained",
    "hookimpl": "jointgen.registry.hooks",
    "load": "jointgen.inference.loading",
    "losses": "jointgen.training.losses",
    "push": "jointgen.reports.sharing",
    "register": "jointgen.registry.register",
    "run": "jointgen.training.run",
    "save_pretrained": "jointgen.reports.sharing",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'jointgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
