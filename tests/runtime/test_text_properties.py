"""Whatever a text holds, what is shown of it is printable, stays so when it is shown again, and is no formula."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from jointgen.text import listed, shortened, spreadsheet_cell, visible

# half of a surrogate pair too, which a file's name may hold, and more controls than chance would give
TEXTS = st.text(st.characters(exclude_categories=()) | st.sampled_from("\x00\x07\x1b\t\n\r\x7f\x9b\u202e\ud800 =+-@1e"))


def is_shown(text: str) -> bool:
    """Whether a terminal draws every character and obeys none."""
    kinds = [unicodedata.category(character) for character in text]
    turns = {unicodedata.bidirectional(character) for character in text} & {"RLO", "LRO", "RLE", "LRE", "RLI", "LRI"}
    return not {"Cc", "Cs", "Zl", "Zp"} & {*kinds} and not turns


@given(TEXTS)
def test_what_is_visible_holds_no_control_character(text: str) -> None:
    assert is_shown(visible(text))
    assert visible(text).encode("utf-8").decode("utf-8") == visible(text)
    assert visible(visible(text)) == visible(text)


@given(TEXTS)
def test_printable_text_is_left_as_it_is(text: str) -> None:
    assert visible(text, keep=text) == text
    if is_shown(text) and not any(unicodedata.category(character) == "Cf" for character in text):
        assert visible(text) == text


@given(st.lists(TEXTS), st.integers(0, 5))
def test_lines_that_are_kept_are_the_only_breaks(texts: list[str], most: int) -> None:
    shown = visible("\n".join(texts), keep="\n")
    assert all(is_shown(line) for line in shown.split("\n"))
    assert is_shown(listed(texts, most=most))


@given(TEXTS, st.integers(3, 40))
def test_a_cut_value_is_no_longer_than_asked(text: str, most: int) -> None:
    cut = shortened(text, most)
    assert len(cut) <= most
    assert is_shown(cut)
    assert cut == visible(text) or visible(text).startswith(cut.removesuffix("..."))


@given(TEXTS)
def test_a_cell_is_a_number_or_no_formula(text: str) -> None:
    cell = spreadsheet_cell(text)
    assert is_shown(cell)
    assert spreadsheet_cell(cell) == cell
    if cell.lstrip()[:1] in ("=", "+", "-", "@"):
        float(cell)
