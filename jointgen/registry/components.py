"""The registry of components by kind and name. Plugins alone fill it. Torch-free."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from jointgen.errors import RAISED, ConfigError, PluginError, suggest
from jointgen.registry.builders import component_class

KINDS = (
    "encoder",
    "decoder",
    "family",
    "prior",
    "discriminator",
    "objective",
    "term",
    "estimator",
    "reduction",
    "divergence",
    "critic_loss",
    "penalty",
    "constraint",
    "data",
    "metric",
    "extractor",
    "optimizer",
    "schedule",
    "tracker",
    "augmentation",
)
IN_PROCESS = "this Python process"
"""The provider of components that were registered or given in Python: no other process has them by itself."""


@attrs.frozen
class Component:
    """One registered class.

    Args:
        kind: One of KINDS.
        name: The name that a recipe's ``type`` gives.
        target: An attrs class, or a function or class that builds what its kind builds (`component_class`); or
            "package.module:Class" of one, so that listing components imports nothing.
        paper: The paper it is from, with the number of the equation.
        summary: One line that says what it is.
        provider: The distribution that registered it, and its version.
        costly: For a metric, whether it takes much more than a pass through the networks for each row. It is then
            evaluated only where it is asked for, and during training only if the best checkpoint is kept by it.
    """

    kind: str
    name: str
    target: Callable[..., Any] | str
    paper: str = ""
    summary: str = ""
    provider: str = ""
    costly: bool = False

    def load(self) -> type:
        """Return the attrs class, importing it if need be.

        Raises:
            PluginError: The class cannot be imported or is no component; the message names the provider.
        """
        target = self._import() if isinstance(self.target, str) else self.target
        try:
            return attrs.resolve_types(component_class(self.kind, target))
        except PluginError as error:
            raise PluginError(f"{self} cannot be used: {error}") from None
        except RAISED as error:  # evaluating an annotation runs code of its module
            raise PluginError(f"{self} cannot be used: an annotation of its class fails: {error}") from error

    def _import(self) -> Any:
        module, _, attribute = str(self.target).partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except RAISED as error:  # whatever a module raises while it is imported
            raise PluginError(f"{self} cannot be loaded: {type(error).__name__}: {error}") from error

    @property
    def defined_in(self) -> str:
        """The module that defines it."""
        return self.target.partition(":")[0] if isinstance(self.target, str) else self.target.__module__

    def is_class(self, cls: type) -> bool:
        """Return whether `cls` is this component's class. Nothing is imported: a class that exists has been."""
        target: Any = self.target
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            target = getattr(sys.modules.get(module), attribute, None)
        return target is cls or (target is not None and getattr(cls, "built_by", None) is target)

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} {self.name!r} of {self.provider or 'an unnamed provider'}"


