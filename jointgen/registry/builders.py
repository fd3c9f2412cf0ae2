"""Components made of plain functions and classes: what the parameters beyond the contract's are, are the recipe's keys.

>>> def wide(inputs, output, width: int = 512):
...     '''A wide layer.'''
>>> component_class("encoder", wide)(width=32)
wide(width=32)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import attrs

from jointgen.errors import RAISED, PluginError

METHODS: dict[str, tuple[str, int | None]] = {
    "encoder": ("build", 2),  # inputs, output
    "decoder": ("build", 2),
    "discriminator": ("build", 1),  # inputs
    "objective": ("objective", 0),
    "term": ("__call__", None),  # the values
    "constraint": ("__call__", 1),  # the module
}
"""The kinds that a function or a class can be: the method that it is, and how many arguments that has.

None: as many as it has parameters without a default; the others are settings.
"""
_SCALARS = (bool, int, float, str)


def component_class(kind: str, target: Any) -> type:
    """Return the attrs class of a component: the target itself, or one whose method calls it.

    The parameters of a function (of a class: of its constructor) after those that the method has are the fields.

    Args:
        kind: The kind of component.
        target: An attrs class, a function, or a class that is built as the function would be called.

    Raises:
        PluginError: It can be no component of this kind, or the type of a setting is not known.
    """
    if inspect.isclass(target) and attrs.has(target):
        return target
    name = getattr(target, "__qualname__", "")
    if not (inspect.isclass(target) or inspect.isfunction(target)):
        raise PluginError(f"{target!r} is neither an attrs class nor a function")
    method = METHODS.get(kind, ("", 0))[0]
    if not method or (inspect.isclass(target) and (method != "build" or hasattr(target, method))):
        raise PluginError(f"{name} is not an attrs class (write @attrs.frozen above it)")
    if "<lambda>" in name:
        raise PluginError("a lambda has no name that a recipe could hold; write a function with def")
    if getattr(target, "__closure__", None) and not inspect.isclass(target):
        raise PluginError(
            f"{name} uses variables of the function around it, which no recipe can hold; make them its parameters"
        )
    made: type = _made(kind, target)  # type: ignore[arg-type]
    return made


@functools.cache
def _made(kind: str, target: Any) -> Any:
    method, given = METHODS[kind]
    settings = _settings(target, given)

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        return target(*arguments, **{name: getattr(self, name) for name in settings}, **named)

    call.__name__, call.__doc__ = method, target.__doc__
    cls: Any = attrs.make_class(target.__name__, settings, frozen=True, class_body={method: call})
    cls.__module__, cls.__qualname__, cls.__doc__ = target.__module__, target.__qualname__, target.__doc__
    cls.built_by = staticmethod(target) if inspect.isfunction(target) else target
    return cls


def _settings(target: Callable[..., Any], given: int | None) -> dict[str, Any]:
    """Return the fields that a function's parameters after the first `given` ones make."""
    parameters = list(inspect.signature(target).parameters.values())
    named = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    if given is None:
        return {one.name: _field(target, one) for one in named if one.default is not one.empty}
    positional = [one for one in named if one.kind is not one.KEYWORD_ONLY]
    if len(positional) < given and len(named) == len(parameters):
        words = {2: "(inputs, output)", 1: "(inputs)"}.get(given, "()")
        raise PluginError(f"{target.__qualname__} takes {len(positional)} arguments, and is called with {words}")
    return {one.name: _field(target, one) for one in named if one not in positional[:given]}


def _field(target: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    default = parameter.default
    kind = _type_of(target, parameter)
    if default is parameter.empty:
        return attrs.field(type=kind)
    if isinstance(default, list | dict):
        return attrs.field(type=kind, factory=functools.partial(type(default), default))
    return attrs.field(type=kind, default=default)


def _type_of(target: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return the type of a setting: its annotation, or else that of its default."""
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except RAISED as error:  # evaluating an annotation runs code
        raise PluginError(f"an annotation of {target.__qualname__} fails: {error}") from error
    if parameter.name in hints:
        return hints[parameter.name]
    default = parameter.default
    if type(default) in _SCALARS:
        return type(default)
    items = {type(item) for item in default} if isinstance(default, list | tuple) else set()
    if len(items) == 1 and (item := items.pop()) in _SCALARS:
        return list[item]  # type: ignore[valid-type]
    raise PluginError(
        f"{target.__qualname__} does not say of what type {parameter.name} is; annotate it, as in {parameter.name}: int"
    )
