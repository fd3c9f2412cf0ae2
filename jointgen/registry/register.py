"""`jointgen.register`: components of a script, a notebook or a plugin file, by decorators. Torch-free."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

from jointgen.errors import PluginError, suggest
from jointgen.registry.builders import component_class
from jointgen.registry.components import IN_PROCESS, KINDS, Component
from jointgen.registry.discovery import collector, load_plugins

Target = TypeVar("Target", bound=Callable[..., Any])


class Register:
    """Registers components of this process: one method for each kind, which returns a decorator.

    The decorated class or function stays as it is. In a file that a recipe names in `plugins`, the components are
    those of the file; elsewhere they last as long as the process.

    >>> import attrs
    >>> @register.penalty("nothing_at_all")
    ... @attrs.frozen
    ... class Nothing:
    ...     '''No penalty.'''
    >>> print(load_plugins().registry.get("penalty", "nothing_at_all"))
    penalty 'nothing_at_all' of this Python process
    """

    def __getattr__(self, kind: str) -> Callable[..., Callable[[Target], Target]]:
        if kind.startswith("_"):
            raise AttributeError(kind)
        if kind not in KINDS:
            raise PluginError(f"jointgen.register: unknown kind of component {kind!r}{suggest(kind, KINDS)}")
        return functools.partial(self._decorator, kind)

    def __dir__(self) -> list[str]:
        return list(KINDS)

    def _decorator(
        self, kind: str, name: str, *, paper: str = "", summary: str = "", costly: bool = False
    ) -> Callable[[Target], Target]:
        """Return a decorator that registers a class or a function; the arguments are those of `Component`."""
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
            raise PluginError(f"jointgen.register.{kind}: expected a name of letters, digits, _ and -, got {name!r}")

        def add(target: Target) -> Target:
            try:
                cls = component_class(kind, target)
            except PluginError as error:
                raise PluginError(f"jointgen.register.{kind}({name!r}): {error}") from None
            doc = (target.__doc__ or "").strip().split("\n")[0]
            component = Component(kind, name, cls, paper, summary or doc, IN_PROCESS, costly)
            if (collect := collector()) is not None:
                collect(component)
            else:
                load_plugins().registry.add_of_process(component)
            return target

        return add


register = Register()
