"""Fixtures of all tests: a cache of their own, equal seeds, and small runs that tests only read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from jointgen.cli.main import main
from jointgen.registry.components import Registry
from jointgen.registry.discovery import load_plugins
from jointgen.runtime.console import printed
from support.commands import Said, in_words
from support.paths import QUICKSTART

torch.set_num_threads(1)

# the default run tries the same few examples every time; `pytest --hypothesis-profile=long` looks for new ones
hypothesis.settings.register_profile("default run", derandomize=True, deadline=None, max_examples=25, database=None)
hypothesis.settings.register_profile("long", deadline=None, max_examples=2_000, database=None, print_blob=True)
hypothesis.settings.load_profile("default run")

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


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache is neither read nor written; the processes of pytest-xdist share one."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOINTGEN_CACHE", str(base / "cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def unflushed() -> Iterator[None]:
    """Files are not flushed to the disk, which would take most of a small run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def same_depth() -> Iterator[None]:
    """Python recurses as deep as before the test: torch's compiler raises the limit for the whole process."""
    limit = sys.getrecursionlimit()
    yield
    if sys.getrecursionlimit() != limit:
        sys.setrecursionlimit(limit)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Modules that a test builds start alike, whatever ran before it."""
    torch.default_generator.manual_seed(0)


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load_plugins().registry


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps on labelled digits. Tests only read it."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["run", str(QUICKSTART), "--out", str(out), "--quiet", *in_words(data__labels="true")]) == 0
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


@pytest.fixture(autouse=True)
def printed_messages() -> Iterator[None]:
    """Messages are printed to stderr, as in a command."""
    with printed():
        yield


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """say("run", ...) calls the command line in this process."""

    def run(*argv: Any) -> Said:
        capsys.readouterr()
        status = main([str(word) for word in argv])
        shown = capsys.readouterr()
        return Said(status, shown.out, shown.err.splitlines())

    return run
