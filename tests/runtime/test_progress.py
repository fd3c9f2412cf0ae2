"""Live progress on stderr: of a run, and of long commands."""

from __future__ import annotations

import os
import sys

import pytest

from jointgen.runtime import progress
from jointgen.runtime.progress import Counter, Progress

# --- of a run --------------------------------------------------------------------------------------------------------


class Clock:
    """Time that passes when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def test_plain_lines_every_so_often(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """From step 10 to 50 of 110 in 40 s leaves 60 s."""
    clock = Clock(monkeypatch)
    with Progress(110, 10, every_s=30) as bar:
        clock.now += 20
        bar.update(30, 2048.4, {"elbo_nats": -101.256})
        bar.note("wrote [samples]")
        clock.now += 20
        bar.update(50, 2048.4, {"elbo_nats": -101.256, "f1": 0.25})
        bar.update(60, 1.0, {})
        clock.now += 1
        bar.update(110, 2048.4, {})
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "wrote [samples]",
        "step 50/110  2,048 images/s  1:00 left  elbo_nats -101.3  f1 0.25",
        "step 110/110  2,048 images/s  0:00 left",
    ]


def test_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with Progress(10, quiet=True) as bar:
        clock.now += 100
        bar.update(5, 1.0, {"a": 1.0})
        bar.note("nothing")
    assert capsys.readouterr() == ("", "")


def test_no_step_yet(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(10, 4) as bar:
        bar.update(4, 0.0, {})
    assert "step 4/10  0 images/s  ? left" in capsys.readouterr().err


def everything_from(primary: int) -> str:
    """What was written to the other end of a pseudo-terminal, which one read need not give whole."""
    chunks = []
    while True:
        try:
            chunk = os.read(primary, 100_000)
        except OSError:  # Linux's way to say that the other end is closed
            chunk = b""
        if not chunk:
            os.close(primary)
            return b"".join(chunks).decode()
        chunks.append(chunk)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    primary, secondary = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(secondary, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress(10) as bar:
            bar.update(10, 64.0, {"elbo_nats": -1.5})
            bar.note("a note [in brackets]")
    shown = everything_from(primary)
    assert "10/10" in shown and "elbo_nats -1.5" in shown and "━" in shown
    assert "a note [in brackets]" in shown


# --- of a long command -----------------------------------------------------------------------------------------------


def test_what_is_quick_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Counter("encoding") as count:
        count(1, 2)
    assert capsys.readouterr() == ("", "")


def test_what_is_long_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with Counter("encoding", every_s=0.0) as count:
        count(1, 2)
        count(2, 2)
    assert capsys.readouterr() == ("", "encoding: 1 of 2\nencoding: 2 of 2\n")


def test_a_counter_within_another_is_a_line_of_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bars at once would write over each other. A run's bar takes the line, too, and everything is put back."""
    monkeypatch.setattr(progress, "_is_terminal", lambda console: True)
    for outer in (Counter("sampling"), Progress(10)):
        with outer as shown:
            with Counter("drawing rows") as inner:
                inner(1, 8)
                assert inner._bar is shown._bar
                assert [(task.completed, task.total) for task in shown._bar.tasks][1:] == [(1, 8)]
            assert len(shown._bar.tasks) == 1
        assert progress._moving == []
