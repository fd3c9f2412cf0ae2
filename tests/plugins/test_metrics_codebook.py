"""Code usage and perplexity, from a codebook and encodings by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jointgen_metrics.codebook import CodeUsage, Counts, perplexity
from support.models import small_model

from jointgen.contracts.capabilities import Capabilities
from jointgen.data.split import open_split
from jointgen.evaluation.evaluate import evaluate
from jointgen.inference.model import Model
from jointgen.objectives import Objective, parse

torch.set_num_threads(1)

TEXT = "E[q(x,z)](log p(x|z) - l2(stop(encoded z), code z) - 0.25*l2(encoded z, stop(code z)))"
ENCODER = {"network": {"type": "mlp", "hidden": []}, "family": {"type": "vq", "codes": 8, "dim": 2}}
BOOK = [[10.0, 0], [-10, 0], [0, 10], [0, -10], [50, 50], [60, 60], [70, 70], [80, 80]]


def quantised(bias: list[float], slope: float) -> Model:
    """A ring's two numbers x to three positions, each of which is slope * x plus two numbers of the bias."""
    made = small_model(Objective.of(parse(TEXT)), prior={"type": "codebook", "size": 6}, encoder=ENCODER)
    encoder: Any = made.parts.modules["encoder"]
    with torch.no_grad():
        encoder.trunk.layers[0].weight.copy_(slope * torch.eye(2).repeat(3, 1))
        encoder.trunk.layers[0].bias.copy_(torch.tensor(bias))
        encoder.family.book.copy_(torch.tensor(BOOK))
    return Model(made.compiled, made.parts)


def figures(model: Model, **options: Any) -> Any:
    return evaluate(model, open_split(model.compiled.binding, "test"), [CodeUsage()], **options)


def test_usage_and_perplexity_of_constant_encodings() -> None:
    """Positions always draw the codes 0, 0 and 2: two of 8 used, with shares 2/3 and 1/3."""
    found = figures(quantised([9, 1, 11, -1, 1, 9], slope=0.0))
    assert found["codes_used"].value == 2 and "of 8" in found["codes_used"].estimator
    assert found["code_perplexity"].value == pytest.approx(math.exp(math.log(3) - 2 / 3 * math.log(2)))


def test_codes_follow_the_rows_and_batches_are_merged() -> None:
    """With x itself at each position, the nearest of the four axes' codes is that of its larger number and its sign."""
    model = quantised([0.0] * 6, slope=1.0)
    split = open_split(model.compiled.binding, "test")
    x = split.take(torch.arange(len(split)))["data"]["x"]
    axis = x.abs().argmax(1)
    shares = (2 * axis + (x.gather(1, axis[:, None])[:, 0] < 0)).bincount().double() / len(x)
    for batch in (500, 7):
        found = figures(model, batch=batch)
        assert found["codes_used"].value == 4 and found["codes_used"].n == len(split)
        assert found["codes_used"].protocol == f"{len(split)} rows"
        assert found["code_perplexity"].value == pytest.approx(float((-shares * shares.log()).sum().exp()))


def test_perplexity_of_equal_codes_is_their_number_and_none_of_no_rows() -> None:
    assert perplexity(Counts(2, torch.tensor([3, 0, 3, 3])))[0] == pytest.approx(3)
    assert perplexity(Counts.of(torch.zeros(0, 4, dtype=torch.int64), 5)) == (None, None)
    stored = Counts.of(torch.tensor([[0, 2], [2, 2]]), 4)
    assert Counts.from_tensors(stored.merge(stored).tensors()).counts.tolist() == [2, 0, 6, 0]


def test_a_model_without_a_codebook_says_so() -> None:
    made = small_model(Objective.of(parse("E[q(x,z)](log p(x|z) + log p(z) - log q(z|x))")))
    (absent,) = figures(Model(made.compiled, made.parts)).values()
    assert absent.value is None and absent.note == "no conditional of q draws from a codebook"


def test_the_family_declares_its_codebook() -> None:
    assert "a codebook of 8 codes" in str(Capabilities(codes=8))
