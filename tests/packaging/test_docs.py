"""The documentation is right about what can be checked: its examples run, its map of the rooms is the code's."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from support.paths import REPO

from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe
from jointgen.registry.components import Registry

DOCS = REPO / "docs"
FILES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
PAGES = [str(path.relative_to(DOCS)) for path in FILES if ">>> " in path.read_text(encoding="utf-8")]
ROOMS = sorted(path.name for path in (REPO / "jointgen").iterdir() if (path / "__init__.py").is_file())


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_a_page(page: str) -> None:
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.testfile(str(DOCS / page), module_relative=False, optionflags=flags, encoding="utf-8")
    assert result.attempted > 0 and result.failed == 0


def test_pages_with_examples_are_found() -> None:
    assert len(PAGES) >= 2


def test_definitions_stand_where_pages_say() -> None:
    """A page writes `name` in `file.py`, `Class.method` in `file.py` or `name` (`file.py`)."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in FILES}
    pattern = re.compile(
        r"`([A-Za-z_.]+)(?:\(\))?`\s+(?:in\s+|\()`((?:jointgen|plugins|tests|benchmarks)/[\w./-]+\.py)`"
    )
    named = [(page, *match) for page, text in texts.items() for match in pattern.findall(text)]
    assert len(named) >= 10
    missing = [
        f"{page}: {name} is not in {file}"
        for page, name, file in named
        if not re.search(
            rf"^ *(?:def|class) {name.split('.')[-1]}\b|^{name} = ", (REPO / file).read_text(), re.MULTILINE
        )
    ]
    assert missing == []


def test_the_table_of_rooms_is_complete() -> None:
    text = (DOCS / "inside/architecture.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)) == ROOMS


def test_the_drawing_of_the_rooms_shows_the_imports() -> None:
    """Its arrows are the imports between rooms, without those that follow from others."""
    text = (DOCS / "inside/architecture.md").read_text(encoding="utf-8")
    drawn = set(re.findall(r"^  (\w+) --> (\w+)$", text, re.MULTILINE))
    imports = {room: imported_rooms(room) for room in ROOMS}

    def below(room: str) -> set[str]:
        return imports[room].union(*(below(other) for other in imports[room]))

    implied = {(room, far) for room in ROOMS for near in imports[room] for far in below(near)}
    assert drawn == {(room, other) for room in ROOMS for other in imports[room]} - implied


def imported_rooms(room: str) -> set[str]:
    """The other rooms that a room imports from, but for imports that only type checkers see."""
    sources = (path.read_text(encoding="utf-8") for path in (REPO / "jointgen" / room).rglob("*.py"))
    found = {name for text in sources for name in re.findall(r"^from jointgen\.(\w+)", text, re.MULTILINE)}
    return found & {*ROOMS} - {room}


def test_every_variable_that_is_read_stands_on_its_page() -> None:
    files = (path for room in ("jointgen", "plugins") for path in (REPO / room).rglob("*.py"))
    asked = r'environ(?:\.get\(|\.pop\(|\[)"([A-Z_]+)"'
    pattern = re.compile(asked + r'|"((?:JOINTGEN|COMET|CLEARML|MLFLOW)_[A-Z_]+)"')
    read = {
        name for path in files for pair in pattern.findall(path.read_text(encoding="utf-8")) for name in pair if name
    }
    assert "JOINTGEN_TRACEBACK" in read and len(read) > 10
    page = (DOCS / "reference/environment.md").read_text(encoding="utf-8")
    assert read - {*re.findall(r"[A-Z_]{4,}", page)} == set()


def test_the_recipes_of_hidden_layers_and_labels_are_whole(registry: Registry, tmp_path: Path) -> None:
    """The two recipes of docs/concepts/objectives.md compile on top of the shipped one, and read back as written."""
    page = (REPO / "docs/concepts/objectives.md").read_text(encoding="utf-8")
    recipes = [text for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if text.startswith("base = ")]
    assert len(recipes) == 2
    (tmp_path / "quickstart.toml").write_bytes((REPO / "recipes/quickstart.toml").read_bytes())
    for text, drawn in zip(recipes, (["z1", "z"], ["z"]), strict=True):
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        compiled = compile_recipe(read_recipe(tmp_path / "mine.toml", registry=registry), registry)
        assert compiled.binding.latents == drawn
