"""Typesets the text of expressions: as HTML for pages, and as LaTeX for notebooks and papers."""

from __future__ import annotations

import html
import re
import unicodedata

TOKEN = re.compile(
    r"E\[(?P<over>[^\[\]]*)\]|(?P<sigmoid>s(?=\())|(?P<word>[^\W\d]\w*)|(?P<space> +)|(?P<sign>[-*|])|.", re.DOTALL
)
SIGNS_IN_HTML = {"-": "\N{MINUS SIGN}", "*": "\N{DOT OPERATOR}", "|": "\N{THIN SPACE}|\N{THIN SPACE}"}
SIGNS_IN_LATEX = {"-": "-", "*": r" \cdot ", "|": r" \mid "}
OPERATORS = ("log", "exp", "max", "min")
"""Words that LaTeX sets as functions, with the space that they need."""
ESCAPED = {char: rf"\{char}" for char in "%#&$_{}"} | {"~": r"\sim ", "^": r"\hat{}", "\\": r"\backslash "}
GREEK = "GREEK SMALL LETTER "


def split_sum(equation: str) -> list[str]:
    """Cuts the text of a sum into its summands with their signs; signs within brackets stay.

    >>> split_sum("E[q(x)](a - b) + E[p(x)](c) - 2*d")
    ['E[q(x)](a - b)', '+ E[p(x)](c)', '- 2*d']
    """
    summands, depth, start = [], 0, 0
    for at, sign in enumerate(equation):
        depth += (sign in "([") - (sign in ")]")
        if depth == 0 and at > start and equation[at : at + 3] in (" + ", " - "):
            summands.append(equation[start:at])
            start = at + 1
    return [*summands, equation[start:]]


def as_html(text: str) -> str:
    """Write an expression as HTML: 𝔼 with its joint below, symbols slanted, functions upright.

    >>> print(as_html("E[q(x)](-f1)"))
    <b class="e">𝔼</b><sub><i>q</i>(<i>x</i>)</sub>(−<i>f</i><sub>1</sub>)
    """
    written = ""
    for match in TOKEN.finditer(text):
        if match["over"] is not None:
            written += f'<b class="e">𝔼</b><sub>{as_html(match["over"])}</sub>'
        elif match["sigmoid"]:
            written += '<span class="fn">σ</span>'
        elif match["word"]:
            symbol, index = _symbol(match["word"])
            below = f"<sub>{index}</sub>" if index else ""
            upright = f'<span class="fn">{match["word"]}</span>'
            written += f"<i>{_greek(symbol) or symbol}</i>{below}" if symbol else upright
        else:
            written += html.escape(SIGNS_IN_HTML.get(match[0], match[0]))
    return written


def as_latex(text: str) -> str:
    r"""Write an expression as LaTeX, for math mode.

    >>> print(as_latex("E[q(x)](w*log p(x|z) - lambda*f1)"))
    \mathbb{E}_{q(x)}(w \cdot \log p(x \mid z) - \lambda \cdot f_{1})
    """
    written, after_word = "", False
    for match in TOKEN.finditer(text):
        word = match["word"]
        if match["over"] is not None:
            written += rf"\mathbb{{E}}_{{{as_latex(match['over'])}}}"
        elif match["sigmoid"]:
            written += r"\sigma"
        elif word in OPERATORS:
            written += rf"\{word}"
        elif word:
            symbol, index = _symbol(word)
            below = f"_{{{index}}}" if index else ""
            written += f"{_letter(symbol)}{below}" if symbol else rf"\mathrm{{{_escaped(word)}}}"
        elif match["space"]:
            written += r"\, " if after_word else " "
        else:
            written += SIGNS_IN_LATEX.get(match[0], _escaped(match[0]))
        after_word = bool(word) and word not in OPERATORS and not _symbol(word)[0]
    return re.sub("  +", " ", written)


def words_in_latex(text: str) -> str:
    r"""Write words as LaTeX, for math mode.

    >>> print(words_in_latex("10% of f_1"))
    \text{10\% of f\_1}
    """
    return rf"\text{{{_escaped(text)}}}"


def _escaped(text: str) -> str:
    return "".join(ESCAPED.get(char, char) for char in text)


def _symbol(word: str) -> tuple[str, str]:
    """Return the letter that a word is, x or lambda, and its index, the 1 of f1; ("", "") where it is a word."""
    letters = word.rstrip("0123456789")
    if len(letters) == 1 or _greek(letters):
        return letters, word[len(letters) :]
    return "", ""


def _greek(word: str) -> str:
    """Return the small Greek letter of this name, or ""."""
    try:  # Unicode's name of lambda is "lamda"
        return unicodedata.lookup(f"{GREEK}{word.replace('lambda', 'lamda')}")
    except KeyError:
        return ""


def _letter(symbol: str) -> str:
    return rf"\{symbol}" if len(symbol) > 1 else _escaped(symbol)
