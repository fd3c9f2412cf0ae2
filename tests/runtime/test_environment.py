"""What a run says about the machine and the software that it ran on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from jointgen.runtime import environment as described
from jointgen.runtime.environment import environment


def test_environment() -> None:
    found = environment("cpu")
    assert {*found} == {"versions", "platform", "device", "git_commit"}
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {"python", "torchvision", "accelerate", "jointgen"} <= {*found["versions"]}
    assert found["device"].startswith("cpu")
    assert json.loads(json.dumps(found)) == found


def test_what_is_missing_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*args: Any, **kwargs: Any) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    monkeypatch.setattr(described, "_DISTRIBUTIONS", ("no-such-distribution",))
    found = environment()
    assert found["git_commit"] is None and found["versions"]["no-such-distribution"] is None


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package installed inside someone else's repository has no commit; a tracked and changed one says so."""
    package = tmp_path / "site-packages" / "jointgen"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / "theirs.txt").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "theirs.txt")
    git(tmp_path, "commit", "--quiet", "-m", "theirs")
    monkeypatch.setattr(described, "__file__", str(package / "runtime" / "environment.py"))
    assert environment()["git_commit"] is None
    git(tmp_path, "add", "-f", "site-packages")
    git(tmp_path, "commit", "--quiet", "-m", "ours")
    assert environment()["git_commit"] == git(tmp_path, "rev-parse", "HEAD")
    (package / "__init__.py").write_text("# changed")
    assert environment()["git_commit"] == git(tmp_path, "rev-parse", "HEAD") + "-dirty"
