"""What the tests of the command line share: a way to call it, and small runs that they only read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from jointgen.cli.main import main

SMALL = {
    "encoder.network.hidden": "[8]",
    "decoder.network.hidden": "[8]",
    "discriminator.hidden": "[8]",
    "prior.size": "4",
    "train.steps": "20",
    "train.batch": "16",
    "train.eval_every": "1000",
    "train.sample_every": "1000",
    "eval.rows": "64",
    "eval.samples": "4",
}

LABELLED = """
format = 1
data = { type = "digits", labels = true }
prior = { type = "normal", size = 4 }
[encoder]
network = { type = "mlp", hidden = [8] }
family = { type = "gaussian" }
[decoder]
network = { type = "mlp", hidden = [8], init = "torch" }
family = { type = "gaussian", scale = "global" }
[objective]
type = "expression"
maximize = "E[q(x,y,z)](log p(x|z,y) + log p(z) - log q(z|x,y))"
joints = { q = "q(x,y) q(z|x,y)", p = "p(y) p(z) p(x|z,y)" }
parts = { "q(x,y)" = "data", "p(y)" = "data" }
[train]
steps = 2
batch = 16
[eval]
rows = 32
"""


def in_words(**changes: str) -> list[str]:
    given = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [word for key, value in given.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="session")
def sets() -> Callable[..., list[str]]:
    """sets(train__steps="2") -> --set words for a run of seconds, with these changes."""
    return in_words


@pytest.fixture(scope="session")
def quickstart(repo: Path) -> str:
    return str(repo / "tests" / "fixtures" / "recipes" / "quickstart.toml")


@pytest.fixture(scope="session")
def trained(quickstart: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps on labelled digits. Tests only read it."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["run", quickstart, "--out", str(out), "--quiet", *in_words(data__labels="true")]) == 0
    return out


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of p(x|z,y), whose encoder and decoder are given a label. Tests only read it."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "labelled.toml").write_text(LABELLED)
    assert main(["run", str(folder / "labelled.toml"), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@attrs.frozen
class Said:
    """How a command ended: its status, stdout, and the lines of stderr."""

    status: int
    out: str
    problems: list[str]

    @property
    def refusal(self) -> str:
        """The one problem of a command whose input was wrong, without its prefix."""
        assert self.status == 2, self
        assert self.out == ""
        (line,) = self.problems
        return line.removeprefix("jointgen: ")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """say("run", ...) calls the command line in this process."""

    def run(*argv: Any) -> Said:
        capsys.readouterr()
        status = main([str(word) for word in argv])
        shown = capsys.readouterr()
        return Said(status, shown.out, shown.err.splitlines())

    return run
