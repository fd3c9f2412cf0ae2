from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from jointgen.config.documents import as_document
from jointgen.contracts.figures import Display, Estimate
from jointgen.contracts.statistics import Mean


def test_by_hand() -> None:
    """1, 2, 3, 6: mean 12 / 4 = 3; deviations -2, -1, 0, 3, squares 4 + 1 + 0 + 9 = 14.

    Sample variance 14 / 3, standard error sqrt(14 / 3 / 4) = sqrt(7 / 6) = 1.0801234...
    """
    mean = Mean.of(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert (mean.n, mean.mean, mean.m2) == (4, 3.0, 14.0)
    assert mean.value == 3.0
    assert mean.standard_error == pytest.approx((7 / 6) ** 0.5, rel=1e-15)


def test_merge_by_hand() -> None:
    """{1, 3} has mean 2 and m2 2; {6, 8, 10} mean 8 and m2 8. Together: mean 28 / 5 = 5.6, and
    m2 = 2 + 8 + (8 - 2)^2 * 2 * 3 / 5 = 53.2, which is 4.6^2 + 2.6^2 + 0.4^2 + 2.4^2 + 4.4^2."""
    merged = Mean.of(torch.tensor([1.0, 3.0])).merge(Mean.of(torch.tensor([6.0, 8.0, 10.0])))
    assert merged.n == 5
    assert merged.mean == pytest.approx(5.6, rel=1e-15)
    assert merged.m2 == pytest.approx(53.2, rel=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cuts", [[], [1], [500, 500, 501], [3, 10, 900], list(range(1, 1000, 7))])
def test_any_split_equals_numpy_in_one_go(cuts: list[int], dtype: torch.dtype) -> None:
    values = (torch.randn(1000, generator=torch.Generator().manual_seed(0)) + 1e4).to(dtype)
    merged = Mean()
    for part in values.tensor_split(cuts):
        merged = merged.merge(Mean.of(part))
    expected = values.double().numpy()
    assert merged.n == 1000
    assert merged.mean == pytest.approx(expected.mean(), rel=1e-14)
    assert merged.standard_error == pytest.approx(expected.std(ddof=1) / np.sqrt(1000), rel=1e-10)


def test_merging_is_a_tree_or_a_chain() -> None:
    parts = [Mean.of(part) for part in torch.randn(64, generator=torch.Generator().manual_seed(1)).split(8)]
    chain, tree = Mean(), parts
    for part in parts:
        chain = chain.merge(part)
    while len(tree) > 1:
        tree = [a.merge(b) for a, b in zip(tree[::2], tree[1::2], strict=True)]
    assert chain.mean == pytest.approx(tree[0].mean, rel=1e-14)
    assert chain.m2 == pytest.approx(tree[0].m2, rel=1e-14)


def test_a_large_offset_does_not_cancel() -> None:
    """Sums of squares in float64 would leave no correct digit of a variance of 1/4 beside 1e9."""
    values = torch.tensor([1e9, 1e9 + 1] * 50, dtype=torch.float64)
    merged = Mean.of(values[:30]).merge(Mean.of(values[30:]))
    assert merged.m2 == pytest.approx(25.0, rel=1e-6)


def test_nothing_and_one() -> None:
    assert Mean().value is None and Mean().standard_error is None
    assert Mean.of(torch.empty(0)) == Mean()
    one = Mean.of(torch.tensor([2.5]))
    assert one.value == 2.5 and one.standard_error is None
    assert one.merge(Mean()) == one and Mean().merge(one) == one


def test_infinity_is_not_hidden() -> None:
    assert Mean().merge(Mean.of(torch.tensor([1.0, float("inf")]))).value == float("inf")
    assert np.isnan(Mean.of(torch.tensor([1.0])).merge(Mean.of(torch.tensor([float("nan")]))).mean)


def test_tensors_round_trip() -> None:
    mean = Mean.of(torch.rand(17, generator=torch.Generator().manual_seed(2)))
    tensors = mean.tensors()
    assert {name: (value.shape, value.dtype) for name, value in tensors.items()} == {
        "n_mean_m2": (torch.Size([3]), torch.float64)
    }
    assert Mean.from_tensors(tensors) == mean


def test_rows_only() -> None:
    with pytest.raises(AssertionError, match=r"\(2, 3\)"):
        Mean.of(torch.zeros(2, 3))


def test_estimate_as_dict() -> None:
    mean = Mean.of(torch.tensor([1.0, 3.0]))
    estimate = Estimate(mean.value, "nats", "ELBO, 1 draw", "test", mean.n, mean.standard_error, "lower")
    assert json.loads(json.dumps(estimate.as_dict())) == {
        "value": 2.0,
        "unit": "nats",
        "estimator": "ELBO, 1 draw",
        "split": "test",
        "n": 2,
        "standard_error": 1.0,
        "bound": "lower",
        "note": "",
        "protocol": "",
        "better": None,
        "display": {"title": "", "group": "other", "order": 100, "headline": False, "nll": False},
    }


def test_estimates_are_read_back_and_those_of_older_versions_too() -> None:
    shown = Display("IWAE-64", "likelihood", 3, headline=True, nll=True)
    estimate = Estimate(-90.0, "nats", "K = 64", "test", 4, bound="lower", better="higher", display=shown)
    fields = json.loads(json.dumps(estimate.as_dict()))
    assert as_document(fields, Estimate) == estimate
    del fields["display"]
    assert as_document(fields, Estimate).display == Display(nll=True)
    assert as_document({**fields, "bound": None}, Estimate).display == Display()


def test_a_key_of_a_later_version_is_named_with_this_one() -> None:
    fields = {**Estimate(-90.0, "nats", "K = 64", "test", 4).as_dict(), "later": 1}
    with pytest.raises(ValueError, match=r"^later: unknown key.*; jointgen [\d.]+ writes no such key"):
        as_document(fields, Estimate)


def test_figures_stand_by_group_order_and_number() -> None:
    shown = {
        "fid": Display(group="samples"),
        "iwae_5000": Display(group="likelihood"),
        "iwae_64": Display(group="likelihood"),
        "elbo": Display(group="likelihood", order=0),
    }
    assert sorted(shown, key=lambda name: shown[name].sort_key(name)) == ["elbo", "iwae_64", "iwae_5000", "fid"]
