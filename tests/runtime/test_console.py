from __future__ import annotations

import pytest
import rich.table

from jointgen.runtime.console import log, quietly, say, say_text
from jointgen.runtime.terminal import styled, terminal
from jointgen.text import listed, shortened, spreadsheet_cell, visible


def test_control_characters_are_shown_and_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    log("a\x1b]0;X\x07b\nc")
    say("one\x1b", "two\n")
    say_text("one\ntwo\x9b31m \udcff \u202ethree\n")
    out, err = capsys.readouterr()
    assert err == "jointgen: a\\x1b]0;X\\x07b\\nc\n"
    assert out == "one\\x1b\ntwo\\n\none\ntwo\\x9b31m \\udcff \\u202ethree\n"


def test_ordinary_text_of_any_language_stays() -> None:
    assert visible("λ = 0.5, naïve, 日本, 🙂") == "λ = 0.5, naïve, 日本, 🙂"


def test_long_values_and_lists_are_cut() -> None:
    assert listed(range(10_000)).endswith("18, 19, ... and 9,980 more")
    assert listed("ab") == "a, b"
    assert len(shortened("x" * 10_000)) == 200


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@sum", " =1", "-1+cmd"])
def test_what_a_spreadsheet_would_compute_is_text(text: str) -> None:
    assert spreadsheet_cell(text) == f"'{visible(text)}"


@pytest.mark.parametrize("text", ["-1.5", "+2e-5", "1", "", "a=b", "x"])
def test_numbers_and_words_stay_in_a_cell(text: str) -> None:
    assert spreadsheet_cell(text) == text


def test_many_messages_at_once_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    log(*map(str, range(10_000)))
    lines = capsys.readouterr().err.splitlines()
    assert lines[19:] == ["jointgen: 19", "jointgen: ... and 9,980 more"]


def test_tables_and_bars_show_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    table = rich.table.Table()
    table.add_column(styled("\x1b[31mhead [bold]"))
    table.add_column()
    table.add_row("\x1b]0;X\x07 cell", "\x1b[0m")
    terminal(width=60).print(table, styled("\x9b31m [red]text"))
    out = capsys.readouterr().out
    assert "\\x1b[31mhead [bold]" in out and "\\x1b]0;X" in out and "\\x9b31m [red]text" in out
    assert not {"\x1b", "\x07", "\x9b"} & {*out}


def test_nothing_is_said_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    with quietly(), quietly(False):
        log("a remark")
        say("a result")
    log("after")
    assert capsys.readouterr() == ("a result\n", "jointgen: after\n")
