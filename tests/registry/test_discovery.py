"""Plugins enter by their entry points; what goes wrong with one names it and stops nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from jointgen.cli.listing import listing, listing_json
from jointgen.errors import ConfigError
from jointgen.registry.discovery import GROUP, Plugins, forget_plugins, load_plugins

GOOD = """
import attrs, jointgen

@attrs.frozen
class WideMLP:
    width: int = 512

@jointgen.hookimpl
def jointgen_register(registry):
    registry.encoder("{name}", WideMLP, paper="none")
"""

Install = Callable[..., None]
Load = Callable[[], Plugins]


@pytest.fixture
def load(site: Path) -> Load:
    """Loads what is installed in that folder, and only that."""

    def load() -> Plugins:
        found = metadata.distributions(path=[str(site)])
        return load_plugins(entry for one in found for entry in one.entry_points if entry.group == GROUP)

    return load


def only_failure(plugins: Plugins) -> str:
    assert plugins.loaded == []
    (failed,) = plugins.failed
    return str(failed)


def test_a_plugin_registers_its_components_under_its_distributions_name(install: Install, load: Load) -> None:
    install("wide-nets", GOOD.format(name="wide"), version="2.1")
    plugins = load()
    component = plugins.registry.get("encoder", "wide")
    assert component.provider == "wide-nets 2.1"
    assert component.load()().width == 512
    (plugin,) = plugins.loaded
    assert (plugin.name, plugin.distribution, plugin.version) == ("mine", "wide-nets", "2.1")
    assert plugins.failed == []


def test_what_decorators_register_is_there_at_every_load(install: Install, load: Load) -> None:
    """A module runs its decorators at its first import only; commands of plugins load them before a run does."""
    install(
        "deco-nets",
        "import jointgen\n@jointgen.register.encoder('decorated')\n"
        "def net(inputs, output, width: int = 32):\n    'A net.'\n",
    )
    assert [load().registry.get("encoder", "decorated").provider for _ in range(2)] == ["deco-nets 1.0"] * 2


def test_two_distributions_may_give_their_plugins_one_name(install: Install, load: Load) -> None:
    install("wide-nets", GOOD.format(name="wide"))
    install("deep-nets", GOOD.format(name="deep"), version="0.3")
    plugins = load()
    assert [plugin.provider for plugin in plugins.loaded] == ["deep-nets 0.3", "wide-nets 1.0"]
    assert plugins.registry.names("encoder") == ["deep", "wide"]


def test_a_component_that_several_plugins_claim_stops_only_what_needs_it(install: Install, load: Load) -> None:
    both = "    registry.encoder('second', WideMLP)\n"
    install("wide-nets", GOOD.format(name="wide") + both, name="a")
    install("deep-nets", GOOD.format(name="wide") + both, name="b", version="0.3")
    install("late-nets", GOOD.format(name="wide") + "    registry.decoder('own', WideMLP)\n", name="c")
    plugins = load()
    assert plugins.failed == []
    assert [component.name for component in plugins.registry.components()] == ["own"]
    advice = "uninstall all but one, or rename it in one of them"
    clashes = [
        f"encoder 'second' is registered by wide-nets 1.0 and by deep-nets 0.3; {advice}",
        f"encoder 'wide' is registered by wide-nets 1.0 and by deep-nets 0.3 and by late-nets 1.0; {advice}",
    ]
    assert sorted(plugins.registry.clashes()) == clashes
    assert plugins.registry.clashes("decoder") == []
    with pytest.raises(ConfigError) as caught:
        plugins.registry.get("encoder", "wide")
    assert str(caught.value) == clashes[1]
    told = listing(plugins)
    assert all(line in told for line in clashes)
    assert json.loads(listing_json(plugins))["clashes"] == plugins.registry.clashes()


def test_a_plugin_that_cannot_be_imported_stops_only_what_needs_it(install: Install, load: Load) -> None:
    install("wide-nets", GOOD.format(name="wide"), name="a")
    install("deep-nets", "import no_such_module", name="b")
    plugins = load()
    (failed,) = plugins.failed
    assert (failed.name, failed.distribution, failed.version) == ("b", "deep-nets", "1.0")
    assert failed.reason == "ModuleNotFoundError: No module named 'no_such_module'"
    assert plugins.registry.get("encoder", "wide").name == "wide"
    with pytest.raises(ConfigError) as caught:
        plugins.registry.get("encoder", "deep")
    assert str(caught.value) == (
        "unknown encoder 'deep'; known: wide; plugin 'b' (deep-nets 1.0) failed to load: "
        "ModuleNotFoundError: No module named 'no_such_module'"
    )


BAD = {
    "raises while it is imported": ("raise RuntimeError('no such\\n operator')", "RuntimeError: no such operator"),
    "is no Python": ("def (", "SyntaxError: "),
    "imports what is missing in its hook": (
        "import jointgen\n@jointgen.hookimpl\ndef jointgen_register(registry):\n    import no_such_module\n",
        "ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "misspells its hook": (
        "import jointgen\n@jointgen.hookimpl\ndef jointgen_registr(registry): pass\n",
        "implements jointgen_registr, which is no hook; did you mean 'jointgen_register'? (known: ",
    ),
    "misspells one of its hooks": (
        GOOD.format(name="wide") + "\n@jointgen.hookimpl\ndef jointgen_listen(registry): pass\n",
        "implements jointgen_listen, which is no hook",
    ),
    "forgets to mark its hook": (
        "def jointgen_register(registry): pass\n",
        "jointgen_run_start; mark yours with @jointgen.hookimpl)",
    ),
    "misspells the hook's argument": (
        "import jointgen\n@jointgen.hookimpl\ndef jointgen_register(register): pass\n",
        "py:2: jointgen_register is given no 'register'; did you mean 'registry'? (known: registry)",
    ),
    "registers an unknown kind": (
        "import jointgen\n@jointgen.hookimpl\ndef jointgen_register(registry):\n    registry.encodr('a', int)\n",
        "deep-nets 1.0 registers an unknown kind 'encodr'; did you mean 'encoder'?",
    ),
    "registers one name twice": (
        GOOD.format(name="wide") + "    registry.encoder('wide', WideMLP)\n",
        "encoder 'wide' is registered twice: by deep-nets 1.0 and by deep-nets 1.0",
    ),
}


@pytest.mark.parametrize(("source", "reason"), BAD.values(), ids=BAD.keys())
def test_a_plugin_at_fault_is_kept_with_its_reason(source: str, reason: str, install: Install, load: Load) -> None:
    install("deep-nets", source)
    told = only_failure(load())
    assert told.startswith("plugin 'mine' (deep-nets 1.0) failed to load: ")
    assert reason in told
    assert "\n" not in told


def test_a_plugin_that_fails_half_way_leaves_nothing_behind(install: Install, load: Load) -> None:
    install("deep-nets", GOOD.format(name="wide") + "    raise OSError('disk')\n")
    plugins = load()
    assert plugins.registry.components() == []
    assert only_failure(plugins).endswith("OSError: disk")


def test_an_optional_hook_may_be_unknown_here(install: Install, load: Load) -> None:
    later = "\n@jointgen.hookimpl(optionalhook=True)\ndef jointgen_later(registry): pass\n"
    install("wide-nets", GOOD.format(name="wide") + later)
    assert load().failed == []


def test_what_is_installed_is_loaded_once_until_it_is_forgotten(
    install: Install, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(forget_plugins)
    before = load_plugins()
    assert load_plugins() is before
    install("late-nets", GOOD.format(name="late_wide"), name="late")
    assert load_plugins() is before
    forget_plugins()
    assert "late_wide" in load_plugins().registry.names("encoder")


def test_ours_enter_by_the_same_door() -> None:
    ours = [plugin.name for plugin in load_plugins().loaded if plugin.distribution == "jointgen"]
    failed = [plugin.name for plugin in load_plugins().failed if plugin.distribution == "jointgen"]
    declared = {entry.name for entry in metadata.distribution("jointgen").entry_points if entry.group == GROUP}
    assert {*ours, *failed} == declared


def test_a_plugin_that_ends_the_process_failed_to_load(install: Install, load: Load) -> None:
    install("rude-nets", "import sys\n\nsys.exit(0)\n")
    install("shy-nets", GOOD.format(name="shy") + "    raise SystemExit\n")
    install("wide-nets", GOOD.format(name="wide"))
    plugins = load()
    assert [str(plugin) for plugin in plugins.failed] == [
        "plugin 'mine' (rude-nets 1.0) failed to load: SystemExit: 0",
        "plugin 'mine' (shy-nets 1.0) failed to load: SystemExit",
    ]
    assert plugins.registry.names("encoder") == ["wide"]


def test_a_long_summary_is_cut_in_a_listing(install: Install, load: Load) -> None:
    install("wide-nets", GOOD.format(name="wide").replace('paper="none"', f'summary="{"s" * 5000}"'))
    assert f"  wide  {'s' * 397}...\n" in listing(load())
    assert "s" * 5000 in listing_json(load())
