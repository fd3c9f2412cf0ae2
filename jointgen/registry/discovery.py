"""The discovery of plugins by their entry points, each of which fills the registry. Torch-free.

pluggy calls the hooks. Its own loading of entry points is not used: it silently drops a second distribution that
claims a taken name, lets one plugin that cannot be imported stop all others, and accepts a misspelt hook.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import metadata
from types import ModuleType
from weakref import WeakKeyDictionary

import attrs
import pluggy

from jointgen.errors import RAISED, PluginError, suggest
from jointgen.registry import hooks as hookspecs
from jointgen.registry.components import Component, Registrar, Registry

GROUP = "jointgen.plugins"
CORE = "jointgen"
"""The distribution whose plugins come with it."""


@attrs.frozen
class Plugin:
    """One entry point. `distribution` and `version` say who provides it, `package` is where its code is."""

    name: str
    distribution: str
    version: str
    package: str

    @property
    def provider(self) -> str:
        """The distribution with its version."""
        return f"{self.distribution} {self.version}".strip()


@attrs.frozen
class LoadedPlugin(Plugin):
    """A plugin that was loaded. `manager` calls its hooks and no other plugin's, so that an error is known as its."""

    manager: pluggy.PluginManager = attrs.field(eq=False, repr=False)

    def implements(self, hook: str) -> bool:
        """Whether the plugin has this hook."""
        return bool(getattr(self.manager.hook, hook).get_hookimpls())


@attrs.frozen
class FailedPlugin(Plugin):
    """A plugin that could not be loaded, with the reason."""

    reason: str

    def __str__(self) -> str:
        return f"plugin {self.name!r} ({self.provider}) failed to load: {self.reason}"


@attrs.frozen
class Plugins:
    """The registry, and the plugins that were loaded and that failed."""

    registry: Registry
    loaded: list[LoadedPlugin]
    failed: list[FailedPlugin]


def load_plugins(entry_points: Iterable[metadata.EntryPoint] | None = None) -> Plugins:
    """Load plugins and return what they register.

    A plugin that cannot be imported or registers nothing is kept in `failed`: it stops only recipes that need it. So
    does a component whose name another plugin claims too (`Registry.clashes`). Two plugins may have one name.

    Args:
        entry_points: The plugins to load; None for those installed, which are loaded once per process.
    """
    return _installed() if entry_points is None else _load(entry_points)


def others_plugins() -> Plugins:
    """Load the installed plugins that do not come with jointgen, for who needs only what ours have none of."""
    entries = metadata.entry_points(group=GROUP)
    return _load(entry for entry in entries if entry.dist is None or entry.dist.name != CORE)


def forget_plugins() -> None:
    """Make the next `load_plugins()` look again at what is installed."""
    _installed.cache_clear()


@functools.cache
def _installed() -> Plugins:
    return _load(metadata.entry_points(group=GROUP))


def _load(entry_points: Iterable[metadata.EntryPoint]) -> Plugins:
    plugins = Plugins(Registry(), [], [])
    described = [(_describe(entry), entry) for entry in entry_points]
    for plugin, entry in sorted(described, key=lambda pair: attrs.astuple(pair[0])):
        own = Registry()
        try:
            manager = _fill(own, entry, plugin.provider)
        except RAISED as error:  # whatever a plugin raises while it is imported or registers
            plugins.failed.append(FailedPlugin(**attrs.asdict(plugin), reason=_reason(error)))
        else:
            plugins.registry.update(own)
            plugins.loaded.append(LoadedPlugin(**attrs.asdict(plugin), manager=manager))
    plugins.registry.failures += map(str, plugins.failed)
    plugins.registry.plugins += plugins.loaded
    return plugins


def _fill(registry: Registry, entry: metadata.EntryPoint, provider: str) -> pluggy.PluginManager:
    """Let a plugin fill a registry of its own, so that one that fails half-way leaves nothing behind."""
    found = Registry()
    with collecting(found, provider):
        module = entry.load()
    for component in _DECORATED.setdefault(module, {}).setdefault(entry.name, found.components()):
        registry.add(component)
    return call_hooks(registry, module, entry.name, provider)


_DECORATED: WeakKeyDictionary[ModuleType, dict[str, list[Component]]] = WeakKeyDictionary()
"""What the decorators of a plugin's module have registered, by the plugin's name: they run at its first import only."""


_COLLECTOR: ContextVar[Callable[[Component], None] | None] = ContextVar("collector", default=None)


