"""Plugin files: what a recipe's own Python files register, and when they are run."""

from __future__ import annotations

from pathlib import Path

import pytest

from jointgen.config.plugin_files import registry_of, registry_of_run
from jointgen.config.recipe import read_tables
from jointgen.errors import ConfigError, PluginError
from jointgen.registry.files import load_files, loaded_modules, trusting
from jointgen.runtime.hashing import sha256_of
from jointgen.testing import check_file

DECORATED = """
import jointgen

@jointgen.register.encoder("{name}")
def net(inputs, output, width: int = 32):
    "A net of {name}."
"""
HOOKED = """
import attrs, jointgen

@attrs.frozen
class Loss:
    "A loss."

@jointgen.hookimpl
def jointgen_register(registry):
    registry.critic_loss("{name}", Loss)
"""


def write(path: Path, source: str) -> Path:
    path.write_text(source)
    return path


def test_a_file_registers_by_decorators_or_by_the_hook_for_those_who_name_it_only(tmp_path: Path) -> None:
    write(tmp_path / "nets.py", DECORATED.format(name="by_decorator"))
    write(tmp_path / "losses.py", HOOKED.format(name="by_hook"))
    registry = registry_of({"plugins": [str(tmp_path / "nets.py"), str(tmp_path / "losses.py")]})
    net = registry.get("encoder", "by_decorator")
    digest = sha256_of((tmp_path / "nets.py").read_bytes())
    assert (net.summary, net.provider) == ("A net of by_decorator.", f"nets.py (sha256 {digest[:8]})")
    assert registry.get("critic_loss", "by_hook").load()() is not None
    assert (registry.files[0].path.name, registry.files[0].sha256) == ("nets.py", digest)
    assert net.provider in loaded_modules().values()  # so that what it raises is said to be its
    with pytest.raises(ConfigError, match="unknown encoder 'by_decorator'"):
        registry_of({}).get("encoder", "by_decorator")


def test_files_of_one_name_and_other_contents_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    one = registry_of({"plugins": [str(write(tmp_path / "nets.py", DECORATED.format(name="first")))]})
    two = registry_of({"plugins": [str(write(tmp_path / "old" / "nets.py", DECORATED.format(name="first") + "\n"))]})
    first, second = (one.get("encoder", "first").load() for one in (one, two))
    assert first is not second
    with pytest.raises(ConfigError, match=r"two plugin files are named nets.py"):
        registry_of({"plugins": [str(tmp_path / "nets.py"), str(tmp_path / "old" / "nets.py")]})


def test_paths_are_relative_to_the_recipe_that_has_them_and_the_base_is_another(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write(tmp_path / "base" / "base.toml", 'plugins = ["nets.py", { file = "more.py", sha256 = "ab" }]')
    write(tmp_path / "mine.toml", 'base = "base/base.toml"')
    near = tmp_path / "base"
    assert read_tables(tmp_path / "mine.toml")["plugins"] == [
        str(near / "nets.py"),
        {"file": str(near / "more.py"), "sha256": "ab"},
    ]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x = ", "nets.py:1 is not Python: invalid syntax"),
        ("x = 1\n\n1 / 0", "nets.py:3 raises ZeroDivisionError: division by zero"),
        ("x = 1", "nets.py implements no hook"),
        (
            "import jointgen\njointgen.register.encodr('x')",
            "unknown kind of component 'encodr'; did you mean 'encoder'",
        ),
        (
            "import jointgen\n@jointgen.hookimpl\ndef jointgen_log(run, figs): ...",
            "nets.py:2: jointgen_log is given no 'figs'; did you mean 'figures'? (known: figures, run)",
        ),
        ("import helper", "nets.py imports 'helper', which lies beside it and would not come along"),
        ("import jointgen_helper", "nets.py imports 'jointgen_helper', which lies beside it"),
        ("from . import helper", "nets.py imports '.', which lies beside it"),
        (DECORATED.format(name="mlp"), "encoder 'mlp' is registered twice: by jointgen"),
    ],
)
def test_a_file_that_cannot_be_used_says_why_in_one_line(source: str, reason: str, tmp_path: Path) -> None:
    write(tmp_path / "helper.py", "")
    write(tmp_path / "jointgen_helper.py", "")
    path = write(tmp_path / "nets.py", source)
    with pytest.raises(PluginError if "twice" in reason else ConfigError) as caught:
        registry_of({"plugins": [str(path)]})
    (line,) = str(caught.value).splitlines()
    assert reason in line


