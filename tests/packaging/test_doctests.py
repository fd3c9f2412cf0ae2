"""The examples in docstrings are right."""

from __future__ import annotations

import doctest
import importlib

import pytest
from support.paths import REPO

MODULES = [
    ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
    for folder, files in ((REPO, "jointgen/**/*.py"), (REPO / "plugins", "**/*.py"))
    for path in sorted(folder.glob(files))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_a_module(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
