"""Two splits have one identity only if they have the same rows, of which a large split shows some."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from jointgen_data.common import TensorRows
from torch import Tensor

from jointgen.contracts.sources import SplitIdentity
from jointgen.data import identity
from jointgen.data.chosen_rows import ChosenRows
from jointgen.data.identity import identity_differences, identity_of

ROWS = torch.arange(60.0).reshape(20, 3)


def rows(values: Tensor, **more: Tensor) -> TensorRows:
    return TensorRows({"x": values, **more})


def test_a_small_split_is_compared_whole() -> None:
    found = identity_of(rows(ROWS))
    assert (found.rows, found.compared) == (20, 20)
    changed = ROWS.clone()
    changed[13, 2] += 1
    assert identity_of(rows(ROWS.clone())) == found != identity_of(rows(changed))


def test_of_a_large_split_rows_are_compared_that_lie_evenly_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 numbers are 4 rows of 3: those at 0, 5, 10 and 15."""
    monkeypatch.setattr(identity, "MAX_NUMBERS", 12)
    monkeypatch.setattr(identity, "MIN_ROWS", 1)
    found = identity_of(rows(ROWS))
    assert (found.rows, found.compared) == (20, 4)
    for row in range(20):
        changed = ROWS.clone()
        changed[row] += 1
        assert (identity_of(rows(changed)) == found) == (row not in (0, 5, 10, 15))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.uint8, torch.bool, torch.int64])
def test_rows_of_every_type_have_one(dtype: torch.dtype) -> None:
    found = identity_of(rows(ROWS.to(dtype), y=torch.arange(20)))
    assert found != identity_of(rows(ROWS.to(dtype), y=torch.arange(1, 21)))


def test_the_order_in_which_a_source_names_its_variables_is_none_of_it() -> None:
    label = torch.arange(20)
    assert identity_of(TensorRows({"x": ROWS, "y": label})) == identity_of(TensorRows({"y": label, "x": ROWS}))


def test_chosen_rows_have_that_of_all_among_which_they_were_chosen() -> None:
    assert identity_of(ChosenRows(rows(ROWS), torch.tensor([3, 4]))) == identity_of(rows(ROWS))


def test_no_rows() -> None:
    assert identity_of(rows(ROWS[:0])) == SplitIdentity(0, 0, "")


def test_what_differs() -> None:
    recorded = {"train": identity_of(rows(ROWS))}
    said = lambda name, values: [*identity_differences(recorded, name, rows(values))]  # noqa: E731
    assert said("train", ROWS) == said("test", ROWS + 1) == []
    assert said("train", ROWS[:7]) == ["its train split has 20 rows in the file and 7 in the data"]
    (line,) = said("train", ROWS + 1)
    assert line.startswith("its 20 train rows are others, with the fingerprint ")


def test_a_record_that_compares_more_rows_than_there_are_costs_no_more() -> None:
    edited: Any = {"train": SplitIdentity(20, 10**15, "00")}
    (line,) = identity_differences(edited, "train", rows(ROWS))
    assert "train rows are others" in line
