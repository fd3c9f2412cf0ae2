"""Registered components in equations: a term, a divergence or a reduction, by name and with settings. Torch-free.

An expression names a component by text ("l1", with the default settings), holds the component itself, or holds it as
`Named`: under a name that the equation gives it, because it has settings or no name of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from jointgen.errors import ConfigError

if TYPE_CHECKING:
    from jointgen.objectives.algebra import Expr, Tree

TABLES = {"term": "terms", "estimator": "estimators", "divergence": "divergences", "reduction": "reductions"}
"""For each kind of component that equations name, the table of an objective with those that have settings."""

Resolve = Callable[[str, str], Any]
"""A function from a kind and a name to the registered component with its default settings."""


@attrs.frozen(cache_hash=True)
class Named:
    """A component under its name in the equation: `near`, where a recipe has `terms.near = { type = "imq" }`.

    Args:
        name: The name that prints.
        component: The component, with its settings.
    """

    name: str
    component: Any = attrs.field(hash=False)  # settings may be lists

    def __str__(self) -> str:
        return self.name

    @property
    def is_plain(self) -> bool:
        """Whether the name says it all: it is that of the class, with its default settings."""
        return name_of(self.component) == self.name and is_default(self.component)

    def describe(self) -> str:
        """Write the line that follows the equation: the name, the class, and the settings that are no defaults."""
        return f"{self.name} = {_with_settings(self.component)}"


class Slot(NamedTuple):
    """A field of an expression that holds a component, or None, and the kind of the component."""

    field: str
    kind: str


class Use(NamedTuple):
    """A component where an expression holds it: by its name alone, as `Named`, or as it is."""

    kind: str
    held: Any


def named(name: str, component: Any) -> Named:
    """Give a component a name for an equation.

    >>> @attrs.frozen
    ... class Kernel:
    ...     scale: float = 1.0
    >>> print(named("near", Kernel(2.0)).describe())
    near = Kernel(scale=2.0)
    """
    return Named(name, as_component(component))


def as_component(held: Any) -> Any:
    """Return a component as it is, and a function as a component without settings.

    Raises:
        ConfigError: It can be no component.
    """
    if isinstance(held, str | Named) or attrs.has(type(held)):
        return held
    if callable(held) and hasattr(held, "__qualname__"):
        return _class_of(held)()
    raise ConfigError(f"{held!r} is no component; write an attrs class with __call__, or a function")


@functools.cache
def _class_of(function: Any) -> type:
    """The class without settings that calls a function."""
    if not function.__name__.isidentifier():
        raise ConfigError(f"{function.__qualname__} has no name to print; write it with def")
    body = {
        "__call__": lambda self, *values, noise=None: function(*values),
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
    }
    return attrs.frozen(type(function.__name__, (), body))


def name_of(held: Any) -> str:
    """Return the name by which a component prints."""
    return str(held) if isinstance(held, str | Named) else type(held).__name__.lower()


def component_of(held: Any) -> Any:
    """Return the component itself. Its name has been resolved."""
    assert not isinstance(held, str), f"{held!r} is not resolved"
    return held.component if isinstance(held, Named) else held


def summary_of(component: Any) -> str:
    """Return the first line of what the class of a component says of itself, without its full stop."""
    doc = type(component).__doc__ or ""
    return next(iter(doc.strip().splitlines()), "").rstrip(".") or "without a description"


def uses(expr: Expr) -> Iterator[Use]:
    """Yield the components that an expression names, those inside it included."""
    for inner in expr.walk():
        for field, kind in inner.component_slots:
            if (held := getattr(inner, field)) is not None:
                yield Use(kind, held)


def with_components(expr: Tree, change: Callable[[str, Any], Any]) -> Tree:
    """Return this expression, not those inside it, with `change(kind, held)` in place of every component."""
    node: Any = expr
    held = {slot: getattr(node, slot.field) for slot in expr.component_slots}
    changes = {slot.field: change(slot.kind, one) for slot, one in held.items() if one is not None}
    return attrs.evolve(node, **changes) if changes else expr


def _with_settings(component: Any) -> str:
    """Write a component as Python does, without the settings that are defaults."""
    settings = [
        f"{field.name}={value!r}"
        for field in attrs.fields(type(component))
        if field.init and (value := getattr(component, field.name)) != _default_of(field)
    ]
    return f"{type(component).__name__}({', '.join(settings)})"


def _default_of(field: Any) -> Any:
    default = field.default
    if not isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return default
    return attrs.NOTHING if default.takes_self else default.factory()


def is_default(component: Any) -> bool:
    """Whether all settings of a component are the defaults of its class."""
    try:
        return bool(component == type(component)())
    except TypeError:  # a setting has no default
        return False