def collector() -> Callable[[Component], None] | None:
    """Return what takes the components that decorators register, while a plugin is imported; None elsewhere."""
    return _COLLECTOR.get()


@contextmanager
def collecting(registry: Registry, provider: str) -> Iterator[None]:
    """Let decorators register into a plugin's own registry, as its components, while the body imports the plugin."""
    token = _COLLECTOR.set(lambda component: registry.add(attrs.evolve(component, provider=provider)))
    try:
        yield
    finally:
        _COLLECTOR.reset(token)


def call_hooks(registry: Registry, module: ModuleType, name: str, provider: str) -> pluggy.PluginManager:
    """Let the hooks of a plugin's module fill a registry, and return what calls its other hooks.

    Raises:
        PluginError: It has none, and no decorator has registered anything; or it has some that do not exist.
    """
    manager = pluggy.PluginManager("jointgen")
    _register(manager, module, name)
    if not registry.components() or manager.get_hookcallers(module):
        _refuse_wrong_hooks(manager, module)
    manager.hook.jointgen_register(registry=Registrar(registry, provider))
    return manager


def _register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Give a manager the hooks of a plugin. Raises PluginError where one of them has an argument that is not given."""
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name)
    except pluggy.PluginValidationError as error:
        raise PluginError(_wrong_argument(plugin) or " ".join(str(error).split())) from None


def _wrong_argument(plugin: object) -> str:
    """Say which hook of a plugin has an argument that it is not given, and where; "" where none is found."""
    for name, spec in inspect.getmembers(hookspecs, inspect.isfunction):
        hook = getattr(plugin, name, None) if name.startswith("jointgen_") else None
        if hook is None or not inspect.isroutine(hook):
            continue
        given = [*inspect.signature(spec).parameters]
        wrong = [key for key in inspect.signature(hook).parameters if key not in given]
        if wrong:
            code = inspect.unwrap(hook).__code__
            place = f"{code.co_filename}:{code.co_firstlineno}"
            return f"{place}: {name} is given no {wrong[0]!r}{suggest(wrong[0], given)}"
    return ""


class _MethodManager(pluggy.PluginManager):
    """Takes every method of an object that has the name of a hook, without a mark."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Return the mark of a hook: the one given, or one by the name."""
        marked = super().parse_hookimpl_opts(plugin, name)
        if marked is None and name.startswith("jointgen_") and callable(getattr(plugin, name)):
            return pluggy.HookimplOpts(
                wrapper=False, hookwrapper=False, optionalhook=False, tryfirst=False, trylast=False, specname=None
            )
        return marked


def load_object(listener: object, name: str) -> LoadedPlugin:
    """Return an object whose methods are hooks of a run's events as a plugin.

    Args:
        listener: The object. Methods whose names begin with jointgen_ are its hooks.
        name: What it is called in messages.

    Raises:
        PluginError: It has no such method, one that is no event of a run, or one with other arguments.
    """
    manager = _MethodManager("jointgen")
    _register(manager, listener, name)
    _refuse_wrong_hooks(manager, listener)
    for hook in manager.get_hookcallers(listener) or []:
        if hook.name not in hookspecs.EVENTS:
            raise PluginError(f"{hook.name} is no event of a run{suggest(hook.name, hookspecs.EVENTS)}")
    return LoadedPlugin(name, name, "", type(listener).__module__.partition(".")[0], manager)


def _refuse_wrong_hooks(manager: pluggy.PluginManager, module: object) -> None:
    known = [name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("jointgen_")]
    hooks = manager.get_hookcallers(module) or []
    for hook in hooks:
        if not hook.has_spec() and not all(implementation.optionalhook for implementation in hook.get_hookimpls()):
            raise PluginError(f"implements {hook.name}, which is no hook{suggest(hook.name, known)}")
    if not hooks:
        raise PluginError(
            f"implements no hook (known: {', '.join(known)}; mark yours with @jointgen.hookimpl) and registers nothing "
            "by @jointgen.register"
        )


def _describe(entry: metadata.EntryPoint) -> Plugin:
    package = entry.module.partition(".")[0]
    if entry.dist is None:  # made by hand, not found in an installed distribution
        return Plugin(entry.name, entry.value, "", package)
    return Plugin(entry.name, entry.dist.name, entry.dist.version, package)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else ": ".join(filter(None, (type(error).__name__, text)))
