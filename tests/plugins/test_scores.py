"""Scores of features: against closed forms, cases by hand, brute force, and torch-fidelity on the same features."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from jointgen_metrics import kernel, manifolds
from jointgen_metrics.frechet import FID, Moments, frechet_distance
from jointgen_metrics.inception_score import Predictions
from jointgen_metrics.kernel import kernel_distance
from jointgen_metrics.manifolds import prdc
from jointgen_metrics.values import Values
from torch import Tensor
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

from jointgen.data.split import open_split
from jointgen.evaluation.evaluate import evaluate
from jointgen.testing.evaluation import model_of, tiny

DOUBLE = torch.float64


def normal(n: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


# --- Fréchet distance ------------------------------------------------------------------------------------------------


def gaussian(mean: list[float], covariance: list[list[float]]) -> Moments:
    n = 11
    return Moments(n, torch.tensor(mean, dtype=DOUBLE), (n - 1) * torch.tensor(covariance, dtype=DOUBLE))


def test_frechet_distance_of_gaussians_with_the_same_axes() -> None:
    # |(3, 0)|^2 + (2 - 1)^2 + (3 - 5)^2, of standard deviations 2, 3 and 1, 5
    a, b = gaussian([3.0, 0.0], [[4.0, 0.0], [0.0, 9.0]]), gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 25.0]])
    assert frechet_distance(a, b) == pytest.approx(9 + 1 + 4)


def test_frechet_distance_of_gaussians_with_other_axes() -> None:
    # the square root of a 2x2 matrix M has trace sqrt(tr M + 2 sqrt(det M)); tr AB = 2 1 + 2 3 = 8, det AB = 3 3 = 9
    a, b = gaussian([0.0, 0.0], [[2.0, 1.0], [1.0, 2.0]]), gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 3.0]])
    assert frechet_distance(a, b) == pytest.approx(4 + 4 - 2 * math.sqrt(8 + 2 * 3))
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b))


@pytest.mark.parametrize("rows", [500, 20])  # of 40 numbers: 20 rows have a singular covariance
def test_frechet_distance_of_a_set_to_itself_is_zero(rows: int) -> None:
    features = normal(rows, 40) @ normal(40, 40, 1) + 5.0
    assert frechet_distance(Moments.of(features), Moments.of(features.flip(0))) < 1e-5 * features.var(0).sum()


def test_frechet_distance_is_torch_fidelitys() -> None:
    a, b = normal(300, 12) @ normal(12, 12, 1), 1.5 * normal(200, 12, 2) + 0.3
    theirs = [metric_fid.fid_features_to_statistics(features) for features in (a, b)]
    wanted = metric_fid.fid_statistics_to_metric(*theirs, False)["frechet_inception_distance"]
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(wanted, rel=1e-9)


# --- inception score -------------------------------------------------------------------------------------------------


def scores(logits: Tensor, splits: int = 1) -> Tensor:
    return Predictions.of(logits, torch.arange(len(logits)) % splits, splits).scores()


def test_a_classifier_that_knows_nothing_scores_one() -> None:
    assert scores(torch.full((30, 10), 7.0)).tolist() == pytest.approx([1.0])


def test_certain_and_even_over_classes_scores_their_number() -> None:
    assert scores(1e4 * torch.eye(10).repeat(3, 1)).tolist() == pytest.approx([10.0])  # exp(-1e4) is 0: 0 log 0 = 0


def test_certain_of_one_class_scores_one() -> None:
    assert scores(1e4 * torch.eye(10)[:1].repeat(5, 1)).tolist() == pytest.approx([1.0])


def test_inception_score_by_hand() -> None:
    # p(y|x) = (0.9, 0.1) or (0.1, 0.9): H(y) - H(y|x) = log 2 + 0.9 log 0.9 + 0.1 log 0.1
    p = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=DOUBLE)
    assert scores(p.log()).item() == pytest.approx(2 * 0.9**0.9 * 0.1**0.1)


def test_inception_score_is_torch_fidelitys() -> None:
    logits = 3 * normal(1000, 7)
    by_split = torch.cat([logits[start::10] for start in range(10)])  # theirs are in a row, ours every tenth
    theirs = metric_isc.isc_features_to_metric(by_split, splits=10, shuffle=False)
    ours = scores(logits, 10)
    assert ours.mean().item() == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert ours.std(correction=0).item() == pytest.approx(theirs["inception_score_std"], rel=1e-9)


def test_splits_without_rows_are_left_out() -> None:
    assert len(scores(normal(3, 4), 10)) == 3


# --- kernel distance -------------------------------------------------------------------------------------------------


def test_kernel_distance_by_hand() -> None:
    # k(a, b) = (ab + 1)^3 on a line; x = 0, 1 and y = 1, 2:
    # k(x, x') = 1; k(y, y') = 27; k(x, y) = 1, 1, 8, 27 -> 1 - 2 37/4 + 27
    estimate, _ = kernel_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]]))
    assert estimate == pytest.approx(9.5)


def test_kernel_distance_of_one_distribution_is_zero_on_average() -> None:
    found = torch.tensor([kernel_distance(normal(20, 3, 2 * s), normal(30, 3, 2 * s + 1))[0] for s in range(300)])
    assert abs(found.mean()) < 4 * found.std() / 300**0.5
    assert found.min() < 0 < found.max()


def test_kernel_distance_has_the_error_that_it_says() -> None:
    found = [kernel_distance(normal(60, 2, 2 * s), 1.0 + normal(80, 2, 2 * s + 1)) for s in range(300)]
    estimates, errors = torch.tensor(found).T
    assert errors.square().mean().sqrt().item() == pytest.approx(estimates.std().item(), rel=0.2)


def test_kernel_distance_is_torch_fidelitys() -> None:
    a, b = normal(150, 8), 1.2 * normal(150, 8, 1) + 0.1
    how: dict[str, Any] = {"kid_subsets": 1, "kid_subset_size": 150, "verbose": False}
    theirs = metric_kid.kid_features_to_metric(a, b, **how)["kernel_inception_distance_mean"]
    assert kernel_distance(a, b)[0] == pytest.approx(theirs, rel=1e-9)


# --- manifolds -------------------------------------------------------------------------------------------------------


def by_brute_force(draws: Tensor, data: Tensor, k: int) -> dict[str, float]:
    """From the definitions, number by number."""

    def apart(a: Tensor, b: Tensor) -> float:
        return math.dist(a.tolist(), b.tolist())

    def radius(rows: Tensor, i: int) -> float:
        return sorted(apart(rows[i], rows[j]) for j in range(len(rows)) if j != i)[k - 1]

    of_data, of_draws = ([radius(rows, i) for i in range(len(rows))] for rows in (data, draws))
    balls = [[apart(x, y) <= r for y, r in zip(data, of_data, strict=True)] for x in draws]
    return {
        "precision": sum(any(row) for row in balls) / len(draws),
        "recall": sum(any(apart(x, y) <= r for x, r in zip(draws, of_draws, strict=True)) for y in data) / len(data),
        "density": sum(map(sum, balls)) / (k * len(draws)),
        "coverage": sum(any(row[i] for row in balls) for i in range(len(data))) / len(data),
    }


@pytest.mark.parametrize("k", [1, 3])
def test_manifolds_are_those_of_the_definitions(k: int) -> None:
    draws, data = normal(25, 2) + 0.7, 1.3 * normal(31, 2, 1)
    found = prdc(draws, data, k)
    assert found == pytest.approx(by_brute_force(draws, data, k))
    assert 0 < found["recall"] < 1 and 0 < found["precision"] < 1  # nothing is trivial


def test_manifolds_on_a_line_by_hand() -> None:
    # data 0, 1, 2, 10: radii to the nearest 1, 1, 1, 8; draws 0.5, 2.5 and 30: radii 2, 2, 27.5
    data, draws = torch.tensor([[0.0], [1.0], [2.0], [10.0]]), torch.tensor([[0.5], [2.5], [30.0]])
    assert prdc(draws, data, 1) == pytest.approx(
        {
            "precision": 2 / 3,  # 0.5 and 2.5
            "recall": 1.0,  # 0, 1 and 2 lie within 2 of 0.5; 10 lies within 27.5 of 30
            "density": (2 + 2) / 3,  # 0.5 in the balls of 0 and 1; 2.5 in those of 2 and 10
            "coverage": 4 / 4,
        }
    )


def test_manifolds_of_a_set_with_itself_and_far_away() -> None:
    data = normal(40, 3)
    same, far = prdc(data, data, 5), prdc(data + 1e3, data, 5)
    assert (same["precision"], same["recall"], same["coverage"]) == (1.0, 1.0, 1.0)
    assert far == {"precision": 0.0, "recall": 0.0, "density": 0.0, "coverage": 0.0}


def test_precision_and_recall_are_torch_fidelitys() -> None:
    draws, data = normal(120, 6), 1.3 * normal(150, 6, 1) + 0.2
    theirs = metric_prc.prc_features_to_metric(draws, data, prc_neighborhood=3, prc_batch_size=50, verbose=False)
    ours = prdc(draws, data, 3)
    assert ours["precision"] == pytest.approx(theirs["precision"])
    assert ours["recall"] == pytest.approx(theirs["recall"])


# --- in parts --------------------------------------------------------------------------------------------------------


def test_blocks_do_not_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    draws, data = normal(50, 4), normal(60, 4, 1) + 0.5
    whole = prdc(draws, data, 5), kernel_distance(draws, data)
    monkeypatch.setattr(manifolds, "MAX_CELLS", 7 * 60)
    monkeypatch.setattr(kernel, "MAX_CELLS", 7 * 60)
    assert prdc(draws, data, 5) == whole[0]
    assert kernel_distance(draws, data) == pytest.approx(whole[1], rel=1e-12)


SPLIT = torch.arange(90) % 4


@pytest.mark.parametrize(
    "of",
    [
        lambda rows: Moments.of(rows + 1e6),  # a difference of sums would cancel
        lambda rows: Predictions.of(rows, SPLIT[: len(rows)], 4),
    ],
    ids=["moments", "predictions"],
)
def test_parts_merge_to_the_whole(of: Callable[[Tensor], Any]) -> None:
    rows = normal(90, 5)
    parts = [of(rows[start:stop]) for start, stop in pairwise([0, 4, 60, 88, 90])]
    again = [type(part).from_tensors(part.tensors()) for part in parts]
    ragged = again[3].merge(again[0]).merge(again[2].merge(again[1]))
    for name, value in of(rows).tensors().items():
        torch.testing.assert_close(ragged.tensors()[name], value, rtol=1e-9, atol=1e-9)


def test_moments_are_those_of_all_rows() -> None:
    rows = normal(70, 5) @ normal(5, 5, 1)
    found = Moments.of(rows[:30]).merge(Moments.of(rows[30:]))
    torch.testing.assert_close(found.covariance, torch.cov(rows.T))
    torch.testing.assert_close(found.mean, rows.mean(0))


def test_fid_of_fewer_rows_than_features_says_so() -> None:
    """Images of 8x8 pixels have 64 values, so a covariance of 64 rows has no full rank."""
    model = model_of(tiny())
    split = open_split(model.compiled.binding, "test").first(8)
    notes = {}
    for samples in (64, 65):
        (estimate,) = evaluate(model, split, [FID(samples=samples, extractor=Values())]).values()
        notes[samples] = estimate.note
    assert notes == {64: "64 rows for 64 features: biased upwards by much", 65: ""}
