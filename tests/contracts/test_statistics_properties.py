"""Statistics of rows are those of numpy over all rows at once, however the rows are shared out and merged."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jointgen_metrics.frechet import Moments as FrechetMoments
from jointgen_metrics.inception_score import Predictions
from jointgen_metrics.moments import Moments

from jointgen.contracts.statistics import KeptRows, Mean, merge_into, pack, unpack

ROWS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=n, max_size=n),
        st.lists(st.integers(1, 7), min_size=1, max_size=9),
    )
)
"""Rows of three numbers, and the sizes of the batches that they come in, again and again."""


def batches(rows: Any, sizes: Sequence[int]) -> list[torch.Tensor]:
    whole, parts, n = torch.tensor(rows, dtype=torch.float64), [], 0
    while n < len(whole):
        parts.append(whole[n : n + sizes[len(parts) % len(sizes)]])
        n += len(parts[-1])
    return parts


def in_a_tree(statistics: Sequence[Any]) -> Any:
    """Merge in pairs, then pairs of pairs, as processes would."""
    if len(statistics) == 1:
        return statistics[0]
    half = len(statistics) // 2
    return in_a_tree(statistics[:half]).merge(in_a_tree(statistics[half:]))


def close(found: Any, expected: Any, scale: float) -> bool:
    return bool(np.allclose(np.asarray(found), np.asarray(expected), rtol=1e-9, atol=1e-11 * max(scale, 1.0)))


@given(ROWS)
def test_a_mean_is_numpys(given_rows: Any) -> None:
    rows, sizes = given_rows
    values = np.array(rows)[:, 0]
    parts = [Mean.of(batch[:, 0]) for batch in batches(rows, sizes)]
    for merged in (functools.reduce(Mean.merge, parts), in_a_tree(parts), in_a_tree(parts[::-1])):
        assert merged.n == len(values)
        assert close(merged.mean, values.mean(), np.abs(values).max())
        assert close(merged.m2, ((values - values.mean()) ** 2).sum(), np.square(values).sum())
        if len(values) > 1:
            error = values.std(ddof=1) / np.sqrt(len(values))
            assert merged.standard_error is not None
            assert close(merged.standard_error**2, error**2, np.square(values).mean())


@given(ROWS)
def test_moments_of_vectors_are_numpys(given_rows: Any) -> None:
    rows, sizes = given_rows
    values = np.array(rows)
    parts = [Moments.of(batch) for batch in batches(rows, sizes)]
    for merged in (functools.reduce(Moments.merge, parts), in_a_tree(parts)):
        assert close(merged.mean, values.mean(0), np.abs(values).max())
        if len(values) > 1:
            assert merged.variance is not None
            assert close(merged.variance, values.var(0, ddof=1), np.square(values).max())


@given(ROWS)
def test_kept_rows_come_back_in_order_whoever_kept_them(given_rows: Any) -> None:
    rows, sizes = given_rows
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(len(rows)))
    values = torch.tensor(rows, dtype=torch.float64)
    parts = [KeptRows.of(index, x=values[index]) for index in order.split(sizes[0])]
    for merged in (functools.reduce(KeptRows.merge, parts), in_a_tree(parts)):
        assert torch.equal(merged.in_order()["x"], values)


KINDS: dict[str, Any] = {
    "mean": (Mean, lambda rows: Mean.of(rows[:, 0])),
    "moments": (Moments, Moments.of),
    "frechet": (FrechetMoments, FrechetMoments.of),
    "predictions": (Predictions, lambda rows: Predictions.of(rows.clamp(-20, 20), torch.arange(len(rows)) % 2, 2)),
    "rows": (KeptRows, lambda rows: KeptRows.of(torch.arange(len(rows)), **{"a b": rows, "": rows[:, :0]})),
}


def same(one: Any, other: Any) -> bool:
    a, b = one.tensors(), other.tensors()
    return a.keys() == b.keys() and all(torch.equal(a[name].double(), b[name].double()) for name in a)


@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=5), ROWS)
def test_statistics_are_read_back_from_their_bytes(names: list[str], given_rows: Any) -> None:
    rows = torch.tensor(given_rows[0], dtype=torch.float64)
    held = {f"{name} over {i}/all of 'x'": KINDS[name][1](rows) for i, name in enumerate(names)}
    kinds = {key: type(statistic) for key, statistic in held.items()}
    again = unpack(pack(held, done=torch.arange(3)), kinds)
    assert again.keys() == held.keys()
    assert all(type(again[key]) is kinds[key] and same(again[key], held[key]) for key in held)


@pytest.mark.parametrize("name", sorted(KINDS))
@given(given_rows=ROWS)
def test_several_processes_have_what_one_has(name: str, given_rows: Any) -> None:
    """Merging what was sent as bytes is merging; the order of rank is the order of rows, so even sums are equal."""
    rows, sizes = given_rows
    kind, of = KINDS[name]
    own = [{"s": of(batch)} for batch in batches(rows, sizes)]
    together: dict[str, Any] = {}
    sent: dict[str, Any] = {}
    for one in own:
        merge_into(together, one)
        merge_into(sent, unpack(pack(one), {"s": kind}))
    assert same(together["s"], sent["s"])
    assert together["s"].n == len(rows)
