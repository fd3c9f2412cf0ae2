"""Every document that the repository mentions is in the repository, so that no reason lies outside it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support.paths import REPO

MENTION = re.compile(r"(?<![\w{}*/.-])((?:\.{1,2}/)*[\w./-]*\w\.md)(?:#([\w-]+))?")
OUTSIDE = re.compile(r"\.\./shared|shared/reference|\.\./prototypes")
PATH = re.compile(r"`((?:jointgen|plugins|recipes|tests|benchmarks|docs)/[\w./-]*)`")
# Names of files that a command writes or that a fixture invents. They are not documents of this repository.
WRITTEN = {"t.md", "mnist.md", "table.md", "beside.md"}
# Files that spell what is forbidden, or put the names of pages together.
EXEMPT = {
    "docs/_ext/generated.py",
    "docs/_ext/reference.py",
    "docs/_ext/zoo.py",
    "tests/packaging/test_docs.py",
    "tests/packaging/test_references.py",
}


def tracked_texts() -> list[tuple[str, str]]:
    """(path, text) of every tracked text file."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, check=True, text=True).stdout
    texts = []
    for name in filter(None, listed.split("\0")):
        content = (REPO / name).read_bytes() if (REPO / name).is_file() else b"\0"
        if b"\0" not in content and name != "uv.lock":
            texts.append((name, content.decode("utf-8")))
    return texts


def anchors(document: Path) -> set[str]:
    """Headings of a page as the fragments that GitHub and MyST make of them."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_mentions(name: str, text: str) -> list[str]:
    """Mentions of `*.md` files, or of headings in them, that do not exist."""
    broken = []
    for mention, fragment in MENTION.findall(text):
        if Path(mention).name in WRITTEN or Path(mention).stem == "NAME" or "://" in mention:
            continue
        candidates = [REPO / mention, (REPO / name).parent / mention]
        document = next((path for path in candidates if path.is_file()), None)
        if document is None:
            broken.append(f"{name}: {mention} is not in the repository")
        elif fragment and fragment not in anchors(document):
            broken.append(f"{name}: {mention} has no heading #{fragment}")
    return broken


@pytest.fixture(scope="module")
def texts() -> list[tuple[str, str]]:
    if not (REPO / ".git").exists():
        pytest.skip("this is not a git checkout")
    return tracked_texts()


def test_every_document_that_is_mentioned_exists(texts: list[tuple[str, str]]) -> None:
    assert [line for name, text in texts if name not in EXEMPT for line in broken_mentions(name, text)] == []


def test_no_note_outside_the_repository_is_cited(texts: list[tuple[str, str]]) -> None:
    found = [f"{name}: {match}" for name, text in texts if name not in EXEMPT for match in OUTSIDE.findall(text)]
    assert found == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs", "benchmarks"])
def test_every_path_that_a_page_names_exists(page: str) -> None:
    pages = sorted((REPO / page).rglob("*.md")) if (REPO / page).is_dir() else [REPO / page]
    named = [(path.name, name) for path in pages for name in PATH.findall(path.read_text(encoding="utf-8"))]
    assert [f"{page} names {name}" for page, name in named if "NAME" not in name and not (REPO / name).exists()] == []


@pytest.mark.parametrize("room", ["tutorials", "concepts", "zoo", "reference", "extending", "inside"])
def test_the_index_of_a_room_lists_every_page(room: str) -> None:
    index = (REPO / "docs" / room / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in (REPO / "docs" / room).glob("*.md")} - {"index.md"}
    assert pages == set(re.findall(r"\]\(([\w-]+\.md)\)", index))
    assert f"]({room}/index.md)" in (REPO / "docs/index.md").read_text(encoding="utf-8")


def test_the_site_has_every_page() -> None:
    pages = {path.relative_to(REPO / "docs").with_suffix("").as_posix() for path in (REPO / "docs").glob("*/*.md")}
    listed = re.findall(
        r"^ *(?:- file|root): (\S+)$", (REPO / "docs/_toc.yml").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert pages - {*listed} == set()


def test_a_wrong_mention_is_found() -> None:
    text = "see docs/index.md, docs/no-such-page.md and docs/index.md#no-such-heading"
    assert broken_mentions("somewhere.py", text) == [
        "somewhere.py: docs/no-such-page.md is not in the repository",
        "somewhere.py: docs/index.md has no heading #no-such-heading",
    ]
