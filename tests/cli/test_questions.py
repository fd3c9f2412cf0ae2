"""score, interpolate, edit and complete: against closed forms, and as commands."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jointgen_ali.objective import ALI
from PIL import Image
from support.linear_gaussian import exact_model
from support.models import small_model

import jointgen
from jointgen.data.split import Split, open_split
from jointgen.errors import ConfigError
from jointgen.evaluation.scores import ranks
from jointgen.inference.completion import complete, completed_variable
from jointgen.inference.encoded_rows import encode_rows
from jointgen.inference.given_arrays import GivenRows
from jointgen.inference.model import Model

DOUBLE = torch.float64


def table(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# --- score -----------------------------------------------------------------------------------------------------------


def test_ranks_by_hand() -> None:
    """Of held-out 1, 2, 3, 4 none is below 0.5, two are at most 2, four at most 9: (1 + those) / 5."""
    reference = torch.tensor([3.0, 1.0, 4.0, 2.0], dtype=DOUBLE)
    values = torch.tensor([0.5, 2.0, 9.0, float("nan")], dtype=DOUBLE)
    assert ranks(values, reference, "higher").tolist() == pytest.approx([0.2, 0.6, 1.0, 0.2])
    assert ranks(values, reference, "lower").tolist() == pytest.approx([1.0, 0.8, 0.2, 0.2])
    # where k of the held-out rows are no numbers, each is as bad as can be: -inf and NaN are as bad as k of 4
    broken = torch.tensor([1.0, float("nan"), 3.0, float("nan")], dtype=DOUBLE)
    seen = torch.tensor([-math.inf, 2.0, math.inf, float("nan")], dtype=DOUBLE)
    assert ranks(seen, broken, "higher").tolist() == pytest.approx([0.6, 0.8, 1.0, 0.6])
    assert ranks(reference, None, "higher").tolist() == [0.75, 0.25, 1.0, 0.5]


def test_scores_are_what_eval_averages(trained: Path, say: Any, here: Path) -> None:
    figures = json.loads(say("eval", trained, "--metrics", "elbo", "--rows", 10**6, "--json").out)
    said = say("score", trained, "--metrics", "elbo, rmse", "-o", "s.csv")
    rows = table("s.csv")
    assert list(rows[0]) == ["row", "elbo", "rmse", "elbo_rank", "rmse_rank"]
    assert len(rows) == figures["elbo"]["n"] == 297
    assert np.mean([float(row["elbo"]) for row in rows]) == pytest.approx(figures["elbo"]["value"], abs=1e-5)
    by_elbo = sorted(rows, key=lambda row: float(row["elbo"]))
    assert [float(row["elbo_rank"]) for row in by_elbo] == pytest.approx([(i + 1) / 297 for i in range(297)])
    worst = max(rows, key=lambda row: float(row["rmse"]))
    assert float(worst["rmse_rank"]) == pytest.approx(1 / 297), "a high error is a bad one"
    assert said.out.startswith("s.csv: 297 rows; elbo (nats, higher is better), rmse (0-255, lower is better)\n")


def test_noise_is_unusual(trained: Path, say: Any, here: Path) -> None:
    np.save("noise.npy", np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8))
    assert say("score", trained, "--images", "noise.npy", "--metrics", "rmse", "-o", "s.csv").status == 0
    rows = table("s.csv")
    assert [row["file"] for row in rows] == ["noise.npy[0]", "noise.npy[1]", "noise.npy[2]"]
    assert all(float(row["rmse_rank"]) == pytest.approx(1 / 298) for row in rows)
    assert say("score", trained, "--images", "noise.npy", "--reference", 0, "-o", "t.csv").status == 0
    names = set(table("t.csv")[0])
    assert {"file", "elbo", "rmse", "reconstruction_x"} <= names, "without ranks"
    assert "reconstruction_z" not in names, "its expectation is over draws of p: it says nothing of a row"


def test_figures_of_many_rows_are_refused(trained: Path, say: Any, here: Path) -> None:
    words = "mmd, elbo"
    assert "is of many rows together, and single rows have none" in "\n".join(
        say("score", trained, "--metrics", words, "-o", "s.csv").problems
    )
    assert list(here.iterdir()) == []


# --- interpolate and edit --------------------------------------------------------------------------------------------


def test_paths_are_straight_in_the_code(trained: Path, say: Any, here: Path) -> None:
    say("sample", trained, "-n", 3, "-o", "mine/")
    files = [f"mine/00000{i}.png" for i in range(3)]
    assert say("interpolate", trained, "--images", *files, "--steps", 3, "-o", "a.npz").out == (
        "a.npz: 6 images, 3 from each of 3 rows to the next\n"
    )
    say("encode", trained, "--images", "mine", "-o", "z.npz")
    z = np.load("z.npz")["z"]
    middle = jointgen.load(trained).decode((z[1:2] + z[2:3]) / 2)
    assert np.abs(np.load("a.npz")["x"][4] - middle[0].detach().numpy()).max() < 1e-6
    assert say("interpolate", trained, "--images", *files, "--steps", 3, "-o", "a.gif").status == 0
    with Image.open("a.gif") as film:
        assert (film.n_frames, film.size) == (5, (48, 48))  # type: ignore[attr-defined]
    assert say("interpolate", trained, "-n", 2, "-o", "a.png").status == 0
    with Image.open("a.png") as picture:
        assert picture.size == (11 * 50 - 2, 48), "a truth at either end of nine steps"
    assert "it takes two" in say("interpolate", trained, "--images", files[0], "-o", "b.png").refusal


def test_an_attribute_is_a_difference_of_mean_codes(trained: Path, say: Any, here: Path) -> None:
    say("encode", trained, "--split", "train", "-o", "train.npz")
    train = np.load("train.npz")
    z, has = train["z"], train["y"] == 3
    direction = z[has].mean(0) - z[~has].mean(0)
    words = ["--attribute", "y=3", "--amount", 0, 2, "-n", 4, "-o", "e.npz"]
    assert say("edit", trained, *words).out == "e.npz: 8 rows of x with y=3, 2 of each row\n"
    say("reconstruct", trained, "-n", 4, "-o", "r.npz")
    edited, rebuilt = np.load("e.npz"), np.load("r.npz")
    assert np.abs(edited["x"][::2] - rebuilt["x"]).max() < 1e-5
    codes = encode_rows(jointgen.load(trained), open_split(jointgen.load(trained).binding, "test").spread(4)).codes
    moved = jointgen.load(trained).decode(codes.numpy() + 2 * direction)
    assert np.abs(edited["x"][1::2] - moved.detach().numpy()).max() < 1e-4


def test_a_label_that_the_model_takes_is_given_to_the_decoder(labelled: Path, say: Any, here: Path) -> None:
    assert say("edit", labelled, "--attribute", "y=3", "-n", 4, "-o", "e.npz").status == 0
    model = jointgen.load(labelled)
    rows = encode_rows(model, open_split(model.binding, "test").spread(4))
    expected = model.decode(rows.codes, {"y": np.full(4, 3)})
    assert np.abs(np.load("e.npz")["x"] - expected.detach().numpy()).max() < 1e-6
    assert say("edit", labelled, "--attribute", "y=3", "--amount", 0.5, "-n", 4, "-o", "f.npz").refusal == (
        "--amount: the model is given y, which it has or has not"
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["y"], "--attribute: 'y': expected LABEL=CLASS, such as y=3"),
        (["w=1"], "--attribute: the data has no label 'w'; known: y"),
        (["y=11"], "--attribute: 11 is the class of 0 of 1500 training rows: there is nothing to compare"),
    ],
)
def test_attributes_that_are_none(words: list[str], problem: str, trained: Path, say: Any, here: Path) -> None:
    assert say("edit", trained, "--attribute", *words, "-o", "e.png").refusal == problem


# --- complete --------------------------------------------------------------------------------------------------------


def test_missing_values_are_drawn_from_their_posterior() -> None:
    """x = W z + b + s eps with z ~ N(0, I): given the first of two values, z is Gaussian with known moments.

    z | x1 has the precision I + w1 w1' / s^2 and the mean (that)^-1 w1 (x1 - b1) / s^2, and E[x2 | x1] = w2 E[z | x1] +
    b2. Means over 800 chains, one for each of so many equal rows, have a standard error of 0.04 at the most.
    """
    weights, bias, scale = [[1.0, 0.8], [0.2, 0.9]], [0.5, -1.0], 0.7
    compiled = exact_model({"weights": weights, "bias": bias, "scale": scale})[0].compiled
    model = Model(compiled, compiled.parts)
    x1 = 1.5
    rows = torch.tensor([x1, 0.0], dtype=DOUBLE).expand(800, 2)
    split = Split("values", {"data": GivenRows({"x": rows})}, {"data": {"x": "x"}})
    found = complete(model, split, torch.tensor([False, True]), draws=1, moves=40, seed=1)
    w = torch.tensor(weights, dtype=DOUBLE)
    precision = torch.eye(2, dtype=DOUBLE) + torch.outer(w[0], w[0]) / scale**2
    mean = torch.linalg.solve(precision, w[0]) * (x1 - bias[0]) / scale**2
    codes = found.codes[:, 0]
    assert torch.allclose(codes.mean(0), mean, atol=0.13)
    assert torch.allclose(torch.cov(codes.T), torch.linalg.inv(precision), atol=0.16)
    assert float(found.filled[:, 0, 1].mean()) == pytest.approx(float(w[1] @ mean + bias[1]), abs=0.13)
    assert (found.filled[:, 0, 0] == x1).all(), "what is observed stays"
    assert 0.5 < found.acceptance <= 1


def test_what_is_missing_is_not_looked_at(trained: Path, say: Any, here: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[4:] = 255
    Image.fromarray(mask).save("mask.png")
    x = np.random.default_rng(0).integers(0, 17, (2, 1, 8, 8))
    np.save("x.npy", x)
    x[:, :, 4:] = 0
    np.save("y.npy", x)
    for name in "xy":
        words = ["--values", f"{name}.npy", "--mask", "mask.png", "--draws", 2, "--moves", 8, "-o", f"{name}.npz"]
        assert say("complete", trained, *words).out.startswith(f"{name}.npz: 2 rows, 50% of each missing, completed 2")
    first, second = np.load("x.npz"), np.load("y.npz")
    assert (first["x"] == second["x"]).all() and first["x"].shape == (4, 1, 8, 8)
    assert first["x"][0, 0, :4] * 17 - 0.5 == pytest.approx(x[0, 0, :4], abs=1e-4)
    assert say("complete", trained, "--mask", "mask.png", "-n", 2, "--moves", 4, "-o", "a.png").status == 0
    with Image.open("a.png") as picture:
        assert picture.size == (5 * 50 - 2, 2 * 50 - 2), "the observed part and four completions of two rows"


def test_masks_that_are_none(trained: Path, say: Any, here: Path) -> None:
    Image.new("L", (8, 8)).save("black.png")
    Image.new("L", (9, 8), 255).save("wide.png")
    words = ["complete", trained, "-o", "a.png", "--mask"]
    assert say(*words, "black.png").refusal == "--mask: black.png: is all black: no pixel is missing"
    assert say(*words, "wide.png").refusal == ("--mask: wide.png: is 9 x 8 pixels; x is 8 x 8: draw it in this size")
    Image.fromarray(np.repeat([[0], [255]], 8, 0).astype(np.uint8).repeat(16, 1)).save("half.png")  # 16 x 16
    fits = say(*words, "half.png", "--images", "half.png", "--draws", 1, "--moves", 2)
    assert fits.out.startswith("a.png: 1 rows, 50% of each missing")
    assert say(*words, "wide.png", "--images", "black.png").refusal == (
        "--mask: wide.png: is 9 x 8 pixels; x is 8 x 8, black.png 8 x 8: draw it in one of these sizes"
    )
    assert say(*words, "none.png").refusal == "--mask: none.png: no such file"


def test_an_implicit_decoder_completes_nothing() -> None:
    implicit = {"network": {"type": "mlp", "hidden": [4]}, "family": {"type": "implicit"}}
    compiled = small_model(ALI().objective(), decoder=implicit).compiled
    model = Model(compiled, compiled.parts)
    with pytest.raises(ConfigError, match=r"p\(x\|z\) has no density of each dimension"):
        completed_variable(model)
