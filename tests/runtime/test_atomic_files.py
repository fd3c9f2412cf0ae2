from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jointgen.runtime.atomic_files import replace_text


def test_replaces_at_once_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    replace_text(path, "old")
    replace_text(path, "new\r\nπ")
    assert path.read_bytes() == "new\r\nπ".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_failure_leaves_the_old_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    path = tmp_path / "a.txt"
    replace_text(path, "old")

    def fail(*args: Any) -> None:
        raise OSError("no more disk")

    monkeypatch.setattr(os, at, fail)
    with pytest.raises(OSError, match="no more disk"):
        replace_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
