"""(kind, name) -> component. Filled by plugins only; knows no model, data set or metric. Torch-free."""

from __future__ import annotations

import importlib
from typing import Any

import attrs

from jointgen.errors import ConfigError, PluginError, suggest

KINDS = (
    "encoder",
    "decoder",
    "family",
    "prior",
    "discriminator",
    "objective",
    "term",
    "critic_loss",
    "penalty",
    "data",
    "metric",
)


@attrs.frozen
class Component:
    """One registered class: `target` is the class, or "package.module:Class" so that listing imports nothing."""

    kind: str
    name: str
    target: type | str
    paper: str = ""
    summary: str = ""
    provider: str = ""

    def load(self) -> type:
        if isinstance(self.target, type):
            return self.target
        module, _, attribute = self.target.partition(":")
        try:
            loaded = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise PluginError(f"{self.kind} {self.name!r} of {self.provider} cannot be loaded: {error}") from error
        if not attrs.has(loaded):
            raise PluginError(f"{self.kind} {self.name!r} of {self.provider}: {self.target} is not an attrs class")
        return loaded


class Registry:
    def __init__(self) -> None:
        self._components: dict[str, dict[str, Component]] = {kind: {} for kind in KINDS}

    def add(self, component: Component) -> None:
        """Raises PluginError naming both providers when the name is taken within its kind."""
        held = self._components[component.kind].get(component.name)
        if held is not None:
            raise PluginError(
                f"{component.kind} {component.name!r} is registered twice: by {held.provider} and by {component.provider}"
            )
        self._components[component.kind][component.name] = component

    def names(self, kind: str) -> list[str]:
        return sorted(self._components[kind])

    def components(self, kind: str | None = None) -> list[Component]:
        """Sorted by kind (in the order of KINDS), then by name."""
        kinds = KINDS if kind is None else (kind,)
        return [self._components[k][name] for k in kinds for name in self.names(k)]

    def get(self, kind: str, name: str) -> Component:
        if name not in self._components[kind]:
            raise ConfigError(f"unknown {kind.replace('_', ' ')} {name!r}{suggest(name, self.names(kind))}")
        return self._components[kind][name]

    def name_of(self, kind: str, cls: type) -> str:
        """The name under which a config's class is registered (needed to write a recipe back)."""
        for component in self._components[kind].values():
            if component.load() is cls:
                return component.name
        raise ConfigError(f"{cls.__module__}.{cls.__qualname__} is not a registered {kind}")


class Registrar:
    """What a plugin's hook receives: one method per kind, all with the same arguments."""

    def __init__(self, registry: Registry, provider: str):
        self._registry, self._provider = registry, provider

    def _add(self, kind: str, name: str, target: type | str, paper: str, summary: str) -> None:
        doc = "" if isinstance(target, str) else (target.__doc__ or "").strip().split("\n")[0]
        self._registry.add(Component(kind, name, target, paper, summary or doc, self._provider))

    def encoder(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        self._add("encoder", name, target, paper, summary)

    def decoder(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        self._add("decoder", name, target, paper, summary)

    def family(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        self._add("family", name, target, paper, summary)

    def prior(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        self._add("prior", name, target, paper, summary)

    def discriminator(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        self._add("discriminator", name, target, paper, summary)

    def objective(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        self._add("objective", name, target, paper, summary)

    def term(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        self._add("term", name, target, paper, summary)

    def critic_loss(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        self._add("critic_loss", name, target, paper, summary)

    def penalty(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        self._add("penalty", name, target, paper, summary)

    def data(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        self._add("data", name, target, paper, summary)

    def metric(self, name: str, target: type | str, *, paper: str = "", summary: str = "") -> None:
        self._add("metric", name, target, paper, summary)

    def __getattr__(self, kind: str) -> Any:
        raise PluginError(f"{self._provider} registers an unknown kind {kind!r}{suggest(kind, KINDS)}")