class Registry:
    """All components by kind and name, and the plugins that brought them.

    `failures` has a line for each plugin that could not be loaded, with why.

    A name that two plugins claim is nobody's: only what needs it is refused. `clashes` has a line for each.

    Attributes:
        files: The plugin files that it has components of, where a recipe names any (`jointgen.registry.files`).
    """

    def __init__(self) -> None:
        self._components: dict[str, dict[str, Component]] = {kind: {} for kind in KINDS}
        self._claims: dict[tuple[str, str], list[Component]] = {}
        self._of_process: dict[tuple[str, str], Component] = {}
        self.failures: list[str] = []
        self.files: tuple[Any, ...] = ()
        self.plugins: list[Any] = []  # jointgen.registry.discovery.LoadedPlugin

    def with_hook(self, name: str) -> list[Any]:
        """Return the plugins that implement a hook (`LoadedPlugin`), in the order in which they are called."""
        return [plugin for plugin in self.plugins if plugin.implements(name)]

    def add(self, component: Component) -> None:
        """Add a component.

        Raises:
            PluginError: The name is taken within its kind; the message names both providers.
        """
        held = self._of(component.kind).get(component.name)
        if held is not None:
            raise PluginError(
                f"{component.kind.replace('_', ' ')} {component.name!r} is registered twice: "
                f"by {held.provider} and by {component.provider}"
            )
        self._of(component.kind)[component.name] = component

    def update(self, other: Registry) -> None:
        """Add every component of another plugin's registry, and take away from both what both claim."""
        for component in other.components():
            key = component.kind, component.name
            held = self._of(component.kind).pop(component.name, None)
            if held is not None:
                self._claims[key] = [held]
            if key in self._claims:
                self._claims[key].append(component)
            else:
                self.add(component)

    def adopt(self, kind: str, cls: type) -> Component:
        """Let this process write and read a class that it was given in Python, under the class's path.

        No list has it, and another process does not know it: its recipes need a plugin that registers the class. A
        class that is defined again, as in a notebook, takes the place of the earlier one.
        """
        name = f"{cls.__module__}.{cls.__qualname__}"
        self._of_process[kind, name] = Component(kind, name, cls, provider=IN_PROCESS)
        return self._of_process[kind, name]

    def add_of_process(self, component: Component) -> None:
        """Add a component that Python code registers while the process runs; one of its own of that name is replaced.

        Raises:
            PluginError: A plugin has the name.
        """
        held = self._of(component.kind).get(component.name)
        if held is not None:
            kind = component.kind.replace("_", " ")
            raise PluginError(f"{kind} {component.name!r} is registered by {held.provider}; give yours another name")
        self._of_process[component.kind, component.name] = component

    def with_files(self, files: Sequence[Any]) -> Registry:
        """Return a registry that has the components of plugin files, too. What this process adds, both have.

        Raises:
            PluginError: Two of them, or one and an installed plugin, register one name.
        """
        if not files:
            return self
        both = Registry()
        both._components = {kind: dict(named) for kind, named in self._components.items()}
        both._claims, both._of_process, both.failures = self._claims, self._of_process, self.failures
        both.files = tuple(files)
        both.plugins = [*self.plugins, *(file.plugin for file in files)]
        for file in files:
            for component in file.components:
                both.add(component)
        return both

    def clashes(self, kind: str | None = None) -> list[str]:
        """Return a line for each name (of one kind) that several plugins claim: who they are, and what to do."""
        return [_clash(claims) for (of, _), claims in self._claims.items() if kind in (None, of)]

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind, sorted. What was given in Python without a name is not among them."""
        of_process = [name for of, name in self._of_process if of == kind and "." not in name]
        return sorted({*self._of(kind), *of_process})

    def components(self, kind: str | None = None) -> list[Component]:
        """Return the components of a kind, or all of them in the order of KINDS, sorted by name."""
        kinds = KINDS if kind is None else (kind,)
        return [self._of(k).get(name) or self._of_process[k, name] for k in kinds for name in self.names(k)]

    def loadable(self, kind: str) -> Iterator[tuple[Component, type]]:
        """Yield the components whose class can be imported, with the class: a broken plugin spoils no suggestion."""
        for component in self.components(kind):
            with contextlib.suppress(PluginError):
                yield component, component.load()

    def get(self, kind: str, name: str) -> Component:
        """Return a component.

        Raises:
            ConfigError: The name is unknown; the message has the known names, the nearest one, and the plugins that
                failed to load. Or several plugins claim it; the message names them.
        """
        if claims := self._claims.get((kind, name)):
            raise ConfigError(_clash(claims))
        if name in self._of(kind):
            return self._of(kind)[name]
        if (kind, name) in self._of_process:
            return self._of_process[kind, name]
        if "." in name:
            return self._defined_here(kind, name)
        lost = "".join(f"; {failure}" for failure in self.failures)
        raise ConfigError(f"unknown {kind.replace('_', ' ')} {name!r}{suggest(name, self.names(kind))}{lost}")

    def _defined_here(self, kind: str, name: str) -> Component:
        """Return a component that a process gave in Python, by its path, where this process has defined it as well.

        Nothing is imported, and a name in a recipe leads to no other function than one of this program's own.
        """
        module, _, attribute = name.rpartition(".")
        target: Any = getattr(sys.modules.get(module), attribute, None)
        is_own = getattr(target, "__module__", None) == module and (attrs.has(target) or module == "__main__")
        if target is not None and is_own:
            return self.adopt(kind, component_class(kind, target))
        raise ConfigError(
            f"no plugin registers the {kind.replace('_', ' ')} {name!r}: it was given in Python, and this process does "
            f"not have it; define {attribute} in {module} first, or put it into a file and give that as a plugin"
        )

    def default(self, kind: str, name: str) -> Any:
        """Build the component of this name with its default settings.

        Raises:
            ConfigError: No component of this kind has the name.
        """
        component: Any = self.get(kind, name).load()
        return component()

    def name_of(self, kind: str, cls: type) -> str:
        """Return the name under which a class is registered, which is needed to write a recipe."""
        return self.component_of(kind, cls).name

    def component_of(self, kind: str, cls: type) -> Component:
        """Return the component of a class, or raise a ConfigError."""
        found = self.find(kind, cls)
        if found is None:
            raise ConfigError(f"{cls.__module__}.{cls.__qualname__} is not a registered {kind.replace('_', ' ')}")
        return found

    def find(self, kind: str, cls: type) -> Component | None:
        """Return the component of a class, or None."""
        of_process = (component for (of, _), component in self._of_process.items() if of == kind)
        return next((one for one in (*self._of(kind).values(), *of_process) if one.is_class(cls)), None)

    def _of(self, kind: str) -> dict[str, Component]:
        if kind not in self._components:
            raise ConfigError(f"unknown kind of component {kind!r}{suggest(kind, KINDS)}")
        return self._components[kind]


def _clash(claims: Sequence[Component]) -> str:
    providers = " and by ".join(component.provider for component in claims)
    kind, name = claims[0].kind.replace("_", " "), claims[0].name
    return f"{kind} {name!r} is registered by {providers}; uninstall all but one, or rename it in one of them"


class Registrar:
    """The registry as the hook of a plugin receives it, with one method for each kind of component.

    All methods have the arguments of `Component`: the name, the class or "package.module:Class", and by keyword the
    paper and a one-line summary (by default the first line of the class's docstring). Metrics may be `costly`.

    >>> registry = Registry()
    >>> Registrar(registry, "my-plugin 1.0").encoder("wide_mlp", "my_package.networks:WideMLP", paper="none yet")
    >>> print(registry.get("encoder", "wide_mlp"))
    encoder 'wide_mlp' of my-plugin 1.0
    """

    def __init__(self, registry: Registry, provider: str):
        self._registry, self._provider = registry, provider

    def _add(
        self, kind: str, name: str, target: Callable[..., Any] | str, paper: str, summary: str, costly: bool = False
    ) -> None:
        doc = "" if isinstance(target, str) else (target.__doc__ or "").strip().split("\n")[0]
        self._registry.add(Component(kind, name, target, paper, summary or doc, self._provider, costly))

    def encoder(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register an encoder network."""
        self._add("encoder", name, target, paper, summary)

    def decoder(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register a decoder network."""
        self._add("decoder", name, target, paper, summary)

    def family(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register a family of distributions."""
        self._add("family", name, target, paper, summary)

    def prior(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register a prior."""
        self._add("prior", name, target, paper, summary)

    def discriminator(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register the network of a critic."""
        self._add("discriminator", name, target, paper, summary)

    def objective(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register an objective."""
        self._add("objective", name, target, paper, summary)

    def term(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register a pointwise term of the language."""
        self._add("term", name, target, paper, summary)

    def estimator(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register a term that runs parts of the model itself."""
        self._add("estimator", name, target, paper, summary)

    def reduction(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register a reduction of the K values of a term in each row to one."""
        self._add("reduction", name, target, paper, summary)

    def divergence(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register a divergence of two samples, or a statistic of one, of the rows of a whole batch."""
        self._add("divergence", name, target, paper, summary)

    def critic_loss(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register the loss of a critic."""
        self._add("critic_loss", name, target, paper, summary)

    def penalty(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register a penalty on a critic."""
        self._add("penalty", name, target, paper, summary)

    def constraint(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register what a part's parameters are held to after each optimizer step."""
        self._add("constraint", name, target, paper, summary)

    def data(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register a data source."""
        self._add("data", name, target, paper, summary)

    def metric(
        self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "", costly: bool = False
    ) -> None:
        """Register a metric."""
        self._add("metric", name, target, paper, summary, costly)

    def extractor(self, name: str, target: Callable[..., Any] | str, *, paper: str = "", summary: str = "") -> None:
        """Register an extractor of image features."""
        self._add("extractor", name, target, paper, summary)

    def optimizer(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        """Register an optimizer."""
        self._add("optimizer", name, target, paper, summary)

    def schedule(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        """Register a schedule of learning rates."""
        self._add("schedule", name, target, paper, summary)

    def tracker(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        """Register a tracker of figures and pictures."""
        self._add("tracker", name, target, paper, summary)

    def augmentation(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        """Register an augmentation of images."""
        self._add("augmentation", name, target, paper, summary)

    def __getattr__(self, kind: str) -> Any:
        raise PluginError(f"{self._provider} registers an unknown kind {kind!r}{suggest(kind, KINDS)}")
