"""`jointgen.register` and components made of functions and classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from torch import nn

import jointgen
from jointgen.errors import ConfigError, PluginError
from jointgen.registry.builders import component_class
from jointgen.registry.components import IN_PROCESS, Registry
from jointgen.registry.discovery import load_plugins


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The registry of installed plugins, which afterwards knows nothing of what the test has registered."""
    registry = load_plugins().registry
    monkeypatch.setattr(registry, "_of_process", {})
    yield registry


def echo(inputs: Any, output: Any, width: int = 3, hidden=[4, 5], *, name: str = "a") -> tuple[Any, ...]:  # noqa: B006
    """Give back what it was called with."""
    return inputs, output, width, hidden, name


class Layer(nn.Module):
    """A layer."""

    def __init__(self, inputs: Any, width: int, slope=0.5) -> None:
        super().__init__()
        self.settings = inputs, width, slope


def far(a: Any, b: Any, power=2) -> Any:
    """A power of the distance."""
    return (a - b) ** power


def test_a_function_becomes_a_component_whose_settings_are_its_further_parameters() -> None:
    cls: Any = component_class("encoder", echo)
    fields = attrs.fields(attrs.resolve_types(cls))
    assert [(f.name, f.type) for f in fields] == [("width", int), ("hidden", list[int]), ("name", str)]
    assert cls().build("in", "out") == ("in", "out", 3, [4, 5], "a")
    assert cls(width=9, name="b").build("in", "out") == ("in", "out", 9, [4, 5], "b")
    assert cls().hidden is not cls().hidden
    assert component_class("encoder", echo) is cls
    assert cls.__doc__ == echo.__doc__


def test_a_class_is_called_as_the_function_would_be_and_may_have_settings_without_a_default() -> None:
    cls: Any = component_class("discriminator", Layer)
    assert cls(width=2).build("in").settings == ("in", 2, 0.5)
    with pytest.raises(TypeError, match="width"):
        cls()


def test_the_values_of_a_term_are_the_parameters_without_a_default() -> None:
    assert component_class("term", far)(power=3)(5, 3) == 8


def test_an_attrs_class_stays_itself() -> None:
    @attrs.frozen
    class Own:
        pass

    assert component_class("family", Own) is Own


def one_argument(inputs: Any) -> Any:
    return inputs


def untyped(inputs: Any, output: Any, width=None) -> Any:
    return inputs


def wrongly_typed(inputs: Any, output: Any, width: NoSuchType = 3) -> Any:  # type: ignore[name-defined]  # noqa: F821
    return inputs


def make_closure(width: int) -> Any:
    def closure(inputs: Any, output: Any) -> Any:
        return width

    return closure


class HasBuild:
    def build(self, inputs: Any, output: Any) -> Any:
        return inputs


@pytest.mark.parametrize(
    ("kind", "target", "reason"),
    [
        ("family", echo, "echo is not an attrs class"),
        ("encoder", HasBuild, "HasBuild is not an attrs class"),
        ("term", Layer, "Layer is not an attrs class"),
        ("encoder", lambda inputs, output: 1, "a lambda has no name"),
        ("encoder", make_closure(3), "uses variables of the function around it"),
        ("encoder", 3, "3 is neither an attrs class nor a function"),
        ("encoder", one_argument, "one_argument takes 1 arguments, and is called with (inputs, output)"),
        ("encoder", untyped, "untyped does not say of what type width is; annotate it"),
        ("encoder", wrongly_typed, "an annotation of wrongly_typed fails: name 'NoSuchType' is not defined"),
    ],
)
def test_what_cannot_be_a_component_says_why(kind: str, target: Any, reason: str) -> None:
    with pytest.raises(PluginError) as caught:
        component_class(kind, target)
    assert reason in str(caught.value)


def test_a_decorator_registers_for_this_process_and_leaves_the_function_as_it_is(registry: Registry) -> None:
    decorated = jointgen.register.encoder("echo", paper="none")(echo)
    assert decorated is echo
    component = registry.get("encoder", "echo")
    assert (component.provider, component.summary, component.paper) == (IN_PROCESS, echo.__doc__, "none")
    assert component.defined_in == __name__
    assert "echo" in registry.names("encoder")
    assert component in registry.components("encoder")
    assert registry.name_of("encoder", component_class("encoder", echo)) == "echo"


def test_a_cell_that_runs_again_replaces_what_it_registered_and_no_plugins_component(registry: Registry) -> None:
    jointgen.register.encoder("mine")(echo)
    jointgen.register.encoder("mine")(Layer)
    assert registry.get("encoder", "mine").load() is component_class("encoder", Layer)
    taken = registry.components("encoder")[0]
    with pytest.raises(PluginError, match=f"{taken.name!r} is registered by .*; give yours another name"):
        jointgen.register.encoder(taken.name)(echo)


def test_a_wrong_kind_or_name_names_what_is_allowed(registry: Registry) -> None:
    with pytest.raises(PluginError, match="unknown kind of component 'encodr'; did you mean 'encoder'"):
        jointgen.register.encodr("mine")
    with pytest.raises(PluginError, match="expected a name of letters"):
        jointgen.register.encoder("my net")
    with pytest.raises(PluginError, match=r"jointgen.register.family\('mine'\): echo is not an attrs class"):
        jointgen.register.family("mine")(echo)


def test_a_path_in_a_recipe_leads_to_what_this_process_has_defined_and_to_no_other_function(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_main(inputs: Any, output: Any) -> Any:
        return inputs

    of_main.__module__ = "__main__"
    monkeypatch.setattr("__main__.of_main", of_main, raising=False)
    assert registry.get("encoder", "__main__.of_main").defined_in == "__main__"
    for elsewhere in ("os.system", "jointgen.run", f"{__name__}.far", "no_such_module.net"):
        with pytest.raises(ConfigError, match="no plugin registers the encoder"):
            registry.get("encoder", elsewhere)
