"""One place for every component, by kind and name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from jointgen.errors import ConfigError, PluginError
from jointgen.registry.components import KINDS, Component, Registrar, Registry

if TYPE_CHECKING:
    from decimal import Decimal


@attrs.frozen
class Conv:
    """A stack of convolutions.

    More about it.
    """


@attrs.frozen
class MLP:
    width: int = 1


class Plain:
    pass


@attrs.frozen
class Unresolved:
    width: Decimal


def filled() -> Registry:
    registry = Registry()
    toys = Registrar(registry, "toys 1.0")
    toys.encoder("mlp", MLP)
    toys.encoder("conv", Conv, paper="LeNet (LeCun et al., 1998)")
    toys.decoder("mlp", MLP)
    return registry


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_registered_and_fetched(kind: str) -> None:
    registry = Registry()
    getattr(Registrar(registry, "toys 1.0"), kind)("conv", Conv, paper="a paper", summary="a summary")
    assert registry.get(kind, "conv") == Component(kind, "conv", Conv, "a paper", "a summary", "toys 1.0")
    assert registry.name_of(kind, Conv) == "conv"


def test_components_come_sorted_by_kind_and_name() -> None:
    assert [(c.kind, c.name) for c in filled().components()] == [
        ("encoder", "conv"),
        ("encoder", "mlp"),
        ("decoder", "mlp"),
    ]
    assert [c.name for c in filled().components("decoder")] == ["mlp"]


def test_the_summary_is_the_docstrings_first_line_unless_given() -> None:
    assert filled().get("encoder", "conv").summary == "A stack of convolutions."


def test_one_name_may_serve_two_kinds_but_one_kind_only_once() -> None:
    registry = filled()
    with pytest.raises(PluginError, match=r"encoder 'mlp' is registered twice: by toys 1\.0 and by others 2\.0"):
        Registrar(registry, "others 2.0").encoder("mlp", Conv)
    assert registry.get("encoder", "mlp").target is MLP


def test_registries_are_joined_with_the_same_care() -> None:
    registry, other = filled(), Registry()
    Registrar(other, "others 2.0").prior("gauss", MLP)
    registry.update(other)
    assert registry.names("prior") == ["gauss"]
    registry.update(other)
    assert registry.names("prior") == []
    with pytest.raises(ConfigError, match=r"prior 'gauss' is registered by others 2\.0 and by others 2\.0; uninstall"):
        registry.get("prior", "gauss")


def test_an_unknown_name_is_told_with_the_nearest_and_what_failed() -> None:
    registry = filled()
    registry.failures.append("plugin 'x' (xs 1.0) failed to load: no jax")
    with pytest.raises(ConfigError) as caught:
        registry.get("encoder", "conw")
    assert caught.value.lines == [
        "unknown encoder 'conw'; did you mean 'conv'? (known: conv, mlp); plugin 'x' (xs 1.0) failed to load: no jax"
    ]


def test_an_unknown_kind_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown kind of component 'encoders'; did you mean 'encoder'\?"):
        filled().components("encoders")
    with pytest.raises(PluginError, match=r"toys 1\.0 registers an unknown kind 'encodr'; did you mean 'encoder'\?"):
        Registrar(Registry(), "toys 1.0").encodr("mlp", MLP)


def test_a_class_that_is_not_registered_has_no_name() -> None:
    with pytest.raises(ConfigError, match="Plain is not a registered critic loss"):
        filled().name_of("critic_loss", Plain)


# --- components given as "package.module:Class" ----------------------------------------------------------------------


@pytest.fixture
def lazy_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "lazy_toys.py").write_text("import attrs\n@attrs.frozen\nclass Net:\n    width: int = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lazy_toys", raising=False)
    return "lazy_toys"


def test_a_component_given_by_path_is_imported_only_when_it_is_used(lazy_module: str) -> None:
    registry = filled()
    Registrar(registry, "toys 1.0").encoder("lazy", f"{lazy_module}:Net")
    assert "lazy" in registry.names("encoder")
    assert registry.name_of("encoder", MLP) == "mlp"
    assert lazy_module not in sys.modules
    loaded = registry.get("encoder", "lazy").load()
    assert loaded is sys.modules[lazy_module].Net
    assert registry.name_of("encoder", loaded) == "lazy"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module:Net", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("json:Net", "cannot be loaded: AttributeError: module 'json' has no attribute 'Net'"),
        ("json:JSONEncoder", "cannot be used: JSONEncoder is not an attrs class"),
        (Plain, "is not an attrs class"),
        (Unresolved, "an annotation of its class fails: name 'Decimal' is not defined"),
    ],
)
def test_a_component_that_cannot_be_used_names_itself_and_its_provider(target: type | str, reason: str) -> None:
    registry = Registry()
    Registrar(registry, "toys 1.0").critic_loss("net", target)
    with pytest.raises(PluginError) as caught:
        registry.get("critic_loss", "net").load()
    assert str(caught.value).startswith("critic loss 'net' of toys 1.0 cannot be")
    assert reason in str(caught.value)


def test_a_module_that_breaks_while_it_is_imported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaking_toys.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="RuntimeError: operator torchvision::nms does not exist"):
        Component("encoder", "net", "breaking_toys:Net").load()


def test_a_component_that_cannot_be_imported_is_no_suggestion() -> None:
    registry = Registry()
    registry.add(Component("family", "broken", "nowhere_to_be_found:Family"))
    registry.add(Component("family", "whole", "jointgen.contracts.space:Space"))
    assert [component.name for component, _ in registry.loadable("family")] == ["whole"]
