"""Classification and clustering errors, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from jointgen_metrics.classification import Classification, matched
from support.models import small_model

from jointgen.data.split import open_split
from jointgen.evaluation.evaluate import evaluate
from jointgen.inference.model import Model
from jointgen.objectives import E, Expr, Objective, joint_from_text

torch.set_num_threads(1)

RING = {"type": "ring", "rows": 64, "labels": True}
Q, P = joint_from_text("q", "q(x) q(y|x)", {"q(y|x)": "head"}), joint_from_text("p", "p(y) p(x|y)")
HEAD = {"network": {"type": "mlp", "hidden": []}, "family": {"type": "categorical"}}


def test_clusters_are_matched_to_the_classes_that_leave_fewest_errors() -> None:
    """Cluster 0 is mostly class 1, cluster 1 mostly class 1 as well but fewer, so it gets class 0; 2 gets none."""
    clusters = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
    classes = torch.tensor([1, 1, 1, 0, 1, 1, 0, 0])
    assert matched(clusters, classes).tolist() == [1, 1, 1, 1, 0, 0, 0, -1]


def model(expr: Expr, **more: Any) -> Model:
    """A model whose q(y|x) always says class 2 of the eight modes of a ring."""
    made = small_model(
        Objective.of(expr),
        data=RING | {"labels": False},
        prior={"type": "categorical", "classes": 8},
        encoder=None,
        encoders={"head": HEAD},
        **more,
    )
    head: Any = made.parts.modules["head"]
    with torch.no_grad():
        head.trunk.layers[0].weight.zero_()
        head.trunk.layers[0].bias.copy_(torch.arange(8) == 2)
    return Model(made.compiled, made.parts)


BOUND = E(Q.on("x", "y"), P.log("x|y") + P.log("y") - Q.log("y|x"), sums="y")


def test_a_label_that_no_source_yields_is_matched() -> None:
    unnamed = model(BOUND)
    split = open_split(unnamed.compiled.binding, "test")
    ((name, figure),) = evaluate(unnamed, split, [Classification()]).items()
    labels = split.labels(torch.arange(len(split)))["y"]
    assert name == "clustering_error" and figure.better == "lower" and figure.n == len(split)
    assert figure.value == pytest.approx(1 - labels.bincount().max().item() / len(split))


def test_a_label_of_a_source_is_that_of_the_rows_that_q_is_given() -> None:
    """Not that of the rows of the source that yields it, which here have other classes."""
    labelled = joint_from_text("l", "l(x,y)", {"l(x,y)": "labelled"})
    named = model(BOUND + E(labelled.on("x", "y"), Q.log("y|x")), sources={"labelled": RING | {"seed": 7}})
    split = open_split(named.compiled.binding, "test")
    ((name, figure),) = evaluate(named, split, [Classification()]).items()
    own, others = (split.labels(torch.arange(len(split)), part)["y"] for part in ("data", "labelled"))
    assert name == "classification_error" and not torch.equal(own, others)
    assert figure.value == pytest.approx((own != 2).double().mean().item())