def test_a_wrong_key_or_path_names_its_place_and_the_nearest_file(tmp_path: Path) -> None:
    write(tmp_path / "nets.py", DECORATED.format(name="x"))
    with pytest.raises(ConfigError) as caught:
        registry_of({"plugins": [str(tmp_path / "net.py"), str(tmp_path / "nets.txt")]})
    assert str(caught.value).splitlines() == [
        f"plugins[0]: no file {tmp_path / 'net.py'}; did you mean 'nets.py'?",
        f"plugins[1]: {tmp_path / 'nets.txt'} is no Python file; a plugin file ends in .py",
    ]
    with pytest.raises(ConfigError, match="plugins"):
        registry_of({"plugins": "nets.py"})


def test_a_file_that_a_run_brings_is_run_with_consent_only(tmp_path: Path) -> None:
    mark = tmp_path / "was_run"
    (tmp_path / "plugins").mkdir()
    source = DECORATED.format(name="foreign") + f"\nopen({str(mark)!r}, 'w').close()\n"
    path = write(tmp_path / "plugins" / "nets.py", source)
    tables = {"plugins": [{"file": "plugins/nets.py", "sha256": sha256_of(source.encode())}]}
    with pytest.raises(ConfigError, match=r"nets.py is code that loading the run would execute .*trust=True"):
        registry_of_run(tables, tmp_path)
    assert not mark.exists()
    with trusting():
        (file,) = registry_of_run(tables, tmp_path).files
    assert mark.exists()
    assert not file.has_changed
    registry_of_run(tables, tmp_path)  # this process has run it, so consent was given

    write(path, source + "\n")
    with pytest.raises(ConfigError, match=r"would execute .*\.\.\., not the \w{8}\.\.\. that it was trained with"):
        registry_of_run(tables, tmp_path)
    with trusting():
        assert registry_of_run(tables, tmp_path).files[0].has_changed


@pytest.mark.parametrize("file", ["nets.py", "../nets.py", "plugins/../../nets.py", "/tmp/nets.py"])
def test_a_run_brings_no_file_from_outside_its_folder_plugins(file: str, tmp_path: Path) -> None:
    with (
        trusting(),
        pytest.raises(ConfigError, match=r"plugins\[0\].file: must be a file of the run's folder plugins/"),
    ):
        registry_of_run({"plugins": [file]}, tmp_path)


def test_a_recipe_with_the_hash_of_another_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "nets.py", DECORATED.format(name="hashed"))
    with pytest.raises(ConfigError, match=r"plugins\[0\]: .*is another file than the recipe says .*not abababab"):
        registry_of({"plugins": [{"file": str(path), "sha256": "ab" * 32}]})


def test_a_file_that_failed_is_run_again_once_it_is_mended(tmp_path: Path) -> None:
    path = write(tmp_path / "nets.py", "1 / 0")
    with pytest.raises(ConfigError):
        load_files([(path, "")])
    write(path, DECORATED.format(name="mended"))
    assert [one.name for one in load_files([(path, "")])[0].components] == ["mended"]


PENALTY = """
import attrs, jointgen

@jointgen.register.penalty("squares")
@attrs.frozen
class Squares:
    weight: float = 1.0
    every: int = 1

    def __call__(self, critic, positive, negative, noise):
        return {result}
"""


@pytest.mark.parametrize(("result", "broken"), [("critic(*positive) ** 2", 0), ("-1 - critic(*positive) ** 2", 1)])
def test_the_conformance_suite_takes_a_file(result: str, broken: int, tmp_path: Path) -> None:
    found = check_file(str(write(tmp_path / "penalties.py", PENALTY.format(result=result))))
    ((name, (kept, lines)),) = found.items()
    assert (name, len(lines) >= broken, kept > 3) == ("penalty squares", True, True)
    assert (not lines) == (not broken)
