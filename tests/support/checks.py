"""A way to ask the conformance suite what is wrong with a component."""

from __future__ import annotations

import unittest
from typing import Any

from jointgen.testing import checks


def failures(kind: str, config: Any, **given: Any) -> dict[str, str]:
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
