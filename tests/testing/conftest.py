"""What the tests of the conformance suite share: a way to ask it what is wrong with a component."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from typing import Any

import pytest
import torch

from jointgen.testing import checks

torch.set_num_threads(1)


def what_fails(kind: str, config: Any, **given: Any) -> dict[str, str]:
    """What the checks that fail say, by promise."""
    found: dict[str, str] = {}
    for check in checks(kind, config, **given):
        try:
            check()
        except AssertionError as error:
            found.setdefault(check.promise, str(error))
        except unittest.SkipTest:
            continue
    return found


@pytest.fixture(scope="session")
def told() -> Callable[..., dict[str, str]]:
    """told(kind, component, ...) -> what the checks that fail say, by promise."""
    return what_fails
