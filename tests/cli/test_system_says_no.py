"""The system refuses: a full disk, closed streams, paths that cannot be, and Ctrl-C at any moment. One line each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.paths import QUICKSTART

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX shells and signals")


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which `J` is the command line."""
    words = f'J() {{ "{sys.executable}" -m jointgen "$@"; }}; {command}'
    return subprocess.run(["sh", "-c", words], capture_output=True, text=True, cwd=folder, check=False, timeout=120)


# --- standard streams ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("J list > /dev/full", 1, "jointgen: the result could not be printed: the disk is full\n"),
        ("J --help > /dev/full", 1, "jointgen: the result could not be printed: the disk is full\n"),
        ("J list >&-", 1, "jointgen: the result could not be printed: standard output is closed\n"),
        ("J lst 2>&-", 2, ""),
        ("J lst 2> /dev/full", 2, ""),
        ("J list <&- > /dev/null", 0, ""),
    ],
)
def test_standard_streams_that_are_full_or_closed(command: str, status: int, said: str, tmp_path: Path) -> None:
    done = shell(command, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)


def test_a_file_does_not_take_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """The first file that a process opens takes the lowest free number, and would get what is printed there."""
    code = "from jointgen.cli.main import main; main(); f = open('made', 'w'); print(f.fileno())"
    done = shell(f'"{sys.executable}" -c "{code}" --version <&- 2>&-', tmp_path)
    assert int(done.stdout.splitlines()[-1]) > 2


# --- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        ["explain", f"{'n' * 300}.toml"],
        ["run", QUICKSTART, "--out", "n" * 300, "--quiet"],
        ["copy", "quickstart", f"{'n' * 300}.toml"],
        ["plugin", "new", "my_nets", "--out", "n" * 300],
        ["report", "n" * 300],
        ["compare", "n" * 300],
    ],
)
def test_a_name_that_is_too_long_is_one_line(argv: list[Any], say: Any, here: Path) -> None:
    said = say(*argv)
    assert said.status == 2 and len(said.problems) == 1
    assert "nnnn" in said.problems[0] and "too long" in said.problems[0]
    assert list(here.iterdir()) == []


def test_what_the_system_refuses_in_a_path_is_one_line(say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(arguments: object) -> None:
        raise PermissionError(13, "Permission denied", "secret\x1b[31m.toml")

    monkeypatch.setattr("jointgen.cli.listing.list_command", refused)
    said = say("list")
    assert (said.status, said.problems) == (2, ["jointgen: secret\\x1b[31m.toml: Permission denied"])


def test_the_traceback_of_what_the_system_refuses(say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(arguments: object) -> None:
        raise PermissionError(13, "Permission denied", "secret.toml")

    monkeypatch.setattr("jointgen.cli.listing.list_command", refused)
    monkeypatch.setenv("JOINTGEN_TRACEBACK", "1")
    said = say("list")
    assert said.status == 2
    assert said.problems[0] == "Traceback (most recent call last):"
    assert said.problems[-1] == "jointgen: secret.toml: Permission denied"


@pytest.mark.parametrize(
    ("code", "status", "problems"),
    [("no licence\x1b", 1, ["jointgen: no licence\\x1b"]), (None, 0, []), (3, 3, []), (True, 1, [])],
)
def test_a_library_that_ends_the_process(
    code: Any, status: int, problems: list[str], say: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jointgen.cli.listing.list_command", lambda arguments: sys.exit(code))
    said = say("list")
    assert (said.status, said.problems) == (status, problems)


@pytest.mark.parametrize("error", [OSError("of a library"), FileNotFoundError(2, "No such file", "of/a/library.so")])
def test_an_error_of_a_library_keeps_its_traceback(error: OSError, say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(arguments: object) -> None:
        raise error

    monkeypatch.setattr("jointgen.cli.listing.list_command", failing)
    with pytest.raises(OSError, match="library"):
        say("list")


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------

INTERRUPTED = """
import os, signal, sys
from importlib.abc import MetaPathFinder
from jointgen.cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs behind with SIGINT ignored

class CtrlC(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
sys.argv[1:] = ["explain", {recipe!r}]
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["jointgen.errors", "numpy", "torch"])
def test_ctrl_c_while_modules_are_imported_is_one_line(module: str, tmp_path: Path) -> None:
    """Torch takes seconds to import, and libraries swallow exceptions while they are imported."""
    code = INTERRUPTED.format(module=module, recipe=str(QUICKSTART))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (130, "\njointgen: stopped\n")


def test_ctrl_c_that_a_library_turned_into_its_own_error(tmp_path: Path) -> None:
    code = """
import os, signal, sys
import jointgen.cli.listing as listing
from jointgen.cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)

def list_command(arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("numpy could not be imported")

listing.list_command = list_command
sys.argv[1:] = ["list"]
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 130
    assert done.stderr == "jointgen: stopped; nothing was written since the last checkpoint\n"
    assert os.listdir(tmp_path) == []
