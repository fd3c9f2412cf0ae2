from __future__ import annotations

import os
from pathlib import Path

import pytest

from jointgen.errors import FileError, MissingFileError
from jointgen.runtime.atomic_files import append_text, replace_text
from jointgen.runtime.regular_files import read_regular, read_regular_text, user_path


def test_a_file_is_read_whole_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"whole\n")
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "link") == b"whole\n"


def test_what_is_no_regular_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, says in (
        ("", "folder"),
        ("pipe", "pipe"),
        ("link", "pipe"),
        ("loop", "back to itself"),
        ("zero", "device"),
    ):
        with pytest.raises(FileError, match=says) as caught:
            read_regular(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_missing_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file"):
        read_regular(tmp_path / "a")


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_regular(tmp_path / "a", limit=5) == b"12345"
    with pytest.raises(FileError, match="5 bytes, and no such file has more than 4"):
        read_regular(tmp_path / "a", limit=4)


def test_text_is_utf8(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"ab\xff")
    with pytest.raises(FileError, match="byte 2 is not UTF-8"):
        read_regular_text(tmp_path / "a")


def test_writing_follows_no_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("theirs")
    (tmp_path / "log").symlink_to(elsewhere)
    with pytest.raises(OSError):
        append_text(tmp_path / "log", "ours")
    (tmp_path / "a").symlink_to(elsewhere)
    (tmp_path / ".tmp-a").symlink_to(elsewhere)
    replace_text(tmp_path / "a", "ours")
    assert elsewhere.read_text() == "theirs"
    assert (tmp_path / "a").read_text() == "ours" and not (tmp_path / "a").is_symlink()


def test_a_home_folder_that_is_not_known_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert user_path("~/runs") == Path("/somewhere/runs")
    with pytest.raises(FileError, match=r"^~nobody_of_this_name/runs: begins with ~, and no home folder is known"):
        user_path("~nobody_of_this_name/runs")
