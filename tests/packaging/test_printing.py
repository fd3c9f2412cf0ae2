"""What is printed goes through one place, which shows control characters (`jointgen/runtime/console.py`)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from support.paths import REPO

PRINTERS = {"jointgen/runtime/console.py", "jointgen/runtime/terminal.py"}
FORBIDDEN = {
    "print": "jointgen.runtime.console.say",
    "pprint": "jointgen.runtime.console.say",
    "sys.stdout.write": "jointgen.runtime.console.say",
    "sys.stderr.write": "jointgen.runtime.console.note",
    "rich.print": "jointgen.runtime.terminal.terminal",
    "rich.text.Text": "jointgen.runtime.terminal.styled",
    "rich.console.Console": "jointgen.runtime.terminal.terminal",
}
"""Calls -> what to call instead."""
FORBIDDEN_MODULES = {"logging", "rich.console"}


def findings(root: Path) -> Iterator[str]:
    for path in sorted([*(root / "jointgen").rglob("*.py"), *(root / "plugins").rglob("*.py")]):
        file = path.relative_to(root).as_posix()
        if file in PRINTERS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and (instead := FORBIDDEN.get(ast.unparse(node.func))):
                yield f"{file}:{node.lineno}: calls {ast.unparse(node.func)}; use {instead}"
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            yield from (f"{file}:{node.lineno}: imports {name}" for name in names if name in FORBIDDEN_MODULES)


def test_everything_is_printed_in_one_place() -> None:
    assert [*findings(REPO)] == []


def test_the_test_finds_other_printers(tmp_path: Path) -> None:
    (tmp_path / "jointgen").mkdir()
    (tmp_path / "jointgen/a.py").write_text("import logging\nprint(1)\n\ndef f():\n    sys.stdout.write('x')\n")
    found = [*findings(tmp_path)]
    assert [line.split(": ")[0].rpartition(":")[2] for line in found] == ["1", "2", "5"] and len(found) == 3
