"""The completion scripts, tried in the shells that are there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jointgen.cli import completion
from jointgen.cli.arguments import COMMANDS, SHELLS

TRY = """
source ./jointgen.bash
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_jointgen
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    (folder / "jointgen.bash").write_text(completion.completion_of("bash"))
    (folder / "runs/first").mkdir(parents=True)
    (folder / "runs/first/recipe.toml").touch()
    (folder / "runs/empty").mkdir()
    (folder / "my.toml").touch()
    return folder


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("jointgen sam", {"sample"}),
        ("jointgen run --al", {"--allow-changes"}),
        ("jointgen run quick", {"quickstart"}),
        ("jointgen explain my", {"my.toml"}),
        ("jointgen sample runs/f", {"runs/first", "runs/first/"}),
        ("jointgen compare runs/first runs/f", {"runs/first", "runs/first/"}),
        ("jointgen list crit", {"critic_loss"}),
        ("jointgen list recip", {"recipe"}),
        ("jointgen list family plana", {"planar"}),
        ("jointgen completion z", {"zsh"}),
        ("jointgen run quickstart --resume a", {"auto"}),
    ],
)
def test_bash_offers(words: str, offered: set[str], folder: Path) -> None:
    done = subprocess.run(["bash", "-c", TRY.format(words=words)], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {*done.stdout.split()} == offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("words", ["jointgen sample runs/a", "jointgen run a"])
def test_bash_quotes_what_it_finds(words: str, tmp_path: Path) -> None:
    """`compopt -o filenames` lets bash quote the words; a folder can be named "a;rm -r b"."""
    (tmp_path / "jointgen.bash").write_text(completion.completion_of("bash"))
    (tmp_path / "runs/a c").mkdir(parents=True)
    (tmp_path / "runs/a c/recipe.toml").touch()
    (tmp_path / "a c.toml").touch()
    script = 'compopt() { echo "compopt $*"; }\n' + TRY.format(words=words)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    found = done.stdout.splitlines()
    assert found[0] == "compopt -o filenames"
    assert {"runs/a c", "a c.toml"} & {*found[1:]}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_odd_names_are_offered_and_expand_to_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {"vae's": Path(), "vae+$(touch x)": Path(), "VAE/GAN": Path(), "va\ne": Path()}
    monkeypatch.setattr(completion, "shipped_recipes", lambda: odd)
    (tmp_path / "jointgen.bash").write_text(completion.completion_of("bash"))
    done = subprocess.run(
        ["bash", "-c", TRY.format(words="jointgen run v")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["vae's", "vae+$(touch x)"]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script_that_knows_the_commands(shell: str, say: Any) -> None:
    said = say("completion", shell)
    assert said.status == 0
    assert all(name in said.out for name in (*COMMANDS, "vae_mnist", "critic_loss", "_jointgen_run_dirs"))
    assert "@" not in "".join(line for line in said.out.splitlines() if line.startswith("_jointgen"))


def test_without_shtab_it_says_what_to_install(say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion.importlib.util, "find_spec", lambda name: None)
    assert say("completion", "bash").refusal.startswith("completion needs shtab: pip install 'jointgen[completion]'")
