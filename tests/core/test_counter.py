"""Progress of long commands goes to stderr, and only when they are long."""

from __future__ import annotations

import pytest

from jointgen.counter import Counter


def test_what_is_quick_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Counter("encoding") as count:
        count(1, 2)
    assert capsys.readouterr() == ("", "")


def test_what_is_long_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with Counter("encoding", every_s=0.0) as count:
        count(1, 2)
        count(2, 2)
    assert capsys.readouterr() == ("", "encoding: 1 of 2\nencoding: 2 of 2\n")
