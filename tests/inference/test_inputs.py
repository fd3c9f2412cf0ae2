"""What a caller gives to a model is brought to model space as data is, or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jointgen
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.inference.inputs import Input
from jointgen.inference.model import Model
from jointgen.testing.evaluation import tiny

GREY = Input("x", Space((1, 2, 2), low=0.0, high=1.0, bins=4), is_data=True)
BITS = Input("x", Space((4,), kind="binary", bins=256), is_data=True)
SCORED = Input("x", Space((4,), kind="binary", bins=256), is_data=True, bits_only=True)
REAL = Input("x", Space((2,)), is_data=True)
CODE = Input("z", Space((2,), low=-1.0, high=1.0), is_data=False)
LABEL = Input("y", Space((3,), kind="label"), is_data=True)

# --- what is taken ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "given", "expected"),
    [
        # level i of 4 is the middle of its bin, (i + 1/2) / 4
        (GREY, np.array([[[[0, 1], [2, 3]]]], np.uint8), [[[[0.125, 0.375], [0.625, 0.875]]]]),
        (GREY, torch.tensor([[[[0, 1], [2, 3]]]]), [[[[0.125, 0.375], [0.625, 0.875]]]]),
        (GREY, torch.full((1, 1, 2, 2), 1.1), [[[[1.1, 1.1], [1.1, 1.1]]]]),  # decoders overshoot
        (BITS, torch.tensor([[0, 51, 102, 255]], dtype=torch.uint8), [[0.0, 0.2, 0.4, 1.0]]),
        (BITS, np.array([[True, False, False, True]]), [[1.0, 0.0, 0.0, 1.0]]),
        (BITS, np.array([[0, 1, 1, 0]], ">i4"), [[0.0, 1.0, 1.0, 0.0]]),
        (SCORED, np.array([[0, 1, 1, 0]]), [[0.0, 1.0, 1.0, 0.0]]),
        (REAL, [[1, -300]], [[1.0, -300.0]]),
        (REAL, np.array([[0.5, 1.5]], np.float16), [[0.5, 1.5]]),
        (CODE, torch.tensor([[7.0, -7.0]]), [[7.0, -7.0]]),  # encoders leave the prior's range
        (LABEL, [2, 0], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]),
        (LABEL, np.array([1], np.uint8), [[0.0, 1.0, 0.0]]),
        (LABEL, torch.tensor([[0.25, 0.75, 0.0]]), [[0.25, 0.75, 0.0]]),
    ],
)
def test_values_that_are_taken(variable: Input, given: Any, expected: Any) -> None:
    read = variable.read(given)
    assert read.is_floating_point()
    torch.testing.assert_close(read.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)


def test_what_is_read_keeps_its_gradient() -> None:
    given = torch.rand(1, 1, 2, 2, requires_grad=True)
    GREY.read(given).sum().backward()
    assert given.grad is not None and torch.equal(given.grad, torch.ones(1, 1, 2, 2))


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "given", "message"),
    [
        (GREY, torch.rand(1, 2, 2), r"expected shape \(B, 1, 2, 2\), got \(1, 2, 2\); a single row needs a batch axis"),
        (GREY, torch.rand(5, 2, 2), r"got \(5, 2, 2\); grey images have a channel axis: x\[:, None\]"),
        (GREY, torch.rand(5, 2, 2, 1), r"got \(5, 2, 2, 1\); the channels come first"),
        (GREY, torch.rand(5, 4), r"expected shape \(B, 1, 2, 2\), got \(5, 4\)$"),
        (GREY, torch.rand(0, 1, 2, 2), "which is no row"),
        (GREY, torch.tensor(1.0), r"got \(\)"),
        (GREY, 255 * torch.ones(1, 1, 2, 2), r"values from 255 to 255; x is in \[0, 1\]; levels 0 to 3 are given as"),
        (GREY, -torch.ones(1, 1, 2, 2), r"values from -1 to -1; x is in \[0, 1\]"),
        (GREY, np.full((1, 1, 2, 2), 4, np.uint8), "whole numbers from 4 to 4; x has levels 0 to 3"),
        (GREY, np.full((1, 1, 2, 2), -1), "whole numbers from -1 to -1; x has levels 0 to 3"),
        (BITS, np.full((1, 4), 256), "whole numbers from 256 to 256; x has bits or levels 0 to 255"),
        (BITS, torch.full((1, 4), 200.0), r"values from 200 to 200; x is in \[0, 1\]"),
        (SCORED, torch.full((1, 4), 0.5), "grey values, but a probability of zeros and ones is asked for; draw bits"),
        (SCORED, np.array([[0, 9, 0, 0]]), "grey values, but a probability of zeros and ones is asked for"),
        (REAL, torch.tensor([[0.0, 1.0], [0.0, torch.nan], [torch.inf, 0.0]]), "is not finite in rows 1, 2$"),
        (REAL, torch.full((9, 2), torch.nan), "is not finite in rows 0, 1, 2, 3, 4, ... and 4 more"),
        (CODE, torch.tensor([[0.0, torch.nan]]), "is not finite in row 0$"),
        (REAL, np.full((1, 2), 1e200), "is too large for float32 in row 0$"),
        (CODE, np.full((2, 2), -1e39), "is too large for float32 in rows 0, 1$"),
        (REAL, "abc", r"expected numbers \(B, 2\), got str"),
        (REAL, None, "got NoneType"),
        (REAL, [[1.0], [1.0, 2.0]], "got list"),
        (REAL, np.array([["a", "b"]]), "got <U1"),
        (REAL, torch.ones(1, 2, dtype=torch.complex64), "got torch.complex64"),
        (LABEL, torch.tensor([3]), "3 is not a class; allowed: 0 to 2"),
        (LABEL, torch.tensor([-1]), "-1 is not a class; allowed: 0 to 2"),
        (LABEL, torch.tensor([1.0]), r"whole class numbers 0 to 2, or rows \(B, 3\), got \(1,\)"),
        (LABEL, torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]]), "does not sum to 1 over the classes in row 1$"),
    ],
)
def test_values_that_are_refused(variable: Input, given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        variable.read(given)
    assert len(caught.value.lines) == 1
    assert caught.value.lines[0].startswith(f"{variable.name}: ")


# --- the doors -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(compiled := tiny(), compiled.parts)


def test_levels_are_encoded_as_the_values_that_they_stand_for(model: Model) -> None:
    """Digits have 17 levels on [0, 1): level i stands for (i + 1/2) / 17."""
    levels = np.random.default_rng(0).integers(0, 17, (5, 1, 8, 8), np.uint8)
    values = torch.from_numpy((levels + 0.5) / 17)
    for method in (model.encode, model.reconstruct, model.elbo):
        assert torch.equal(method(levels), method(values))


@pytest.mark.parametrize("method", ["encode", "reconstruct", "elbo", "decode"])
def test_every_method_refuses_in_the_same_words(model: Model, method: str) -> None:
    name = "z" if method == "decode" else "x"
    with pytest.raises(ConfigError, match=rf"^{name}: expected shape \(B, "):
        getattr(model, method)(torch.zeros(3))
    with pytest.raises(ConfigError, match=r"^y: is not a variable that can be given; known: "):
        getattr(model, method)(torch.zeros(1, *model.spaces[name].shape), {"y": [1]})
    with pytest.raises(ConfigError, match=rf"^{name}: is given twice$"):
        getattr(model, method)(torch.zeros(1, *model.spaces[name].shape), {name: [1]})


def test_what_is_given_fits_the_number_of_rows(model: Model) -> None:
    with pytest.raises(ConfigError, match=r"^z: has 3 rows, expected 5$"):
        model.sample(5, {"z": np.zeros((3, 2))})
    assert model.sample(3, {"z": np.zeros((3, 2))}).shape == (3, 1, 8, 8)
    with pytest.raises(ConfigError, match=r"^given: expected values by variable"):
        model.sample(3, torch.zeros(3, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "3", torch.zeros(99)])
def test_a_number_of_samples_is_a_number(model: Model, n: Any) -> None:
    with pytest.raises(ConfigError, match=r"^n: expected a number of rows >= 1, got") as caught:
        model.sample(n)
    assert len(str(caught.value)) < 120


def test_a_seed_is_a_whole_number(model: Model) -> None:
    with pytest.raises(ConfigError, match=r"^seed: expected a whole number, got 1.5"):
        model.sample(1, seed=1.5)  # type: ignore[arg-type]


def test_all_problems_are_told_at_once(model: Model) -> None:
    with pytest.raises(ConfigError) as caught:
        model.encode(torch.full((2, 1, 8, 8), torch.nan), {"zz": 1})
    assert len(caught.value.lines) == 2


def test_labels_are_class_numbers_or_one_hot(labelled: Path) -> None:
    model = jointgen.load(labelled)
    one_hot = torch.nn.functional.one_hot(torch.tensor([3, 1]), 10)
    assert torch.equal(model.sample(2, {"y": [3, 1]}), model.sample(2, {"y": one_hot}))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(
        model.reconstruct(x, {"y": [3, 1]}), model.decode(model.encode(x, {"y": [3, 1]}), {"y": one_hot})
    )
    with pytest.raises(ConfigError, match=r"^y: 10 is not a class; allowed: 0 to 9$"):
        model.sample(2, {"y": [3, 10]})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("z=nan", "z=nan: is not finite in row 0"),
        ("y=10", "y=10: '10' is not a class; allowed: 0 to 9"),
        ("y=" + "1" * 5000, f"y={'1' * 195}...: '{'1' * 5000}' is not a class"),
    ],
)
def test_the_command_line_refuses_by_the_same_rules(
    labelled: Path, say: Any, here: Path, text: str, problem: str
) -> None:
    assert say("sample", labelled, "--given", text, "-o", "s.npz").refusal.startswith(f"--given: {problem}"[:200])
