"""kill -9 at every point that matters, and what is left: the run that goes on ends where an uninterrupted one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.paths import REPO
from support.runs import logged

from jointgen.runs import checkpoint

LAST = "step-00000040"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")


def drive(folder: Path, *words: str) -> list[str]:
    """What the driver printed, a line for each kill."""
    done = subprocess.run(
        [sys.executable, "-m", "support.killed_runs", str(folder), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO / "tests")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return done.stdout.splitlines()


def without(tree: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in keys}


def files_of(folder: Path, *patterns: str) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for pattern in patterns for p in sorted(folder.glob(pattern))}


def assert_same(killed: Path, whole: Path) -> None:
    """Everything that docs/concepts/noise-and-resume.md promises, byte for byte, and nothing besides."""
    patterns = ("recipe.toml", "samples/*", "checkpoints/latest", "checkpoints/best", "checkpoints/*/*.safetensors")
    mine, theirs = files_of(killed, *patterns), files_of(whole, *patterns)
    assert sorted(mine) == sorted(theirs)
    assert {name for name in theirs if mine[name] != theirs[name]} == set()
    saved = f"checkpoints/{LAST}"
    assert {"encoder", "ema.encoder", "optimizers", "randomness"} <= {
        Path(name).stem for name in theirs if saved in name
    }
    values = [f"{saved}/{name}.json" for name in ("optimizers", "window", "randomness")]
    assert files_of(killed, *values) == files_of(whole, *values)
    progress = [checkpoint.load(folder / saved).state["progress"] for folder in (killed, whole)]
    assert without(progress[0], "wall_s") == without(progress[1], "wall_s")
    assert progress[0]["patience"]["best"] and progress[0]["best"]["checkpoint"]
    assert logged(killed) == logged(whole)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (killed, whole)]
    assert without(summaries[0], "wall_s", "environment") == without(summaries[1], "wall_s", "environment")
    assert summaries[0]["status"] == "done" and (killed / "report.html").stat().st_size > 0


def test_killed_at_every_point_it_ends_where_an_uninterrupted_run_does(tmp_path: Path) -> None:
    """One run, killed 20 times, before its first checkpoint and after its last too.

    Its decoder draws from torch's, numpy's and Python's global generators.
    """
    said = drive(tmp_path, "points")
    assert len(said) == 20 and all(line.startswith("kill -9 ") for line in said)
    assert "kill -9 after step 17, between checkpoints: goes on from step-00000016" in said
    (between,) = (line for line in said if "between the renames" in line)
    assert "goes on from .old-0-step-00000040, beside .old-0-step-00000040, .tmp-step-00000040" in between
    assert_same(tmp_path / "killed", tmp_path / "whole")
    assert [path.name for path in (tmp_path / "killed/checkpoints").glob(".*")] == []


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_end_where_uninterrupted_ones_do(tmp_path: Path) -> None:
    """kill -9 of the first and of the second, and SIGTERM to one alone, after which both stop at the same step."""
    said = drive(tmp_path, "pairs")
    kills, stops = said[::2], said[1::2]
    assert all("-9, 1;" in line for line in kills) and len(kills) == 3  # who loses the other ends with status 1
    assert all(line.startswith("SIGTERM to process 1: 143, 143;") for line in stops) and len(stops) == 3
    assert_same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_killed_at_file_boundaries_from_the_first_file_to_the_page(tmp_path: Path) -> None:
    """Every seventh file that a run puts at its place, each in a run of its own."""
    said = drive(tmp_path, "boundaries", "7")
    assert len(said) >= 5 and all(line.startswith("kill -9 ") for line in said)
    for killed in tmp_path.glob("killed*"):
        assert_same(killed, tmp_path / "whole")


@pytest.mark.slow
def test_torture(tmp_path: Path) -> None:
    """25 kills at random moments."""
    said = drive(tmp_path, "torture", "25")
    assert len([line for line in said if line.startswith("kill -9")]) == 25
    for killed in tmp_path.glob("killed*"):
        assert_same(killed, tmp_path / "whole")
