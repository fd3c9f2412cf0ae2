"""The bare loops that jointgen is timed against compute what jointgen does: the same gradients to rounding."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("row", ["mlp", "asvae32"])
def test_a_step_has_the_gradients_of_a_loop_written_by_hand(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same weights, rows and random numbers; AS-VAE's with the critic's update and its R1 penalty."""
    monkeypatch.syspath_prepend(FOLDER)
    overhead = importlib.import_module("overhead")
    arguments = argparse.Namespace(mnist=None, cifar=None, device="cpu", rounds=0, set=[])
    measured = overhead.Comparison(overhead.ROWS[row], arguments).measured([])
    assert measured.difference < 2e-4  # relative, in float32; a weight that is a tenth off makes 5e-3
