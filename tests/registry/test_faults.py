"""An exception that comes out of a plugin is one line, which says whose it is and where it was raised."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jointgen.cli.arguments import Command
from jointgen.cli.dispatch import dispatch
from jointgen.errors import ComponentError, ConfigError
from jointgen.registry.discovery import forget_plugins
from jointgen.registry.faults import attributing, described, foreign_provider_of, said

PLUGIN = """
import attrs, jointgen

@attrs.frozen
class WideMLP:
    def build(self):
        return 1 / 0

@jointgen.hookimpl
def jointgen_register(registry):
    registry.encoder("wide", WideMLP)
"""
PLACE = "wide_nets.py:7, in WideMLP.build"


@pytest.fixture
def wide(install: Callable[..., None], request: pytest.FixtureRequest) -> Any:
    """The component of an installed plugin, which raises when it is built."""
    request.addfinalizer(forget_plugins)
    install("wide-nets", PLUGIN, name="late")
    forget_plugins()
    return importlib.import_module("wide_nets").WideMLP()


def run(monkeypatch: pytest.MonkeyPatch, function: Callable[[], Any]) -> int:
    command = Command("raises", lambda parser: None, lambda arguments: function())
    monkeypatch.setattr("jointgen.cli.arguments.COMMANDS", {"list": command})
    return dispatch(["list"])


def test_an_exception_of_a_plugin_is_one_line_with_its_place(
    wide: Any, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, wide.build) == 1
    assert capsys.readouterr().err == (
        f"jointgen: a component of wide-nets 1.0 raises ZeroDivisionError: division by zero ({site}/{PLACE}); "
        "JOINTGEN_TRACEBACK=1 shows more\n"
    )


def test_the_traceback_is_there_for_who_wants_it(
    wide: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOINTGEN_TRACEBACK", "1")
    assert run(monkeypatch, wide.build) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "Traceback (most recent call last):"
    assert told[-1].startswith("jointgen: a component of wide-nets 1.0 raises ZeroDivisionError")


def test_a_mistake_of_our_own_keeps_its_traceback(wide: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake() -> None:
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        run(monkeypatch, mistake)


def test_what_a_component_raises_names_it(wide: Any, site: Path) -> None:
    what = f"encoder.network: {described(None, 'encoder', wide)}"
    with pytest.raises(ComponentError) as caught, attributing(what):
        wide.build()
    assert str(caught.value) == (
        f"encoder.network: encoder 'wide' of wide-nets 1.0 raises ZeroDivisionError: division by zero ({site}/{PLACE})"
    )
    with pytest.raises(ConfigError, match=r"^width: must be > 0$"), attributing(what):
        raise ConfigError("must be > 0", "width")


def test_an_exception_that_came_through_no_plugin_has_no_place() -> None:
    try:
        int("x\ny")
    except ValueError as error:
        assert said(error) == "ValueError: invalid literal for int() with base 10: 'x\\ny'"
        assert foreign_provider_of(error) == ""


def leaving() -> None:
    raise SystemExit(0)


def test_a_component_that_ends_the_process_is_a_fault_and_ctrl_c_is_none(wide: Any) -> None:
    with pytest.raises(ComponentError, match=r"^metric 'm' raises SystemExit: 0$"), attributing("metric 'm'"):
        leaving()
    with pytest.raises(KeyboardInterrupt), attributing("metric 'm'"):
        raise KeyboardInterrupt


def test_a_command_that_a_component_ends_fails_with_a_line(
    install: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """Also where no component is named beforehand, as in a step of the training."""
    request.addfinalizer(forget_plugins)
    install("wide-nets", PLUGIN.replace("return 1 / 0", "raise SystemExit(0)"), name="late")
    forget_plugins()
    assert run(monkeypatch, importlib.import_module("wide_nets").WideMLP().build) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jointgen: a component of wide-nets 1.0 raises SystemExit: 0 (")
    assert run(monkeypatch, leaving) == 0  # the status of launched processes, for example
