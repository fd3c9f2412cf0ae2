"""Exceptions out of components: whose they are, and in which file and line they were raised. Torch-free."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jointgen.errors import RAISED, ComponentError, ConfigError, JointgenError
from jointgen.registry.components import Registry
from jointgen.registry.discovery import load_plugins
from jointgen.registry.files import loaded_modules
from jointgen.text import shortened

_OWN = __name__.partition(".")[0]
MAX_MESSAGE = 500
"""So many characters of an exception's message are written out, at the most."""


def described(registry: Registry | None, kind: str, config: Any) -> str:
    """Name a component with its package, such as "family 'student' of heavy-tails 0.1"."""
    cls = type(config)
    try:
        return str((registry or load_plugins().registry).component_of(kind, cls))
    except ConfigError:  # it was not registered: a test or a notebook defines it
        return f"{kind.replace('_', ' ')} {cls.__module__}.{cls.__qualname__}"


@contextmanager
def attributing(what: str) -> Iterator[None]:
    """Turn what a component raises into a ComponentError that names it. Our own errors stay as they are.

    Args:
        what: The component, and where the recipe has it.
    """
    try:
        yield
    except JointgenError:
        raise
    except RAISED as error:
        raise ComponentError(f"{what} raises {said(error)}") from error


def said(error: BaseException) -> str:
    """Write an exception in one line, with the place in a plugin's code that it came through."""
    text = shortened(": ".join(filter(None, (type(error).__name__, " ".join(str(error).split())))), MAX_MESSAGE)
    return next((f"{text} ({place})" for _, place in _places(error)), text)


def foreign_provider_of(error: BaseException) -> str:
    """Return who provides the plugin whose code an exception came through; "" if it was none, or one of our own."""
    return next((provider for provider, _ in _places(error) if not _is_own(provider)), "")


def _places(error: BaseException) -> list[tuple[str, str]]:
    """List (provider, place) for the places in plugins' code, the innermost first, and those of our own last."""
    providers = _providers()
    found = []
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in providers:
            found.append((providers[package], f"{frame.f_code.co_filename}:{line}, in {frame.f_code.co_qualname}"))
    return sorted(found, key=lambda pair: _is_own(pair[0]))


def _is_own(provider: str) -> bool:
    return provider.partition(" ")[0] == _OWN


def _providers() -> dict[str, str]:
    """Map the packages that hold plugins or their components to who provides them."""
    plugins = load_plugins()
    packages = {
        component.defined_in.partition(".")[0]: component.provider for component in plugins.registry.components()
    }
    packages |= {plugin.package: plugin.provider for plugin in plugins.loaded}
    packages |= loaded_modules()
    packages.pop(_OWN, None)  # some components are in the core
    return packages
