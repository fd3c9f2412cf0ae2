from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import rich.table

from jointgen.runtime.console import LEVELS, LOGGER, debug, log, printed, printed_for_caller, say, say_text, warn
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


@pytest.mark.parametrize(("level", "printed_lines"), [("quiet", "b"), ("usual", "ab"), ("verbose", "abc")])
def test_what_a_command_prints(level: str, printed_lines: str, capsys: pytest.CaptureFixture[str]) -> None:
    with printed(LEVELS[level]):
        log("a")
        warn("b")
        debug("c")
        say("a result")
    log("after")
    lines = [f"jointgen: {line}\n" for line in [*printed_lines, "after"]]
    assert capsys.readouterr() == ("a result\n", "".join(lines))


@pytest.fixture
def library() -> Iterator[None]:
    """Messages as they are in another program: nobody has asked for them to be printed."""
    printing = [handler for handler in LOGGER.handlers if not isinstance(handler, logging.NullHandler)]
    before = LOGGER.level, LOGGER.propagate
    for handler in printing:
        LOGGER.removeHandler(handler)
    LOGGER.setLevel(logging.NOTSET)
    LOGGER.propagate = True
    yield
    LOGGER.setLevel(before[0])
    LOGGER.propagate = before[1]
    for handler in printing:
        LOGGER.addHandler(handler)


@pytest.mark.usefixtures("library")
def test_a_library_prints_what_its_caller_wants(capsys: pytest.CaptureFixture[str], caplog: Any) -> None:
    warn("1")
    with printed_for_caller():
        log("2")
    with printed_for_caller(quiet=True):
        warn("3")
    with printed(), printed_for_caller(quiet=True):  # as a command prints
        warn("4")
    assert capsys.readouterr() == ("", "jointgen: 2\n")
    heard = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert heard == [("WARNING", "1"), ("WARNING", "3")]


@pytest.mark.usefixtures("library")
def test_a_program_that_listens_is_printed_nothing(capsys: pytest.CaptureFixture[str], caplog: Any) -> None:
    LOGGER.setLevel(logging.INFO)
    with printed_for_caller():
        log("a remark")
        debug("a detail")
    assert capsys.readouterr() == ("", "")
    assert [record.getMessage() for record in caplog.records] == ["a remark"]
