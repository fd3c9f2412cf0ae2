"""Settings of all tests. The fixtures are in support/fixtures.py, which imports torch."""

from __future__ import annotations

import os
import sys

import pytest

# Each file is compiled once, and not again in each of the many processes that tests start.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

pytest.register_assert_rewrite("support")

LONG = [
    *("test_processes.py", "test_conformance.py", "test_launcher.py", "test_recipes.py", "test_kill.py"),
    *("test_wheel.py", "test_page_in_browser.py", "test_torch_compile.py", "test_signals.py", "test_startup.py"),
    *("test_scaffold.py", "test_evaluate.py", "test_resume.py"),
]
"""Files that take longest: they go first, so that no process is left alone with one of them at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Bring the fixtures, but not into the process that only hands tests to others: it can start them at once."""
    if not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("support.fixtures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
