"""Runs on little data: one held-out row, a last batch of one row, fewer rows than a batch, columns that never vary."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jointgen_families.gaussian import Gaussian
from jointgen_families.laplace import Laplace
from support.runs import train_small

from jointgen.contracts.noise import NOISE_BLOCK
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError


def on_arrays(x: np.ndarray, folder: Path, **data: Any) -> dict[str, Any]:
    """Settings of the small quickstart on an array."""
    np.save(folder / "x.npy", x)
    table = {"type": "arrays", "path": str(folder / "x.npy"), **data}
    return {"data": table, "train.steps": 2, "train.trackers": [], "train.sample_every": 1, "train.eval_every": 1}


def levels(rows: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, 8, 8), np.uint8)


def test_one_held_out_row_gives_a_run_with_its_page(tmp_path: Path, say: Any) -> None:
    run = train_small(tmp_path / "run", on_arrays(levels(17), tmp_path, test_fraction=1e-9))
    assert run.metrics["elbo"]["n"] == 1
    assert run.metrics["elbo"]["value"] is not None
    assert run.metrics["active_units"]["value"] is None  # a variance over one row
    assert "it takes two held-out rows, and there is 1" in (tmp_path / "run/report.html").read_text()
    assert say("encode", run.path, "-o", tmp_path / "c.npz").status == 0
    assert np.load(tmp_path / "c.npz")["z"].shape[0] == 1


def test_a_last_batch_of_one_row_counts_as_one_row(tmp_path: Path) -> None:
    """Rows in batches of NOISE_BLOCK and 1, or all at once: the noise belongs to the rows."""
    rows = NOISE_BLOCK + 1
    settings = on_arrays(levels(4 * rows), tmp_path, test_fraction=0.25, split="last") | {"eval.rows": None}
    apart, whole = (
        train_small(tmp_path / str(n), settings | {"eval.batch": n}).metrics for n in (NOISE_BLOCK, 2 * NOISE_BLOCK)
    )
    for name in ("elbo", "rmse", "code_rmse"):
        assert apart[name]["n"] == rows
        assert apart[name]["value"] == pytest.approx(whole[name]["value"], rel=1e-5)


def test_fewer_rows_than_a_batch_are_refused_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^train\.batch: 16 is more than the 9 rows of the training split of data"):
        train_small(tmp_path / "run", on_arrays(levels(10), tmp_path, split="last"))
    assert not (tmp_path / "run").exists()


def test_a_run_says_which_columns_never_vary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    x[:, 2] = 5.0
    train_small(tmp_path / "run", {**on_arrays(x, tmp_path), "decoder.family.mean": "linear"}, quiet=False)
    said = capsys.readouterr().err
    assert f"jointgen: data: 'x' of '{tmp_path / 'x.npy'}' is constant in 1 of its 3 columns (2): " in said


@pytest.mark.parametrize(
    ("family", "most"), [(Gaussian(), 6 - 0.5 * math.log(2 * math.pi)), (Laplace(), 6 - math.log(2))]
)
def test_a_density_at_values_that_never_vary_is_bounded(family: Any, most: float) -> None:
    """However small the trunk makes the scale, it is exp(-6) at the least: log 1/scale = 6 at the mean."""
    module = family.build(Space((1,)))
    law = module(torch.tensor([[5.0, -1e9]]))
    assert law.log_prob(law.mean).item() == pytest.approx(most, abs=1e-5)
