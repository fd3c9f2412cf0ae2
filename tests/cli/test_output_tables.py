"""`jointgen sample -o draws.csv`: the names, the units and the classes of a table that is gone by then."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

import jointgen
from jointgen.inference.run_data import RunData
from jointgen.runs.folder import RunFolder

PEOPLE = [(20 + i, 150 + 2 * i, ("red", "blue")[i % 2]) for i in range(20)]
GAUSSIAN = {"network": {"type": "mlp", "hidden": [4]}, "family": {"type": "gaussian"}}
RECIPE: dict[str, Any] = {
    "data": {"type": "table", "path": "people.csv", "split": "last"},
    "prior": {"type": "normal", "size": 2},
    "encoder": GAUSSIAN,
    "decoder": GAUSSIAN,
    "decoders": {"paint": {"network": {"type": "mlp", "hidden": [4]}, "family": {"type": "categorical"}}},
    "objective": {
        "type": "expression",
        "maximize": "E[q(x,shirt_colour,z)](log p(x|z) + log p(shirt_colour|z) - KL(q(z|x,shirt_colour) : p(z)))",
        "joints": {"q": "q(x,shirt_colour) q(z|x,shirt_colour)", "p": "p(z) p(x|z) p(shirt_colour|z)"},
        "parts": {"p(shirt_colour|z)": "paint"},
    },
    "train": {"steps": 1, "batch": 8, "trackers": [], "device": "cpu"},
    "eval": {"metrics": [{"type": "elbo"}]},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step on a table of ages, heights and colours, which is not there any more."""
    home = tmp_path_factory.mktemp("home")
    lines = ["age,height,shirt colour", *(",".join(map(str, row)) for row in PEOPLE)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        Path("people.csv").write_text("\n".join(lines))
        jointgen.run(RECIPE, out="r", quiet=True)
        Path("people.csv").unlink()
    return home / "r"


def read(path: str) -> tuple[list[str], list[list[str]]]:
    with open(path, newline="") as file:
        names, *rows = csv.reader(file)
    return names, rows


def test_draws_are_a_table_as_the_one_that_was_learned(run: Path, say: Any, here: Path) -> None:
    """The 18 training rows have ages 20 to 37: mean 28.5, variance (18^2 - 1) / 12; heights are twice as far apart."""
    said = say("sample", run, "-n", 5, "-o", "draws.csv", "--seed", 3)
    assert said.out == "draws.csv: 5 rows of age, height, shirt colour\n"
    names, rows = read("draws.csv")
    assert names == ["age", "height", "shirt colour"] and len(rows) == 5
    model = jointgen.load(run)
    drawn = model.draw("p", {}, 5, model.noise(3, "sample"), "mean")
    sd = ((18**2 - 1) / 12) ** 0.5
    x = drawn["x"].double()
    assert [float(age) for age, _, _ in rows] == pytest.approx((28.5 + sd * x[:, 0]).tolist())
    assert [float(height) for _, height, _ in rows] == pytest.approx((167 + 2 * sd * x[:, 1]).tolist())
    assert [colour for *_, colour in rows] == [["blue", "red"][i] for i in drawn["shirt_colour"].argmax(1).tolist()]


def test_draws_go_on_and_may_have_a_class_that_is_given(run: Path, say: Any, here: Path) -> None:
    assert say("sample", run, "-n", 2, "-o", "first.csv").status == 0
    assert say("sample", run, "-n", 2, "-o", "red.csv", "--given", "shirt_colour=red").status == 0
    assert [row[2] for row in read("red.csv")[1]] == ["red", "red"]
    assert say("sample", run, "-n", 1, "-o", "every.csv", "--given", "shirt_colour=all").status == 0
    assert [row[2] for row in read("every.csv")[1]] == ["blue", "red"]


def test_the_columns_are_in_the_runs_record(run: Path) -> None:
    columns = RunData.read(RunFolder(run)).sources["data"].columns
    assert [(column.name, column.mean) for column in columns["x"]] == [("age", 28.5), ("height", 167.0)]
    assert [column.name for column in columns["shirt_colour"]] == ["shirt colour"]


def test_images_are_no_table(trained: Path, say: Any, here: Path) -> None:
    assert say("sample", trained, "-o", "x.csv").refusal == (
        "-o: x is 1x8x8 real in [0, 1], 17 levels; a table has vectors and labels"
    )
    assert not list(here.iterdir())


def test_points_without_names_are_numbered(run: Path, say: Any, here: Path) -> None:
    """A record of an earlier version has no columns, and the model's own numbers are written."""
    shutil.copytree(run, "r")
    record = RunData.read(RunFolder("r"))
    record.sources["data"].columns.clear()
    record.sources["data"].classes.clear()
    record.write(RunFolder("r"))
    assert say("sample", "r", "-n", 2, "-o", "x.csv").status == 0
    names, rows = read("x.csv")
    assert names == ["shirt_colour", "x[0]", "x[1]"] and {row[0] for row in rows} <= {"0", "1"}
